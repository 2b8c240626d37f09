"""FAIR and its rivals: unsupervised adaptation of CLIP to fine-grained classes.

The trainers are in `trainers/`, the data sets in `datasets/`; here is what they share, and the command `fair`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairclip.predict.predictor import Predictor

__all__ = ["Predictor"]


def __getattr__(name: str) -> object:
    """`Predictor`, imported when it is asked for: torch takes seconds."""
    if name == "Predictor":
        from fairclip.predict.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'fairclip' has no attribute '{name}'")
