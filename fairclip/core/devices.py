"""The device that a run computes on."""

import torch

from fairclip.core.errors import UserError


def choose_device(name: str = "", cuda: bool = True) -> torch.device:
    """The device of this name: "cpu", "cuda", "cuda:1", "mps"; "": a CUDA GPU if there is one, else the CPU.

    Args: cuda, whether "" may be a GPU.

    Raises:
        UserError: no such device, or not here.
    """
    there = ["cpu"]
    if torch.cuda.is_available():
        there += ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    chosen = name or ("cuda" if cuda and "cuda" in there else "cpu")
    if chosen not in there:
        raise UserError(
            f"device {name!r} is not here: choose one of {', '.join(there)}"
            + ("" if "cuda" in there or "cuda" not in name else ". This torch finds no CUDA GPU")
        )
    return torch.device(chosen)
