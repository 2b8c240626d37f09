"""Pseudo-labels that may be several classes at once, and which images of each class are trained on.

CPL: J. Zhang, Q. Wei, F. Liu, L. Feng, "Candidate Pseudolabel Learning: Enhancing Vision-Language Models by Prompt
Tuning with Unlabeled Data", arXiv 2406.10502 (ICML 2024). GRIP: C. Menghini, A. Delworth, S. H. Bach, "Enhancing CLIP
with CLIP: Exploring Pseudolabeling for Limited-Label Prompt Tuning", arXiv 2306.01669 (NeurIPS 2023).
"""

import numpy as np
import torch
from torch import Tensor

from fairclip.core.errors import UserError


def intra_image(probs: Tensor, alpha: float) -> Tensor:
    """CPL's first rule, on the classes of one image: the most probable ones, until their sum passes a threshold.

    The threshold is the alpha-quantile of the images' greatest probabilities (between two of them, linearly). The class
    whose probability carries the sum past it is the last one in.

    Args:
        probs: class probabilities of N images, [N, K].
        alpha: from 0 to 1.

    Returns:
        Whether a class is a candidate, bool [N, K]; the most probable class of an image always is.
    """
    threshold = float(np.quantile(probs.max(dim=1).values.numpy(), alpha))
    falling, order = probs.sort(dim=1, descending=True, stable=True)
    inside = torch.ones_like(probs, dtype=torch.bool)
    inside[:, 1:] = falling.cumsum(dim=1)[:, :-1] <= threshold  # the sum of the classes before this one
    return torch.zeros_like(inside).scatter(1, order, inside)


def inter_image(probs: Tensor, beta: float) -> Tensor:
    """CPL's second rule, on the images of one class: it stays where its probability is at or above the beta-quantile
    of its probabilities over all images (between two of them, linearly).

    Args:
        probs: class probabilities of N images, [N, K].
        beta: from 0 to 1.

    Returns:
        bool [N, K].
    """
    return probs >= torch.from_numpy(np.quantile(probs.numpy(), beta, axis=0))


def candidate_sets(probs: Tensor, alpha: float, beta: float) -> Tensor:
    """Which classes an image may be, by both rules: bool [N, K]. Some images may have none."""
    return intra_image(probs, alpha) & inter_image(probs, beta)


def leaderboards(probs: Tensor, k: int, candidates: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k most probable images of each class, each image on one board alone.

    Every image asks its most probable class. A class keeps the k of those that it is most probable for; an image that
    it has no room for asks its next class, and may there take the place of a less probable one, which then goes on
    itself. In the end no image is on a board while a class that it prefers keeps a less probable one. Of equals the
    earlier image comes first, and the class with the lower number.

    Args:
        probs: class probabilities of N images, [N, K].
        k: images on a board, at least 1.
        candidates: the classes that an image may ask, bool [N, K]; all, if not given.

    Returns:
        Positions of the chosen images and the classes of their boards, both int64 [S], S <= K * k: by class, within a
        class by falling probability.

    Raises:
        UserError: k is below 1.
    """
    if k < 1:
        raise UserError(f"boards of {k} images keep nothing: choose 1 or more")
    open_classes = probs.clone() if candidates is None else probs.masked_fill(~candidates, -torch.inf)
    best, asked = open_classes.max(dim=1)
    while True:
        order = best.argsort(descending=True, stable=True)
        order = order[best[order] > -torch.inf]  # the others have no class left
        order = order[asked[order].argsort(stable=True)]
        counts = asked[order].bincount(minlength=probs.shape[1])
        place = torch.arange(len(order)) - (counts.cumsum(0) - counts)[asked[order]]  # within its class, from 0
        over = order[place >= k]
        if not len(over):
            return order, asked[order]
        open_classes[over, asked[over]] = -torch.inf
        best[over], asked[over] = open_classes[over].max(dim=1)


def per_class(images: int, classes: int, share: float, round_number: int) -> int:
    """How many images of each class a round (from 0) may take, where a class's part of all images grows by ``share`` a
    round: at least 1, and never more than all images divided by the classes."""
    more = int(images * share + 1e-9)  # 0.29 * 100 is a little below 29
    return max(1, min((round_number + 1) * more, images) // classes)


def candidate_loss(logits: Tensor, candidates: Tensor) -> Tensor:
    """The mean over images of -log of what their candidates are given together: -log sum_{c in S} p_c. With one
    candidate it is the cross-entropy.

    Args:
        logits: [B, K].
        candidates: bool [B, K], at least one in each row.
    """
    together = logits.masked_fill(~candidates, -torch.inf).logsumexp(dim=1)
    return (logits.logsumexp(dim=1) - together).mean()
