"""Views of one image for self-training: weak, strong and local crops, all cut from a single decoded image.

Views are bytes until they are on the device (``fairclip.views.normalize``). Randomness comes from torch alone.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision import transforms as T

from fairclip.core.errors import UserError
from fairclip.views.randaugment import apply_operation, draw_operations

STRONG_AREA, STRONG_RATIO = 0.5, 3 / 4  # of a strong view: its least area, and how far from square it may be
Box = tuple[int, int, int, int]  # left, upper, right, lower, in pixels


def crop_boxes(
    width: int, height: int, n: int, alpha: float, beta: float, generator: torch.Generator | None = None
) -> list[Box]:
    """n squares anywhere in the image, their sides U(alpha, beta) times its short side (WCA, arXiv 2406.02915), in
    whole pixels."""
    boxes = []
    for u, x, y in torch.rand(n, 3, generator=generator).tolist():
        side = max(1, round((alpha + (beta - alpha) * u) * min(width, height)))
        left, upper = round(x * (width - side)), round(y * (height - side))
        boxes.append((left, upper, left + side, upper + side))
    return boxes


def centre_box(width: int, height: int) -> Box:
    """The largest square in the middle of the image."""
    side = min(width, height)
    left, upper = (width - side) // 2, (height - side) // 2
    return left, upper, left + side, upper + side


def to_bytes(image: Image.Image) -> Tensor:
    """An RGB image as bytes, [3, H, W], in the order in memory that a resize is fast in."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def resize_box(pixels: Tensor, box: Box, size: int, interpolation: str = "bicubic") -> Tensor:
    """The part of an image [3, H, W] inside ``box``, resized to [3, size, size] (bicubic or bilinear, anti-aliased).

    It is Pillow's ``image.crop(box).resize(...)`` to a level or two of 255, several times faster.
    """
    left, upper, right, lower = box
    part = pixels[None, :, upper:lower, left:right]
    return F.interpolate(part, size=(size, size), mode=interpolation, antialias=True)[0]


def whole_view(size: int, interpolation: str, squash: bool) -> T.Compose:
    """RGB image -> numbers [3, S, S]: the whole image made square, or the middle of it, as Dassl's test transform."""
    mode = T.InterpolationMode(interpolation)
    cut = [T.Resize((size, size), mode)] if squash else [T.Resize(size, mode), T.CenterCrop(size)]
    return T.Compose([*cut, T.ToTensor()])


class _ViewTransform:
    """What the transforms below share: the crop settings, checked, and what describes them.

    Args:
        size: S, the input side of the image tower in pixels.
        n_crops: N, local crops per image; 0 for self-training on the whole image.
        alpha, beta: range of a crop's side as a share of the image's short side.
        interpolation: "bicubic" or "bilinear".
        squash: for image towers that take whole images made square. Boxes are then drawn on such a square, and cover
            the same parts of the image itself.

    Raises:
        UserError: the crop settings make no sense.
    """

    def __init__(
        self,
        size: int,
        n_crops: int = 0,
        alpha: float = 1.0,
        beta: float = 1.0,
        interpolation: str = "bicubic",
        squash: bool = False,
    ) -> None:
        if n_crops < 0 or not 0 < alpha <= beta <= 1:
            raise UserError(
                f"crops need N_CROPS >= 0 and 0 < ALPHA <= BETA <= 1, got N_CROPS {n_crops}, ALPHA {alpha}, BETA {beta}"
            )
        self.size, self.n_crops, self.alpha, self.beta = size, n_crops, alpha, beta
        self.interpolation, self.squash = interpolation, squash

    @property
    def min_side(self) -> int:
        """The short side, in pixels, below which an image must not be shrunk for the smallest crop to be sharp."""
        return math.ceil(self.size / self.alpha) if self.n_crops else self.size

    def __repr__(self) -> str:
        """All that decides what comes out, as torchvision's transforms say it: caches rely on it."""
        settings = f"size={self.size}, n_crops={self.n_crops}, alpha={self.alpha}, beta={self.beta}"
        return f"{type(self).__name__}({settings}, interpolation={self.interpolation}, squash={self.squash})"

    def frame(self, width: int, height: int) -> tuple[int, int]:
        """Sides of what boxes are drawn on."""
        return (max(width, height),) * 2 if self.squash else (width, height)

    def onto(self, box: Box, width: int, height: int) -> Box:
        """Where a box of the frame lies on the image."""
        if not self.squash:
            return box
        side = max(width, height)
        left, upper, right, lower = (
            round(place * length / side) for place, length in zip(box, (width, height) * 2, strict=True)
        )
        left, upper = min(left, width - 1), min(upper, height - 1)
        return left, upper, max(right, left + 1), max(lower, upper + 1)

    def cut(self, pixels: Tensor, box: Box) -> Tensor:
        return resize_box(pixels, box, self.size, self.interpolation)


