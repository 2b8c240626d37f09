"""Features of the frozen image tower: computed once, then read from the cache."""

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor, nn

from .cache import cache_folder
from .distributed import gather_list, gather_objects, is_main
from .loading import Images, build_loader, progress
from .results import atomic


def encode_images(
    visual: nn.Module,
    paths: Sequence[str | Path],
    transform: Callable[[Image.Image], Tensor],
    encode: Callable[[Tensor], Tensor],
    settings: str = "",
    seed: int = 0,
    batch: int = 128,
    workers: int = 0,
    title: str = "features",
) -> tuple[Tensor, float]:
    """Features of N images: float32, [N, ...], on the device of ``visual``; and the seconds that the cache saved.

    A transform that draws does so from (``seed``, position in the list), whatever the batch and the workers.

    The result is kept in `features/` of the cache folder as plain numbers (.npy), with the seconds it took, under a
    hash of all it depends on: the tower's parameters and buffers, the kind of device, ``settings``, the transform's
    repr, ``seed`` and, for each image in order, its absolute path, size and time of change. Not a hash of the content:
    that would read every byte of the data set in each run, often over a network, to catch what make does not catch
    either (other content of the same size under the same time in nanoseconds). Copied or moved images are encoded
    again. A file that is damaged is computed anew; a cache that cannot be written to costs time, nothing else.

    Of several processes each encodes its share, and all get all features.

    Args:
        visual: the image tower.
        paths: of the images.
        transform: an RGB image -> the tensor that goes into ``encode``. One whose repr does not describe it (an
            object's default, with its address) is not cached.
        encode: a batch of such tensors -> features [B, ...]. Runs without gradients.
        settings: what ``encode`` does besides running the tower: precision, scales.
        seed: for transforms that draw, at least 0.
        batch, workers: images a time, and processes that read them.
        title: for the progress bar.

    Raises:
        OSError: an image is missing or cannot be read.
    """
    device = next(visual.parameters()).device
    paths = [os.path.abspath(path) for path in paths]
    description = f"{transform!r}"
    file = None
    if not re.search(r" at 0x[0-9a-fA-F]+>", description):
        facts = [device.type, description, settings, str(seed), PIL.__version__, torch.__version__]
        file = cache_folder("features") / f"{_fingerprint(visual, facts, paths)}.npy"
        kept = _read(file, len(paths))
        if all(gather_objects(kept is not None)):  # else all processes must encode, each its share
            features, seconds = kept
            return features.to(device), seconds
    start = time.time()
    features = _encode(Images(paths, None, transform, seed), encode, device, batch, workers, title)
    if file is not None and is_main():
        _write(file, features, time.time() - start)
    return features, 0.0


@torch.no_grad()
def _encode(
    images: Images,
    encode: Callable[[Tensor], Tensor],
    device: torch.device,
    batch: int,
    workers: int,
    title: str,
) -> Tensor:
    loader = build_loader(images, batch, workers, device)
    parts = [encode(part["img"].to(device, non_blocking=True)).float() for part in progress(loader, title)]
    return gather_list(parts).to(device)


def _fingerprint(visual: nn.Module, facts: Sequence[str], paths: Sequence[str]) -> str:
    """Hash of all that features depend on. A backbone's name would not do: its file can change."""
    digest = hashlib.sha256()

    def say(*words: Any) -> None:
        digest.update(repr(words).encode())

    say(type(visual).__name__, visual.training, *facts)
    for name, tensor in visual.state_dict().items():
        say(name, str(tensor.dtype), tuple(tensor.shape))
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    for path in paths:
        status = os.stat(path)
        say(path, status.st_size, status.st_mtime_ns)
    return digest.hexdigest()


def _read(file: Path, count: int) -> tuple[Tensor, float] | None:
    try:
        with open(file, "rb") as stream:
            features = np.load(stream, allow_pickle=False)
            seconds = np.load(stream, allow_pickle=False)
        whole = features.dtype == np.float32 and features.ndim >= 2 and len(features) == count
        return (torch.from_numpy(features), float(seconds)) if whole and np.isfinite(features).all() else None
    except Exception:  # not there or damaged, and a damaged file fails in many ways: all mean that it is made again
        return None


def _write(file: Path, features: Tensor, seconds: float) -> None:
    try:
        with atomic(file) as path, open(path, "wb") as stream:
            np.save(stream, features.cpu().numpy(), allow_pickle=False)
            np.save(stream, np.float64(seconds), allow_pickle=False)
    except OSError:  # a cache that cannot be written to costs time, nothing else
        pass
