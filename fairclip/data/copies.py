"""One copy of a data set, as somebody has it on disk: which file has which key."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fairclip.core.errors import UserError
from fairclip.core.image_files import images_below
from fairclip.data.folders import find_below


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
