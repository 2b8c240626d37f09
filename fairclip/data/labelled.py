"""From labelled images to a data set of Dassl's, with CoOp's few shots and halves of the classes."""

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from dassl.data.datasets import DatasetBase, Datum
from yacs.config import CfgNode

from fairclip.core.errors import UserError, require
from fairclip.core.image_files import printable
from fairclip.data.images import Checked, examine
from fairclip.data.messages import tell_once, warn_once
from fairclip.data.splits import PARTS, Items, read_split

EXAMPLES = 10  # images that a message names


def datum(path: str, label: int, names: Sequence[str]) -> Datum:
    """An image with the name of its class; a negative label is none."""
    return Datum(impath=path, label=label, classname=names[label] if label >= 0 else "")


class LabelledDataset(DatasetBase):
    """Labelled images with CoOp's DATASET.NUM_SHOTS and DATASET.SUBSAMPLE_CLASSES.

    Args:
        cfg: the whole Dassl config.
        items: train, val and test -> (path, label).
        names: all class names in label order. A class keeps its label though it has no training image.

    Raises:
        UserError: no training images, or another half of the classes than there is.
    """

    def __init__(self, cfg: CfgNode, items: Items, names: Sequence[str]) -> None:
        require(items["train"], f"{type(self).__name__} has no training images")
        train, val, test = ([datum(path, label, names) for path, label in items[part]] for part in PARTS)
        shots = cfg.DATASET.NUM_SHOTS
        if shots >= 1:
            train = few_shot(train, shots, cfg.SEED)
            val = few_shot(val, min(shots, 4), cfg.SEED)  # CoOp: at most four validation images a class
        # The key is CoOp's, not Dassl's, so it may be absent.
        subset = cfg.DATASET.get("SUBSAMPLE_CLASSES", "all")
        train, val, test = subsample_classes(train, val, test, subsample=subset, classes=len(names))
        self._all_names = [names[label] for label in class_half(range(len(names)), subset)]
        super().__init__(train_x=train, val=val, test=test)

    # Dassl reads the classes off the training images, and a class that lost all of them (dead links) would shift the
    # names behind it. Here the class list decides.

    def get_num_classes(self, data_source: list[Datum]) -> int:
        return len(self._all_names)

    def get_lab2cname(self, data_source: list[Datum]) -> tuple[dict[int, str], list[str]]:
        return dict(enumerate(self._all_names)), list(self._all_names)


class SplitDataset(LabelledDataset):
    """A data set whose split file and images are all there.

    Args:
        cfg: the whole Dassl config.
        split: the split file.
        image_root: what the paths in the split file are relative to.
        layout: text that ends the error for missing files: what belongs where and how to get it.

    Raises:
        UserError: for missing or inconsistent files.
    """

    def __init__(self, cfg: CfgNode, split: Path, image_root: Path, layout: str = "") -> None:
        parts = read_split(split, image_root, layout)
        names = {d.label: d.classname for d in parts[0]}
        items = {part: [(d.impath, d.label) for d in data] for part, data in zip(PARTS, parts, strict=True)}
        items = drop_corrupt(cfg, type(self).__name__, items, layout or "Replace them.")
        super().__init__(cfg, items, [names[label] for label in sorted(names)])


def drop_corrupt(cfg: CfgNode, name: str, items: Items, advice: str = "Replace them.") -> Items:
    """`items` (of paths) without the images that cannot be decoded; those end the run unless DATASET.SKIP_CORRUPT.

    One line says how many test images are there for training, too.

    Args:
        cfg: the whole Dassl config.
        name: of the data set, for messages.
        items: part -> (path, label).
        advice: what to do about broken images.

    Raises:
        UserError: some cannot be decoded; names the first ten.
    """
    paths = [path for part in PARTS for path, _ in items[part]]
    checked = examine(paths, name, again=cfg.DATASET.get("CHECK_IMAGES", False))
    _tell_of_doubles(name, items, checked)
    bad = dict(checked.bad)
    if not bad:
        return items
    lines = [f"  {printable(path)}: {reason}" for path, reason in list(bad.items())[:EXAMPLES]]
    rest = f"\n  and {len(bad) - EXAMPLES:,} more" if len(bad) > EXAMPLES else ""
    message = f"{name}: {len(bad)} of {len(paths)} images cannot be decoded:\n" + "\n".join(lines) + rest
    if not cfg.DATASET.get("SKIP_CORRUPT", False):
        raise UserError(f"{message}\n{advice} Or go on without them: DATASET.SKIP_CORRUPT True")
    warn_once(f"{message}\nThey are left out (DATASET.SKIP_CORRUPT).")
    return {part: [item for item in items[part] if item[0] not in bad] for part in PARTS}


def _tell_of_doubles(name: str, items: Items, checked: Checked) -> None:
    trained = {path for path, _ in items["train"]}
    known = {path for group in checked.same if not trained.isdisjoint(group) for path in group}
    known |= trained  # a file may be in both parts, too
    both = [path for path, _ in items["test"] if path in known]
    if both:
        tell_once(
            f"Note: {len(both)} of the {len(items['test'])} test images of {name} are training images too, byte for "
            f"byte, such as {printable(both[0])}"
        )


# -- Few shots and halves of the classes -------------------------------------------------------------------------------


def few_shot(items: list[Datum], shots: int, seed: int) -> list[Datum]:
    """Draws `shots` items of each class (all where there are fewer), in order of label.

    The draw of a class is a function of the seed and the label alone, and k shots are the first k of any larger
    number. So it needs no file to remember it (CoOp pickles its draws, with absolute paths, into the data folder).
    """
    drawn = []
    for label, group in by_label(items).items():
        drawn += random.Random(f"{seed} {label}").sample(group, len(group))[:shots]
    return drawn


def by_label(items: list[Datum]) -> dict[int, list[Datum]]:
    """The items of each label, in order of label."""
    groups: dict[int, list[Datum]] = defaultdict(list)
    for item in items:
        groups[item.label].append(item)
    return dict(sorted(groups.items()))


def class_half(labels: Sequence[int], subsample: str) -> list[int]:
    """All labels, the first half of them ("base", the larger one) or the second ("new"), as CoOp does."""
    require(subsample in ("all", "base", "new"), f"DATASET.SUBSAMPLE_CLASSES is '{subsample}'; choose all, base or new")
    half = (len(labels) + 1) // 2
    return list(labels if subsample == "all" else labels[:half] if subsample == "base" else labels[half:])


def subsample_classes(
    *parts: list[Datum], subsample: str = "all", classes: int | None = None
) -> tuple[list[Datum], ...]:
    """Keeps the items of `class_half`, with labels numbered anew from 0.

    Args:
        parts: the items of each part, as train, val, test.
        subsample: "all", "base" or "new".
        classes: how many there are, if not all have items in the first part.
    """
    labels = range(classes) if classes is not None else sorted({item.label for item in parts[0]})
    kept = class_half(labels, subsample)
    if subsample == "all":
        return parts
    renumber = {label: index for index, label in enumerate(kept)}
    return tuple(
        [
            Datum(impath=d.impath, label=renumber[d.label], domain=d.domain, classname=d.classname)
            for d in part
            if d.label in renumber
        ]
        for part in parts
    )
