"""RandAugment (arXiv 1909.13719) in two halves: draw the operations where the image is read, apply them anywhere.

Operations, magnitudes and order of the draws are those of ``torchvision.transforms.RandAugment(2, 9)`` with bilinear
interpolation: from the same generator the same image comes out.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

NUM_OPS, MAGNITUDE, LEVELS = 2, 9, 31
Picture = Image.Image | Tensor  # bytes [..., 3, S, S]
P = TypeVar("P", Image.Image, Tensor)


def _affine(image: Picture, shift: tuple[int, int] = (0, 0), shear: tuple[float, float] = (0.0, 0.0)) -> Picture:
    centre = [0.0, 0.0] if any(shear) else None  # sheared about the corner, as in AutoAugment
    return F.affine(image, 0.0, list(shift), 1.0, list(shear), InterpolationMode.BILINEAR, center=centre)


def _angle(slope: float) -> float:
    return math.degrees(math.atan(slope))


def _share(image: Picture, share: float) -> int:
    return int(share * F.get_size(image)[0])  # of a square


def _level(end: float, start: float = 0.0) -> float:
    return float(torch.linspace(start, end, LEVELS)[MAGNITUDE])


# name: (the operation at a magnitude, the magnitude, whether it is negative half the time)
OPERATIONS: dict[str, tuple[Callable[[Any, float], Any], float, bool]] = {
    "Identity": (lambda image, m: image, 0.0, False),
    "ShearX": (lambda image, m: _affine(image, shear=(_angle(m), 0.0)), _level(0.3), True),
    "ShearY": (lambda image, m: _affine(image, shear=(0.0, _angle(m))), _level(0.3), True),
    "TranslateX": (lambda image, m: _affine(image, (_share(image, m), 0)), _level(150 / 331), True),
    "TranslateY": (lambda image, m: _affine(image, (0, _share(image, m))), _level(150 / 331), True),
    "Rotate": (lambda image, m: F.rotate(image, m, InterpolationMode.BILINEAR), _level(30.0), True),
    "Brightness": (lambda image, m: F.adjust_brightness(image, 1 + m), _level(0.9), True),
    "Color": (lambda image, m: F.adjust_saturation(image, 1 + m), _level(0.9), True),
    "Contrast": (lambda image, m: F.adjust_contrast(image, 1 + m), _level(0.9), True),
    "Sharpness": (lambda image, m: F.adjust_sharpness(image, 1 + m), _level(0.9), True),
    "Posterize": (lambda image, m: F.posterize(image, int(m)), 8 - round(MAGNITUDE * 4 / (LEVELS - 1)), False),
    "Solarize": (lambda image, m: F.solarize(image, m), _level(0.0, start=255.0), False),
    "AutoContrast": (lambda image, m: F.autocontrast(image), 0.0, False),
    "Equalize": (lambda image, m: F.equalize(image), 0.0, False),
}
NAMES = list(OPERATIONS)


def draw_operations() -> list[int]:
    """The operations for one image, NUM_OPS numbers: twice the place in ``OPERATIONS``, 1 more with a minus sign."""
    codes = []
    for _ in range(NUM_OPS):
        place = int(torch.randint(len(NAMES), (1,)))
        negative = OPERATIONS[NAMES[place]][2] and int(torch.randint(2, (1,)))
        codes.append(2 * place + int(negative))
    return codes


def apply_operation(image: P, code: int) -> P:
    """One operation on a Pillow image, or on all images [..., 3, S, S] of a tensor of bytes at once."""
    operation, magnitude, _ = OPERATIONS[NAMES[code // 2]]
    return operation(image, -magnitude if code % 2 else magnitude)


def apply_in_groups(images: Tensor, codes: Tensor) -> Tensor:
    """Each image's operations, one after the other: images that share one go through it together.

    Args:
        images: bytes [B, 3, S, S], on any device.
        codes: what was drawn for each, [B, NUM_OPS], on the CPU, so that no group makes a GPU wait.

    Returns:
        Bytes [B, 3, S, S].
    """
    for step in codes.unbind(1):
        order = step.argsort(stable=True)
        indices = order.to(images.device, non_blocking=True)
        groups, counts = step.unique(return_counts=True)  # sorted, as the images are now
        parts = images[indices].split(counts.tolist())
        done = [apply_operation(part, code) for part, code in zip(parts, groups.tolist(), strict=True)]
        images = torch.empty_like(images).index_copy_(0, indices, torch.cat(done))
    return images
