"""Prompts whose words are learned: context vectors in front of the class names (CoOp, arXiv 2109.01134).

A class's prompt is ``[SOS] v_1 ... v_N <class name> . [EOT]``: v_1 to v_N are free vectors in the space of token
embeddings, everything else is CLIP's own. Its embedding is a row of the classifier.
"""

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairclip.backbones.network import CLIP, Block
from fairclip.backbones.openai import clip_module
from fairclip.backbones.precision import autocast
from fairclip.backbones.towers import ImageClassifier
from fairclip.core.errors import UserError
from fairclip.text.templates import prompt

INITIAL_STD = 0.02  # of CLIP's own token embeddings at their initialisation [CoOp]


def initial_context(seed: int, *shape: int) -> Tensor:
    """Random context vectors to start from, N(0, 0.02^2), on the CPU; ``seed`` alone decides the draw.

    Args: shape, of one prompt: [N, w] or, with a context of each class's own, [K, N, w] (w: width of the text tower).
    """
    return INITIAL_STD * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class ContextTextTower(nn.Module):
    """CLIP's text tower for prompts with learned context: context vectors in, class features out.

    It computes what ``encode_text`` would, without the padding: no token sees those behind it, so the prompts can end
    where the longest one does.

    Args:
        clip_model: the CLIP to take the text tower of (it is copied).
        classnames: K names; underscores read as spaces.
        n_ctx: N, context vectors in a prompt.
        prec: precision of the transformer's arithmetic; features are always float32.

    Raises:
        UserError: some prompt is longer than the text tower's context.
    """

    start: Tensor  # embedding of [SOS] in each prompt, [K, 1, w]
    names: Tensor  # embeddings of what follows the context, [K, L, w]
    ends: Tensor  # position of [EOT] in each prompt, [K]
    positions: Tensor  # positional embeddings, [1 + N + L, w]
    projection: Tensor  # [w, d]

    def __init__(self, clip_model: CLIP, classnames: Sequence[str], n_ctx: int, prec: str = "fp32") -> None:
        super().__init__()
        tokens = _name_tokens(classnames, n_ctx, clip_model.context_length)
        ends = n_ctx + tokens.argmax(dim=1)  # where [EOT], the highest token id, comes to lie
        length = int(ends.max()) + 1
        with torch.no_grad():
            embedded = clip_model.token_embedding(tokens.to(clip_model.text_projection.device))
        # Not persistent: all of this follows from the backbone and the class names.
        self.register_buffer("start", embedded[:, :1], persistent=False)
        self.register_buffer("names", embedded[:, 1 : length - n_ctx], persistent=False)
        self.register_buffer("ends", ends.to(embedded.device), persistent=False)
        self.register_buffer("positions", clip_model.positional_embedding[:length].detach().clone(), persistent=False)
        self.transformer = copy.deepcopy(clip_model.transformer)
        for block in cast(list[Block], self.transformer.resblocks):
            assert block.attn_mask is not None  # of a text tower
            block.attn_mask = block.attn_mask[:length, :length]
        self.ln_final = copy.deepcopy(clip_model.ln_final)
        self.register_buffer("projection", clip_model.text_projection.detach().clone(), persistent=False)
        self.n_ctx = n_ctx
        self.prec = prec
        self.requires_grad_(False)

    def forward(self, context: Tensor) -> Tensor:
        """Class features, unit rows, [K, d], of one context [N, w] for all classes or one for each, [K, N, w]."""
        classes = len(self.names)
        prompts = torch.cat([self.start, context.expand(classes, *context.shape[-2:]), self.names], dim=1)
        with autocast(prompts.device, self.prec):
            hidden = self.transformer((prompts + self.positions).permute(1, 0, 2))  # token first, as CLIP has it
            last = hidden[self.ends, torch.arange(classes, device=self.ends.device)]
            features = self.ln_final(last) @ self.projection
        return F.normalize(features.float(), dim=-1)


def _name_tokens(classnames: Sequence[str], n_ctx: int, context_length: int) -> Tensor:
    """Token ids of ``[SOS] name . [EOT]``, [K, context_length - N]: what is left beside the context."""
    clip, room = clip_module(), context_length - n_ctx
    texts = [prompt("{}.", name) for name in classnames]
    needed = {text: len(clip._tokenizer.encode(text)) + 2 for text in texts}
    if too_long := [text for text, count in needed.items() if count > room]:
        longest = max(too_long, key=needed.__getitem__)
        raise UserError(
            f"N_CTX {n_ctx} leaves {max(room, 0)} of the text tower's {context_length} tokens for a class name, and "
            f"'{longest[:-1]}' takes {needed[longest]}: choose N_CTX {context_length - needed[longest]} or less"
        )
    return clip.tokenize(texts, room)


class ContextClassifier(ImageClassifier):
    """A frozen CLIP whose classes are prompts with learned context: logits are ``tau * cos(f(x), t_c(context))``.

    It can hold several contexts, independent members of an ensemble. The contexts are the
    only parameters that are trained.

    Args:
        clip_model: the CLIP; its image tower is used as it is, its text tower copied.
        classnames: K names.
        contexts: E contexts, [E, N, w], or [E, K, N, w] with one for each class.
        prec: precision of the towers' arithmetic, "fp32", "amp" or "bf16"; features and logits are always float32.
    """

    def __init__(self, clip_model: CLIP, classnames: Sequence[str], contexts: Tensor, prec: str = "fp32") -> None:
        super().__init__(clip_model.visual, prec)
        self.text = ContextTextTower(clip_model, classnames, contexts.shape[-2], prec)
        self.requires_grad_(False)
        self.contexts = nn.Parameter(contexts.detach().clone())
        self.tau = clip_model.logit_scale.exp().item()
        self.eval()

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Unit image features f(x) in float32, [B, d]: the tower is frozen."""
        return super().encode(images)

    def class_features(self) -> Tensor:
        """Each member's class features, unit rows, [E, K, d]; the gradient reaches the contexts."""
        return torch.stack([self.text(context) for context in self.contexts])

    @torch.no_grad()
    def class_vectors(self) -> Tensor:
        """The mean of the members' class features, [K, d]: the members' mean logits are ``tau * <f(x), v_c>``, as
        logits are linear in the class features. The mean of several unit rows is shorter than one, and that counts."""
        return self.class_features().mean(dim=0)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of each member, [E, B, K], of images [B, 3, H, W] or of their features f(x), [B, d]."""
        features = images if images.ndim == 2 else self.encode(images)
        return self.tau * features @ self.class_features().transpose(1, 2)
