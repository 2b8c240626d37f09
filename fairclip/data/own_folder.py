"""Reading a user's own folder of images: train/, test/ and val/, with or without labels for the training images."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fairclip.core.errors import UserError, few
from fairclip.core.image_files import images_below, is_image
from fairclip.data.annotations import read_lines
from fairclip.data.classes import match_classes
from fairclip.data.folders import PART_FOLDERS, find_below, folders_in, skip_doubled
from fairclip.data.messages import tell_once
from fairclip.data.splits import Items

UNLABELLED = -1  # no label: a trainer that learns from labels must fail rather than learn a made-up one
CLASSES = "classes.txt"


@dataclass(frozen=True)
class OwnFolder:
    """What is in a folder of images.

    Args:
        home: the folder that holds train/, the inner one of images/images/.
        names: class names in label order.
        items: train, val and test -> (path, label), by label and path.
        labelled: whether the training images have labels; without them the labels are UNLABELLED.
    """

    home: Path
    names: list[str]
    items: Items
    labelled: bool

    @property
    def descriptions(self) -> Path | None:
        """The file of class descriptions, if there is one."""
        file = self.home / "descriptions.json"
        return file if file.is_file() else None

    def summary(self) -> str:
        """One sentence about what is there."""
        sizes = ", ".join(f"{len(images):,} {part}" for part, images in self.items.items())
        source = CLASSES if (self.home / CLASSES).is_file() else "the folders' names"
        kind = "class folders" if self.labelled else "training images without labels"
        return f"{kind} in {self.home}, {len(self.names)} classes from {source}, {sizes}"


def read_own_folder(folder: Path) -> OwnFolder:
    """What is in a folder of images; no image is decoded.

    Raises:
        UserError: no folder, no training or test images, folders that are no classes, classes that are there twice.
    """
    if not folder.is_dir():
        raise UserError(f"the data folder {folder} does not exist (--root, DATASET.FOLDER)")
    if _part(folder, "train") is None:
        folder = skip_doubled(folder)  # images/images/train
    train = _part(folder, "train")
    if train is None:
        raise UserError(f"{folder} has no folder train/, only {few(sorted(os.listdir(folder))) or 'nothing'}")
    loose = [str(path) for path in sorted(train.iterdir()) if is_image(path.name)]
    classes = _classes(folder, train, unlabelled=bool(loose))
    items: Items = {"train": [(path, UNLABELLED) for path in loose] or _labelled(train, classes)}
    for part in ("val", "test"):
        place = _part(folder, part)
        items[part] = _labelled(place, classes) if place else []
    if not items["test"]:
        if not items["val"]:
            raise UserError(
                f"{folder} has nothing to test on: put some images of every class into test/<class>/ (or val/<class>/)"
            )
        tell_once(f"ImageFolder: {folder} has no test images, those in val/ are used")
        items["val"], items["test"] = [], items["val"]
    return OwnFolder(folder, [name for name, _ in classes], items, labelled=not loose)


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


def _natural(name: str) -> tuple[list[int | str], str]:
    pieces = re.split(r"([0-9]+)", name.casefold())
    return [(int(piece) if i % 2 else piece) for i, piece in enumerate(pieces)], name


def _labelled(place: Path, classes: list[tuple[str, str]]) -> list[tuple[str, int]]:
    """(path, label) of the images in the class folders of `place`, by label and path."""
    folders = _class_folders(place)
    if not folders and any(is_image(path.name) for path in place.iterdir()):
        raise UserError(f"the images in {place} need labels: sort them into {place.name}/<class>/")
    labels = match_classes([path.name for path in folders], [(name, name) for _, name in classes])
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
