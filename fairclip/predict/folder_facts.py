"""What fair.json of a shared model may say: each key and what its value has to be."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fairclip.backbones.pixels import RESIZES
from fairclip.core.errors import few, require


class Rule(NamedTuple):
    """Of one key: what a value has to be, as a test and in words, and whether the key may be missing."""

    test: Callable[[Any], bool]
    words: str
    optional: bool = False


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def is_name(value: object) -> bool:
    """Of what may be looked for as a file."""
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e30 < value < 1e30


def are_numbers(value: object, count: int = 0) -> bool:
    """A list of numbers, of this length if it is given."""
    return isinstance(value, list) and all(map(is_number, value)) and len(value) == (count or len(value))


def are_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_text, value)) and len(set(value)) == len(value)


def is_hash(value: object) -> bool:
    return value is None or (isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None)


def are_options(value: object) -> bool:
    """As of ``fairclip.backbones.backbone.Options``."""
    if not isinstance(value, list) or len(value) != 3 or not isinstance(value[1], list):
        return False
    size, heads, activation = value
    whole = is_whole(size) and 0 <= size <= 4096 and all(is_whole(n) and 0 < n <= 1024 for n in heads)
    return whole and len(heads) in (0, 2) and activation in ("", "gelu", "quick_gelu")


def are_crops(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or value.keys() not in ({*CROPS, "sharpness"}, {*CROPS, "scale"}):
        return False
    whole = is_whole(value["n"]) and is_whole(value["k"])
    return whole and all(map(is_number, value.values())) and 1 <= value["k"] <= value["n"] <= 1000 and sides(value)


def sides(crops: Mapping[str, float]) -> bool:
    return 0 < crops["alpha"] <= crops["beta"] <= 1


CROPS = ("n", "k", "alpha", "beta")
OBJECT = Rule(lambda value: isinstance(value, dict), "a JSON object")
PERCENT = Rule(lambda value: is_number(value) and 0 <= value <= 100, "a number from 0 to 100", optional=True)

FACTS = {
    "classnames": Rule(are_names, "a list of different names"),
    "backbone": Rule(is_name, "a name of 200 characters at most"),
    "tower_hash": Rule(is_hash, "a SHA-256 or null"),
    "settings": OBJECT,
    "results": OBJECT,
}
SETTINGS = {
    "trainer": Rule(is_text, "a name"),
    "dataset": Rule(is_text, "a name"),
    "epoch": Rule(is_whole, "a whole number"),
    "seed": Rule(lambda value: value is None or is_whole(value), "a whole number or null"),
    "crops": Rule(are_crops, "null, or n, k, alpha, beta and sharpness with 1 <= k <= n, 0 < alpha <= beta <= 1"),
    "size": Rule(lambda value: is_whole(value) and 1 <= value <= 4096, "a whole number from 1 to 4096"),
    "interpolation": Rule(lambda value: value in ("bicubic", "bilinear", "nearest"), "bicubic, bilinear or nearest"),
    "resize": Rule(lambda value: value in RESIZES, " or ".join(RESIZES), optional=True),
    "backbone_options": Rule(are_options, "a size, two numbers of heads or none, and an activation", optional=True),
    "normalize": Rule(lambda value: isinstance(value, bool), "true or false"),
    "mean": Rule(lambda value: are_numbers(value, 3), "three numbers"),
    "std": Rule(lambda value: are_numbers(value, 3) and min(value) > 0, "three numbers above 0"),
    "prec": Rule(lambda value: value in ("fp32", "amp", "bf16"), "fp32, amp or bf16"),
    "lengths": Rule(are_numbers, "a list of numbers", optional=True),
    "bias": Rule(are_numbers, "a list of numbers", optional=True),
}
RESULTS = {
    "accuracy": PERCENT,
    "crop_accuracy": PERCENT,
    "macro_f1": PERCENT,
    "split": Rule(is_text, "a name", optional=True),
    "uses_labels": Rule(lambda value: isinstance(value, bool), "true or false", optional=True),
}


def check_facts(facts: Mapping[str, Any], file: Path) -> None:
    """Raises UserError for a key that is missing or unknown, and for a value that cannot be."""
    check(facts, FACTS, "", file)
    check(facts["settings"], SETTINGS, "settings.", file)
    check(facts["results"], RESULTS, "results.", file)
    classes = len(facts["classnames"])
    for key in ("lengths", "bias"):
        count = len(facts["settings"].get(key, facts["classnames"]))
        require(count == classes, f"{file}: settings.{key} has {count} numbers for {classes} classes")


def check(values: Mapping[str, Any], rules: Mapping[str, Rule], prefix: str, file: Path) -> None:
    unknown = sorted(values.keys() - rules.keys())
    require(not unknown, f"{file} has keys that this version does not know: {few([prefix + key for key in unknown])}")
    for key, rule in rules.items():
        if key not in values:
            require(rule.optional, f"{file} lacks {prefix}{key}: {rule.words}")
            continue
        shown = repr(values[key])[:60]
        require(rule.test(values[key]), f"{file}: {prefix}{key} is {shown}: it has to be {rule.words}")
