"""Images to predict: files are read several at a time, and turned upright; arrays and tensors are taken as they are."""

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import BinaryIO, cast

import numpy as np
from PIL import Image
from torch import Tensor

from fairclip.core.errors import UserError, require
from fairclip.core.image_files import printable
from fairclip.core.rgb import as_rgb, check_is_file, why_unreadable
from fairclip.views import loading

# A PIL image; a path; a file's content, or the open file; pixels, as an array [H, W, 3] or a tensor [3, H, W].
Picture = Image.Image | str | os.PathLike | bytes | BinaryIO | np.ndarray | Tensor
THREADS = min(8, os.cpu_count() or 1)  # that decode images


def read_image(path: str | os.PathLike, upright: bool = True) -> Image.Image:
    """An image as RGB; ``upright``: see ``as_rgb``.

    Raises:
        UserError: not there, not an image, or a damaged one; the message names it.
    """
    try:
        check_is_file(path)
        return loading.read_image(path, upright=upright)
    except Exception as error:  # Pillow's plugins raise nearly any exception for a broken file
        raise UserError(f"{printable(os.fspath(path))}: {why_unreadable(error, path)}") from error


def to_rgb(image: Picture, upright: bool = True) -> Image.Image:
    """A picture of any form as a PIL image in RGB; ``upright``: see ``as_rgb``.

    Raises:
        UserError: a file that cannot be read, or pixels of another shape or type than those of ``from_pixels``.
    """
    if isinstance(image, Image.Image):
        return as_rgb(image, upright)
    if isinstance(image, Tensor):
        require(image.ndim == 3, f"a tensor of the shape {tuple(image.shape)} is no image: it must be [3, H, W]")
        return from_pixels(image.detach().permute(1, 2, 0).cpu().numpy())
    if isinstance(image, np.ndarray):
        return from_pixels(image)
    if isinstance(image, str | os.PathLike):
        return read_image(image, upright)
    require(
        isinstance(image, bytes) or hasattr(image, "read"),
        f"what is of the type {type(image).__name__} is no image: give paths, PIL images, arrays or tensors",
    )
    content = image if isinstance(image, bytes) else image.read()
    try:
        return as_rgb(Image.open(io.BytesIO(content)), upright)
    except Exception as error:  # as in read_image
        raise UserError(f"{len(content)} bytes are no image that can be read: {error}") from error


def from_pixels(pixels: np.ndarray) -> Image.Image:
    """An RGB image of pixels [H, W, 3], or of grey ones [H, W, 1]: bytes, or floating-point numbers from 0 to 1."""
    require(
        pixels.ndim == 3 and pixels.shape[2] in (1, 3),
        f"an array of the shape {pixels.shape} is no image: it must be [H, W, 3], red, green and blue, or [H, W, 1]",
    )
    if np.issubdtype(pixels.dtype, np.floating):
        low, high = float(pixels.min(initial=0)), float(pixels.max(initial=0))
        require(0 <= low and high <= 1, f"pixels of type {pixels.dtype} must lie within 0 and 1: {low:g} to {high:g}")
        pixels = np.rint(255 * pixels).astype(np.uint8)
    require(pixels.dtype == np.uint8, f"pixels of type {pixels.dtype}: give bytes, or numbers from 0 to 1")
    return Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy())


def is_one(images: Picture | Sequence[Picture]) -> bool:
    """Whether this is a picture, and not several; an array or a tensor of four dimensions is several."""
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim == 3
    return isinstance(images, Image.Image | str | os.PathLike | bytes) or hasattr(images, "read")


def rgb_batches(images: Picture | Sequence[Picture], size: int, upright: bool = True) -> Iterator[list[Image.Image]]:
    """Lists of up to ``size`` RGB images, in order. Files are decoded by threads: Pillow lets them run side by side.
    ``upright``: see ``as_rgb``.

    Raises:
        UserError: an image that cannot be read.
    """
    several = cast(Sequence[Picture], [images] if is_one(images) else images)
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(several), size):
            yield list(pool.map(partial(to_rgb, upright=upright), several[start : start + size]))
