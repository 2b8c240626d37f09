"""Time, memory and arithmetic."""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device: torch.device, work: Callable[..., Any], *args: Any) -> float:
    """How long ``work(*args)`` takes, with all that it leaves the device to do."""
    synchronize(device)
    start = time.perf_counter()
    work(*args)
    synchronize(device)
    return time.perf_counter() - start


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Inside, torch computes on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def reset_peak(device: torch.device) -> None:
    """Let ``peak_memory`` count from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not Linux, or not allowed: the peak is then that of the whole process
            pass


def peak_memory(device: torch.device) -> int:
    """Bytes: what torch had allocated on the GPU, on a CPU what the process had in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def matmul_speed(device: torch.device, prec: str, side: int) -> float:
    """Operations a second (a multiplication and an addition are two) of a product of two square matrices, at best."""
    dtype = {"fp32": torch.float32, "amp": torch.float16, "bf16": torch.bfloat16}[prec]
    a = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / min(seconds(device, lambda: a @ a) for _ in range(6))


def operations(visual: nn.Module, image: Tensor) -> tuple[int, int]:
    """Operations of a pass of one view without a gradient, and of one with its backward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        visual(image)
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        visual(image).sum().backward()
    return forward, counter.get_total_flops()
