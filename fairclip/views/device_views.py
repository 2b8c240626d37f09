"""The views of ``Views`` cut on the device: workers decode and draw, a batch is cut, flipped and augmented at once.

A resize is two products with matrices of the kernel's weights, one along each side, so all boxes of a batch of images
of any size are two batched matrix products.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from fairclip.views.loading import shrink
from fairclip.views.randaugment import apply_in_groups
from fairclip.views.views import Views, to_bytes

MULTIPLE = 8  # of the sides of a batch, in pixels: what half-precision products are fast with
CHUNK = 2**26  # numbers between the two products at a time: 128 MiB in half precision, 256 MiB in single


@dataclass
class UncutViews:
    """Images of a batch and what is to be cut from them.

    Attributes:
        pixels: the images, bytes [B, H, W, 3], each in the upper left corner, zeros beyond it.
        boxes: left, upper, right, lower of each view, whole numbers [B, V, 4].
        flips: which views are mirrored, bool [B, V].
        operations: of RandAugment, for view 1, [B, 2]; stays on the CPU.
        size: S, the side of a view.
    """

    pixels: Tensor
    boxes: Tensor
    flips: Tensor
    operations: Tensor
    size: int

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device, non_blocking: bool = False) -> "UncutViews":
        moved = {name: getattr(self, name).to(device, non_blocking=non_blocking) for name in self._moving}
        return replace(self, **moved)

    def pin_memory(self) -> "UncutViews":
        """Called by torch's loader."""
        return replace(self, **{name: getattr(self, name).pin_memory() for name in self._moving})

    _moving = ("pixels", "boxes", "flips")

    @staticmethod
    def join(images: Sequence["UncutViews"]) -> "UncutViews":
        """One batch of several; their images are padded to the largest."""
        height, width = (-(-max(part.pixels.shape[side] for part in images) // MULTIPLE) * MULTIPLE for side in (1, 2))
        pixels = torch.zeros(sum(map(len, images)), height, width, 3, dtype=torch.uint8)
        start = 0
        for part in images:
            count, h, w, _ = part.pixels.shape
            pixels[start : start + count, :h, :w] = part.pixels
            start += count
        rest = {name: torch.cat([getattr(part, name) for part in images]) for name in ("boxes", "flips", "operations")}
        return UncutViews(pixels, **rest, size=images[0].size)

    def cut(self) -> Tensor:
        """The views, bytes [B, V, 3, S, S] on the device of the images."""
        views = cut_boxes(self.pixels, self.boxes, self.flips, self.size)
        views[:, 1] = apply_in_groups(views[:, 1], self.operations)
        return views


class DrawOnly:
    """Training transform of a worker where the device cuts: RGB image -> ``UncutViews`` of it, a batch of one.

    An image whose short side is twice ``min_side`` or more is shrunk to it first, so the views are those of the smaller
    image.
    The draws are those of ``views`` from the same generator.
    """

    def __init__(self, views: Views) -> None:
        self.views = views
        self.min_side = views.min_side

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.views!r})"

    def __call__(self, image: Image.Image) -> UncutViews:
        image = shrink(image, self.min_side)
        plan = self.views.draw(*image.size)
        return UncutViews(
            to_bytes(image).permute(1, 2, 0)[None],
            torch.tensor([plan.boxes], dtype=torch.int32),
            torch.tensor([plan.flips]),
            torch.tensor([plan.operations]),
            self.views.size,
        )


def cut_boxes(pixels: Tensor, boxes: Tensor, flips: Tensor, size: int, dtype: torch.dtype | None = None) -> Tensor:
    """Boxes of images, each resized to a square (bicubic, anti-aliased) and some mirrored.

    As in Pillow's ``image.crop(box).resize(...)`` the lines are resized first and rounded to bytes, then the columns.
    In single precision what comes out is Pillow's to rounding; in half, to a level or two of 255.

    Args:
        pixels: bytes [B, H, W, 3].
        boxes: left, upper, right, lower in pixels, [B, V, 4].
        flips: bool [B, V].
        size: S.
        dtype: of the products; None: half on a GPU, single on a CPU.

    Returns:
        Bytes [B, V, 3, S, S].
    """
    dtype = dtype or (torch.float16 if pixels.is_cuda else torch.float32)
    height, views = pixels.shape[1], boxes.shape[1]
    # The weights across are float32 with some temporaries: of a panorama they are the larger part.
    count = max(1, CHUNK // (views * size * max(3 * height, 4 * pixels.shape[2])))
    chunks = zip(pixels.split(count), boxes.split(count), flips.split(count), strict=True)
    return torch.cat([_cut(*chunk, size, dtype) for chunk in chunks])


def _cut(pixels: Tensor, boxes: Tensor, flips: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    (height, width), views = pixels.shape[1:3], boxes.shape[1]
    across = resize_weights(boxes[..., 0], boxes[..., 2], width, size, flips).to(dtype)  # [B, V, S, W]
    down = resize_weights(boxes[..., 1], boxes[..., 3], height, size).to(dtype)  # [B, V, S, H]
    columns = pixels.permute(0, 2, 3, 1).to(dtype).reshape(-1, width, 3 * height)  # [B, W, 3 H]
    lines = (across.flatten(1, 2) @ columns).round_().clamp_(0, 255)  # [B, V S, 3 H]
    result = lines.view(-1, size * 3, height) @ down.flatten(0, 1).transpose(1, 2)  # [B V, S 3, S]: x, colour, y
    result = result.round_().clamp_(0, 255).to(torch.uint8).view(-1, views, size, 3, size)
    return result.permute(0, 1, 3, 4, 2).contiguous()


def resize_weights(start: Tensor, end: Tensor, length: int, size: int, flips: Tensor | None = None) -> Tensor:
    """What each of ``length`` pixels counts in each of ``size`` pixels that the part start to end is resized to.

    Pillow's bicubic kernel (a = -1/2), stretched where it shrinks; each row sums to one over the pixels of the part.

    Args:
        start, end: whole numbers [B, V].
        flips: whether the pixels are in reverse order, [B, V].

    Returns:
        float32 [B, V, size, length].
    """
    start, end = start.float()[..., None, None], end.float()[..., None, None]
    place = torch.arange(size, device=start.device, dtype=torch.float32)[:, None] + 0.5
    if flips is not None:
        place = torch.where(flips[..., None, None], size - place, place)
    scale = (end - start) / size
    source = torch.arange(length, device=start.device, dtype=torch.float32) + 0.5
    centre = start + place * scale
    t = ((source - centre) / scale.clamp(min=1)).abs_().clamp_(max=2)  # at 2 the kernel is zero
    near, far = (1.5 * t - 2.5) * t * t + 1, ((2.5 - 0.5 * t) * t - 4) * t + 2
    weights = torch.where(t < 1, near, far) * ((source > start) & (source < end))
    return weights / weights.sum(dim=-1, keepdim=True)
