"""The score of WCA (arXiv 2406.02915): crops of an image against descriptions of a class."""

from torch import Tensor
from torch.nn import functional as F


def cross_alignment(images: Tensor, classes: Tensor, normalize_class: bool) -> Tensor:
    """The scores of B images and K classes, [B, K].

    The paper's is the sum of the weighted similarity matrix, sum_ij w_i v_j <f(x_i), g(y_j)>. It is linear in both
    sides, so it equals the product of the two weighted sums. The public code makes both sums unit vectors first. The
    length of an image's vector does not change its ranking of the classes, but the lengths of the classes' vectors do:
    the paper's score favours classes whose descriptions are alike.

    Args:
        images: [B, d], of ``anchors.relevance_mean``.
        classes: [K, d], of ``anchors.relevance_mean``.
        normalize_class: False for the paper's score, True for the public code's.
    """
    if normalize_class:
        images, classes = F.normalize(images, dim=-1), F.normalize(classes, dim=-1)
    return images @ classes.t()
