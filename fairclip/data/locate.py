"""Which copy of a data set is below the data folder."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fairclip.core.errors import UserError, few
from fairclip.data.classes import class_list
from fairclip.data.copies import Copy, TreeCopy
from fairclip.data.facts import Facts
from fairclip.data.folders import folders_in, has_images, nested_folders, part_folders
from fairclip.data.messages import warn_once


class NotThere(UserError):
    """There is nothing of a data set, as opposed to something that cannot be used."""


def locate(dataset: type[Facts], root: Path) -> Copy:
    """The one copy of a data set below `root`.

    Raises:
        NotThere: there is none.
        UserError: there is more than one, or a useless one.
    """
    names = {name.lower() for name in (dataset.dataset_dir, *dataset.other_names)}
    homes = [folder for folder in folders_in(root) if folder.name.lower() in names]
    copies = _different([copy for home in homes for copy in _copies(dataset, home, names)])
    if len(copies) == 1:
        return copies[0]
    if copies:
        places = "\n".join(f"  {copy.layout}: {_folder_of_images(copy)}" for copy in copies)
        raise UserError(
            f"{dataset.__name__} is there {len(copies)} times, and it is for you to say which one counts:\n{places}\n"
            f"Move the others out of {root}."
        )
    vague = {name.lower() for name in dataset.vague_names}
    homes = [home for home in homes if home.name.lower() not in vague]
    if homes:
        raise UserError(_not_found(dataset, root, f"nothing that is known lies in {', '.join(map(str, homes))}"))
    if any(_copies(dataset, root, ())):
        advice = f"{root} itself looks like it: give its parent, and name it {dataset.dataset_dir}"
        raise UserError(_not_found(dataset, root, f"not in {root} ({advice})"))
    raise NotThere(_not_found(dataset, root, f"not in {root}"))


def _not_found(dataset: type[Facts], root: Path, reason: str) -> str:
    return f"{dataset.__name__} was not found: {reason}.\n{dataset.advice(root)}"


def _copies(dataset: type[Facts], home: Path, names: Iterable[str]) -> Iterator[Copy]:
    for folder in nested_folders(home, names):
        for copy in [*dataset.layouts(folder), *_tree_copies(dataset, folder)]:
            if any(has_images(place) for _, place in copy.images) and _is_it(dataset, home, copy, bool(names)):
                yield replace(copy, home=home, notes=(copy.home, *copy.notes))


def _is_it(dataset: type[Facts], home: Path, copy: Copy, named: bool) -> bool:
    """Whether a copy is the data set's: by the name of its home, or where that says little by what it holds."""
    clear = named and home.name.lower() not in dataset.vague_names
    return clear or isinstance(copy, TreeCopy) or dataset.looks_like(copy)


def _tree_copies(dataset: type[Facts], folder: Path) -> list[Copy]:
    """The train/<class>/ and test/<class>/ folders in `folder`, as at most one copy."""
    parts = part_folders(folder)
    if not parts:
        return []
    classes = class_list(dataset.dataset_dir)
    rows = [
        (part, place, label, dataset.tree_key(part, classes[label][1]))
        for part, place, label in dataset.tree_folders(parts)
    ]
    if not any(row[0] == "train" for row in rows):
        return []
    known = {folder for row in rows for folder in (row[1], *row[1].parents)}
    rest = [str(inner) for place in parts.values() for inner in folders_in(place) if inner not in known]
    if rest:
        warn_once(f"{dataset.__name__} has no class of the name of {few(rest)}: left out")
    layout = " and ".join(f"{place.name}/" for place in parts.values()) + " class folders"
    images = tuple((start, place) for _, place, _, start in rows)
    return [TreeCopy(layout, folder, images, folders=tuple(rows))]


def _folder_of_images(copy: Copy) -> str:
    return os.path.commonpath([folder for _, folder in copy.images])


def _different(copies: Sequence[Copy]) -> list[Copy]:
    """The copies whose files are not all in one before."""
    kept: dict[frozenset[str], Copy] = {}
    for copy in copies:
        kept.setdefault(frozenset(os.path.realpath(folder) for _, folder in copy.images), copy)
    if len(kept) < 2:
        return list(kept.values())
    different: list[tuple[Copy, set[str]]] = []  # folders of links to the images of another folder are not
    for copy in kept.values():
        files = {os.path.realpath(path) for path in copy.files.values()}
        if not any(files <= others for _, others in different):
            different.append((copy, files))
    return [copy for copy, _ in different]
