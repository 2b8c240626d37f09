"""Realistic tests of methods that see more than one test image: batches with few classes, and streams whose neighbours
are alike (StatA, arXiv 2501.03729).

The labels of the test images decide which of them come together, as in that paper: they are part of the protocol, and
no method sees them. Every method gets the very same batches and streams, whatever its seed.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np


class Batches(NamedTuple):
    """Each by itself: so many classes are drawn, then images of these, at most ``size``."""

    title: str
    size: int
    fewest: int  # classes
    most: int


class Stream(NamedTuple):
    """All test images in an order in which classes come in bursts."""

    title: str
    gamma: float  # of the Dirichlet distribution of each class over the stream; 0: one class after the other


PROTOCOLS: dict[str, Batches | Stream] = {
    "very_low": Batches("Very low, 1–4 classes in 64", 64, 1, 4),
    "low": Batches("Low, 2–10 in 64", 64, 2, 10),
    "medium": Batches("Medium, 5–25 in 64", 64, 5, 25),
    "large_medium": Batches("Medium, 5–25 in 1,000", 1000, 5, 25),
    "high": Batches("High, 25–50 in 1,000", 1000, 25, 50),
    "very_high": Batches("Very high, 50–100 in 1,000", 1000, 50, 100),
    "stream_low": Stream("Stream, low correlation", 0.1),
    "stream_medium": Stream("Stream, medium", 0.01),
    "stream_high": Stream("Stream, high", 0.001),
    "stream_separate": Stream("Stream, class by class", 0.0),
}
N_BATCHES, N_STREAMS = 100, 5  # drawn of each protocol
STREAM_BATCH = 128  # images that a transductive method gets at a time from a stream


def accuracies(labels: Sequence[Hashable], are_right: Callable[[list[np.ndarray]], np.ndarray]) -> dict[str, float]:
    """In percent, by the names of PROTOCOLS: the mean over batches, or over streams, of how many images are right.

    Protocols that ask for more classes than the test set has are left out.

    Args:
        labels: of the N test images.
        are_right: which images of some parts are classified rightly, [B] bool in the parts' order. The parts are
            arrays of indices, and follow one another.
    """
    known = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    numbers = np.array([known[label] for label in labels])
    return {
        name: 100 * float(np.mean([are_right(parts).mean() for parts in draw(name, numbers)]))
        for name, protocol in PROTOCOLS.items()
        if isinstance(protocol, Stream) or protocol.fewest < len(known)
    }


def draw(name: str, labels: np.ndarray) -> list[list[np.ndarray]]:
    """What comes together: so many times parts that follow one another, each the indices of its images. A batch is
    alone; a stream is cut into parts of STREAM_BATCH images.

    Args: labels, [N], numbers from 0 on, each with an image.
    """
    protocol, rng = PROTOCOLS[name], np.random.default_rng(list(name.encode()))
    if isinstance(protocol, Batches):
        return [[batch(labels, protocol, rng)] for _ in range(N_BATCHES)]
    orders = [stream(labels, protocol.gamma, rng) for _ in range(N_STREAMS)]
    return [np.split(order, range(STREAM_BATCH, len(order), STREAM_BATCH)) for order in orders]


def batch(labels: np.ndarray, protocol: Batches, rng: np.random.Generator) -> np.ndarray:
    classes = labels.max() + 1
    count = rng.integers(protocol.fewest, min(protocol.most, classes) + 1)
    images = np.flatnonzero(np.isin(labels, rng.choice(classes, count, replace=False)))
    return rng.permutation(images)[: protocol.size]


def stream(labels: np.ndarray, gamma: float, rng: np.random.Generator) -> np.ndarray:
    """All images in order. There are as many stretches as classes, or parts of STREAM_BATCH images if these are fewer;
    each class's images are dealt out to them by shares from a Dirichlet distribution, the more unevenly the smaller
    ``gamma``. Within a stretch the order is random."""
    classes = labels.max() + 1
    of_class = [rng.permutation(np.flatnonzero(labels == c)) for c in range(classes)]
    if gamma == 0:
        return np.concatenate([of_class[c] for c in rng.permutation(classes)])
    stretches: list[list[np.ndarray]] = [[] for _ in range(max(1, min(classes, len(labels) // STREAM_BATCH)))]
    for images in of_class:
        ends = np.rint(rng.dirichlet([gamma] * len(stretches)).cumsum()[:-1] * len(images)).astype(int)
        for stretch, share in zip(stretches, np.split(images, ends), strict=True):
            stretch.append(share)
    return np.concatenate([rng.permutation(np.concatenate(stretch)) for stretch in stretches])
