"""Photos to train on: made up, as detailed and as large as real ones."""

import io

import numpy as np
from PIL import Image, ImageDraw

PHOTO = (500, 375)


def photo(rng: np.random.Generator) -> Image.Image:
    """Something with a photo's statistics: noise at all scales, stronger the coarser, and shapes with sharp edges."""
    width, height = PHOTO
    pixels = np.full((height, width, 3), 128.0)
    for cells in (3, 6, 12, 25, 50, 100, 200, 400):
        noise = rng.normal(128, 60 * (3 / cells) ** 0.3, (cells * height // width + 1, cells, 3)).clip(0, 255)
        layer = Image.fromarray(noise.astype(np.uint8)).resize(PHOTO, Image.Resampling.BICUBIC)
        pixels += np.asarray(layer, dtype=np.float64) - 128
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, w, h = (int(v) for v in rng.integers((0, 0, 10, 10), (width, height, 120, 120)))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + w, y + h), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return image


def photo_files(count: int) -> list[bytes]:
    """So many different photos as JPEG files; the same in every call."""
    rng, files = np.random.default_rng(0), []
    for _ in range(count):
        with io.BytesIO() as stream:
            photo(rng).save(stream, format="JPEG", quality=90)
            files.append(stream.getvalue())
    return files
