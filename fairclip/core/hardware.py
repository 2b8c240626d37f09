"""What a machine computes with, in words, for those who read a result later."""

import os
import platform
from pathlib import Path


def hardware(device: str) -> str:
    """The GPU's name where ``device`` is "cuda", else the processor's, with the number of cores that may be used."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{processor()}, {cores} core{'s' * (cores > 1)}"


def processor() -> str:
    """As Linux calls it in /proc/cpuinfo, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(filter(None, names), platform.processor() or platform.machine() or "unknown processor")
