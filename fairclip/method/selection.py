"""Which images a method learns from: the most confident of each predicted class."""

import torch
from torch import Tensor

from fairclip.core.errors import UserError


def select_top_k(probs: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top-k pseudo-labelling of UPL (arXiv 2204.03649): per predicted class, the k images with the highest confidence.

    An image counts for the class it is predicted as and for no other, so it is chosen at most once; a class that is
    never predicted gets none. (The top k of each column would choose some images for several classes.) Of equally
    confident images the earlier one goes first, and of equally likely classes the one with the lower number.

    Args:
        probs: class probabilities of N images, [N, K].
        k: images to keep of each predicted class, at least 1.

    Returns:
        Indices of the chosen images and their pseudo-labels, both int64 [S], S <= K * k: by class, within a class by
        falling confidence.

    Raises:
        UserError: k is below 1.
    """
    if k < 1:
        raise UserError(f"top {k} of each class selects nothing: choose 1 or more")
    predicted = probs.argmax(dim=1)
    confidence = probs.gather(1, predicted[:, None])[:, 0]
    order = confidence.argsort(descending=True, stable=True)
    chosen = torch.cat([order[predicted[order] == c][:k] for c in range(probs.shape[1])])
    return chosen, predicted[chosen]
