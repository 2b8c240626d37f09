"""FAIR and its rivals: unsupervised adaptation of CLIP to fine-grained classes.

The trainers are in `trainers/`, the data sets in `datasets/`; here is what they share, and the command `fair`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairclip.adapting.adapt import adapt
    from fairclip.predict.predictor import Predictor

__all__ = ["Predictor", "adapt"]


def __getattr__(name: str) -> object:
    """`Predictor` and `adapt`, imported when they are asked for: torch takes seconds."""
    if name == "adapt":
        from fairclip.adapting.adapt import adapt

        return adapt
    if name == "Predictor":
        from fairclip.predict.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'fairclip' has no attribute '{name}'")
