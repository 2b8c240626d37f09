"""ImageFolder: a user's own images, in train/ and test/ folders.

<DATASET.ROOT>/<DATASET.FOLDER>/
    train/<class>/*.jpg   or, without labels, train/*.jpg
    test/<class>/*.jpg    what the result is measured on; without it, val/<class>/
    classes.txt           needed without labels: one class a line, in the order of the labels; where its folder has
                          another name, that follows behind a tab
    descriptions.json     optional: class name -> list of sentences
"""

import os
import re
from collections import Counter
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum

from fairclip.core.errors import UserError, few
from fairclip.data.common import LabelledDataset, data_root, drop_corrupt, say
from fairclip.data.layouts import (
    PART_FOLDERS,
    find_below,
    folders_in,
    images_below,
    is_image,
    match_names,
    read_lines,
    see_through,
)

UNLABELLED = -1  # no label: a trainer that learns from labels must fail rather than learn a made-up one
CLASSES = "classes.txt"


def extend_cfg(cfg) -> None:
    """DATASET.FOLDER: the folder of the images below DATASET.ROOT; "" for DATASET.ROOT itself."""
    cfg.DATASET.FOLDER = ""


@DATASET_REGISTRY.register()
class ImageFolder(LabelledDataset):
    """Classes are named after their folders (underscores become spaces, 2 comes before 10) or by `classes.txt`.

    Training images without labels have label -1 and no class name; `num_classes`, `classnames` and `lab2cname` come
    from the class list all the same. `descriptions_file` is there if the folder has a `descriptions.json`.

    Raises:
        UserError: no images, no test images, folders that are no classes, images that cannot be decoded.
    """

    def __init__(self, cfg) -> None:
        folder = data_root(cfg) / os.path.expanduser(cfg.DATASET.get("FOLDER", ""))
        if not folder.is_dir():
            raise UserError(f"the data folder {folder} does not exist (--root, DATASET.FOLDER)")
        if _part(folder, "train") is None:
            folder = see_through(folder)  # images/images/train
        if (folder / "descriptions.json").is_file():
            self.descriptions_file = folder / "descriptions.json"

        train = _part(folder, "train")
        if train is None:
            raise UserError(f"{folder} has no folder train/, only {few(sorted(os.listdir(folder))) or 'nothing'}")
        loose = [str(path) for path in sorted(train.iterdir()) if is_image(path.name)]
        classes = _classes(folder, train, unlabelled=bool(loose))
        items = {"train": [(path, UNLABELLED) for path in loose] or _labelled(train, classes)}
        for part in ("val", "test"):
            place = _part(folder, part)
            items[part] = _labelled(place, classes) if place else []
        if not items["test"]:
            if not items["val"]:
                raise UserError(
                    f"{folder} has nothing to test on: put some images of every class into test/<class>/ "
                    "(or val/<class>/)"
                )
            say(f"ImageFolder: {folder} has no test images, those in val/ are used")
            items["val"], items["test"] = [], items["val"]

        names = [name for name, _ in classes]
        sizes = ", ".join(f"{len(items[part]):,} {part}" for part in items)
        source = CLASSES if (folder / CLASSES).is_file() else "the folders' names"
        kind = "training images without labels" if loose else "class folders"
        say(f"ImageFolder: {kind} in {folder}, {len(names)} classes from {source}, {sizes}")
        items = drop_corrupt(cfg, "ImageFolder", items)
        if not items["train"] or not items["test"]:
            raise UserError(f"{folder} has no training or no test image that can be decoded")
        if loose:
            self._init_unlabelled(cfg, items, names)
            return
        trained = {label for _, label in items["train"]}
        if empty := [name for label, name in enumerate(names) if label not in trained]:
            say(f"Warning: ImageFolder: {len(empty)} classes have no training image: {few(empty)}")
        super().__init__(cfg, items, names)

    def _init_unlabelled(self, cfg, items: dict[str, list[tuple[str, int]]], names: list[str]) -> None:
        if cfg.DATASET.NUM_SHOTS >= 1 or cfg.DATASET.get("SUBSAMPLE_CLASSES", "all") != "all":
            raise UserError(
                "DATASET.NUM_SHOTS and DATASET.SUBSAMPLE_CLASSES pick training images by their labels, and these have "
                "none"
            )
        self._all_names = names  # LabelledDataset takes the classes from here
        val, test = (
            [Datum(impath=path, label=label, classname=names[label]) for path, label in items[part]]
            for part in ("val", "test")
        )
        train = [Datum(impath=path, label=UNLABELLED) for path, _ in items["train"]]
        DatasetBase.__init__(self, train_x=train, val=val, test=test)


