"""Learned Alignment Score (LAS): how well the most relevant crops of an image match each class anchor.

FAIR (arXiv 2507.09615), by its abstract; the crop weighting is WCA's (arXiv 2406.02915).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fairclip.core.errors import UserError

MIN_SPREAD = 1e-6  # of relevances: below it crops are equal but for rounding


def select_crops(global_feature: Tensor, crop_features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k crops of each image that resemble the whole image most.

    Args:
        global_feature: z, [B, d], unit rows.
        crop_features: z_i, [B, N, d], unit rows.
        k: how many to keep, 1 <= k <= N.

    Returns:
        Indices [B, k], most relevant first, and their relevance r_i = <z_i, z>, [B, k].

    Raises:
        UserError: ``k`` is not within 1..N.
    """
    n_crops = crop_features.shape[1]
    if not 1 <= k <= n_crops:
        raise UserError(f"cannot keep the top {k} of {n_crops} crops: TOP_K must lie between 1 and N_CROPS")
    relevance = torch.einsum("bnd,bd->bn", crop_features, global_feature)
    top = relevance.topk(k, dim=1)
    return top.indices, top.values


def crop_weights(relevance: Tensor, sharpness: float) -> Tensor:
    """Weights of the kept crops of each image, [B, k]: w = softmax(sharpness * (r - mean r) / std r).

    How far apart relevances lie differs from tower to tower: a factor on r itself, as in WCA, keeps one crop of a tower
    and all crops of another. In standard deviations of the image's own crops it means the same for all.

    Args: ``relevance``: r_i, [B, k]; ``sharpness``: 0 weighs all alike.
    """
    centred = relevance - relevance.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    return (sharpness * centred / spread.clamp_min(MIN_SPREAD)).softmax(dim=1)


def aggregate(global_feature: Tensor, crop_features: Tensor, k: int, sharpness: float) -> Tensor:
    """One local feature u per image: the relevance-weighted mean of its k most relevant crops.

    Args:
        global_feature: z, [B, d], unit rows.
        crop_features: z_i, [B, N, d], unit rows. With N = 0 there is no local evidence and u = z.
        k: crops kept per image (ignored when N = 0).
        sharpness: of the weights, see ``crop_weights``.

    Returns:
        u, [B, d], unit rows.
    """
    if crop_features.shape[1] == 0:
        return global_feature
    index, relevance = select_crops(global_feature, crop_features, k)
    return mean_of_crops(crop_features, index, crop_weights(relevance, sharpness))


def mean_of_crops(crop_features: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """u = unit(sum_i w_i z_i), [B, d], of the crops ``index`` [B, k] with these ``weights`` [B, k]."""
    kept = crop_features.gather(1, index[..., None].expand(-1, -1, crop_features.shape[-1]))
    return F.normalize(torch.einsum("bk,bkd->bd", weights, kept), dim=-1)


def alignment_scores(
    global_feature: Tensor, crop_features: Tensor, anchors: Tensor, k: int, sharpness: float
) -> Tensor:
    """LAS(x, c) = <u, a_c> for every class: cosines, [B, K]. ``anchors``: [K, d], unit rows; the rest as above."""
    return aggregate(global_feature, crop_features, k, sharpness) @ anchors.t()
