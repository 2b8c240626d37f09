"""Vectors as plain lists of floats, for references that share no code with the product, and random unit rows."""

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F


def units(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random unit rows in float64."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(dot(vector, vector))
    return [float(x) / length for x in vector]


def softmax(values: Sequence[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]
