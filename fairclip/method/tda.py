"""TDA (arXiv 2403.18293): a stream of images is classified with the help of those that came before.

Two caches hold a few images of each predicted class, those of least entropy. The positive one says what an image like
them is; the negative one, of images that are less sure, says what it is not. The functions keep the type of what they
are given.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Positive(NamedTuple):
    """Settings of the positive cache; the public code's for ImageNet."""

    slots: int = 3  # images of each class
    alpha: float = 2.0  # weight
    beta: float = 5.0  # sharpness


class Negative(NamedTuple):
    """Settings of the negative cache; the public code's for ImageNet."""

    slots: int = 2
    alpha: float = 0.117
    beta: float = 1.0
    entropy: tuple[float, float] = (0.2, 0.5)  # images between these are taken in
    mask: tuple[float, float] = (0.03, 1.0)  # the classes with probabilities between these are spoken against


class Cache:
    """Up to so many images of each class, those of least entropy.

    Args: classes K, slots S, width d; ``like``, a tensor with the type and device to use.
    """

    def __init__(self, classes: int, slots: int, width: int, like: Tensor) -> None:
        self.slots = slots
        self.entropies: list[list[float]] = [[] for _ in range(classes)]
        self.features = like.new_zeros(classes, slots, width)
        self.filled = like.new_zeros(classes, slots)

    def put(self, c: int, entropy: float, feature: Tensor) -> int | None:
        """Take an image in if there is room or one that is less sure, which goes. Returns its slot, None: not taken."""
        known = self.entropies[c]
        if len(known) < self.slots:
            known.append(entropy)
            slot = len(known) - 1
        else:
            slot = max(range(self.slots), key=known.__getitem__)
            if entropy >= known[slot]:
                return None
            known[slot] = entropy
        self.features[c, slot] = feature
        self.filled[c, slot] = 1
        return slot

    def affinities(self, feature: Tensor, beta: float) -> Tensor:
        """exp(-beta (1 - cosine)) of an image [d] to those of the cache, 0 where there is none. [K, S]"""
        return (beta * (self.features @ feature - 1)).exp() * self.filled


def normalised_entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats by log2 K, [N]: the public code's measure, which its bounds were set for."""
    classes = probabilities.shape[1]
    return torch.special.entr(probabilities).sum(dim=1) / math.log2(max(classes, 2))


def stream_scores(
    features: Tensor, logits: Tensor, positive: Positive | None = None, negative: Negative | None = None
) -> Tensor:
    """Logits of each image, with the caches as they are after it, [N, K]: later images play no part.

    Args:
        features: [N, d], unit rows, in the order of the stream.
        logits: the text classifier's, [N, K].
    """
    positive, negative = positive or Positive(), negative or Negative()
    probabilities = logits.softmax(dim=1)
    entropies, predicted = normalised_entropy(probabilities).tolist(), logits.argmax(dim=1).tolist()
    against = ((probabilities > negative.mask[0]) & (probabilities < negative.mask[1])).to(features.dtype)
    (_, width), classes = features.shape, logits.shape[1]
    sure = Cache(classes, positive.slots, width, features)
    unsure = Cache(classes, negative.slots, width, features)
    masks = features.new_zeros(classes, negative.slots, classes)  # which classes the images of ``unsure`` speak against
    scores = logits.clone()
    for i, (c, entropy, feature) in enumerate(zip(predicted, entropies, features, strict=True)):
        sure.put(c, entropy, feature)
        if negative.entropy[0] < entropy < negative.entropy[1]:
            slot = unsure.put(c, entropy, feature)
            if slot is not None:
                masks[c, slot] = against[i]
        scores[i] += positive.alpha * sure.affinities(feature, positive.beta).sum(dim=1)
        spoken_against = unsure.affinities(feature, negative.beta).flatten() @ masks.flatten(0, 1)
        scores[i] -= negative.alpha * spoken_against
    return scores
