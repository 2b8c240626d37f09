"""CSV files, which people open in spreadsheets: a cell that begins like a formula must not be run as one."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fairclip.core.image_files import printable
from fairclip.core.reading import read_text, reading

LARGEST = 2**31  # bytes: millions of images
FORMULA = re.compile(r"'*\s*[=+\-@\t\r\n＝＋－＠]")  # how a spreadsheet's formula begins, in either width
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")


def as_csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV with lines that end in a newline. Cells that begin like formulas get a ' before them."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(map(harmless, head))
    table.writerows(map(harmless, row) for row in rows)
    return text.getvalue()


def harmless(cell: object) -> object:
    """The cell, which can be written and which no spreadsheet takes for a formula. ``original`` is the way back."""
    if not isinstance(cell, str):
        return cell
    cell = printable(cell)
    if NUMBER.fullmatch(cell) or not FORMULA.match(cell):
        return cell
    return f"'{cell}"


def original(cell: str) -> str:
    """What ``harmless`` was given."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def read_csv(
    path: str | Path, columns: Sequence[str], what: str, advice: str = "", optional: Sequence[str] = ()
) -> list[tuple[str, ...]]:
    """These columns of a table that ``as_csv`` made; the ``optional`` follow, empty where it does not have them.

    Raises:
        UserError: it lacks a column, a line is longer or shorter than the head, or it is no CSV at all.
    """
    text = read_text(path, what, advice, LARGEST)
    with reading(path, what, advice):
        table = csv.reader(io.StringIO(text, newline=""), strict=True)
        head = next(table, [])
        if lacking := [name for name in columns if name not in head]:
            raise ValueError(f"it has no column {', '.join(lacking)}")
        places = [head.index(name) if name in head else None for name in (*columns, *optional)]
        rows = []
        for row in table:
            if len(row) != len(head):
                raise ValueError(f"line {table.line_num} has {len(row)} cells, and the head has {len(head)}")
            rows.append(tuple("" if place is None else original(row[place]) for place in places))
        return rows