def _part(folder: Path, part: str) -> Path | None:
    """The folder of a part, by any of its usual names in any case."""
    found = [path for name in PART_FOLDERS[part] if (path := find_below(folder, name)) and path.is_dir()]
    if len(found) > 1:
        raise UserError(f"{folder} has {' and '.join(path.name for path in found)}: keep one of them")
    return found[0] if found else None


def _classes(folder: Path, train: Path, unlabelled: bool) -> list[tuple[str, str]]:
    """(class name, folder name) in label order, from classes.txt or else from the folders in `train`."""
    file = folder / CLASSES
    sorted_in = _class_folders(train)
    if unlabelled and sorted_in:
        raise UserError(
            f"{train} holds both images and folders with images ({few([path.name for path in sorted_in])}). "
            "Sort all images into class folders, or none."
        )
    if file.is_file():
        lines = [line.strip().split("\t") for line in read_lines(file) if not line.lstrip().startswith("#")]
        classes = [(line[0].strip(), line[-1].strip()) for line in lines]
    elif unlabelled:
        raise UserError(
            f"the images in {train} are in no class folders, so {file} must say what classes there are: one class name "
            "a line"
        )
    else:
        classes = [(path.name.replace("_", " "), path.name) for path in sorted_in]
    if not classes:
        raise UserError(f"{file} names no class" if file.is_file() else f"{train} holds no images")
    for kind, values in zip(("class", "folder"), zip(*classes, strict=True), strict=True):
        if twice := [value for value, count in Counter(values).items() if count > 1]:
            raise UserError(f"{file if file.is_file() else train}: the {kind} '{twice[0]}' is there twice")
    return classes


def _class_folders(place: Path) -> list[Path]:
    """The folders in `place` with images in them, in natural order: 2 before 10, a before B."""
    return sorted((path for path in folders_in(place) if images_below(path)), key=lambda path: _natural(path.name))


def _natural(name: str) -> tuple:
    pieces = re.split(r"([0-9]+)", name.casefold())
    return [(int(piece) if i % 2 else piece) for i, piece in enumerate(pieces)], name


def _labelled(place: Path, classes: list[tuple[str, str]]) -> list[tuple[str, int]]:
    """(path, label) of the images in the class folders of `place`, by label and path."""
    folders = _class_folders(place)
    if not folders and any(is_image(path.name) for path in place.iterdir()):
        raise UserError(f"the images in {place} need labels: sort them into {place.name}/<class>/")
    labels = match_names([path.name for path in folders], [(name, name) for _, name in classes])
    if strangers := [path.name for path in folders if path.name not in labels]:
        raise UserError(
            f"{place} has folders of no class: {few(strangers)}. The classes are {few([name for name, _ in classes])}. "
            f"{CLASSES} beside {place.name}/ can list them all (one a line, the folder's name behind a tab)."
        )
    if twice := [label for label, count in Counter(labels.values()).items() if count > 1]:
        both = [name for name, label in labels.items() if label == twice[0]]
        raise UserError(f"{place} has two folders of the class '{classes[twice[0]][0]}': {' and '.join(both)}")
    found = [(path, labels[inner.name]) for inner in folders for path in images_below(inner).values()]
    return sorted(found, key=lambda item: (item[1], item[0]))
