"""Self-training weights: how much a pseudo-label counts beside the others of its batch. Look-alike classes count less.

FAIR (arXiv 2507.09615) calls for such a weight. "agreement" follows the ranking of DPA (arXiv 2408.08855); the margin,
and the mean of 1, are this project's own.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fairclip.core.distributed import global_mean
from fairclip.core.errors import UserError

# Each scheme maps (local scores [B, K], global scores [B, K], tau) to weights [B] in [0, 1]. Scores are cosines, so
# that p = softmax(tau * local) and q = softmax(tau * global). Ratios of probabilities are exponentials of differences
# of scores: no softmax is needed, and nothing underflows.
Scheme = Callable[[Tensor, Tensor, float], Tensor]


def none(local: Tensor, global_: Tensor, tau: float) -> Tensor:
    """Every pseudo-label counts fully."""
    return torch.ones_like(local[:, 0])


def agreement(local: Tensor, global_: Tensor, tau: float) -> Tensor:
    """q_y / max_c q_c, y = argmax p: 1 where the whole image votes like its crops."""
    label = local.argmax(dim=1, keepdim=True)
    return (tau * (global_.gather(1, label)[:, 0] - global_.amax(dim=1))).exp()


def margin(local: Tensor, global_: Tensor, tau: float) -> Tensor:
    """1 - p_(2) / p_(1): small between two look-alike classes. A single class has no rival: 1."""
    if local.shape[1] == 1:
        return torch.ones_like(local[:, 0])
    best, second = local.topk(2, dim=1).values.unbind(dim=1)
    return -torch.expm1(-tau * (best - second))


SCHEMES: dict[str, Scheme] = {f.__name__: f for f in (none, agreement, margin)}


def self_training_weight(kind: str, local: Tensor, global_: Tensor, tau: float) -> Tensor:
    """Weights of a batch of pseudo-labels, of mean 1: they move weight from unclear labels to clear ones, and leave
    what all labels together weigh beside the fairness term. Of several processes the mean is the whole batch's.

    Args:
        kind: a key of ``SCHEMES``.
        local: what labels, as cosines, [B, K]: LAS, or what alignment and memory made of it; y is its argmax.
        global_: cosines of the whole image's feature z and the anchors, [B, K].
        tau: CLIP's inverse temperature.

    Returns:
        [B], at least 0; all 0 where no label of the batch is any clearer than its rival.

    Raises:
        UserError: unknown ``kind``.
    """
    if kind not in SCHEMES:
        raise UserError(f"unknown self-training weight {kind!r}: choose one of {', '.join(SCHEMES)}")
    w = SCHEMES[kind](local, global_, tau)
    return w / global_mean(w.mean()).clamp_min(torch.finfo(w.dtype).tiny)
