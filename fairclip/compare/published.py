"""Published numbers beside ours: published.yaml, cut down to the data sets and backbones of a comparison."""

import string
from pathlib import Path
from typing import Any

import yaml

from fairclip.compare.comparison import Comparison
from fairclip.compare.grid import Entry, Grid, column_name

FILE = Path(__file__).with_name("published.yaml")


def read_published(path: Path = FILE) -> list[dict[str, Any]]:
    """The sources, each with ``source``, ``protocol``, ``backbone`` (None: not stated), and ``accuracy`` by method and
    data set, some with ``averages`` in words, or ``by_protocol``."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def select(comparison: Comparison, sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record for each number that belongs to a data set of the comparison and, where stated, to its backbone."""
    records = []
    for column in comparison.columns:
        ours = comparison.backbones(column)
        for source in sources:
            if source["backbone"] is None or source["backbone"] in ours:
                records += [
                    {
                        "method": method,
                        "dataset": column.dataset,
                        "config": column.config,
                        "mean": values[column.dataset],
                        "source": source["source"],
                        "protocol": source["protocol"],
                    }
                    for method, values in source.get("accuracy", {}).items()
                    if column.dataset in values
                ]
    return records


def published_grid(comparison: Comparison, sources: list[dict[str, Any]]) -> Grid:
    """Methods of each source in rows, our data sets in columns; the notes say what the letters stand for."""
    records = select(comparison, sources)
    groups, notes = [], []
    for letter, source in zip(string.ascii_lowercase, sources, strict=False):
        own = [r for r in records if r["source"] == source["source"]]
        if not own:
            continue
        rows = []
        for method in source.get("accuracy", {}):
            values = {(r["dataset"], r["config"]): r["mean"] for r in own if r["method"] == method}
            if values:
                rows.append(
                    [
                        Entry(f"{method} [{letter}]"),
                        *(published_entry(values.get((c.dataset, c.config))) for c in comparison.columns),
                    ]
                )
        groups.append((f"[{letter}] {source['source']}", rows))
        notes.append(
            f"[{letter}] {source['source']}. Protocol: {source['protocol']}. "
            f"Backbone: {source['backbone'] or 'not stated'}."
            + (f" Averages {source['averages']}." if "averages" in source else "")
        )
    if any(str(r["mean"]).endswith("*") for r in records):
        notes.append("*: mean of the classes' accuracies, as far as we can tell.")
    if not groups:
        notes.append("None of the numbers we know is for these data sets with this backbone.")
    title = "Published by others, under their own protocols: not comparable like for like"
    return Grid(title, ["Method", *(column_name(c, comparison.columns) for c in comparison.columns)], groups, [], notes)


def published_entry(value: float | str | None) -> Entry:
    """A number, "87.58*", or nothing."""
    if value is None:
        return Entry("")
    return Entry(value, sort=float(value.rstrip("*"))) if isinstance(value, str) else Entry(f"{value:.2f}", sort=value)