class Views(_ViewTransform):
    """Training transform: RGB image -> bytes [2 + N, 3, S, S] in the order weak, strong, crops.

    The strong view is a random resized crop, flipped half the time like the weak one, after RandAugment. Arguments and
    errors as of ``_ViewTransform``.
    """

    @property
    def min_side(self) -> int:
        """As of the other transforms, for the smallest strong view, too."""
        smallest = math.sqrt(STRONG_AREA * STRONG_RATIO)  # of the short side
        return max(super().min_side, math.ceil(self.size / smallest))

    def __call__(self, image: Image.Image) -> Tensor:
        pixels, plan = to_bytes(image), self.draw(*image.size)
        weak, strong, *crops = [
            _flip(self.cut(pixels, box), flip) for box, flip in zip(plan.boxes, plan.flips, strict=True)
        ]
        return torch.stack([weak, _augment(strong, plan.operations), *crops])

    def draw(self, width: int, height: int) -> "Plan":
        """All that is random about the views of an image of this size, from torch's generator."""
        sides = self.frame(width, height)
        crops = crop_boxes(*sides, self.n_crops, self.alpha, self.beta)
        weak, weak_flip = self._weak_box(*sides), _draw_flip()
        strong, strong_flip = self._strong_box(*sides), _draw_flip()
        flips = [weak_flip, strong_flip] + [False] * self.n_crops
        boxes = [self.onto(box, width, height) for box in (weak, strong, *crops)]
        return Plan(boxes, flips, draw_operations())

    def _weak_box(self, width: int, height: int) -> Box:
        """The largest square at a random place (resize and random crop in one)."""
        (box,) = crop_boxes(width, height, 1, 1.0, 1.0)
        return box

    def _strong_box(self, width: int, height: int) -> Box:
        """STRONG_AREA to 100 % of the area, of sides 3:4 to 4:3, anywhere."""
        area, ratio, x, y = torch.rand(4).tolist()
        share = STRONG_AREA + (1 - STRONG_AREA) * area
        area, ratio = share * width * height, STRONG_RATIO ** (1 - 2 * ratio)
        w, h = min(round((area * ratio) ** 0.5), width), min(round((area / ratio) ** 0.5), height)
        left, upper = round(x * (width - w)), round(y * (height - h))
        return left, upper, left + w, upper + h


class Plan(NamedTuple):
    """What was drawn for the views of one image, in their order: weak, strong, crops."""

    boxes: list[Box]
    flips: list[bool]
    operations: list[int]  # of RandAugment, for the strong view


def _draw_flip() -> bool:
    return torch.rand(()).item() < 0.5


def _flip(view: Tensor, flip: bool) -> Tensor:
    return view.flip(-1) if flip else view


def _augment(view: Tensor, operations: list[int]) -> Tensor:
    image = Image.fromarray(view.permute(1, 2, 0).contiguous().numpy())  # Pillow is faster, on a CPU
    for code in operations:
        image = apply_operation(image, code)
    return to_bytes(image)


class RandomCrops(_ViewTransform):
    """Test transform for methods that look at crops: RGB image -> bytes [1 + N, 3, S, S], the centre crop and N local
    crops, drawn from torch's generator. Arguments as for ``Views``. With ``squash`` the whole image is its own centre.

    The centre is cut and then resized; CLIP's own transform resizes first. On images that are not square the two differ
    by less than a pixel of the view. That is enough to change which crops count: of 160 oblong images a trained model
    put 4 into other classes, so saved runs would no longer predict by crops what they predicted. It stays as it is.
    """

    def __call__(self, image: Image.Image) -> Tensor:
        pixels = to_bytes(image)
        return torch.stack([self.cut(pixels, box) for box in self.boxes(*image.size)])

    def boxes(self, width: int, height: int) -> list[Box]:
        """Where the views of an image of this size lie: the centre, then the crops."""
        sides = self.frame(width, height)
        crops = crop_boxes(*sides, self.n_crops, self.alpha, self.beta, self._generator())
        return [self.onto(box, width, height) for box in (centre_box(*sides), *crops)]

    def _generator(self) -> torch.Generator | None:
        return None


class FixedCrops(RandomCrops):
    """The same with crops whose places (relative to the image) are the same for every image and every run."""

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(0)
