"""Looking at what is on disk: image files, doubled folders, train/test trees, class folders, annotation files.

Everything is sorted, dot files are ignored, and names of folders are compared without regard to case.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fairclip.core.errors import UserError
from fairclip.core.image_files import images_below, is_image

PART_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


# -- A copy of a data set ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Copy:
    """One copy of a data set, as somebody has it on disk.

    Args:
        layout: what this arrangement is called, for the line that reports it.
        home: the folder that holds it: split files are kept there.
        images: (start of a key, folder whose images have keys that start so) pairs: ("", folder) if all are below one.
        notes: folders that may hold annotation files, besides `home`.
        coop_keys: whether CoOp's split file can name these images; False saves a useless download.
    """

    layout: str
    home: Path
    images: tuple[tuple[str, Path], ...]
    notes: tuple[Path, ...] = ()
    coop_keys: bool = True

    @cached_property
    def files(self) -> dict[str, str]:
        """The path of every image on disk, by key, sorted by key."""
        found = {start + name: path for start, folder in self.images for name, path in images_below(folder).items()}
        return dict(sorted(found.items()))

    @cached_property
    def _any_case(self) -> dict[str, str]:
        return {key.lower(): path for key, path in self.files.items()}

    def find(self, key: str) -> str | None:
        """The path of the image with this key, in other case if need be; None if it is not there."""
        return self.files.get(key) or self._any_case.get(key.lower())

    def expected(self, key: str) -> str:
        """Where the image with this key belongs."""
        for start, folder in self.images:
            if key.startswith(start):
                return str(folder / key[len(start) :])
        return str(self.home / key)

    def note(self, *names: str) -> Path:
        """The annotation file of this name (or one of these). Raises UserError if it is missing."""
        places = list(dict.fromkeys((self.home, *self.notes)))
        for place in places:
            for name in names:
                if (path := find_below(place, name)) and path.is_file():
                    return path
        raise UserError(f"{' or '.join(names)} is missing (looked in {', '.join(map(str, places))})")


@dataclass(frozen=True)
class TreeCopy(Copy):
    """A copy that is sorted into `train/<class>/` and `test/<class>/` folders.

    Args:
        folders: (part, class folder, label, start of the keys of its images), in order.

    Keys that two images share (files numbered anew in every folder) give way to the paths below `home`.
    """

    folders: tuple[tuple[str, Path, int, str], ...] = ()

    @cached_property
    def items(self) -> dict[str, list[tuple[str, int]]]:
        """part -> (key, label), by label and key."""
        return self._read[0]

    @cached_property
    def files(self) -> dict[str, str]:
        return self._read[1]

    @cached_property
    def labels(self) -> dict[str, int]:
        """The label of every key."""
        return {key: label for part in self.items.values() for key, label in part}

    @cached_property
    def _read(self) -> tuple[dict[str, list[tuple[str, int]]], dict[str, str]]:
        rows = [
            (part, label, start + name, path)
            for part, folder, label, start in self.folders
            for name, path in images_below(folder).items()
        ]
        if len({key.lower() for _, _, key, _ in rows}) < len(rows):
            rows = [
                (part, label, Path(os.path.relpath(path, self.home)).as_posix(), path) for part, label, _, path in rows
            ]
        items: dict[str, list[tuple[str, int]]] = {}
        for part, label, key, _ in rows:
            items.setdefault(part, []).append((key, label))
        files = {key: path for _, _, key, path in sorted(rows, key=lambda row: row[2])}
        return {part: sorted(rows, key=lambda row: (row[1], row[0])) for part, rows in items.items()}, files


# -- Folders and files -------------------------------------------------------------------------------------------------


def has_images(folder: Path) -> bool:
    """Is an image at any depth in this folder?"""
    return any(is_image(name) for _, _, files in os.walk(folder, followlinks=True) for name in files)


def holds_images(folder: Path) -> bool:
    """Is an image directly in this folder?"""
    return folder.is_dir() and any(is_image(name) for name in os.listdir(folder))


def folders_in(folder: Path) -> list[Path]:
    """The folders directly in `folder`, sorted by name; none if it is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())


def find_below(folder: Path, *names: str) -> Path | None:
    """The first of these files or folders that is there, in any case; a name may be a path such as "devkit/a.mat"."""
    for name in names:
        place: Path | None = folder
        for step in Path(name).parts:
            place = _child(place, step)
            if place is None:
                break
        else:
            return place
    return None


def _child(folder: Path, name: str) -> Path | None:
    if (folder / name).exists():
        return folder / name
    if not folder.is_dir():
        return None
    return next((path for path in sorted(folder.iterdir()) if path.name.lower() == name.lower()), None)


