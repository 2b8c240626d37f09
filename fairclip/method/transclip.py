"""The solver of TransCLIP (arXiv 2406.01837): one Gaussian per class, fitted to images without labels.

All images are classified at once. Three things decide on the soft assignments z [N, K]: the text classifier's opinion,
the likelihood under the Gaussians, whose means and common diagonal covariance follow from z in turn, and the
assignments of the nearest neighbours. Every update has a closed form. The functions keep the type of what they are
given: float64 is best.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fairclip.method.neighbours import nearest_neighbours

LIKELIHOOD_SHARE = 1 / 50  # of the log-likelihood in the assignments; public code
SMALLEST_VARIANCE = 1e-10  # identical images have none, and would divide by it


class TransCLIP(NamedTuple):
    """What ``fit`` ends with."""

    z: Tensor  # assignments, [N, K], rows sum to 1
    mu: Tensor  # means, [K, d], unit rows
    sigma: Tensor  # variance per dimension, common to the classes, [d]; StatA: each class has its own, [K, d]


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


def update_gaussians(features: Tensor, z: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
    """Means [K, d] and variances [d] that follow from the assignments; ``mu``: the means before."""
    mu = update_means(features, z, mu)
    return mu, update_variances(features, z, mu)


def alternate(
    features: Tensor,
    log_prior: Tensor,
    start: tuple[Tensor, Tensor],
    likelihood: Callable[[Tensor, Tensor, Tensor], Tensor],
    update: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    neighbours: int,
    outer: int,
    inner: int,
    lam: float,
) -> TransCLIP:
    """The loop of the solver, for any Gaussians: assignments and Gaussians in turn.

    Args:
        start: the first means [K, d] and variances.
        likelihood: of the features under means and variances, [N, K].
        update: new means and variances, from features, assignments [N, K] and the means before.
        neighbours, outer, inner, lam: see ``fit``.
    """
    values, indices = nearest_neighbours(features, neighbours)
    z, (mu, sigma) = log_prior.exp(), start
    for step in range(outer + 1):
        found = likelihood(features, mu, sigma)
        for _ in range(inner):
            z = update_assignments(log_prior, found, neighbour_votes(z, values, indices), neighbours, lam)
        if step < outer:
            mu, sigma = update(features, z, mu)
    return TransCLIP(z, mu, sigma)


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
    start = initial_means(features, log_prior.exp(), init), torch.full_like(features[0], 1 / features.shape[1])
    return alternate(features, log_prior, start, log_likelihood, update_gaussians, neighbours, outer, inner, lam)
