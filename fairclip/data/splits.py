"""Split files, and making new splits by CoOp's rules.

A split file is one JSON object {"train": [...], "val": [...], "test": [...]} whose items are
[key, label from 0, class name], a key being the path of an image relative to the image root: the format that CoOp ships
as split_zhou_*.json. Those that we make say so under "made_by", which CoOp's reader ignores.
"""

import json
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dassl.data.datasets import Datum

from fairclip.core.errors import UserError
from fairclip.core.files import atomic
from fairclip.core.reading import each_once

PARTS = ("train", "val", "test")
MOST_CLASSES = 100_000  # a label above this is a mistake: names and vectors are made for all labels below the largest
Items = dict[str, list[tuple[str, int]]]  # part -> (key or path, label)


# -- The format --------------------------------------------------------------------------------------------------------


class Split(dict[str, list[tuple[str, int, str]]]):
    """part -> (key, label, class name); `made_by` says who made it, "" if the file does not."""

    made_by = ""


def load_split(path: str | Path, hint: str = "") -> Split:
    """Reads a split file. Raises UserError, ending with `hint`, if it is missing or has another format: labels must be
    whole numbers, and no key of an object may be there twice."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=each_once)
        split = Split({part: [_item(*item) for item in content[part]] for part in PARTS})
    except FileNotFoundError:
        raise UserError(f"split file not found: {path}{hint}") from None
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not a split file: expected "
            f'{{"train": [[path, label, class name], ...], "val": [...], "test": [...]}} ({error!r}).{hint}'
        ) from None
    split.made_by = str(content.get("made_by", ""))
    return split


def _item(key: object, label: object, name: object) -> tuple[str, int, str]:
    if not isinstance(key, str) or not isinstance(name, str):
        raise TypeError(f"the path and the class name of {[key, label, name]} must be text")
    if type(label) is not int or label > MOST_CLASSES:  # True is an int, too
        raise TypeError(f"the label {label!r} of {key} must be a whole number up to {MOST_CLASSES:,}")
    return key, label, name


def write_split(split: Mapping[str, Iterable[tuple[str, int, str]]], path: str | Path, made_by: str = "") -> None:
    """Writes a split file; a half-written one never gets the final name."""
    content = {part: [list(item) for item in split[part]] for part in PARTS}
    with atomic(path) as temporary:
        text = json.dumps(({"made_by": made_by} if made_by else {}) | content, ensure_ascii=False)
        temporary.write_text(text, encoding="utf-8")


def check_labels(path: str | Path, split: Split) -> None:
    """Raises UserError unless the training items hold every label from 0, each with one name everywhere."""
    names = label_names(path, split)
    trained = {label for _, label, _ in split["train"]}
    absent = next((label for label in range(max(names, default=0) + 1) if label not in trained), None)
    if absent is not None or min(names, default=0) < 0:
        what = "a label is negative" if absent is None else f"label {absent} has no training image"
        raise UserError(f"{path}: {what}; labels must run from 0 without a gap")


def label_names(path: str | Path, split: Split) -> dict[int, str]:
    """label -> class name. Raises UserError for a label with two names."""
    names: dict[int, str] = {}
    for part in PARTS:
        for key, label, name in split[part]:
            if names.setdefault(label, name) != name:
                raise UserError(f"{path}: label {label} is both '{names[label]}' and '{name}' (at {key})")
    return names


def read_split(json_path: str | Path, image_root: str | Path, layout: str = "") -> tuple[list[Datum], ...]:
    """Reads a split file all of whose images must be there.

    Returns:
        The train, val and test items.

    Raises:
        UserError: if the file or an image is missing, or if labels and class names contradict each other.
    """
    json_path, image_root = Path(json_path), Path(image_root)
    hint = f"\n{layout}" if layout else ""
    split = load_split(json_path, hint)
    check_labels(json_path, split)
    keys = [key for part in PARTS for key, _, _ in split[part]]
    missing = [key for key in keys if not (image_root / key).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(keys)} images named in {json_path} are missing, "
            f"the first is {image_root / missing[0]}{hint}"
        )
    return tuple(
        [Datum(impath=str(image_root / key), label=label, classname=name) for key, label, name in split[part]]
        for part in PARTS
    )


def save_split(
    train: Iterable[Datum], val: Iterable[Datum], test: Iterable[Datum], json_path: str | Path, image_root: str | Path
) -> None:
    """Writes Dassl's items as a split file, with paths relative to `image_root`."""
    split = {
        part: [(Path(os.path.relpath(d.impath, image_root)).as_posix(), d.label, d.classname) for d in items]
        for part, items in zip(PARTS, (train, val, test), strict=True)
    }
    write_split(split, json_path)


# -- CoOp's rules ------------------------------------------------------------------------------------------------------


def split_trainval(dataset: str, items: Iterable[tuple[str, int]], names: Sequence[str]) -> Items:
    """CoOp's rule where there is an official test set: of each class round(0.2 n) training images are for validation.

    Args:
        dataset: its folder name, which seeds the draw.
        items: (key, label) of all training images.
        names: class names in label order.

    Returns:
        "train" and "val", by label and key. The draw of a class is a function of `dataset`, its name and its keys, so
        it stays when other classes come or go.
    """
    made: Items = {"train": [], "val": []}
    for label, keys in _shuffled(dataset, items, names).items():
        n_val = round(0.2 * len(keys))  # half to even, as in CoOp
        made["val"] += [(key, label) for key in sorted(keys[:n_val])]
        made["train"] += [(key, label) for key in sorted(keys[n_val:])]
    return made


def split_all(dataset: str, items: Iterable[tuple[str, int]], names: Sequence[str]) -> Items:
    """CoOp's rule where it sets official splits aside: of each class round(0.5 n) train, round(0.2 n) val, rest test.

    Arguments and order as in `split_trainval`.
    """
    made: Items = {part: [] for part in PARTS}
    for label, keys in _shuffled(dataset, items, names).items():
        n_train, n_val = round(0.5 * len(keys)), round(0.2 * len(keys))
        drawn = keys[:n_train], keys[n_train : n_train + n_val], keys[n_train + n_val :]
        for part, group in zip(PARTS, drawn, strict=True):
            made[part] += [(key, label) for key in sorted(group)]
    return made


def _shuffled(dataset: str, items: Iterable[tuple[str, int]], names: Sequence[str]) -> dict[int, list[str]]:
    by_label: dict[int, list[str]] = {label: [] for label in range(len(names))}
    for key, label in sorted(items):
        by_label[label].append(key)
    for label, keys in by_label.items():
        random.Random(f"{dataset} {names[label]}").shuffle(keys)
    return by_label
