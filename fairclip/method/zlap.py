"""Label propagation on a graph of class texts and images, ZLaP (arXiv 2404.04072).

Nodes are the K texts, then the N images. The only labels are those of the texts, one a class; they spread along the
edges. The graph is sparse and the equations are solved by conjugate gradients, so memory grows with N, not with its
square. The functions keep the type of what they are given: float64 is best.
"""

import torch
from torch import Tensor

from fairclip.method.neighbours import nearest_neighbours, nearest_to

TOLERANCE, STEPS = 1e-6, 50  # of conjugate gradients; public code
COLUMNS = 64  # classes that are solved together: what bounds the memory of a step


def edge_weights(to_images: Tensor, to_texts: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Cosines as weights: none is negative, and those with texts, which lie lower, are taken to the power gamma."""
    return to_images.clamp_min(0), to_texts.clamp_min(0) ** gamma


def similarity_graph(features: Tensor, texts: Tensor, k: int = 5, gamma: float = 5.0) -> Tensor:
    """S = D^-1/2 (W + W^T) D^-1/2, sparse, [K + N, K + N]: W has the edges from each image to its neighbours.

    An image counts among its own k neighbours, and that edge is dropped: k - 1 other images are left, and k texts.

    Args:
        features: [N, d], unit rows.
        texts: [K, d], unit rows.
    """
    classes, nodes = len(texts), len(texts) + len(features)
    image_cosines, images = nearest_neighbours(features, k - 1)
    text_cosines, nearest_texts = nearest_to(features, texts, k)
    weights = torch.cat(edge_weights(image_cosines, text_cosines, gamma), dim=1)
    ends = torch.cat([images + classes, nearest_texts], dim=1)
    starts = torch.arange(classes, nodes, device=ends.device)[:, None].expand_as(ends)
    return both_ways(starts.flatten(), ends.flatten(), weights.flatten(), nodes)


def both_ways(starts: Tensor, ends: Tensor, weights: Tensor, nodes: int) -> Tensor:
    """D^-1/2 (W + W^T) D^-1/2, sparse, [nodes, nodes]; W has these edges and weights, all [E], and D the row sums."""
    places = torch.stack([torch.cat([starts, ends]), torch.cat([ends, starts])])
    w = _sparse(places, torch.cat([weights, weights]), nodes).coalesce()
    rows, columns = w.indices()
    degrees = weights.new_zeros(nodes).index_add_(0, rows, w.values())
    scale = torch.where(degrees > 0, degrees, 1.0).rsqrt()
    return _sparse(w.indices(), w.values() * scale[rows] * scale[columns], nodes).coalesce()


def _sparse(indices: Tensor, values: Tensor, nodes: int) -> Tensor:
    return torch.sparse_coo_tensor(indices, values, (nodes, nodes), check_invariants=False)


def conjugate_gradients(s: Tensor, b: Tensor, alpha: float, tolerance: float = TOLERANCE, steps: int = STEPS) -> Tensor:
    """x with (I - alpha S) x = b, column by column, [M, C].

    A column is done when its residual is ``tolerance`` times as long as its right side, or after so many steps.

    Args:
        s: S, sparse or dense, [M, M], symmetric, with eigenvalues in [-1, 1].
        b: [M, C].
        alpha: from 0, below 1.
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction, squares = residual, b.square().sum(dim=0)
    enough = tolerance**2 * squares
    for _ in range(steps):
        active = squares > enough
        if not active.any():
            break
        image = direction - alpha * (s @ direction)
        step = torch.where(active, squares / (direction * image).sum(dim=0), 0.0)
        x, residual = x + step * direction, residual - step * image
        after = residual.square().sum(dim=0)
        direction = torch.where(active, residual + after / squares * direction, direction)
        squares = after
    return x


def propagate(s: Tensor, classes: int, alpha: float = 0.3, columns: int = COLUMNS) -> Tensor:
    """Z, [K + N, K]: how much of each class's label arrives at each node; the first K nodes are the texts.

    Args: S, [K + N, K + N]; ``columns``, how many classes are solved at a time.
    """
    z = torch.zeros(len(s), classes, dtype=s.dtype, device=s.device)
    for start in range(0, classes, columns):
        chosen = range(start, min(start + columns, classes))
        seeds = torch.zeros_like(z[:, : len(chosen)])
        seeds[list(chosen), range(len(chosen))] = 1
        z[:, chosen.start : chosen.stop] = conjugate_gradients(s, seeds, alpha)
    return z


def keep_strongest(z: Tensor) -> Tensor:
    """Of each row of Z the greatest entry, 0 elsewhere."""
    top = z.max(dim=1, keepdim=True)
    return torch.zeros_like(z).scatter_(1, top.indices, top.values)


def scores_of_others(
    queries: Tensor, features: Tensor, texts: Tensor, z: Tensor, k: int = 5, gamma: float = 5.0
) -> Tensor:
    """Scores of images that are no nodes, [Q, K]: rows of Z at each one's neighbours, summed by similarity.

    The matrix that propagates is symmetric, so this is what a propagation from the neighbours brings to the texts.

    Args: queries [Q, d], unit rows; features, texts and Z of the graph.
    """
    image_cosines, images = nearest_to(queries, features, k)
    text_cosines, nearest_texts = nearest_to(queries, texts, k)
    weights = torch.cat(edge_weights(image_cosines, text_cosines, gamma), dim=1)
    nodes = torch.cat([images + len(texts), nearest_texts], dim=1)
    scores = z.new_zeros(len(queries), z.shape[1])
    for weight, node in zip(weights.unbind(1), nodes.unbind(1), strict=True):
        scores += weight[:, None] * z[node]
    return scores


def log_shares(scores: Tensor) -> Tensor:
    """Log of each class's share in the scores of an image, [N, K]; an image that nothing reaches: all alike."""
    tiny = torch.finfo(scores.dtype).tiny
    scores = scores.clamp_min(0)  # conjugate gradients end close to 0, on either side
    return scores.clamp_min(tiny).log().log_softmax(dim=1)
