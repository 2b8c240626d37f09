"""Computed features, kept on disk for later runs."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fairclip.core.distributed import gather_objects, is_main
from fairclip.core.files import atomic


def cache_folder(kind: str) -> Path:
    """$FAIR_CACHE or ~/.cache/fair, and `kind` in it. It need not exist, and may not be writable."""
    return Path(os.environ.get("FAIR_CACHE") or "~/.cache/fair").expanduser() / kind


def cached(
    kind: str, key: str, count: int, compute: Callable[[], Tensor], together: bool = False
) -> tuple[Tensor, float]:
    """Features, float32, [count, ...], read from the cache if they are there, and the seconds that this saved; else
    computed and kept, and 0.

    They are plain numbers (.npy) with the seconds they took, in the folder `kind` under `key`, which must tell apart
    all that they depend on. A file that is damaged is made anew; one that cannot be written costs time, nothing else.
    Of several processes the main one writes. Where they compute ``together``, they do so unless all could read.
    """
    file = cache_folder(kind) / f"{key}.npy"
    kept = _read(file, count)
    everywhere = all(gather_objects(kept is not None)) if together else True
    if kept is not None and everywhere:
        return kept
    start = time.time()
    features = compute()
    if not is_main():
        return features, 0.0
    try:
        with atomic(file) as path, open(path, "wb") as stream:
            np.save(stream, features.cpu().numpy(), allow_pickle=False)
            np.save(stream, np.float64(time.time() - start), allow_pickle=False)
    except OSError:
        pass
    return features, 0.0


def _read(file: Path, count: int) -> tuple[Tensor, float] | None:
    try:
        with open(file, "rb") as stream:
            features = np.load(stream, allow_pickle=False)
            seconds = np.load(stream, allow_pickle=False)
        whole = features.dtype == np.float32 and features.ndim >= 2 and len(features) == count
        return (torch.from_numpy(features), float(seconds)) if whole and np.isfinite(features).all() else None
    except Exception:  # not there or damaged, and a damaged file fails in many ways: all mean that it is made again
        return None
