"""What a backbone expects of its input pixels, besides their number."""

from dataclasses import dataclass

RESIZES = ("shortest", "squash")


@dataclass(frozen=True)
class Pixels:
    """How images are prepared for a backbone.

    Attributes:
        mean, std: statistics of the red, green and blue channel, for pixels between 0 and 1.
        interpolation: how images are resized, by the name that Dassl's INPUT.INTERPOLATION has for it.
        resize: "shortest", the short side becomes the input's and the middle is cut out; or "squash", the whole image
            becomes a square, whatever its shape.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    resize: str = "shortest"


# From the public code of CLIP (Radford et al., arXiv 2103.00020), the same for all its models.
CLIP_PIXELS = Pixels(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
