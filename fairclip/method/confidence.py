"""MUST's confidence mask (arXiv 2206.02967): a sample counts only where the teacher is confident."""

from torch import Tensor
from torch.nn import functional as F

from fairclip.core.distributed import global_mean, world


def confident_labels(probs: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Pseudo-labels y = argmax p and the mask max p > threshold, each [B]. ``probs``: the teacher's, [B, K]."""
    confidence, labels = probs.max(dim=1)
    return labels, confidence > threshold


def masked_cross_entropy(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy over the samples that the mask keeps; 0, with a gradient of 0, if it keeps none.

    Of several processes each has its part of the batch; the mean over the processes is the batch's.

    Args: logits [B, K], labels [B] (int64), mask [B] bool. Returns a scalar.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    kept = global_mean(mask.sum().float())  # per process
    return (losses * mask).sum() / kept.clamp_min(1 / world())
