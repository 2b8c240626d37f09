"""The image transforms that `INPUT.TRANSFORMS` can name.

Automatic augmentation policies are torchvision's: the same policies as upstream's, but other random draws.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

import torch
import torchvision.transforms as T
from PIL import Image
from torchvision.transforms import InterpolationMode
from yacs.config import CfgNode

from ...utils import check_availability

log = logging.getLogger("dassl")

AVAI_CHOICES = [
    "random_flip",
    "random_resized_crop",
    "normalize",
    "instance_norm",
    "random_crop",
    "random_translation",
    "center_crop",  # always done in testing; kept because configs name it
    "cutout",
    "imagenet_policy",
    "cifar10_policy",
    "svhn_policy",
    "randaugment",
    "randaugment_fixmatch",
    "randaugment2",
    "gaussian_noise",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
]

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}


class Random2DTranslation:
    """With probability `p`, enlarge to 9/8 of (height, width) and cut a random window of that size; else resize."""

    def __init__(
        self,
        height: int,
        width: int,
        p: float = 0.5,
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
    ) -> None:
        self.p = p
        self.resize = T.Resize((height, width), interpolation)
        self.enlarge = T.Compose(
            [T.Resize((round(height * 1.125), round(width * 1.125)), interpolation), T.RandomCrop((height, width))]
        )

    def __call__(self, img: Image.Image) -> Image.Image:
        return self.enlarge(img) if random.random() < self.p else self.resize(img)


class InstanceNormalization:
    """Zero mean and unit deviation for each channel of a tensor [C, H, W]."""

    def __init__(self, eps: float = 1e-8) -> None:
        self.eps = eps

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        mean, std = img.mean((1, 2), keepdim=True), img.std((1, 2), keepdim=True)
        return (img - mean) / (std + self.eps)


class Cutout:
    """Blank `n_holes` squares of side `length` (pixels) of a tensor [C, H, W]; a hole may reach over the edge."""

    def __init__(self, n_holes: int = 1, length: int = 16) -> None:
        self.n_holes = n_holes
        self.length = length

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        img = img.clone()
        height, width = img.shape[-2:]
        for _ in range(self.n_holes):
            y = random.randrange(height) - self.length // 2
            x = random.randrange(width) - self.length // 2
            img[..., max(y, 0) : max(y + self.length, 0), max(x, 0) : max(x + self.length, 0)] = 0
        return img


class GaussianNoise:
    """With probability `p`, add normal noise to a tensor."""

    def __init__(self, mean: float = 0.0, std: float = 0.15, p: float = 0.5) -> None:
        self.mean = mean
        self.std = std
        self.p = p

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        return img + torch.randn_like(img) * self.std + self.mean if random.random() < self.p else img


def build_transform(cfg: CfgNode, is_train: bool = True, choices: Sequence[str] | None = None) -> Callable | None:
    """The transform that `cfg.INPUT` describes: PIL image to float tensor [3, H, W].

    Training squashes the image to `INPUT.SIZE` unless a random crop is chosen; testing resizes the short side to the
    longer of `INPUT.SIZE` and cuts the centre. `INPUT.NO_TRANSFORM` gives None.

    Args:
        cfg: config.
        is_train: for training or for testing.
        choices: names used instead of `INPUT.TRANSFORMS`.

    Raises:
        ValueError: unknown transform.
    """
    c = cfg.INPUT
    if c.NO_TRANSFORM:
        log.info("Note: no transform is applied!")
        return None
    choices = c.TRANSFORMS if choices is None else choices
    for choice in choices:
        check_availability(choice, AVAI_CHOICES)
    steps = _train_steps(c, choices) if is_train else _test_steps(c)

    steps.append(("to torch tensor of range [0, 1]", T.ToTensor()))
    if is_train and "cutout" in choices:
        steps.append((f"cutout (n_holes={c.CUTOUT_N}, length={c.CUTOUT_LEN})", Cutout(c.CUTOUT_N, c.CUTOUT_LEN)))
    if "normalize" in choices:
        steps.append(
            (f"normalization (mean={c.PIXEL_MEAN}, std={c.PIXEL_STD})", T.Normalize(c.PIXEL_MEAN, c.PIXEL_STD))
        )
    if is_train and "gaussian_noise" in choices:
        steps.append((f"gaussian noise (mean={c.GN_MEAN}, std={c.GN_STD})", GaussianNoise(c.GN_MEAN, c.GN_STD)))
    if "instance_norm" in choices:
        steps.append(("instance normalization", InstanceNormalization()))

    log.info(f"Building transform_{'train' if is_train else 'test'}")
    for text, _ in steps:
        log.info(f"+ {text}")
    return T.Compose([step for _, step in steps])


def _test_steps(c: CfgNode) -> list[tuple[str, Callable]]:
    size = tuple(c.SIZE)
    return [
        (f"resize the smaller edge to {max(size)}", T.Resize(max(size), INTERPOLATION_MODES[c.INTERPOLATION])),
        (f"{size[0]}x{size[1]} center crop", T.CenterCrop(size)),
    ]


def _train_steps(c: CfgNode, choices: Sequence[str]) -> list[tuple[str, Callable]]:
    """What is done to the PIL image, always in this order."""
    size, mode = tuple(c.SIZE), INTERPOLATION_MODES[c.INTERPOLATION]
    n, m = c.RANDAUGMENT_N, c.RANDAUGMENT_M
    steps: list[tuple[str, Callable]] = []
    if not {"random_crop", "random_resized_crop"} & set(choices):
        steps.append((f"resize to {size[0]}x{size[1]}", T.Resize(size, mode)))
    table: dict[str, tuple[str, Callable[[], Callable]]] = {
        "random_translation": ("random translation", lambda: Random2DTranslation(*size, interpolation=mode)),
        "random_crop": (f"random crop (padding = {c.CROP_PADDING})", lambda: T.RandomCrop(size, c.CROP_PADDING)),
        "random_resized_crop": (
            f"random resized crop (size={size}, scale={c.RRCROP_SCALE})",
            lambda: T.RandomResizedCrop(size, scale=tuple(c.RRCROP_SCALE), interpolation=mode),
        ),
        "random_flip": ("random flip", T.RandomHorizontalFlip),
        "imagenet_policy": ("imagenet policy", lambda: T.AutoAugment(T.AutoAugmentPolicy.IMAGENET)),
        "cifar10_policy": ("cifar10 policy", lambda: T.AutoAugment(T.AutoAugmentPolicy.CIFAR10)),
        "svhn_policy": ("svhn policy", lambda: T.AutoAugment(T.AutoAugmentPolicy.SVHN)),
        "randaugment": (f"randaugment (n={n}, m={m})", lambda: T.RandAugment(n, m)),
        # operations of random strength, as in FixMatch
        "randaugment_fixmatch": (f"randaugment_fixmatch (n={n})", lambda: _random_strength(n)),
        "randaugment2": (f"randaugment2 (n={n})", lambda: _random_strength(n)),
        "colorjitter": (
            "color jitter",
            lambda: T.ColorJitter(c.COLORJITTER_B, c.COLORJITTER_C, c.COLORJITTER_S, c.COLORJITTER_H),
        ),
        "randomgrayscale": ("random gray scale", lambda: T.RandomGrayscale(c.RGS_P)),
        "gaussian_blur": (f"gaussian blur (kernel={c.GB_K})", lambda: T.RandomApply([T.GaussianBlur(c.GB_K)], c.GB_P)),
    }
    return steps + [(text, make()) for name, (text, make) in table.items() if name in choices]


def _random_strength(n: int) -> Callable:
    return T.Compose([T.TrivialAugmentWide() for _ in range(n)])
