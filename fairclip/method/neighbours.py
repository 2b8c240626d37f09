"""The images or texts that an image is most like. The matrix of all cosines exists a piece at a time."""

import torch
from torch import Tensor

CHUNK = 1024  # rows of that matrix


def nearest_neighbours(features: Tensor, k: int = 3, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """Cosines and indices of the k images nearest to each, itself left out; both [N, min(k, N - 1)].

    TransCLIP's public code drops the nearest image, whichever it is: the same, except where an image has a duplicate.

    Args: features [N, d], unit rows.
    """
    return _search(features, features, min(k, len(features) - 1), chunk, without_itself=True)


def nearest_to(queries: Tensor, features: Tensor, k: int, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """Cosines and indices of the k rows of ``features`` nearest to each query; both [Q, min(k, N)].

    Args: queries [Q, d], features [N, d], unit rows.
    """
    return _search(queries, features, min(k, len(features)), chunk, without_itself=False)


def _search(queries: Tensor, features: Tensor, k: int, chunk: int, without_itself: bool) -> tuple[Tensor, Tensor]:
    values, indices = [], []
    for start in range(0, len(queries), chunk):
        cosines = queries[start : start + chunk] @ features.t()
        if without_itself:
            cosines.diagonal(offset=start).fill_(-torch.inf)
        top = cosines.topk(k, dim=1)
        values.append(top.values)
        indices.append(top.indices)
    return torch.cat(values), torch.cat(indices)
