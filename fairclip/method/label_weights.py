"""Self-training weights: how much a pseudo-label counts in the loss, in [0, 1]; small where classes are ambiguous.

FAIR (arXiv 2507.09615) calls for such a weight; "agreement" follows the ranking of DPA (arXiv 2408.08855), the two
margins are this project's own.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fairclip.core.errors import UserError

# Each scheme maps (local scores [B, K], global scores [B, K], anchors [K, d], tau) to weights [B]. Scores are cosines,
# so that p = softmax(tau * local) and q = softmax(tau * global). Ratios of probabilities are exponentials of
# differences of scores: no softmax is needed, and nothing underflows.
Scheme = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def none(local: Tensor, global_: Tensor, anchors: Tensor, tau: float) -> Tensor:
    """Every pseudo-label counts fully."""
    return torch.ones_like(local[:, 0])


def agreement(local: Tensor, global_: Tensor, anchors: Tensor, tau: float) -> Tensor:
    """q_y / max_c q_c, y = argmax p: 1 where the whole image votes like its crops."""
    label = local.argmax(dim=1, keepdim=True)
    return (tau * (global_.gather(1, label)[:, 0] - global_.amax(dim=1))).exp()


def margin(local: Tensor, global_: Tensor, anchors: Tensor, tau: float) -> Tensor:
    """1 - p_(2) / p_(1): small between two look-alike classes. A single class has no rival: 1."""
    if local.shape[1] == 1:
        return torch.ones_like(local[:, 0])
    best, second = local.topk(2, dim=1).values.unbind(dim=1)
    return -torch.expm1(-tau * (best - second))


def anchor_margin(local: Tensor, global_: Tensor, anchors: Tensor, tau: float) -> Tensor:
    """The margin measured in the feature space: 1 - exp(-tau * dist), where dist is the distance of u to the plane
    between the anchors of the two best classes. Look-alike classes have close anchors, and a small difference of
    scores can still be a clear decision between them."""
    if local.shape[1] == 1:
        return torch.ones_like(local[:, 0])
    top = local.topk(2, dim=1)
    gap = top.values[:, 0] - top.values[:, 1]
    between = (anchors[top.indices[:, 0]] - anchors[top.indices[:, 1]]).norm(dim=-1)
    return -torch.expm1(-tau * gap / between.clamp_min(1e-6))  # equal anchors: no gap either, weight 0


def agreement_margin(local: Tensor, global_: Tensor, anchors: Tensor, tau: float) -> Tensor:
    """Product of the two: both views agree, and the decision is clear."""
    return agreement(local, global_, anchors, tau) * margin(local, global_, anchors, tau)


SCHEMES: dict[str, Scheme] = {f.__name__: f for f in (none, agreement, margin, anchor_margin, agreement_margin)}


def self_training_weight(kind: str, local: Tensor, global_: Tensor, anchors: Tensor, tau: float) -> Tensor:
    """Weights of a batch of pseudo-labels.

    Args:
        kind: a key of ``SCHEMES``.
        local: LAS, cosines of u and the anchors, [B, K]; the pseudo-label is its argmax.
        global_: cosines of the whole image's feature z and the anchors, [B, K].
        anchors: [K, d], unit rows.
        tau: CLIP's inverse temperature.

    Returns:
        [B], in [0, 1].

    Raises:
        UserError: unknown ``kind``.
    """
    if kind not in SCHEMES:
        raise UserError(f"unknown self-training weight {kind!r}: choose one of {', '.join(SCHEMES)}")
    return SCHEMES[kind](local, global_, anchors, tau)
