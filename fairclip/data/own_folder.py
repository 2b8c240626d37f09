"""Reading a user's own folder of images: train/, test/ and val/, with or without labels for the training images."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fairclip.core.errors import UserError, few, require
from fairclip.core.image_files import images_below, in_words, is_image, others_below, printable
from fairclip.core.invocation import fair_command
from fairclip.data.classes import match_classes
from fairclip.data.folders import PART_FOLDERS, find_below, folders_in, skip_doubled
from fairclip.data.label_table import labelled_parts, read_label_table
from fairclip.data.messages import tell_once
from fairclip.data.own_classes import CLASSES, Classes, listed_classes, named_classes, natural
from fairclip.data.splits import Items, split_trainval

UNLABELLED = -1  # no label: a trainer that learns from labels must fail rather than learn a made-up one
TABLE = "labels.csv"
NO_ACCURACY = "ImageFolder: the images in {place} have no labels: they get predictions, and there is no accuracy"


@dataclass(frozen=True)
class OwnFolder:
    """What is in a folder of images.

    Args:
        home: the folder that holds train/, the inner one of images/images/.
        names: class names in label order.
        items: train, val and test -> (path, label), by label and path.
        labelled: whether the training images have labels; without them the labels are UNLABELLED.
        source: where the labels are from, for the line that reports it.
    """

    home: Path
    names: list[str]
    items: Items
    labelled: bool
    source: str

    @property
    def descriptions(self) -> Path | None:
        """The file of class descriptions, if there is one."""
        file = self.home / "descriptions.json"
        return file if file.is_file() else None

    def summary(self) -> str:
        """One sentence about what is there."""
        sizes = ", ".join(f"{len(images):,} {part}" for part, images in self.items.items())
        names = CLASSES if (self.home / CLASSES).is_file() else f"the {self.source}' names"
        kind = f"class {self.source}" if self.labelled else "training images without labels"
        return f"{kind} in {printable(str(self.home))}, {len(self.names)} classes from {names}, {sizes}"


def read_own_folder(folder: Path, table: str = "", tested: bool = True) -> OwnFolder:
    """What is in a folder of images; no image is decoded.

    Args:
        folder: the folder.
        table: the file of labels in it; "": labels.csv if that is there, else labels are the names of folders.
        tested: whether test images are needed.

    Raises:
        UserError: no folder, no training or test images, folders that are no classes, classes that are there twice.
    """
    if not folder.is_dir():
        raise UserError(f"the data folder {folder} does not exist (--root, DATASET.FOLDER)")
    inner = skip_doubled(folder)  # images/images/train
    home = folder if _part(folder, "train") or (folder / TABLE).is_file() else inner
    file = home / os.path.expanduser(table or TABLE)
    own = _from_table(home, file, tested) if table or file.is_file() else _from_folders(home, tested)
    if not own.items["test"] and own.items["val"]:
        tell_once(f"ImageFolder: {home} has no test images, those in val/ are used")
        own.items["val"], own.items["test"] = [], own.items["val"]
    if tested and not own.items["test"]:
        raise UserError(
            f"{home} has nothing to test on: put some images of every class into test/<class>/ (or val/<class>/), or "
            "train without a test: TEST.NO_TEST True"
        )
    return own


# -- Labels that are the names of folders ------------------------------------------------------------------------------


def _from_folders(home: Path, tested: bool) -> OwnFolder:
    train = _part(home, "train")
    if train is None:
        raise UserError(
            f"{home} has no folder train/, only {few(sorted(map(printable, os.listdir(home)))) or 'nothing'}. If your "
            "images are in a folder in it, name that by DATASET.FOLDER; labels can also be in a file "
            f"{TABLE} (path,label,split)."
        )
    loose = _loose(train)
    classes = _classes(home, train, unlabelled=bool(loose))
    items: Items = {"train": [(path, UNLABELLED) for path in loose] or _labelled(train, classes)}
    for part in ("val", "test"):
        place = _part(home, part)
        items[part] = _to_test_on(part, place, classes, tested) if place else []
    _tell_what_is_left_out(home)
    return OwnFolder(home, [name for name, _ in classes], items, labelled=not loose, source="folders")


def _loose(place: Path) -> list[str]:
    """The images directly in a folder, which are in none of its class folders."""
    return [str(path) for path in sorted(place.iterdir()) if is_image(path.name)]


def _to_test_on(part: str, place: Path, classes: Classes, tested: bool) -> list[tuple[str, int]]:
    """(path, label) of the images in val/ or test/. Those of test/ may all be without labels."""
    loose = _loose(place)
    if _class_folders(place) or not loose:
        return _labelled(place, classes)
    if part == "test" and tested:
        tell_once(NO_ACCURACY.format(place=place))
        return [(path, UNLABELLED) for path in loose]
    tell_once(
        f"ImageFolder: the images in {place} have no labels; {fair_command()} predict RUN {place} classifies them"
    )
    return []


def _part(folder: Path, part: str) -> Path | None:
    """The folder of a part, by any of its usual names in any case."""
    found = [path for name in PART_FOLDERS[part] if (path := find_below(folder, name)) and path.is_dir()]
    if len(found) > 1:
        raise UserError(f"{folder} has {' and '.join(path.name for path in found)}: keep one of them")
    return found[0] if found else None


def _classes(home: Path, train: Path, unlabelled: bool) -> Classes:
    """The classes, from classes.txt or else from the folders in `train`."""
    file = home / CLASSES
    sorted_in = [path.name for path in _class_folders(train)]
    if unlabelled and sorted_in:
        raise UserError(
            f"{train} holds both images and folders with images ({few(list(map(printable, sorted_in)))}). "
            "Sort all images into class folders, or none."
        )
    if file.is_file():
        return listed_classes(file)
    if unlabelled:
        raise UserError(
            f"the images in {train} are in no class folders, so {file} must say what classes there are: one class name "
            "a line"
        )
    if not sorted_in:
        others = others_below(train)
        unread = f", only what Pillow cannot read: {in_words(others)}" if others else ""
        raise UserError(f"{train} holds no images{unread}")
    return named_classes(sorted_in, train)


def _class_folders(place: Path) -> list[Path]:
    """The folders in `place` with images in them, in natural order: 2 before 10, a before B."""
    return sorted((path for path in folders_in(place) if images_below(path)), key=lambda path: natural(path.name))


def _labelled(place: Path, classes: Classes) -> list[tuple[str, int]]:
    """(path, label) of the images in the class folders of `place`, by label and path."""
    folders = _class_folders(place)
    labels = _labels([path.name for path in folders], classes)
    empty = [printable(path.name) for path in folders_in(place) if path not in folders]
    if empty:
        tell_once(f"ImageFolder: {place} has folders without images: {few(empty)}")
    if strangers := [printable(path.name) for path in folders if path.name not in labels]:
        raise UserError(
            f"{place} has folders of no class: {few(strangers)}. The classes are {few([name for name, _ in classes])}"
            f"{_empty_ones(place, strangers)}. {CLASSES} beside {place.name}/ can list them all (one a line, the "
            "folder's name behind a tab)."
        )
    if twice := [label for label, count in Counter(labels.values()).items() if count > 1]:
        both = [printable(name) for name, label in labels.items() if label == twice[0]]
        raise UserError(f"{place} has two folders of the class '{classes[twice[0]][0]}': {' and '.join(both)}")
    found = [(path, labels[inner.name]) for inner in folders for path in images_below(inner).values()]
    return sorted(found, key=lambda item: (item[1], item[0]))


def _labels(names: list[str], classes: Classes) -> dict[str, int]:
    """Which class each name means: that of a folder or, failing that, that of a class."""
    labels = match_classes(names, [(folder, folder) for _, folder in classes], by_number=False)
    rest = [name for name in names if name not in labels]
    return labels | match_classes(rest, [(name, name) for name, _ in classes], by_number=False)


def _empty_ones(place: Path, strangers: list[str]) -> str:
    """Which of these folders are in train/, too, but empty: that is why they are no classes."""
    train = _part(place.parent, "train")
    inside = {printable(path.name) for path in folders_in(train)} if train and train != place else set()
    empty = [name for name in strangers if name in inside]
    return f" ({few(empty)} in {train} holds no images)" if empty else ""


def _tell_what_is_left_out(home: Path) -> None:
    """How many files of the parts are no images that can be read."""
    others: Counter[str] = Counter()
    for part in PART_FOLDERS:
        if place := _part(home, part):
            others += others_below(place)
    if others:
        tell_once(f"ImageFolder: files that are no images Pillow can read are left out: {in_words(others)}")


# -- Labels in a table -------------------------------------------------------------------------------------------------


def _from_table(home: Path, file: Path, tested: bool) -> OwnFolder:
    parts = labelled_parts(read_label_table(file, home))
    train = parts["train"] + parts[""]
    require(train, f"{file} has no training images")
    without = [path for path, label in train if not label]
    require(
        len(without) in (0, len(train)),
        f"{file}: {len(without)} of {len(train)} training images have no label: give all of them one, or none",
    )
    for part in ("val", "test"):
        unlabelled = [path for path, label in parts[part] if not label]
        require(
            not unlabelled or (part == "test" and len(unlabelled) == len(parts[part])),
            f"{file}: {part} images need labels, and {few(unlabelled)} have none",
        )
        if unlabelled:
            tell_once(NO_ACCURACY.format(place=f"{part} of {file}"))
    written = {label for rows in parts.values() for _, label in rows if label}
    listed = home / CLASSES
    if not listed.is_file() and not written:
        raise UserError(f"{file} has no labels, so {listed} must say what classes there are: one class name a line")
    classes = listed_classes(listed) if listed.is_file() else named_classes(sorted(written), file)
    labels = _labels(sorted(written), classes)
    strangers = sorted(written - labels.keys())
    require(not strangers, f"{file} has labels that {listed} does not list: {few(strangers)}")
    items: Items = {
        part: sorted((path, labels.get(label, UNLABELLED)) for path, label in parts[part]) for part in parts
    }
    free, names = items.pop(""), [name for name, _ in classes]
    if free and tested and not without and not items["test"] and not items["val"]:
        drawn = split_trainval("ImageFolder", free, names)
        free, items["test"] = drawn["train"], drawn["val"]
        tell_once(f"Note: {file} has no column split: of each class 20 % are drawn for the test, always the same")
    items["train"] = sorted(items["train"] + free)
    for part in items:
        items[part].sort(key=lambda item: (item[1], item[0]))
    return OwnFolder(home, names, items, labelled=not without, source=f"labels of {file.name}")
