"""The solver of TransCLIP (arXiv 2406.01837): one Gaussian per class, fitted to images without labels.

All images are classified at once. Three things decide on the soft assignments z [N, K]: the text classifier's opinion,
the likelihood under the Gaussians, whose means and common diagonal covariance follow from z in turn, and the
assignments of the nearest neighbours. Every update has a closed form. The functions keep the type of what they are
given: float64 is best.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LIKELIHOOD_SHARE = 1 / 50  # of the log-likelihood in the assignments; public code
SMALLEST_VARIANCE = 1e-10  # identical images have none, and would divide by it


class TransCLIP(NamedTuple):
    """What ``fit`` ends with."""

    z: Tensor  # assignments, [N, K], rows sum to 1
    mu: Tensor  # means, [K, d], unit rows
    sigma: Tensor  # variance per dimension, common to the classes, [d]


def nearest_neighbours(features: Tensor, k: int = 3, chunk: int = 1024) -> tuple[Tensor, Tensor]:
    """Cosines and indices of the k images nearest to each, itself left out; both [N, min(k, N - 1)].

    The matrix of all cosines exists ``chunk`` rows at a time. The public code drops the nearest image, whichever it is:
    the same, except where an image has a duplicate.

    Args: features [N, d], unit rows.
    """
    n = len(features)
    k = min(k, n - 1)
    values, indices = [], []
    for start in range(0, n, chunk):
        cosines = features[start : start + chunk] @ features.t()
        cosines.diagonal(offset=start).fill_(-torch.inf)
        top = cosines.topk(k, dim=1)
        values.append(top.values)
        indices.append(top.indices)
    return torch.cat(values), torch.cat(indices)


def neighbour_votes(z: Tensor, values: Tensor, indices: Tensor) -> Tensor:
    """(W + W^T) z, [N, K]: W has the cosines of each row's neighbours. ``values``, ``indices``: [N, k]."""
    votes = torch.zeros_like(z)
    for w, j in zip(values.unbind(1), indices.unbind(1), strict=True):
        votes += w[:, None] * z[j]
        votes.index_add_(0, j, w[:, None] * z)
    return votes


def column_shares(z: Tensor) -> Tensor:
    """Each column divided by its sum, so that the mean of a class with few images has length 1 too."""
    return z / z.sum(dim=0).clamp_min(torch.finfo(z.dtype).tiny)


def initial_means(features: Tensor, z: Tensor, count: int = 8) -> Tensor:
    """Per class: the mean, weighted by z, of the ``count`` images with the highest z, made unit. [K, d]"""
    top = z.topk(min(count, len(z)), dim=0)  # [count, K]
    return F.normalize(torch.einsum("nk,nkd->kd", column_shares(top.values), features[top.indices]), dim=-1)


def log_likelihood(features: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """-1/2 sum_d (q_id - mu_cd)^2 / sigma_d, [N, K]. The determinant is the same for all classes and left out."""
    scaled = mu / sigma
    squares = (features.square() / sigma).sum(dim=1, keepdim=True) + (mu * scaled).sum(dim=1)
    return features @ scaled.t() - squares / 2


def update_assignments(
    log_prior: Tensor, likelihood: Tensor, votes: Tensor | None, k: int = 3, lam: float = 1.0
) -> Tensor:
    """z_i ~ y_i^lam * exp(l_i / 50 + votes_i / (2 k)), rows normalised. [N, K]

    Args: log y and l, [N, K]; the neighbours' votes (None: an image without neighbours) for k of them.
    """
    energy = lam * log_prior + LIKELIHOOD_SHARE * likelihood
    return (energy if votes is None else energy + votes / (2 * k)).softmax(dim=1)


def update_means(features: Tensor, z: Tensor, mu: Tensor) -> Tensor:
    """Means of the images weighted by z, made unit, [K, d]. A class that no image belongs to keeps its mean."""
    means = F.normalize(column_shares(z).t() @ features, dim=-1)
    return torch.where(z.sum(dim=0)[:, None] > 0, means, mu)


def update_variances(features: Tensor, z: Tensor, mu: Tensor) -> Tensor:
    """(1/N) sum_ic z_ic (q_i - mu_c)^2 per dimension, [d], by the squares' expansion: no [N, K, d] array is made."""
    total = (z.sum(dim=1, keepdim=True) * features.square()).sum(dim=0)
    total = total - 2 * (mu * (z.t() @ features)).sum(dim=0) + (z.sum(dim=0)[:, None] * mu.square()).sum(dim=0)
    return (total / len(features)).clamp_min(SMALLEST_VARIANCE)


def fit(
    features: Tensor,
    log_prior: Tensor,
    neighbours: int = 3,
    outer: int = 10,
    inner: int = 5,
    init: int = 8,
    lam: float = 1.0,
) -> TransCLIP:
    """Classify N images together.

    Args:
        features: q, [N, d], unit rows.
        log_prior: log y, [N, K]: log-probabilities of the text classifier.
        neighbours: k, the number of neighbours whose assignments count for an image.
        outer: updates of means and variances. The assignments are updated once more after the last.
        inner: updates of the assignments between them; all images at once.
        init: images per class that the first means are made of.
        lam: weight of the text classifier.
    """
    values, indices = nearest_neighbours(features, neighbours)
    z = log_prior.exp()
    mu = initial_means(features, z, init)
    sigma = torch.full_like(features[0], 1 / features.shape[1])
    for step in range(outer + 1):
        likelihood = log_likelihood(features, mu, sigma)
        for _ in range(inner):
            z = update_assignments(log_prior, likelihood, neighbour_votes(z, values, indices), neighbours, lam)
        if step < outer:
            mu = update_means(features, z, mu)
            sigma = update_variances(features, z, mu)
    return TransCLIP(z, mu, sigma)
