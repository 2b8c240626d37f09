"""The precision of a tower's arithmetic. Features, logits, losses and optimizers are always float32."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from fairclip.core.errors import UserError

WORTH_IT = 1.2  # how many times as fast a matrix product in bfloat16 must be for "auto" to take it
SIDE, TRIES = 512, 5  # of the matrices, and how often each product is timed: about 30 ms on one core


def choose_precision(device: torch.device, prec: str) -> tuple[str, str]:
    """The precision that PREC stands for, and a word on why, which is empty where PREC says it all.

    "auto" is bf16 where the device multiplies matrices clearly faster in it, as GPUs since 2020 and CPUs with AMX or
    AVX512-BF16 do, and fp32 elsewhere.

    Raises:
        UserError: unknown value, or one that the device cannot do.
    """
    if prec != "auto":
        autocast(device, prec)
        return prec, ""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "fp32", "with 32 bits a number, as this GPU has no bfloat16 (PREC auto)"
    ratio = bfloat16_speed(device)
    if ratio >= WORTH_IT:
        return "bf16", f"with 16 bits a number, {ratio:.1f} times as fast here as with 32 (PREC auto)"
    return "fp32", f"with 32 bits a number; with 16 it would be {ratio:.1f} times as fast here (PREC auto)"


def bfloat16_speed(device: torch.device) -> float:
    """How many times as fast a matrix product in bfloat16 is as one in float32, the best of a few of each."""
    if device.type not in ("cpu", "cuda"):
        return 0.0
    single = torch.randn(SIDE, SIDE, device=device, generator=torch.Generator(device).manual_seed(0))
    half = single.bfloat16()

    def seconds(a: torch.Tensor) -> float:
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    seconds(single), seconds(half)  # warm up
    return min(seconds(single) for _ in range(TRIES)) / min(seconds(half) for _ in range(TRIES))


def autocast(device: str | torch.device, prec: str) -> AbstractContextManager:
    """The forward pass's precision: `fp32` (none), `amp` (float16, GPU) or `bf16` (where the device has it).

    Raises:
        UserError: unknown value, or one that the device cannot do.
    """
    kind = torch.device(device).type
    if prec == "fp32":
        return nullcontext()
    if prec == "bf16":
        if kind == "cuda" and not torch.cuda.is_bf16_supported():
            raise UserError("PREC bf16: this GPU has no bfloat16 arithmetic. Use amp or fp32.")
        return _bfloat16(kind)
    if prec == "amp":
        if kind == "cpu":
            raise UserError("PREC amp needs a GPU, and this run is on the CPU. Use fp32 or bf16.")
        return torch.autocast(kind, dtype=torch.float16)
    raise UserError(f"PREC '{prec}' is unknown. Use auto, fp32, amp (mixed float16, GPU) or bf16 (mixed bfloat16).")


@contextmanager
def _bfloat16(kind: str) -> Iterator[None]:
    """On a CPU the gradient of fused attention takes longer in bfloat16 than all the rest of a pass. Where there will
    be a gradient, attention is computed in parts."""
    parts = kind == "cpu" and torch.is_grad_enabled()
    with torch.autocast(kind, dtype=torch.bfloat16), sdpa_kernel(SDPBackend.MATH) if parts else nullcontext():
        yield
