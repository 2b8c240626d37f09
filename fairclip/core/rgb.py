"""The pixels of an image file, as every part of this package sees them; and why a file has none.

The environment variable FAIR_MAX_PIXELS allows images of up to so many pixels, where Pillow would take them for a bomb.
"""

import os
import stat

import numpy as np
from PIL import ExifTags, Image

from fairclip.core.image_files import CONVERT

if os.environ.get("FAIR_MAX_PIXELS", "").isdigit():
    Image.MAX_IMAGE_PIXELS = int(os.environ["FAIR_MAX_PIXELS"])

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LARGEST = (255, 65535)  # usual numbers for white
LFS = b"version https://git-lfs.github.com/"
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def as_rgb(image: Image.Image, upright: bool = False) -> Image.Image:
    """An image of any mode as RGB. Numbers of 16 or 32 bits are scaled to bytes.

    Args:
        upright: as a person sees it: turned as the camera noted (EXIF), and on white where it is transparent. The
            benchmark data sets are read without it, as CoOp reads them.

    Raises:
        OSError: it cannot be decoded. Pillow's plugins raise nearly any other exception, too.
    """
    if upright:
        image = _turned(image)
    if image.mode == "F" or image.mode.startswith("I"):
        image = _in_bytes(image)
    elif upright:
        image = _on_white(image)
    return image.convert("RGB")


def _turned(image: Image.Image) -> Image.Image:
    image.load()  # some formats are turned by this already, and then say so no more
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged notes of a camera, which Pillow reads with nearly any exception
        turn = None
    return image if turn is None else image.transpose(turn)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _in_bytes(image: Image.Image) -> Image.Image:
    """Greys of 16 or 32 bits, or floating-point ones: by the smallest usual range that holds them, or by their own."""
    pixels = np.nan_to_num(np.asarray(image).astype(np.float64))
    low, high = pixels.min(initial=0), pixels.max(initial=0)
    usual = (1, *LARGEST) if image.mode == "F" else LARGEST
    top = next((top for top in usual if low >= 0 and high <= top), None)
    if top is None:
        low, high = pixels.min(), pixels.max()
        pixels, top = pixels - low, high - low
    return Image.fromarray(np.rint(pixels * (255 / (top or 1))).astype(np.uint8))


def check_is_file(path: str | os.PathLike) -> None:
    """Raises OSError for what is no plain file: opening a named pipe would wait for ever."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise OSError("a folder" if stat.S_ISDIR(mode) else "no file, but a pipe or a device")


def is_pointer(path: str | os.PathLike) -> bool:
    """Is this what Git LFS leaves in the place of a file that it has not fetched yet?"""
    return _head(path).startswith(LFS)


def _is_heic(path: str | os.PathLike) -> bool:
    """Is this a phone's photo, whatever its name says? Its box of types comes first."""
    head = _head(path)
    return head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS


def _head(path: str | os.PathLike) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(len(LFS))
    except OSError:
        return b""


def why_unreadable(error: Exception, path: str | os.PathLike) -> str:
    """Why an image could not be read, in a few words; `error` is what was raised for it."""
    if isinstance(error, Image.UnidentifiedImageError):  # says the path again
        if os.path.getsize(path) == 0:
            return "empty file"
        if _is_heic(path):
            return f"a HEIC photo, which Pillow cannot read: {CONVERT}"
        return "a pointer of Git LFS, run: git lfs pull" if is_pointer(path) else "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    if isinstance(error, Image.DecompressionBombError):
        return f"too large ({text}): make it smaller, or set FAIR_MAX_PIXELS in the environment to allow more pixels"
    return text or type(error).__name__
