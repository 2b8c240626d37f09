"""LaFTer's two views of a training image (arXiv 2305.18287; the strong one is that of SimSiam, arXiv 2011.10566, but
always blurred).

Randomness comes from torch alone.
"""

import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms as T

from fairclip.views.views import to_bytes

REFERENCE_SIZE = 224  # the input, in pixels, for which the blur was chosen


class RandomBlur:
    """Gaussian blur of a standard deviation U(low, high), in pixels."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, image: Image.Image) -> Image.Image:
        sigma = torch.empty(()).uniform_(self.low, self.high).item()
        return image.filter(ImageFilter.GaussianBlur(sigma))


class WeakStrong:
    """Training transform: RGB image -> bytes [2, 3, S, S], the weak view and the strong one.

    The weak view is the centre crop of testing. The strong one: a random crop of 20 to 100 % of the area, flipped half
    the time, its colours changed with probability 0.8 and gone with 0.2, blurred by 0.1 to 2 pixels of 224.

    Args: size, S, the input side of the image tower in pixels, which is OpenAI's.
    """

    def __init__(self, size: int) -> None:
        pixel = size / REFERENCE_SIZE
        self.weak = T.Compose([T.Resize(size, T.InterpolationMode.BICUBIC), T.CenterCrop(size)])
        self.strong = T.Compose(
            [
                T.RandomResizedCrop(size, scale=(0.2, 1.0)),
                T.RandomHorizontalFlip(),
                T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
                T.RandomGrayscale(p=0.2),
                RandomBlur(0.1 * pixel, 2 * pixel),
            ]
        )

    def __call__(self, image: Image.Image) -> Tensor:
        return torch.stack([to_bytes(view(image)) for view in (self.weak, self.strong)])
