"""The weights and the score of WCA (arXiv 2406.02915): crops of an image against descriptions of a class."""

import torch
from torch import Tensor
from torch.nn import functional as F


def relevance_mean(whole: Tensor, parts: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """sum_i w_i p_i with w = softmax_i(scale * <whole, p_i>): the parts of something, weighted by likeness to it.

    The same for both sides of WCA: crops of an image (scale e^4), descriptions of a class (e^2).

    Args:
        whole: [B, d], unit rows: the whole image, or the prompt with the class name.
        parts: [B, N, d], unit rows where ``mask`` is set.
        scale: sharpness of the softmax.
        mask: [B, N] bool, which parts exist (default: all). Without any, the whole stands for its parts.

    Returns:
        [B, d]; its rows are not of unit length: the more the parts differ, the shorter they are.
    """
    mask = torch.ones_like(parts[..., 0], dtype=torch.bool) if mask is None else mask
    parts = parts.masked_fill(~mask[..., None], 0.0)
    likeness = scale * torch.einsum("bnd,bd->bn", parts, whole)
    # A row of nothing but -inf becomes NaN, which where() drops.
    weights = torch.where(mask, likeness.masked_fill(~mask, -torch.inf).softmax(dim=1), 0.0)
    return torch.where(mask.any(dim=1, keepdim=True), torch.einsum("bn,bnd->bd", weights, parts), whole)


def cross_alignment(images: Tensor, classes: Tensor, normalize_class: bool) -> Tensor:
    """The scores of B images and K classes, [B, K].

    The paper's is the sum of the weighted similarity matrix, sum_ij w_i v_j <f(x_i), g(y_j)>. It is linear in both
    sides, so it equals the product of the two weighted sums. The public code makes both sums unit vectors first. That
    changes no ranking by the image's length, but it does by the class's: the paper's score likes classes whose
    descriptions are alike.

    Args:
        images: [B, d], of ``relevance_mean``.
        classes: [K, d], of ``relevance_mean``.
        normalize_class: False for the paper's score, True for the public code's.
    """
    if normalize_class:
        images, classes = F.normalize(images, dim=-1), F.normalize(classes, dim=-1)
    return images @ classes.t()
