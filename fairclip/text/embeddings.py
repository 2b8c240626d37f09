"""Embeddings of texts."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fairclip.backbones.backbone import Backbone
from fairclip.core.cache import cached
from fairclip.text.templates import prompt
from fairclip.views.loading import progress


def encode_texts(backbone: Backbone, texts: Sequence[str], batch: int = 256) -> Tensor:
    """Embed M texts: unit rows, float32, [M, d], on the backbone's device. Over-long texts lose their end.

    Computed once: the result is kept in `text/` of the cache folder, as plain numbers (.npy), under a hash of all that
    it depends on.
    """
    if not texts:
        return torch.empty(0, backbone.width, device=backbone.device)
    tokens = backbone.tokenizer(texts)
    # A backbone's name would not do: its file can change.
    key = backbone.text_fingerprint(tokens)
    features, _ = cached("text", key, len(texts), lambda: _encode(backbone, tokens.split(batch)))
    return features.to(backbone.device)


@torch.no_grad()
def _encode(backbone: Backbone, batches: Sequence[Tensor]) -> Tensor:
    shown = progress(batches, "encoding texts") if len(batches) > 8 else batches
    return torch.cat([normalize(backbone.text(tokens.to(backbone.device)).float(), dim=-1) for tokens in shown])


def encode_ragged(backbone: Backbone, lists: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
    """Embed K lists of texts of any lengths.

    Returns:
        Features [K, M, d], M being the longest list's length (at least 1), zero where a list is shorter; and the mask
        [K, M], True where there is a text.
    """
    lengths = torch.tensor([len(texts) for texts in lists], dtype=torch.long)
    width = max([1, *lengths.tolist()])
    flat = encode_texts(backbone, [text for texts in lists for text in texts])
    mask = (torch.arange(width) < lengths[:, None]).to(flat.device)
    features = flat.new_zeros(len(lists), width, flat.shape[1])
    features[mask] = flat  # both run row by row
    return features, mask


def name_prompts(backbone: Backbone, classnames: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Embed K class names: the mean over the templates' unit embeddings, made unit again, [K, d]."""
    texts = [prompt(template, name) for name in classnames for template in templates]
    features = encode_texts(backbone, texts).view(len(classnames), len(templates), -1)
    return normalize(features.mean(dim=1), dim=-1)
