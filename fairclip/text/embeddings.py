"""Embeddings of texts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fairclip.backbones.openai import clip_module, feature_dim, fingerprint
from fairclip.core.cache import cached
from fairclip.core.log import log
from fairclip.text.templates import prompt
from fairclip.views.loading import progress

if TYPE_CHECKING:
    from clip.model import CLIP


def encode_texts(model: "CLIP", texts: Sequence[str], batch: int = 256) -> Tensor:
    """Embed M texts: unit rows, float32, [M, d], on the model's device. Over-long texts lose their end.

    Computed once: the result is kept in `text/` of the cache folder, as plain numbers (.npy), under a hash of the text
    tower's parameters, the kind of device and the texts.
    """
    tokens = _tokenize(texts, model.context_length)
    device = model.text_projection.device
    tower = {n: t for n, t in model.state_dict().items() if not n.startswith("visual.") and n != "logit_scale"}
    # A backbone's name would not do: its file can change.
    key = fingerprint(tower | {"tokens": tokens}, device.type)
    features, _ = cached("text", key, len(texts), lambda: _encode(model, tokens.split(batch)))
    return features.to(device)


@torch.no_grad()
def _encode(model: "CLIP", batches: Sequence[Tensor]) -> Tensor:
    device = model.text_projection.device
    features = [torch.empty(0, feature_dim(model), device=device)]
    for tokens in progress(batches, "encoding texts") if len(batches) > 8 else batches:
        features.append(normalize(model.encode_text(tokens.to(device)).float(), dim=-1))
    return torch.cat(features)


def encode_ragged(model: "CLIP", lists: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
    """Embed K lists of texts of any lengths.

    Returns:
        Features [K, M, d], M being the longest list's length (at least 1), zero where a list is shorter; and the mask
        [K, M], True where there is a text.
    """
    lengths = torch.tensor([len(texts) for texts in lists], dtype=torch.long)
    width = max([1, *lengths.tolist()])
    flat = encode_texts(model, [text for texts in lists for text in texts])
    mask = (torch.arange(width) < lengths[:, None]).to(flat.device)
    features = flat.new_zeros(len(lists), width, flat.shape[1])
    features[mask] = flat  # both run row by row
    return features, mask


def name_prompts(model: "CLIP", classnames: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Embed K class names: the mean over the templates' unit embeddings, made unit again, [K, d]."""
    texts = [prompt(template, name) for name in classnames for template in templates]
    features = encode_texts(model, texts).view(len(classnames), len(templates), -1)
    return normalize(features.mean(dim=1), dim=-1)


def _tokenize(texts: Sequence[str], context_length: int) -> Tensor:
    """Token ids [M, context_length] by CLIP's own tokenizer."""
    clip = clip_module()
    texts = list(texts)
    try:
        return clip.tokenize(texts, context_length)
    except RuntimeError:  # some text is too long
        room = context_length - 2  # start and end tokens
        long = [text for text in texts if len(clip._tokenizer.encode(text)) > room]
        log.warning(
            f"{len(long)} of {len(texts)} texts exceed CLIP's {context_length} tokens and are cut, "
            f"the first being '{long[0][:60]}...'"
        )
        return clip.tokenize(texts, context_length, truncate=True)
