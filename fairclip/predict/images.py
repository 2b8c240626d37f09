"""Images to predict: files are read as in training, several at a time."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from fairclip.core.errors import UserError
from fairclip.views import loading

Picture = Image.Image | str | os.PathLike
THREADS = min(8, os.cpu_count() or 1)  # that decode images


def read_image(path: str | os.PathLike) -> Image.Image:
    """An image as RGB, read as in training: an orientation that a camera noted (EXIF) is not applied.

    Raises:
        UserError: not there, not an image, or a damaged one; the message names it.
    """
    try:
        return loading.read_image(path)
    except Image.UnidentifiedImageError:  # its message would say the path again
        empty = os.path.getsize(path) == 0
        raise UserError(f"{os.fspath(path)}: {'empty file' if empty else 'not an image'}") from None
    except Exception as error:  # Pillow's plugins raise nearly any exception for a broken file
        reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{os.fspath(path)}: {reason}") from error


def to_rgb(image: Picture) -> Image.Image:
    """A PIL image in RGB, or the file of that path."""
    return image.convert("RGB") if isinstance(image, Image.Image) else read_image(image)


def rgb_batches(images: Picture | Sequence[Picture], size: int) -> Iterator[list[Image.Image]]:
    """Lists of up to ``size`` RGB images, in order. Files are decoded by threads: Pillow lets them run side by side.

    Raises:
        UserError: an image that cannot be read.
    """
    images = [images] if isinstance(images, (Image.Image, str, os.PathLike)) else list(images)
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(images), size):
            yield list(pool.map(to_rgb, images[start : start + size]))
