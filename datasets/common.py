"""What our data sets share: CoOp split files, few-shot sampling, base/new class halves.

A split file is one JSON object {"train": [...], "val": [...], "test": [...]} whose items are
[image path relative to the image root, label from 0, class name]: the format that CoOp ships as split_zhou_*.json.
"""

import json
import os
import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from dassl.data.datasets import DatasetBase, Datum

from trainers.modules.errors import UserError
from trainers.modules.results import atomic

PARTS = ("train", "val", "test")


class SplitDataset(DatasetBase):
    """A data set read from a split file, with CoOp's DATASET.NUM_SHOTS and DATASET.SUBSAMPLE_CLASSES.

    Args:
        cfg: the whole Dassl config.
        split: the split file.
        image_root: what the paths in the split file are relative to.
        layout: text that ends the error for missing files: what belongs where and how to get it.

    Raises:
        UserError: for missing or inconsistent files.
    """

    def __init__(self, cfg, split: Path, image_root: Path, layout: str = "") -> None:
        train, val, test = read_split(split, image_root, layout)
        shots = cfg.DATASET.NUM_SHOTS
        if shots >= 1:
            train = few_shot(train, shots, cfg.SEED)
            val = few_shot(val, min(shots, 4), cfg.SEED)  # CoOp: at most four validation images a class
        # The key is CoOp's, not Dassl's, so it may be absent.
        subset = cfg.DATASET.get("SUBSAMPLE_CLASSES", "all")
        train, val, test = subsample_classes(train, val, test, subsample=subset)
        super().__init__(train_x=train, val=val, test=test)


def data_root(cfg) -> Path:
    """DATASET.ROOT as an absolute path; an empty one is a UserError rather than the current folder."""
    if not cfg.DATASET.ROOT:
        raise UserError("No data folder given: pass --root FOLDER (or set DATASET.ROOT), the parent of all data sets.")
    return Path(os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT)))


def read_split(json_path: str | Path, image_root: str | Path, layout: str = "") -> tuple[list[Datum], ...]:
    """Reads a split file.

    Returns:
        The train, val and test items.

    Raises:
        UserError: if the file or an image is missing, or if labels and class names contradict each other.
    """
    json_path, image_root = Path(json_path), Path(image_root)
    hint = f"\n{layout}" if layout else ""
    try:
        split = json.loads(json_path.read_text(encoding="utf-8"))
        parts = [[(str(path), int(label), str(name)) for path, label, name in split[part]] for part in PARTS]
    except FileNotFoundError:
        raise UserError(f"Split file not found: {json_path}{hint}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{json_path} is not a split file: expected "
            f'{{"train": [[path, label, class name], ...], "val": [...], "test": [...]}} ({error!r}).{hint}'
        ) from None

    _check_classes(json_path, parts)
    paths = [path for part in parts for path, _, _ in part]
    missing = [path for path in paths if not (image_root / path).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(paths)} images named in {json_path} are missing, "
            f"the first is {image_root / missing[0]}{hint}"
        )
    return tuple(
        [Datum(impath=str(image_root / path), label=label, classname=name) for path, label, name in part]
        for part in parts
    )


def _check_classes(json_path: Path, parts: list[list[tuple[str, int, str]]]) -> None:
    """Dassl takes the classes from the training items, so those must hold every label from 0, each with one name."""
    names: dict[int, str] = {}
    for part in parts:
        for path, label, name in part:
            if names.setdefault(label, name) != name:
                raise UserError(f"{json_path}: label {label} is both '{names[label]}' and '{name}' (at {path}).")
    absent = set(range(max(names, default=0) + 1)) - {label for _, label, _ in parts[0]}
    if absent or min(names, default=0) < 0:
        what = f"label {min(absent)} has no training image" if absent else "a label is negative"
        raise UserError(f"{json_path}: {what}; labels must run from 0 without a gap.")


def save_split(
    train: Iterable[Datum], val: Iterable[Datum], test: Iterable[Datum], json_path: str | Path, image_root: str | Path
) -> None:
    """Writes a split file, with paths relative to `image_root`; a half-written file never gets the final name."""
    split = {
        part: [[Path(os.path.relpath(d.impath, image_root)).as_posix(), d.label, d.classname] for d in items]
        for part, items in zip(PARTS, (train, val, test), strict=True)
    }
    with atomic(json_path) as temporary:
        temporary.write_text(json.dumps(split, ensure_ascii=False), encoding="utf-8")


def few_shot(items: list[Datum], shots: int, seed: int) -> list[Datum]:
    """Draws `shots` items of each class (all where there are fewer), in order of label.

    The draw of a class is a function of the seed and the label alone, and k shots are the first k of any larger
    number. So it needs no file to remember it (CoOp pickles its draws, with absolute paths, into the data folder).
    """
    by_label: dict[int, list[Datum]] = defaultdict(list)
    for item in items:
        by_label[item.label].append(item)
    drawn = []
    for label in sorted(by_label):
        group = by_label[label]
        drawn += random.Random(f"{seed} {label}").sample(group, len(group))[:shots]
    return drawn


def subsample_classes(*parts: list[Datum], subsample: str = "all") -> tuple[list[Datum], ...]:
    """Keeps all classes, the first half of the labels ("base", the larger one) or the second ("new"), as CoOp does.

    Labels of the kept classes are numbered anew from 0.
    """
    if subsample not in ("all", "base", "new"):
        raise UserError(f"DATASET.SUBSAMPLE_CLASSES is '{subsample}'; choose all, base or new.")
    if subsample == "all":
        return parts
    labels = sorted({item.label for item in parts[0]})
    half = (len(labels) + 1) // 2
    kept = labels[:half] if subsample == "base" else labels[half:]
    renumber = {label: index for index, label in enumerate(kept)}
    return tuple(
        [
            Datum(impath=d.impath, label=renumber[d.label], domain=d.domain, classname=d.classname)
            for d in part
            if d.label in renumber
        ]
        for part in parts
    )
