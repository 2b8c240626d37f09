"""The two losses of self-training."""

import torch
from torch import Tensor
from torch.nn import functional as F

from fairclip.core.distributed import global_mean

MANY_CLASSES = 512  # from this number on a batch cannot show all classes, and fairness uses a running average (MUST)


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """mean_i w_i * CE(logits_i, y_i): the mean is over the batch, so small weights make a small step.

    Args: logits [B, K], labels [B] (int64), weights [B]. Returns a scalar.
    """
    return (weights * F.cross_entropy(logits, labels, reduction="none")).mean()


def fairness(
    probs: Tensor, running: Tensor | None = None, momentum: float = 0.5, prior: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """L_fair = -sum_c pi_c log mean_b p_bc, with pi_c = 1/K as in MUST (arXiv 2206.02967): no class may be forgotten.

    A batch smaller than the number of classes cannot show them all; then pass ``running``, an average over past
    batches. It carries no gradient, so the loss is divided by the batch's share to keep the gradient's size. Of several
    processes each has its part of the batch (equally large), and the mean is the batch's.

    Args:
        probs: softmax of the strong view, [B, K].
        running: [K], what the previous call returned, or None: the batch alone.
        momentum: the share of ``running`` in the average, in [0, 1).
        prior: pi, [K], of sum 1, where classes are known to differ in size: the loss is least where the mean is pi.

    Returns:
        The loss (a scalar) and the average it used, [K], detached.
    """
    mean = global_mean(probs.mean(dim=0))
    share = 1.0
    if running is not None:
        share = 1.0 - momentum
        mean = momentum * running.detach() + share * mean
    logs = mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
    loss = -(logs.mean() if prior is None else prior @ logs) / share
    return loss, mean.detach()
