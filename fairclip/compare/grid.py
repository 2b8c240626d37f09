"""A table's content: a grid of entries, and how its figures are written."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from fairclip.compare.comparison import INDUCTIVE, LABELLED, STREAM, TRANSDUCTIVE
from fairclip.compare.runs import Cell, Column
from fairclip.compare.stats import Gain, Scores

MARKS = {INDUCTIVE: "", TRANSDUCTIVE: " †", STREAM: " §", LABELLED: " ‡"}


@dataclass(frozen=True)
class Entry:
    """The content of a table's cell."""

    text: str
    style: str = ""  # best | second
    sort: float | None = None  # the number behind the text


@dataclass
class Grid:
    """A table whose first column names the rows."""

    title: str
    head: list[str]
    groups: list[tuple[str, list[list[Entry]]]]  # heading and rows
    foot: list[list[Entry]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[list[Entry]]:
        return [row for _, rows in self.groups for row in rows] + self.foot


def mean_sd(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation; the mean alone for a single value."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def show_scores(found: Scores, cell: Cell | None = None) -> str:
    text = mean_sd(list(found.by_seed.values()))
    if cell is not None and cell.missing:
        text += f" ({len(cell.runs)} of {len(cell.runs) + len(cell.missing)} seeds)"
    return text


def show_gain(gain: Gain | None) -> Entry:
    if gain is None:
        return Entry("–")
    text = f"{gain.mean:+.2f}"
    if gain.half is not None:
        text += f" [{gain.mean - gain.half:+.2f}, {gain.mean + gain.half:+.2f}]"
    return Entry(f"{text} over {gain.other.name}", sort=gain.mean)


def value_range(values: Sequence[float]) -> Entry:
    """A whole number, or from the least to the greatest."""
    if not values:
        return Entry("")
    low, high = min(values), max(values)
    text = f"{low:,.0f}" if f"{low:,.0f}" == f"{high:,.0f}" else f"{low:,.0f}–{high:,.0f}"
    return Entry(text, sort=statistics.mean(values))


def column_name(column: Column, columns: Sequence[Column]) -> str:
    """The data set, and its config where the table has several configs of it."""
    same = [c for c in columns if c.dataset == column.dataset]
    return column.dataset if len(same) == 1 else f"{column.dataset}, {column.config}"