def find_folder(folder: Path, *names: str) -> Path | None:
    """The first of these sub-folders that is there, in any case, seen through: `x/x/` for "x" where that is doubled."""
    for name in names:
        found = find_below(folder, name)
        if found and found.is_dir():
            return see_through(found)
    return None


def see_through(folder: Path) -> Path:
    """The inner folder where people have `x/x/` for `x/`, else `folder` itself."""
    inner = find_below(folder, folder.name)
    if inner and inner.is_dir() and not holds_images(folder):
        return see_through(inner)
    return folder


def wrapped(folder: Path, names: Iterable[str], depth: int = 3) -> Iterator[Path]:
    """`folder`, and the folders in it that are called one of `names` in any case, down to `depth`.

    This sees through archives that were unpacked into a folder of the same or another known name, such as
    dtd/dtd/ or cub200/CUB_200_2011/CUB_200_2011/.
    """
    yield folder
    known = {name.lower() for name in (*names, folder.name, "archive")}  # Kaggle calls its downloads archive.zip
    if depth:
        for inner in folders_in(folder):
            if inner.name.lower() in known:
                yield from wrapped(inner, known, depth - 1)


def part_folders(folder: Path) -> dict[str, Path]:
    """The train, val and test folders in `folder` that hold class folders; {} unless train and one more are there.

    Without a test folder, what is called val is what people test on.
    """
    found = {}
    for part, names in PART_FOLDERS.items():
        place = find_folder(folder, *names)
        if place and folders_in(place):
            found[part] = place
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    return found if {"train", "test"} <= found.keys() else {}


# -- Names -------------------------------------------------------------------------------------------------------------


def squash(name: str) -> str:
    """A name without case and punctuation: "Ram C/V Cargo Van" and "Ram_C-V_Cargo_Van" are alike."""
    return re.sub(r"[\W_]", "", name.lower())


def match_names(found: Iterable[str], classes: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Which class each found name (of a folder, in an annotation file) means.

    Args:
        found: the names.
        classes: (class name, source name) in label order, as `class_list` gives them.

    Returns:
        name -> label, for the names that match: exactly, else without case and punctuation, else also without a number
        in front ("001.Black_footed_Albatross", "000_AM_General_Hummer_SUV_2000").
    """
    exact: dict[str, int] = {}
    loose: dict[str, set[int]] = {}
    for label, names in enumerate(classes):
        for name in names:
            exact.setdefault(name, label)
            loose.setdefault(squash(name), set()).add(label)
    matched = {}
    for name in found:
        bare = re.sub(r"^\d{1,3}[._]", "", name)
        if name in exact:
            matched[name] = exact[name]
        else:
            for key in (squash(name), squash(bare)):
                if len(loose.get(key, ())) == 1:
                    (matched[name],) = loose[key]
                    break
    return matched


def class_folders(folder: Path, classes: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Folder name -> label of the class folders in `folder`; {} unless most of its folders are classes."""
    names = [inner.name for inner in folders_in(folder)]
    matched = match_names(names, classes)
    return matched if len(matched) > len(names) / 2 else {}


# -- Annotation files --------------------------------------------------------------------------------------------------


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without the spaces at their ends."""
    try:
        return [line.rstrip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({error})") from None


def read_mat(path: Path, variable: str) -> Any:
    """A variable in a MATLAB file, as an array of one dimension: cells of text as strings, structs as records.

    Raises:
        UserError: it is not a MATLAB file, or has no such variable.
    """
    import numpy as np
    from scipy.io import loadmat  # imported here: few data sets need it

    try:
        content = loadmat(str(path), squeeze_me=True)
    except Exception as error:  # scipy raises its own kinds, and plain ones from wherever a damaged file leads it
        raise UserError(f"{path} cannot be read as a MATLAB file ({error})") from None
    if variable not in content:
        raise UserError(f"{path} has no variable {variable}")
    return np.atleast_1d(content[variable])


def rows(path: Path, variable: str, *fields: str) -> list[tuple[Any, ...]]:
    """The named fields of every element of a struct array in a MATLAB file, in file order.

    Fields are read by name, because their order differs between releases. Raises UserError for what is missing.
    """
    table = read_mat(path, variable)
    have = table.dtype.names or ()
    if absent := [name for name in fields if name not in have]:
        raise UserError(f"{path}: {variable} has no field {', '.join(absent)}, but {', '.join(have) or 'none'}")
    return [tuple(row[name] for name in fields) for row in table]


def nth(names: Sequence[Any], number: Any, path: Path) -> str:
    """The name with this number, counted from 1 as MATLAB does. `path` is the file to blame in the UserError."""
    if not 1 <= int(number) <= len(names):
        raise UserError(f"{path} has class number {number}; there are classes 1 to {len(names)}")
    return str(names[int(number) - 1])
