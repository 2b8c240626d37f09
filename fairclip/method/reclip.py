"""ReCLIP (arXiv 2308.03793): label propagation where texts and images look alike, and two learners that teach each
other.

Nodes of the graph are the K class texts, then the N images. It is sparse and solved by conjugate gradients: memory
grows with N, not with its square. The functions keep the type of what they are given: float64 is best.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairclip.backbones.backbone import Backbone
from fairclip.method.neighbours import nearest_neighbours
from fairclip.method.two_towers import TwoTowers
from fairclip.method.zlap import COLUMNS, both_ways, conjugate_gradients

STEPS = 20  # of conjugate gradients, at most; public code
# Singular directions that the projection ends before; public code.
DIRECTIONS, MANY_CLASSES, DIRECTIONS_OF_MANY = 768, 500, 250


def usual_directions(classes: int) -> int:
    """Where the projection ends in the public code, for so many classes."""
    return DIRECTIONS if classes <= MANY_CLASSES else DIRECTIONS_OF_MANY


def projection(texts: Tensor, directions: int) -> Tensor:
    """P = U' U'^T, [d, d]: U' has the left singular vectors of the texts' matrix from the second one on, before number
    ``directions``. The first is what all classes have in common, and what tells texts from images.

    Args: texts, [K, d], unit rows.
    """
    u = torch.linalg.svd(texts.t(), full_matrices=False).U[:, 1:directions]
    return u @ u.t()


def affinity_graph(nodes: Tensor, k: int) -> Tensor:
    """D^-1/2 (W + W^T) D^-1/2, sparse, [M, M]: W has (cos + 1) / 2 of each node and its k nearest others.

    Args: nodes [M, d], unit rows.
    """
    cosines, ends = nearest_neighbours(nodes, k)
    starts = torch.arange(len(nodes), device=ends.device)[:, None].expand_as(ends)
    weights = (cosines.flatten() + 1).clamp_min(0) / 2  # rounding takes the cosine of opposites below -1
    return both_ways(starts.flatten(), ends.flatten(), weights, len(nodes))


def propagate_labels(graph: Tensor, classes: int, alpha: float, columns: int = COLUMNS) -> Tensor:
    """The class whose label arrives most at each node, [M]; the first ``classes`` nodes are the seeds, one a class.

    Of equal classes the first. No [M, K] array is made.

    Args: graph, [M, M]; ``columns``, how many classes are solved at a time.
    """
    best = torch.full((len(graph),), -torch.inf, dtype=graph.dtype, device=graph.device)
    labels = torch.zeros(len(graph), dtype=torch.long, device=graph.device)
    for start in range(0, classes, columns):
        count = min(columns, classes - start)
        seeds = torch.zeros(len(graph), count, dtype=graph.dtype, device=graph.device)
        seeds[range(start, start + count), range(count)] = 1
        found = conjugate_gradients(graph, seeds, alpha, steps=STEPS).max(dim=1)
        better = found.values > best
        labels = torch.where(better, found.indices + start, labels)
        best = torch.where(better, found.values, best)
    return labels


def pseudo_labels(features: Tensor, texts: Tensor, directions: int, k: int = 20, alpha: float = 0.99) -> Tensor:
    """The label of each text and of each image, [K + N].

    Args:
        features: [N, d], unit rows.
        texts: [K, d], unit rows.
        directions: see ``projection``.
        k: neighbours of a node.
        alpha: share of a node's label that comes from its neighbours.
    """
    nodes = F.normalize(torch.cat([texts, features]) @ projection(texts, directions), dim=-1)
    return propagate_labels(affinity_graph(nodes, k), len(texts), alpha)


class TwoLearners(TwoTowers):
    """V, the image tower in training, with a centroid a class as its vectors; and T, the image tower as it was, with
    what the text tower in training makes of the class names."""

    def __init__(self, backbone: Backbone, anchors: Tensor, prec: str = "fp32") -> None:
        super().__init__(backbone, anchors, prec)
        self.frozen = copy.deepcopy(backbone.visual)

    def class_vectors(self) -> None:
        return None

    def encode_frozen(self, images: Tensor) -> Tensor:
        """Unit features of the image tower as it was, in float32, [B, d]."""
        return F.normalize(self.features(images, self.frozen), dim=-1)

    def vote(self, images: Tensor, texts: Tensor) -> Tensor:
        """Mean of both learners' logits, [B, K]. Args: texts, T's unit features of the classes, [K, d]."""
        return (self.logits(self.encode(images)) + self.tau * self.encode_frozen(images) @ texts.t()) / 2


class BothLogits(nn.Module):
    """The two learners as they are trained."""

    def __init__(self, model: TwoLearners) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, frozen: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of T and of V, [B, K] each.

        Args: images [B, 3, S, S]; frozen, what the image tower as it was made of them, [B, d]; tokens of K names.
        """
        model = self.model
        return model.tau * frozen @ model.encode_texts(tokens).t(), model(images)
