"""Features of the frozen image tower: computed once, then read from the cache."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import PIL
import torch
from PIL import Image
from torch import Tensor, nn

from fairclip.backbones.backbone import fingerprint
from fairclip.core.cache import cached, facts_of_files
from fairclip.core.distributed import gather_list
from fairclip.views.loading import Images, build_loader, progress, reader


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
    upright: bool = False,
) -> tuple[Tensor, float]:
    """Features of N images: float32, [N, ...], on the device of ``visual``; and the seconds that the cache saved.

    A transform that draws does so from (``seed``, position in the list), whatever the batch and the workers.

    The result is kept in `features/` of the cache folder as plain numbers (.npy), with the seconds it took, under a
    hash of all it depends on: the tower's parameters and buffers, the kind of device, ``settings``, the transform's
    repr, ``seed`` and, for each image in order, its absolute path, size and time of change. Copied or moved images are
    encoded again.

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
        upright: how images are read, see ``as_rgb``.

    Raises:
        OSError: an image is missing or cannot be read.
    """
    device = next(visual.parameters()).device
    files = [os.path.abspath(path) for path in paths]
    images = Images(files, None, transform, seed, reader(upright))

    def compute() -> Tensor:
        return _encode(images, encode, device, batch, workers, title)

    described = f"{transform!r}"
    if re.search(r" at 0x[0-9a-fA-F]+>", described):
        return compute(), 0.0
    facts: list[object] = [type(visual).__name__, visual.training, device.type, described, settings, seed]
    facts += [PIL.__version__, torch.__version__, *facts_of_files(files), *(["upright"] if upright else [])]
    # A backbone's name would not do: its file can change.
    key = fingerprint(visual.state_dict(), *facts)
    features, seconds = cached("features", key, len(files), compute, together=True)
    return features.to(device), seconds


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
