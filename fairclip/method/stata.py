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


def claims(z: Tensor) -> Tensor:
    """n_c, [K]: the images whose likeliest class is c."""
    return torch.bincount(z.argmax(dim=1), minlength=z.shape[1]).to(z.dtype)


def claimed_share(z: Tensor, alpha: float | Tensor) -> Tensor:
    """beta_c = n_c / (alpha_c + n_c), [K, 1]."""
    counts = claims(z)
    return (counts / (alpha + counts))[:, None]


def update_anchored(
    features: Tensor, z: Tensor, before: Tensor, texts: Tensor, anchor: Tensor, alpha: float | Tensor = 1.0
) -> tuple[Tensor, Tensor]:
    """Means, [K, d], unit rows, and variances, [K, d], of images weighted by z and pulled to the anchors.

    mu_c = unit(beta_c unit(mean) + (1 - beta_c) t_c),
    sigma_c = beta_c (variance around mu_c) + (1 - beta_c) (sigma_0 + (t_c - mu_c)^2).

    Args: features [N, d], z [N, K]; t_c ``texts`` [K, d]; sigma_0 ``anchor`` [d]; ``alpha``, one or [K]. The
    means before do not count.
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
    alpha: float | Tensor = 1.0,
    means: Tensor | None = None,
) -> TransCLIP:
    """Classify N images together.

    Args:
        features: q, [N, d], unit rows.
        texts: t, [K, d], unit rows.
        log_prior: log y, [N, K]: log-probabilities of the text classifier.
        alpha: how many images the anchor of a class weighs, one number or [K].
        neighbours, outer, inner, lam: see ``transclip.fit``.
        means: of the anchors, [K, d]; None: the texts.
    """
    anchor = update_variances(features, log_prior.exp(), texts)
    means = texts if means is None else means
    update = partial(update_anchored, texts=means, anchor=anchor, alpha=alpha)
    start = means, anchor.expand_as(means)
    return alternate(features, log_prior, start, log_likelihood, update, neighbours, outer, inner, lam)


def fit_stream(
    features: Tensor,
    texts: Tensor,
    log_prior: Tensor,
    batch: int = 128,
    neighbours: int = 3,
    outer: int = 10,
    inner: int = 5,
    lam: float = 1.0,
    alpha: float = 1.0,
) -> Tensor:
    """Classify images that arrive in batches, each once. Assignments z, [N, K].

    The means that a batch ends with are the anchors of the next one, and weigh for each class as many images as it has
    claimed so far, and ``alpha``: they are running means that began at the texts. Variances begin anew in each batch.

    Args: as ``fit``, the images in order; ``batch``, how many come at a time.
    """
    mu, weights = texts, torch.full_like(texts[:, 0], alpha)
    found = []
    for q, y in zip(features.split(batch), log_prior.split(batch), strict=True):
        z, mu, _ = fit(q, texts, y, neighbours, outer, inner, lam, weights, mu)
        weights = weights + claims(z)
        found.append(z)
    return torch.cat(found)
