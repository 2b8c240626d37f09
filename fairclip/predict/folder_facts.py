"""What fair.json of a shared model may say: each key and what its value has to be."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairclip.backbones.pixels import RESIZES
from fairclip.core import rules
from fairclip.core.errors import require
from fairclip.core.rules import (
    Rule,
    are_different_names,
    are_numbers,
    check,
    is_flag,
    is_hash,
    is_number,
    is_text,
    is_whole,
)


def is_name(value: object) -> bool:
    """Of what may be looked for as a file."""
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


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
OBJECT = Rule(rules.is_object, "a JSON object")
PERCENT = Rule(rules.is_percent, "a number from 0 to 100", optional=True)

FACTS = {
    "classnames": Rule(are_different_names, "a list of different names"),
    "backbone": Rule(is_name, "a name of 200 characters at most"),
    "tower_hash": Rule(is_hash, "a SHA-256 or null"),
    "text_hash": Rule(is_hash, "a SHA-256 or null", optional=True),
    "settings": OBJECT,
    "results": OBJECT,
    "sha256": Rule(rules.is_hash, "the SHA-256 of the tensors, or null", optional=True),  # from before there was one
}
SETTINGS = {
    "trainer": Rule(is_text, "a name"),
    "dataset": Rule(is_text, "a name"),
    "epoch": Rule(is_whole, "a whole number"),
    "seed": Rule(rules.or_null(is_whole), "a whole number or null"),
    "crops": Rule(are_crops, "null, or n, k, alpha, beta and sharpness with 1 <= k <= n, 0 < alpha <= beta <= 1"),
    "size": Rule(lambda value: is_whole(value) and 1 <= value <= 4096, "a whole number from 1 to 4096"),
    "interpolation": Rule(lambda value: value in ("bicubic", "bilinear", "nearest"), "bicubic, bilinear or nearest"),
    "resize": Rule(lambda value: value in RESIZES, " or ".join(RESIZES), optional=True),
    "backbone_options": Rule(are_options, "a size, two numbers of heads or none, and an activation", optional=True),
    "normalize": Rule(is_flag, "true or false"),
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
    "uses_labels": Rule(is_flag, "true or false", optional=True),
}


def check_facts(facts: Mapping[str, Any], file: Path) -> None:
    """Raises UserError for a key that is missing or unknown, and for a value that cannot be."""
    check(facts, FACTS, file, closed=True)
    check(facts["settings"], SETTINGS, file, "settings.", closed=True)
    check(facts["results"], RESULTS, file, "results.", closed=True)
    check_counts(facts, file)


def check_counts(facts: Mapping[str, Any], file: Path) -> None:
    """Raises UserError where the settings have numbers of classes, but not one of each."""
    classes = len(facts["classnames"])
    for key in ("lengths", "bias"):
        count = len(facts["settings"].get(key, facts["classnames"]))
        require(count == classes, f"{file}: settings.{key} has {count} numbers for {classes} classes")
