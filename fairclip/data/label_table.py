"""Labels of a person's images in a table: labels.csv with the columns path, label and, if there is one, split."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairclip.core.errors import UserError, few, require
from fairclip.core.image_files import one_form
from fairclip.data.folders import PART_FOLDERS, find_below
from fairclip.data.splits import PARTS

COLUMNS = {
    "path": ("path", "image", "file", "filename", "filepath", "image_path", "image_id"),
    "label": ("label", "class", "class_name", "classname", "category", "target"),
    "split": ("split", "part", "set", "subset"),
}


@dataclass(frozen=True)
class Row:
    """An image of the table; `label` is "" where it has none, `part` where the table does not say it."""

    path: str
    label: str
    part: str


def read_label_table(file: Path, home: Path) -> list[Row]:
    """The rows of a table, in its order.

    Columns are known by their names in the first line, in any case and order; commas, semicolons or tabs part them. The
    part of an image is its `split` (train, val, test or the names that folders have), else the folder train/, val/ or
    test/ that it lies in.

    Args:
        file: the table.
        home: what its paths are relative to.

    Raises:
        UserError: no table, missing columns or images, an image that is there twice, an unknown split.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as text in UTF-8 ({error})") from None
    first = text.partition("\n")[0]
    sign = max(",;\t", key=first.count)
    try:
        lines = [
            line for line in csv.reader(io.StringIO(text, newline=""), delimiter=sign) if any(map(str.strip, line))
        ]
    except csv.Error as error:
        raise UserError(f"{file} is not a table: {error}") from None
    head = [name.strip().lower() for name in lines[0]] if lines else []
    place = {kind: next((head.index(name) for name in names if name in head), None) for kind, names in COLUMNS.items()}
    require(
        place["path"] is not None and place["label"] is not None,
        f"{file} needs the columns path and label, and may have split; its first line is: {first.strip()[:100]}",
    )
    rows, missing, seen = [], [], set()
    for number, line in enumerate(lines[1:], 2):
        cells = {kind: line[at].strip() if at is not None and at < len(line) else "" for kind, at in place.items()}
        name, label = cells["path"].replace("\\", "/"), one_form(cells["label"])
        require(name, f"{file}: row {number} names no image")
        path = _find(home, name)
        if path is None:
            missing.append(name)
            continue
        require(path not in seen, f"{file} has {name} twice")
        seen.add(path)
        rows.append(Row(path, label, _part(cells["split"] or name.split("/")[0], bool(cells["split"]), file, number)))
    require(
        not missing,
        f"{len(missing)} of the {len(lines) - 1} images that {file} names are not in {home}: {few(missing)}",
    )
    return rows


def _find(home: Path, name: str) -> str | None:
    """The path of an image that may be written in another Unicode form than on disk."""
    path = home / os.path.expanduser(name)
    if path.is_file():
        return str(path)
    found = find_below(home, name)
    return str(found) if found and found.is_file() else None


def _part(name: str, said: bool, file: Path, number: int) -> str:
    part = next((part for part, names in PART_FOLDERS.items() if name.lower() in names), "")
    require(part or not said, f"{file}: the split '{name}' of row {number} is none of {', '.join(PARTS)}")
    return part


def labelled_parts(rows: Sequence[Row]) -> dict[str, list[tuple[str, str]]]:
    """part -> (path, label as it is written); "" -> the rows of no part."""
    parts: dict[str, list[tuple[str, str]]] = {part: [] for part in (*PARTS, "")}
    for row in rows:
        parts[row.part].append((row.path, row.label))
    return parts
