from __future__ import annotations

from collections.abc import Sequence

import torch


def compute_accuracy(
    output: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor, topk: Sequence[int] = (1,)
) -> list[torch.Tensor]:
    """Top-k accuracy in percent.

    Args:
        output: scores [B, K]; of a tuple, the first entry.
        target: labels [B].
        topk: the k's.

    Returns:
        One tensor of shape [1] for each k.
    """
    if isinstance(output, (tuple, list)):
        output = output[0]
    hits = output.topk(max(topk), dim=1).indices == target.view(-1, 1)
    return [hits[:, :k].sum().float().mul(100.0 / target.size(0)).view(1) for k in topk]
