"""Views of one image for self-training: weak, strong and local crops, all cut from a single decoded image.

Randomness comes from torch alone, which DataLoader seeds in every worker.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandAugment

from .errors import UserError

Box = tuple[float, float, float, float]  # left, upper, right, lower, in pixels


def crop_boxes(
    width: int, height: int, n: int, alpha: float, beta: float, generator: torch.Generator | None = None
) -> list[Box]:
    """n squares anywhere in the image, their sides U(alpha, beta) times its short side (WCA, arXiv 2406.02915)."""
    boxes = []
    for u, x, y in torch.rand(n, 3, generator=generator).tolist():
        side = (alpha + (beta - alpha) * u) * min(width, height)
        left, upper = x * (width - side), y * (height - side)
        boxes.append((left, upper, left + side, upper + side))
    return boxes


def _square(image: Image.Image, box: Box, size: int) -> Image.Image:
    """The part of the image inside ``box``, resized to size x size (bicubic, anti-aliased) in one pass."""
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def _flip(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(()).item() < 0.5 else image


class _ViewTransform:
    """What the two transforms below share: a check of the crop settings, and normalisation of the stacked views."""

    def __init__(
        self, size: int, n_crops: int, alpha: float, beta: float, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        if n_crops < 0 or not 0 < alpha <= beta <= 1:
            raise UserError(
                f"crops need N_CROPS >= 0 and 0 < ALPHA <= BETA <= 1, got N_CROPS {n_crops}, ALPHA {alpha}, BETA {beta}"
            )
        self.size, self.n_crops, self.alpha, self.beta = size, n_crops, alpha, beta
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)

    def __repr__(self) -> str:
        """All that decides what comes out, as torchvision's transforms say it: caches rely on it."""
        crops = f"size={self.size}, n_crops={self.n_crops}, alpha={self.alpha}, beta={self.beta}"
        return f"{type(self).__name__}({crops}, mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()})"

    def _stack(self, views: list[Image.Image]) -> Tensor:
        pixels = torch.from_numpy(np.stack([np.asarray(view) for view in views]))
        return pixels.permute(0, 3, 1, 2).float().div_(255).sub_(self.mean).div_(self.std).contiguous()


class Views(_ViewTransform):
    """Training transform: PIL image -> float tensor [2 + N, 3, S, S], normalised, in the order weak, strong, crops.

    Args:
        size: S, the input side of the image tower in pixels.
        n_crops: N, local crops per image; 0 for self-training on the whole image.
        alpha, beta: range of a crop's side as a share of the image's short side.
        mean, std: pixel statistics (of values in [0, 1]) of the image tower.

    Raises:
        UserError: the crop settings make no sense.
    """

    def __init__(
        self, size: int, n_crops: int, alpha: float, beta: float, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__(size, n_crops, alpha, beta, mean, std)
        self.augment = RandAugment(num_ops=2, magnitude=9, interpolation=InterpolationMode.BILINEAR)

    def __call__(self, image: Image.Image) -> Tensor:
        image = image.convert("RGB")
        boxes = crop_boxes(*image.size, self.n_crops, self.alpha, self.beta)
        return self._stack([self._weak(image), self._strong(image)] + [_square(image, b, self.size) for b in boxes])

    def _weak(self, image: Image.Image) -> Image.Image:
        """The largest square at a random place (resize and random crop in one), flipped half the time."""
        (box,) = crop_boxes(*image.size, 1, 1.0, 1.0)
        return _flip(_square(image, box, self.size))

    def _strong(self, image: Image.Image) -> Image.Image:
        """Random resized crop of 50 to 100 % of the area, flip, RandAugment."""
        width, height = image.size
        area, ratio, x, y = torch.rand(4).tolist()
        area, ratio = (0.5 + 0.5 * area) * width * height, (3 / 4) ** (1 - 2 * ratio)
        w, h = min((area * ratio) ** 0.5, width), min((area / ratio) ** 0.5, height)
        left, upper = x * (width - w), y * (height - h)
        return self.augment(_flip(_square(image, (left, upper, left + w, upper + h), self.size)))


class RandomCrops(_ViewTransform):
    """Test transform for methods that look at crops: PIL image -> [1 + N, 3, S, S], the centre crop and N local crops,
    drawn from torch's generator. Arguments as for ``Views``."""

    def __call__(self, image: Image.Image) -> Tensor:
        image = image.convert("RGB")
        width, height = image.size
        side = min(width, height)
        left, upper = (width - side) / 2, (height - side) / 2
        boxes = [(left, upper, left + side, upper + side)]
        boxes += crop_boxes(width, height, self.n_crops, self.alpha, self.beta, self._generator())
        return self._stack([_square(image, box, self.size) for box in boxes])

    def _generator(self) -> torch.Generator | None:
        return None


class FixedCrops(RandomCrops):
    """The same with crops whose places (relative to the image) are the same for every image and every run."""

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(0)
