"""The text side: prompt templates, class descriptions, and their embeddings."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from .backbone import clip_module, feature_dim
from .errors import UserError, few

if TYPE_CHECKING:
    from clip.model import CLIP

DEFAULT_TEMPLATE = "a photo of a {}."

# CoOp's single template for each data set (arXiv 2109.01134), by registry name.
TEMPLATES = {
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

DESCRIPTIONS = Path(__file__).resolve().parents[2] / "descriptions"
ALIASES = {"DescribableTextures": "dtd"}  # data sets better known by another name than their registry's


def prompt(template: str, classname: str) -> str:
    """Put a class name (underscores read as spaces) where the template has `{}`."""
    if "{}" not in template:
        raise UserError(f"The template '{template}' has no {{}} for the class name.")
    return template.replace("{}", classname.replace("_", " "))


# ---------------------------------------------------------------------------------------------------------------------
# Description files
# ---------------------------------------------------------------------------------------------------------------------
def find_descriptions(path: str, dataset: Any) -> Path | None:
    """The description file of a Dassl data set object.

    In this order: `path` if given, the data set's attribute `descriptions_file`, the file in `descriptions/` named like
    the data set (`stanford_cars.json` for `StanfordCars`), or None.

    Raises:
        UserError: `path` or the attribute names a file that does not exist.
    """
    if given := path or getattr(dataset, "descriptions_file", None):
        file = Path(given).expanduser()
        if not file.is_file():
            raise UserError(f"The description file {file} does not exist.")
        return file
    name = type(dataset).__name__
    wanted = _letters(ALIASES.get(name, name))
    return next((file for file in sorted(DESCRIPTIONS.glob("*.json")) if _letters(file.stem) == wanted), None)


def load_descriptions(path: str | Path, classnames: Sequence[str]) -> list[list[str]]:
    """Read a JSON file {class: [sentence, ...]} and return the sentences of each class, in the order of `classnames`.

    A key belongs to the class of the same name; failing that, of the same name but for case, spaces and punctuation;
    failing that, of the same words in another order ("Audi S4 2012" and "2012 Audi S4"). A match that is not unique is
    none. Classes without descriptions get an empty list and, like keys without a class, one warning.

    Raises:
        UserError: unreadable file, another structure, or fewer than half of the classes found.
    """
    table = _read_table(Path(path))
    keys = match_names(classnames, table)
    lists = [table[keys[name]] if name in keys else [] for name in classnames]
    lacking = [name for name, sentences in zip(classnames, lists, strict=True) if not sentences]
    if 2 * len(lacking) > len(classnames):
        raise UserError(f"{path} has descriptions for {len(classnames) - len(lacking)} of {len(classnames)} classes. "
                        f"Without: {few(lacking, 10)}. Its keys: {few(list(table), 5)}. "
                        "Name its keys like the classes of the data set.")
    if lacking:
        print(f"Warning: no descriptions for {few(lacking, 10)} in {path}: their name prompts are used alone")
    if extra := [key for key in table if key not in keys.values()]:
        print(f"Warning: {path} describes what is no class of this data set: {few(extra, 3)}")
    return lists


def match_names(names: Iterable[str], keys: Iterable[str]) -> dict[str, str]:
    """Pair each name with the one key that means it (see `load_descriptions`), if there is one."""
    names, keys = set(names), set(keys)
    pairs: dict[str, str] = {}
    for form in (str, _letters, _words):
        left, right = _group(names - pairs.keys(), form), _group(keys - set(pairs.values()), form)
        pairs |= {left[f][0]: right[f][0] for f in left if f and len(left[f]) == len(right.get(f, ())) == 1}
    return pairs


def _group(names: Iterable[str], form: Callable[[str], Hashable]) -> dict[Hashable, list[str]]:
    groups = defaultdict(list)
    for name in names:
        groups[form(name)].append(name)
    return groups


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _words(name: str) -> tuple[str, ...]:
    return tuple(sorted(re.findall(r"[^\W_]+", name.casefold())))


def _read_table(path: Path) -> dict[str, list[str]]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read the description file {path}: {error.strerror}.") from error
    except ValueError as error:  # bad JSON or bad UTF-8
        raise UserError(f"The description file {path} is not valid JSON: {error}.") from error
    if not isinstance(table, dict):
        raise UserError(f"The description file {path} must be an object {{class: [sentence, ...]}}.")
    for key, sentences in table.items():
        if not isinstance(sentences, list) or not all(isinstance(s, str) and s.strip() for s in sentences):
            raise UserError(f"The description file {path} must give '{key}' a list of sentences.")
    return table


# ---------------------------------------------------------------------------------------------------------------------
# Embeddings
# ---------------------------------------------------------------------------------------------------------------------
@torch.no_grad()
def encode_texts(model: "CLIP", texts: Sequence[str], batch: int = 256) -> Tensor:
    """Embed M texts: unit rows, float32, [M, d], on the model's device. Over-long texts lose their end."""
    device = model.text_projection.device
    tokens = _tokenize(texts, model.context_length).split(batch)
    features = [torch.empty(0, feature_dim(model), device=device)]
    for some in tqdm(tokens, desc="encoding texts", leave=False, disable=None if len(tokens) > 8 else True):
        features.append(normalize(model.encode_text(some.to(device)).float(), dim=-1))
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
        print(f"Warning: {len(long)} of {len(texts)} texts exceed CLIP's {context_length} tokens and are cut, "
              f"the first being '{long[0][:60]}...'")
        return clip.tokenize(texts, context_length, truncate=True)
