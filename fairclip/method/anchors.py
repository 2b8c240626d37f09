"""Class Description Anchors (CDA): one vector per class, built from text and then learned.

FAIR (arXiv 2507.09615), by its abstract; the relevance weighting is WCA's (arXiv 2406.02915), the plain mean CuPL's
(arXiv 2209.03320).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairclip.backbones.backbone import Backbone
from fairclip.backbones.towers import ImageClassifier
from fairclip.core.errors import UserError
from fairclip.text.embeddings import encode_ragged, name_prompts
from fairclip.text.templates import DEFAULT_TEMPLATE

ANCHOR_KINDS = ("weighted", "mean", "name")


def description_anchors(
    name_prompts: Tensor, descriptions: Tensor, mask: Tensor, scale: float, mode: str = "weighted"
) -> Tensor:
    """Initial anchors of K classes.

    Args:
        name_prompts: t_c, [K, d], unit rows: the class names through the prompt template.
        descriptions: g(d_cm), [K, M, d], unit rows where ``mask`` is set; what the rest holds does not matter.
        mask: [K, M] bool, which descriptions exist. A class without any falls back to its name prompt.
        scale: s_t, the sharpness of the relevance softmax ("weighted" only).
        mode: "weighted" (relevance to the name prompt), "mean" (CuPL) or "name" (no descriptions).

    Returns:
        [K, d], unit rows.

    Raises:
        UserError: unknown ``mode``.
    """
    if mode not in ANCHOR_KINDS:
        raise UserError(f"unknown kind of anchor {mode!r}: choose one of {', '.join(ANCHOR_KINDS)}")
    if mode == "name":
        return F.normalize(name_prompts, dim=-1)
    # Of scale 0 all weights are equal: the plain mean.
    return F.normalize(relevance_mean(name_prompts, descriptions, scale if mode == "weighted" else 0.0, mask), dim=-1)


def relevance_mean(whole: Tensor, parts: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """sum_i w_i p_i with w = softmax_i(scale * <whole, p_i>): the parts of something, weighted by likeness to it.

    The same for both sides of WCA (arXiv 2406.02915): crops of an image (scale e^4), descriptions of a class (e^2).

    Args:
        whole: [B, d], unit rows: the whole image, or the prompt with the class name.
        parts: [B, N, d], unit rows where ``mask`` is set.
        scale: sharpness of the softmax.
        mask: [B, N] bool, which parts exist (default: all). Without any, the whole stands for its parts.

    Returns:
        [B, d]; its rows are not of unit length: the more the parts differ, the shorter they are.
    """
    mask = torch.ones_like(parts[..., 0], dtype=torch.bool) if mask is None else mask
    parts = parts.masked_fill(~mask[..., None], 0.0)
    likeness = scale * torch.einsum("bnd,bd->bn", parts, whole)
    # A row of nothing but -inf becomes NaN, which where() drops.
    weights = torch.where(mask, likeness.masked_fill(~mask, -torch.inf).softmax(dim=1), 0.0)
    return torch.where(mask.any(dim=1, keepdim=True), torch.einsum("bn,bnd->bd", weights, parts), whole)


def text_anchors(backbone: Backbone, names: Sequence[str], descriptions: Sequence[Sequence[str]]) -> Tensor:
    """Anchors [K, d] of classes, by a text tower, from their names and lists of descriptions of any lengths."""
    prompts = name_prompts(backbone, list(names), (DEFAULT_TEMPLATE,))
    return description_anchors(prompts, *encode_ragged(backbone, descriptions), 0.0, "mean")


class Anchors(nn.Module):
    """The K anchors as a parameter. Its rows may have any length: only their direction is used."""

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(initial.detach().clone())

    def forward(self) -> Tensor:
        """The anchors as unit rows, [K, d]."""
        return F.normalize(self.weight, dim=-1)


class AnchorClassifier(ImageClassifier):
    """An image tower and one anchor per class: logits are ``tau * cos(f(x), a_c)``.

    Args:
        visual: CLIP's image tower, [B, 3, S, S] -> [B, d].
        anchors: [K, d].
        tau: exp(logit_scale) of the loaded CLIP.
        prec: precision of the tower's arithmetic, "fp32", "amp" or "bf16"; features and logits are always float32.
    """

    def __init__(self, visual: nn.Module, anchors: Tensor, tau: float, prec: str = "fp32") -> None:
        super().__init__(visual, prec)
        self.anchors = Anchors(anchors)
        self.tau = tau
        self.requires_grad_(False)  # the trainer decides what is trained
        self.eval()

    def class_vectors(self) -> Tensor | None:
        return self.anchors.weight.detach()

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [B, K]."""
        return self.logits(self.encode(images))

    def logits(self, features: Tensor) -> Tensor:
        """Of unit features [B, d], [B, K]."""
        return self.tau * features @ self.anchors().t()


class Student(nn.Module):
    """A classifier as it is trained where its features serve twice: to learn from, and to label by."""

    def __init__(self, model: AnchorClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K] and unit features [B, d] of images [B, 3, S, S]."""
        features = self.model.encode(images)
        return self.model.logits(features), features
