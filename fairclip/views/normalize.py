"""Views as bytes -> the numbers that image towers take, on the device where they are."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Bytes -> the numbers that an image tower takes, (byte / 255 - mean) / std, on the device where they are.

    What is no tensor of bytes has been through another transform and passes as it is.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        centre, spread = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        self.register_buffer("scale", 1 / (255 * spread), persistent=False)
        self.register_buffer("shift", centre / spread, persistent=False)

    def __repr__(self) -> str:
        """What it does, for the keys of caches."""
        return f"Normalize(scale={self.scale.flatten().tolist()}, shift={self.shift.flatten().tolist()})"

    def forward(self, pixels: Tensor) -> Tensor:
        """[..., 3, S, S] -> the same shape, float32."""
        if pixels.dtype != torch.uint8:
            return pixels
        if pixels.device.type != "cpu":
            return (pixels * self.scale).sub_(self.shift)
        numbers = torch.empty_like(pixels, dtype=torch.float32)
        self._fill(numbers, pixels)
        return numbers

    def _fill(self, numbers: Tensor, pixels: Tensor) -> None:
        """A view at a time, which stays in a CPU's cache from the product to the difference."""
        if pixels.dim() > 3:
            for part, bytes_of_it in zip(numbers, pixels, strict=True):
                self._fill(part, bytes_of_it)
        else:
            torch.mul(pixels, self.scale, out=numbers).sub_(self.shift)
