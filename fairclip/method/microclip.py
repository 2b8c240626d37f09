"""The parts of microCLIP: patch tokens of a Vision Transformer, the foreground among them, what is pooled from them,
and the classifier that looks at the whole image and at that.

Shapes: B images, P patches, w the width of the tower, d the shared width, K classes.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairclip.method.anchors import AnchorClassifier
from fairclip.method.visual_prompts import check_vit, first_tokens

if TYPE_CHECKING:
    from clip.model import VisionTransformer

USE = "microCLIP pools the patches of"  # what it needs a Vision Transformer for
APART = 1e-6  # weight of an edge between patches that are not alike: it keeps the graph in one piece


# -- Tokens ------------------------------------------------------------------------------------------------------------


def last_tokens(visual: "VisionTransformer", images: Tensor) -> Tensor:
    """Tokens behind the last block and norm, [B, 1 + P, w]: the class token, as the tower itself makes it, then the
    patches, as ``unmixed`` makes them.

    Args: ``images``: [B, 3, S, S].
    """
    blocks = visual.transformer.resblocks
    tokens = blocks[:-1](first_tokens(visual, images).transpose(0, 1))  # [1 + P, B, w]
    both = torch.cat([blocks[-1](tokens)[:1], unmixed(blocks[-1], tokens[1:])])
    return visual.ln_post(both).transpose(0, 1)


def unmixed(block: Any, x: Tensor) -> Tensor:
    """A block in which each token attends to itself alone: u = out(V(ln_1 x)) + x, then u + mlp(ln_2 u). The shape of x
    is any [..., w]. Such tokens stay with what their patch shows (MaskCLIP, arXiv 2112.01071)."""
    width = x.shape[-1]
    attention = block.attn
    values = F.linear(block.ln_1(x), attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :])
    u = attention.out_proj(values) + x
    return u + block.mlp(block.ln_2(u))


# -- Foreground --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def foreground(patches: Tensor, threshold: float) -> Tensor:
    """Which patches a normalised cut (Shi and Malik, 2000) puts into the foreground, [B, P] bool.

    Patches are joined by an edge of weight 1 where their product is above ``threshold``, else of weight APART. The
    second eigenvector of the graph's normalised Laplacian tells two groups apart; its sign is the one that makes its
    largest entry positive, and the foreground are its entries above its standard deviation.

    There may be none: where two groups are equally large, or where all patches are alike, and nothing can be cut.

    Args: ``patches``: [B, P, w], P at least 2; unit rows for a threshold on cosines.
    """
    alike = patches @ patches.transpose(1, 2) > threshold
    edges = torch.where(alike, 1.0, APART).double()  # the two smallest eigenvalues may be 1e-5 apart
    scale = edges.sum(dim=2).rsqrt()
    normalised = scale[:, :, None] * edges * scale[:, None, :]
    # The Laplacian is I less this: its second smallest eigenvalue is the second largest of this.
    vector = torch.linalg.eigh(normalised).eigenvectors[:, :, -2]
    seed = vector.abs().argmax(dim=1, keepdim=True)
    vector = vector * vector.gather(1, seed).sign()
    return (vector > vector.std(dim=1, keepdim=True)) & ~alike.flatten(1).all(dim=1, keepdim=True)


def masked_mean(patches: Tensor, mask: Tensor) -> Tensor:
    """Mean of the patches [B, P, w] in the mask [B, P], [B, w]; zero where it is empty."""
    kept = mask.to(patches.dtype)
    return torch.einsum("bp,bpw->bw", kept, patches) / kept.sum(dim=1, keepdim=True).clamp_min(1)


class AttentionPool(nn.Module):
    """Pooling by one query: softmax(<Q q, K v_p> / sqrt w) over the patches and one zero token, then the mean of V v_p.

    The zero token takes the weight that no patch deserves. Q, K and V start as the identity.

    Args: ``width``: w.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Parameter(torch.eye(width)) for _ in range(3))

    def forward(self, query: Tensor, patches: Tensor) -> Tensor:
        """Of a query [B, w] and patches [B, P, w], [B, w]."""
        tokens = F.pad(patches, (0, 0, 0, 1))
        likeness = torch.einsum("bw,bpw->bp", query @ self.query.t(), tokens @ self.key.t())
        weights = (likeness / tokens.shape[-1] ** 0.5).softmax(dim=1)
        return torch.einsum("bp,bpw->bw", weights, tokens) @ self.value.t()  # the mean is linear: V comes last


# -- Classes -----------------------------------------------------------------------------------------------------------


def likeness_anchors(names: Tensor, descriptions: Tensor, mask: Tensor) -> Tensor:
    """Class vectors [K, d], unit rows: the mean of a class's descriptions, each weighted by its cosine with the name.

    One with a negative cosine does not count. A class without any that counts is its name.

    Args:
        names: name prompts, [K, d], unit rows.
        descriptions: [K, M, d], unit rows where ``mask`` is set; what the rest holds does not matter.
        mask: [K, M] bool, which descriptions exist.
    """
    descriptions = descriptions.masked_fill(~mask[..., None], 0.0)
    weights = torch.einsum("kmd,kd->km", descriptions, names).clamp_min(0)
    mean = torch.einsum("km,kmd->kd", weights, descriptions)
    return F.normalize(torch.where((weights > 0).any(dim=1, keepdim=True), mean, names), dim=-1)


class FusedClassifier(AnchorClassifier):
    """Logits tau (½ cos(f(x), a_c) + ½ cos(l(x), a_c)), with f of the class token and l pooled from the patches.

    Args:
        visual: CLIP's Vision Transformer, [B, 3, S, S] -> [B, d].
        anchors: [K, d].
        tau: exp(logit_scale) of the loaded CLIP.
        prec: precision of the tower's blocks, "fp32", "amp" or "bf16"; what follows them is always float32.
        threshold: of the graph of patches, see ``foreground``.
        cosines: whether patches are compared by their cosines; else by their products, in which lengths count.

    Raises:
        UserError: ``visual`` is no Vision Transformer of CLIP's layout.
    """

    def __init__(
        self, visual: "VisionTransformer", anchors: Tensor, tau: float, prec: str, threshold: float, cosines: bool
    ) -> None:
        check_vit(visual, USE)
        super().__init__(visual, anchors, tau, prec)
        self.pool = AttentionPool(visual.proj.shape[0]).to(anchors.device)
        self.threshold, self.cosines = threshold, cosines
        self.requires_grad_(False)

    def class_vectors(self) -> Tensor | None:
        return None  # one vector a class is not all: patches are pooled

    def encode_both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features f(x) and l(x) in float32, each [B, d], in one pass."""
        visual: Any = self.visual
        tokens = self.features(images, partial(last_tokens, visual))
        patches = tokens[:, 1:]
        compared = F.normalize(patches, dim=-1) if self.cosines else patches
        query = masked_mean(patches, foreground(compared, self.threshold))
        both = torch.stack([tokens[:, 0], self.pool(query, patches)], dim=1) @ visual.proj
        whole, local = F.normalize(both, dim=-1).unbind(dim=1)
        return whole, local

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [B, K]."""
        whole, local = self.encode_both(images)
        return self.logits((whole + local) / 2)  # linear in the features
