"""What a backbone expects of its input pixels, besides their number."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pixels:
    """How images are prepared for a backbone.

    Attributes:
        mean, std: statistics of the red, green and blue channel, for pixels between 0 and 1.
        interpolation: how images are resized, by the name that Dassl's INPUT.INTERPOLATION has for it.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str


# From the public code of CLIP (Radford et al., arXiv 2103.00020), the same for all its models.
CLIP_PIXELS = Pixels(
    mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711), interpolation="bicubic"
)


def pixels_of(name: str) -> Pixels:
    """What the backbone of this name (MODEL.BACKBONE.NAME) expects; nothing is loaded.

    All backbones that ``load_clip`` takes, by name or from a file, are in the layout of OpenAI's CLIP and expect its
    pixels. One of another kind needs a case here.
    """
    return CLIP_PIXELS
