"""A linear classifier of CLIP features that is trained on texts alone (LaFTer, arXiv 2305.18287).

CLIP puts images and texts into one space, so a classifier of texts classifies images too. Noise on the texts' features
and smoothed targets keep it from relying on what distinguishes texts from images.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fairclip.views.loading import progress


def gather_texts(names: Tensor, descriptions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """All texts of all classes as one training set: the descriptions there are, then the names.

    Args:
        names: the class names in each of T templates, [T, K, d].
        descriptions: [K, M, d]; what it holds where ``mask`` is not set does not matter.
        mask: [K, M] bool, which descriptions exist. A class without any has its names.

    Returns:
        Features [L, d] and labels [L] (int64), L = the number of descriptions + T * K.
    """
    count, classes = names.shape[:2]
    described = mask.nonzero()[:, 0]  # row by row, as the mask picks the features below
    named = torch.arange(classes, device=names.device).repeat(count)
    return torch.cat([descriptions[mask], names.flatten(0, 1)]), torch.cat([described, named])


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean over the batch of (1 - e) * (-log p_y) + e * mean_c(-log p_c), e = ``smoothing``.

    Args: logits [B, K], labels [B] (int64), smoothing in [0, 1]. Returns a scalar.
    """
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def train_text_classifier(
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    steps: int,
    lr: float,
    noise: float,
    smoothing: float,
    weight_decay: float,
    generator: torch.Generator,
) -> Tensor:
    """Train the weights of a linear layer without bias on all texts at once, by AdamW.

    Args:
        features: unit rows, [L, d].
        labels: [L] (int64), below ``n_classes``.
        steps: steps of gradient descent; each sees every text once.
        noise: standard deviation of the Gaussian noise that is drawn anew in each step for each number in ``features``.
            What comes out is not made unit again.
        smoothing: see ``smoothed_cross_entropy``.
        generator: draws the first weights, and the noise; on the device of ``features``.

    Returns:
        Weights [K, d], detached.
    """
    bound = features.shape[1] ** -0.5  # what torch.nn.Linear starts from
    weight = torch.empty(n_classes, features.shape[1], dtype=features.dtype, device=features.device)
    weight.uniform_(-bound, bound, generator=generator).requires_grad_(True)
    optimizer = torch.optim.AdamW([weight], lr=lr, betas=(0.9, 0.999), weight_decay=weight_decay)
    for _ in progress(range(steps), "text classifier"):
        drawn = torch.randn(features.shape, generator=generator, dtype=features.dtype, device=features.device)
        loss = smoothed_cross_entropy((features + noise * drawn) @ weight.t(), labels, smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weight.detach()
