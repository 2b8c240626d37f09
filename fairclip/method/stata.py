"""The Gaussians of StatA (arXiv 2501.03729): those of TransCLIP with an anchor, and a covariance for each class.

The anchor of a class is a Gaussian around its text. The fewer images a class claims, the nearer its mean and variances
stay to the anchor, so that a class without images does no harm. The loop is that of ``transclip.alternate``. The
functions keep the type of what they are given: float64 is best.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from fairclip.method.transclip import SMALLEST_VARIANCE, TransCLIP, alternate, column_shares, update_variances


def log_likelihood(features: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """-1/2 sum_d (q_id - mu_cd)^2 / sigma_cd - 1/2 sum_d log sigma_cd, [N, K]. ``mu``, ``sigma``: [K, d]."""
    precision = 1 / sigma
    squares = features.square() @ precision.t() + (mu.square() * precision).sum(dim=1)
    return features @ (mu * precision).t() - (squares + sigma.log().sum(dim=1)) / 2


def claimed_share(z: Tensor, alpha: float) -> Tensor:
    """beta_c = n_c / (alpha + n_c), [K, 1]; n_c: the images whose likeliest class is c."""
    counts = torch.bincount(z.argmax(dim=1), minlength=z.shape[1]).to(z.dtype)
    return (counts / (alpha + counts))[:, None]


def update_anchored(
    features: Tensor, z: Tensor, before: Tensor, texts: Tensor, anchor: Tensor, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Means, [K, d], unit rows, and variances, [K, d], of images weighted by z and pulled to the anchors.

    mu_c = unit(beta_c unit(mean) + (1 - beta_c) t_c),
    sigma_c = beta_c (variance around mu_c) + (1 - beta_c) (sigma_0 + (t_c - mu_c)^2).

    Args: features [N, d], z [N, K]; t_c ``texts`` [K, d]; sigma_0 ``anchor`` [d]. The means before do not count.
    """
    beta, shares = claimed_share(z, alpha), column_shares(z)
    means = shares.t() @ features
    mu = F.normalize(beta * F.normalize(means, dim=-1) + (1 - beta) * texts, dim=-1)
    # sum_i w_i (q_i - mu)^2 with weights that sum to 1, by the squares' expansion: no [N, K, d] array is made.
    around = shares.t() @ features.square() - 2 * mu * means + mu.square()
    sigma = beta * around + (1 - beta) * (anchor + (texts - mu).square())
    return mu, sigma.clamp_min(SMALLEST_VARIANCE)


def fit(
    features: Tensor,
    texts: Tensor,
    log_prior: Tensor,
    neighbours: int = 3,
    outer: int = 10,
    inner: int = 5,
    lam: float = 1.0,
    alpha: float = 1.0,
) -> TransCLIP:
    """Classify N images together.

    Args:
        features: q, [N, d], unit rows.
        texts: t, [K, d], unit rows.
        log_prior: log y, [N, K]: log-probabilities of the text classifier.
        alpha: how many images the anchor of a class weighs.
        neighbours, outer, inner, lam: see ``transclip.fit``.
    """
    anchor = update_variances(features, log_prior.exp(), texts)
    update = partial(update_anchored, texts=texts, anchor=anchor, alpha=alpha)
    start = texts, anchor.expand_as(texts)
    return alternate(features, log_prior, start, log_likelihood, update, neighbours, outer, inner, lam)
