"""Prompt templates, and the embeddings of texts."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from .backbone import clip_module, feature_dim
from .cache import cache_folder
from .distributed import is_main
from .errors import UserError
from .loading import progress
from .results import atomic

if TYPE_CHECKING:
    from clip.model import CLIP

DEFAULT_TEMPLATE = "a photo of a {}."

# CoOp's single template for each data set (arXiv 2109.01134), by registry name; one of CLIP's where CoOp has none.
TEMPLATES = {
    "AID": "a satellite photo of {}.",
    "Birdsnap": "a photo of a {}, a type of bird.",
    "CUB200": "a photo of a {}, a type of bird.",
    "Caltech101": "a photo of a {}.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "Food101": "a photo of {}, a type of food.",
    "ImageNet": "a photo of a {}.",
    "ImageNetA": "a photo of a {}.",
    "ImageNetR": "a photo of a {}.",
    "ImageNetSketch": "a photo of a {}.",
    "ImageNetV2": "a photo of a {}.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "OxfordPets": "a photo of a {}, a type of pet.",
    "RESISC45": "a satellite photo of {}.",
    "StanfordCars": "a photo of a {}.",
    "SUN397": "a photo of a {}.",
    "SynthCars": "a photo of a {}.",
    "UCF101": "a photo of a person doing {}.",
}

# The seven templates that OpenAI's search over 80 kept for ImageNet (CLIP repository, prompt engineering notebook).
ENSEMBLE = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


def prompt(template: str, classname: str) -> str:
    """Put a class name (underscores read as spaces) where the template has `{}`."""
    if "{}" not in template:
        raise UserError(f"The template '{template}' has no {{}} for the class name.")
    return template.replace("{}", classname.replace("_", " "))


# ---------------------------------------------------------------------------------------------------------------------
# Embeddings
# ---------------------------------------------------------------------------------------------------------------------
def encode_texts(model: "CLIP", texts: Sequence[str], batch: int = 256) -> Tensor:
    """Embed M texts: unit rows, float32, [M, d], on the model's device. Over-long texts lose their end.

    Computed once: the result is kept in `text/` of the cache folder, as plain numbers (.npy), under a hash of the text
    tower's parameters, the kind of device and the texts.
    """
    tokens = _tokenize(texts, model.context_length)
    file = cache_folder("text") / f"{_fingerprint(model, tokens)}.npy"
    try:
        kept = np.load(file, allow_pickle=False)
        if kept.shape == (len(texts), feature_dim(model)) and kept.dtype == np.float32:
            return torch.from_numpy(kept).to(model.text_projection.device)
    except (OSError, ValueError, EOFError):  # not there, or damaged
        pass
    features = _encode(model, tokens.split(batch))
    try:
        if is_main():
            with atomic(file) as path, open(path, "wb") as stream:
                np.save(stream, features.cpu().numpy(), allow_pickle=False)
    except OSError:  # a cache that cannot be written to costs time, nothing else
        pass
    return features


@torch.no_grad()
def _encode(model: "CLIP", batches: Sequence[Tensor]) -> Tensor:
    device = model.text_projection.device
    features = [torch.empty(0, feature_dim(model), device=device)]
    for tokens in progress(batches, "encoding texts") if len(batches) > 8 else batches:
        features.append(normalize(model.encode_text(tokens.to(device)).float(), dim=-1))
    return torch.cat(features)


def _fingerprint(model: "CLIP", tokens: Tensor) -> str:
    """Hash of all that embeddings depend on. A backbone's name would not do: its file can change."""
    digest = hashlib.sha256(model.text_projection.device.type.encode())
    tower = {n: t for n, t in model.state_dict().items() if not n.startswith("visual.") and n != "logit_scale"}
    for name, tensor in {**tower, "tokens": tokens}.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


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
        print(f"Warning: {len(long)} of {len(texts)} texts exceed CLIP's {context_length} tokens and are cut, "
              f"the first being '{long[0][:60]}...'")
        return clip.tokenize(texts, context_length, truncate=True)
