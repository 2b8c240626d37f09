"""DPA: distribution alignment, pseudo-labels from two sets of prototypes, their weights, the loss that aligns the two.

E. Ali, S. Silva, M. H. Khan, "DPA: Dual Prototypes Alignment for Unsupervised Adaptation of Vision-Language Models",
arXiv 2408.08855 (WACV 2025). All features and prototypes are unit rows.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fairclip.method.memory import UNSEEN


def image_prototypes(features: Tensor, labels: Tensor, fallback: Tensor) -> Tensor:
    """P_c: the mean feature of the images labelled c, made unit again; of a class without images, its ``fallback``.

    Args:
        features: [N, d].
        labels: [N], pseudo-labels; ``UNSEEN`` for an image to leave out.
        fallback: text prototypes Z, [K, d].

    Returns:
        [K, d], on the features' device.
    """
    features, labels = features[labels != UNSEEN], labels[labels != UNSEEN]
    fallback = fallback.to(features)
    sums = torch.zeros_like(fallback).index_add_(0, labels, features)
    present = labels.bincount(minlength=len(fallback)) > 0
    return torch.where(present[:, None], F.normalize(sums, dim=-1), fallback)


def align_distribution(probs: Tensor, marginal: Tensor, prior: Tensor | None = None) -> Tensor:
    """Distribution alignment: pi_c p_c / pbar_c, made a distribution again.

    Args: probs [B, K]; marginal [K], the mean prediction of late; prior pi [K], None: all classes alike.
    Returns [B, K], rows that sum to 1.
    """
    ratio = probs / marginal.clamp_min(torch.finfo(marginal.dtype).tiny)
    ratio = ratio if prior is None else prior * ratio
    return ratio / ratio.sum(dim=1, keepdim=True)


def mix_predictions(text: Tensor, image: Tensor, share: float) -> Tensor:
    """q = a p_img + (1 - a) p_txt, [B, K] each. ``share`` is a, in [0, 1]."""
    return share * image + (1 - share) * text


def agreement_weights(text: Tensor, image: Tensor, labels: Tensor) -> Tensor:
    """w = (p_txt(y) / max p_txt) (p_img(y) / max p_img), [B], in [0, 1]: 1 where both classifiers rank y first.

    Args: text, image: probabilities before alignment and mixing, [B, K]; labels: pseudo-labels y, [B].
    """
    weights = torch.ones_like(text[:, 0])
    for probs in (text, image):
        weights = weights * probs.gather(1, labels[:, None])[:, 0] / probs.amax(dim=1)
    return weights


def alignment_loss(image: Tensor, text: Tensor, scale: float) -> Tensor:
    """CE(scale P Z^T, 1..K): the image prototype of a class should pick that class's text prototype. A scalar.

    Args: image: P, [K, d], taken as constant; text: Z, [K, d]; scale: w_t, the inverse temperature.
    """
    return F.cross_entropy(scale * image.detach() @ text.t(), torch.arange(len(text), device=text.device))
