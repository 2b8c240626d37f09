"""Looking at what is on disk: image files, doubled folders, train/test trees.

Everything is sorted, dot files and the folders that systems make are ignored, and names of folders are compared
without regard to case and Unicode form.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from fairclip.core.image_files import is_hidden, is_image, one_form, walk

PART_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


def has_images(folder: Path) -> bool:
    """Is an image at any depth in this folder?"""
    return any(is_image(name) for _, files in walk(folder) for name in files)


def holds_images(folder: Path) -> bool:
    """Is an image directly in this folder?"""
    return folder.is_dir() and any(is_image(name) for name in os.listdir(folder))


def folders_in(folder: Path) -> list[Path]:
    """The folders directly in `folder`, sorted by name; none if it is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name) and path.is_dir())


def find_below(folder: Path, *names: str) -> Path | None:
    """The first of these files or folders that is there, in any case; a name may be a path such as "devkit/a.mat"."""
    for name in names:
        place: Path | None = folder
        for step in Path(name).parts:
            place = place and _child(place, step)
        if place:
            return place
    return None


def _child(folder: Path, name: str) -> Path | None:
    if (folder / name).exists():
        return folder / name
    if not folder.is_dir():
        return None
    wanted = one_form(name).lower()
    return next((path for path in sorted(folder.iterdir()) if one_form(path.name).lower() == wanted), None)


def find_folder(folder: Path, *names: str) -> Path | None:
    """The first of these sub-folders that is there, in any case, seen through: `x/x/` for "x" where that is doubled."""
    for name in names:
        found = find_below(folder, name)
        if found and found.is_dir():
            return skip_doubled(found)
    return None


def skip_doubled(folder: Path) -> Path:
    """The inner folder where people have `x/x/` for `x/`, else `folder` itself."""
    inner = find_below(folder, folder.name)
    if inner and inner.is_dir() and not holds_images(folder):
        return skip_doubled(inner)
    return folder


def nested_folders(folder: Path, names: Iterable[str], depth: int = 3) -> Iterator[Path]:
    """`folder`, and the folders in it that are called one of `names` in any case, down to `depth`.

    This sees through archives that were unpacked into a folder of the same or another known name, such as
    dtd/dtd/ or cub200/CUB_200_2011/CUB_200_2011/.
    """
    yield folder
    known = {name.lower() for name in (*names, folder.name, "archive")}  # Kaggle calls its downloads archive.zip
    if depth:
        for inner in folders_in(folder):
            if inner.name.lower() in known:
                yield from nested_folders(inner, known, depth - 1)


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
