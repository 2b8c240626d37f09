"""Comparisons as tables: a grid of entries, and its text, Markdown, LaTeX and CSV forms."""

import csv
import io
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from fairclip.compare import stats
from fairclip.compare.runs import (
    INDUCTIVE,
    LABELLED,
    TRANSDUCTIVE,
    Cell,
    Column,
    Comparison,
    Method,
    choose_methods,
    column_differences,
    load_comparison,
)
from fairclip.compare.stats import Scores
from fairclip.core.errors import UserError

MARKS = {INDUCTIVE: "", TRANSDUCTIVE: " †", LABELLED: " ‡"}
GROUPS = {
    INDUCTIVE: "Label-free, one test image at a time",
    TRANSDUCTIVE: "Transductive: sees all test images at once",
    LABELLED: "Trained with labels: references",
}
GROUP_NOTES = {
    TRANSDUCTIVE: "†: transductive, sees all test images at once; not ranked.",
    LABELLED: "‡: trained with labels, a reference; not ranked.",
}
MISSING, MIXED = "missing", "not averaged"


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


def show_gain(gain: stats.Gain | None) -> Entry:
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


# -- The comparison ----------------------------------------------------------------------------------------------------

COSTS = ("Parameters", "Seconds", "Views")


def comparison_grid(comparison: Comparison, subject: str = "fair") -> Grid:
    """Methods in rows; data sets, their average and costs in columns; below, what the subject is ahead of others."""
    columns, several = comparison.columns, len(comparison.columns) > 1
    results: list[dict[Method, Scores | None]] = [
        {m: stats.scores(comparison, m, column) for m in comparison.methods} for column in columns
    ]
    if several:
        results.append({m: stats.average(comparison, m) for m in comparison.methods})
    ranks = [stats.rank(comparison, found) for found in results]

    def row(method: Method) -> list[Entry]:
        entries = [Entry(method.name + MARKS[comparison.group(method)])]
        for i, found in enumerate(results):
            cell = comparison.cell(method, columns[i]) if i < len(columns) else None
            if found[method] is not None:
                style = {1: "best", 2: "second"}.get(ranks[i].get(method), "")
                entries.append(Entry(show_scores(found[method], cell), style, found[method].mean))
            else:
                entries.append(Entry("–" if cell is None else MIXED if cell.differences else MISSING))
        return entries + costs(comparison, method)

    groups = []
    for group, title in GROUPS.items():
        members = [m for m in comparison.methods if comparison.group(m) == group]
        if members:
            groups.append((title, [row(m) for m in members]))
    foot = []
    ahead = next((m for m in comparison.methods if m.key == subject), None)
    if ahead is not None:
        gains = [show_gain(stats.gain(comparison, ahead, found)) for found in results]
        if any(gain.sort is not None for gain in gains):
            foot.append([Entry(f"Gain of {ahead.name}"), *gains, *(Entry("") for _ in COSTS)])
    head = ["Method", *(column_name(c, columns) for c in columns), *(["Average"] if several else []), *COSTS]
    return Grid(
        "Test accuracy in %, last epoch, mean ± standard deviation over seeds",
        head,
        groups,
        foot,
        comparison_notes(comparison, bool(foot)),
    )


def costs(comparison: Comparison, method: Method) -> list[Entry]:
    runs = [run.results for column in comparison.columns for run in comparison.cell(method, column).runs.values()]
    return [
        value_range([r["trainable_parameters"] for r in runs if "trainable_parameters" in r]),
        seconds(comparison, method),
        value_range([r["views_per_image"] for r in runs if "views_per_image" in r]),
    ]


def seconds(comparison: Comparison, method: Method) -> Entry:
    """The mean of each data set, from the least to the greatest."""
    means = []
    for column in comparison.columns:
        found = [
            run.results["seconds"] for run in comparison.cell(method, column).runs.values() if "seconds" in run.results
        ]
        if found:
            means.append(statistics.mean(found))
    return value_range(means)


def comparison_notes(comparison: Comparison, gains: bool) -> list[str]:
    notes = []
    for column in comparison.columns:
        backbones = comparison.backbones(column)
        seeds = sorted({s for m in comparison.methods if not m.once for s in comparison.cell(m, column).runs})
        notes.append(
            f"{column.dataset}: config {column.config} (CLIP {', '.join(backbones) or 'unknown'})"
            + (f", seed{'s' * (len(seeds) > 1)} {' '.join(map(str, seeds))}" if seeds else "")
            + "."
        )
    devices = sorted(
        {
            str(run.results["device"])
            for m in comparison.methods
            for c in comparison.columns
            for run in comparison.cell(m, c).runs.values()
            if "device" in run.results
        }
    )
    notes.append(
        f"Seconds: training and test of a run{f' on {chr(32).join(devices)}' if devices else ''}, mean over "
        "seeds. Views: per image and training step."
    )
    if gains:
        notes.append(
            "Gain: over the best other label-free method that sees one test image at a time, paired by seed, "
            "with a 95 % interval (Student's t)."
        )
    groups = {comparison.group(m) for m in comparison.methods}
    notes += [note for group, note in GROUP_NOTES.items() if group in groups]
    with_crops = [
        f"{method.name} on {column.dataset} {mean_sd(list(found.values()))}"
        for (method, column), cell in comparison.cells.items()
        if (found := cell.crop_accuracies)
    ]
    if with_crops:
        notes.append(f"With crops in the test too, not ranked: {'; '.join(with_crops)}.")
    notes += cell_notes(comparison)
    for column in comparison.columns:
        notes += [
            f"Caution: {column.dataset}: the methods differ in {text}."
            for text in column_differences(comparison, column)
        ]
    commits = {
        run.results.get("commit")
        for m in comparison.methods
        for c in comparison.columns
        for run in comparison.cell(m, c).runs.values()
    } - {None}
    if len(commits) > 1:
        shown = ", ".join(sorted(commit[:7] + ("-dirty" if commit.endswith("-dirty") else "") for commit in commits))
        notes.append(f"Note: the runs are of different commits: {shown}.")
    return notes


def cell_notes(comparison: Comparison) -> list[str]:
    """What is missing, and what must not be averaged."""
    notes, absent = [], []
    for method in comparison.methods:
        for column in comparison.columns:
            cell, where = comparison.cell(method, column), f"{method.name} on {column.dataset}"
            if not cell.runs:
                absent.append(where)
            elif cell.missing:
                absent.append(f"{where}, seed{'s' * (len(cell.missing) > 1)} {' '.join(map(str, cell.missing))}")
            if cell.differences:
                notes.append(f"Not averaged: the runs of {where} differ in {cell.differences}.")
    if absent:
        notes.append(f"Missing: {'; '.join(absent)}.")
    if len(comparison.columns) > 1:
        left_out = [m.name for m in comparison.methods if stats.average(comparison, m) is None]
        if left_out:
            notes.append(f"No average where a data set is missing or has other seeds: {', '.join(left_out)}.")
    return notes


# -- One data set, seed by seed ----------------------------------------------------------------------------------------


def seed_table(output: Path, column: Column, names: Sequence[str] = (), seeds: Sequence[int] = ()) -> Grid:
    """One row for each method with finished runs.

    The gain is the mean accuracy less that of the best zero-shot row. Zero-shot results do not depend on the seed, so
    they fill no seed columns.

    Raises:
        UserError: if there is no finished run.
    """
    comparison = load_comparison(output, [column], choose_methods(output, [column], names), seeds)
    methods = [m for m in comparison.methods if comparison.cell(m, column).runs]
    if not methods:
        raise UserError(f"no finished run of config '{column.config}' in {output / column.dataset}")
    runs = {m: comparison.cell(m, column).runs for m in methods}
    seen = sorted({seed for m in methods if not m.once for seed in runs[m]})
    zero_shot = [run.results["accuracy"] for m in methods if m.zero_shot for run in runs[m].values()]

    lines, notes = [], [GROUP_NOTES[g] for g in GROUP_NOTES if g in map(comparison.group, methods)]
    for m in methods:
        found = stats.scores(comparison, m, column)
        accuracy = {seed: run.results["accuracy"] for seed, run in runs[m].items()}
        by_seed = ["" if m.once or seed not in accuracy else f"{accuracy[seed]:.2f}" for seed in seen]
        if found is None:
            shown, gain, f1 = MIXED, "", ""
            notes.append(f"Not averaged: the runs of '{m.name}' differ in {comparison.cell(m, column).differences}.")
        else:
            shown = show_scores(found)
            gain = "" if m.zero_shot or not zero_shot else f"{found.mean - max(zero_shot):+.2f}"
            f1 = f"{statistics.mean(run.results['macro_f1'] for run in runs[m].values()):.2f}"
        name = m.name + MARKS[comparison.group(m)]
        lines.append([Entry(text) for text in (name, *by_seed, shown, gain, f1)])
        if crops := comparison.cell(m, column).crop_accuracies:
            by_seed = [f"{crops[seed]:.2f}" if seed in crops else "" for seed in seen]
            gain = f"{statistics.mean(crops.values()) - max(zero_shot):+.2f}" if zero_shot else ""
            shown = mean_sd(list(crops.values()))
            lines.append([Entry(text) for text in (f"{name}, crops in the test too", *by_seed, shown, gain, "")])
        if m.key == "cupl" and any(run.results.get("descriptions", "") is None for run in runs[m].values()):
            notes.append(f"Note: there are no class descriptions, so '{m.name}' goes by the names too.")
    notes += [f"Caution: the methods differ in {text}." for text in column_differences(comparison, column)]
    title = (
        f"{column.dataset}, {column.config} (CLIP {', '.join(comparison.backbones(column))}), test accuracy in %, "
        "last epoch"
    )
    head = ["Method", *(f"Seed {seed}" for seed in seen), "Accuracy", "Gain", "Macro-F1"]
    return Grid(title, head, [("", lines)], [], notes)


# -- Forms -------------------------------------------------------------------------------------------------------------


def as_text(grid: Grid) -> str:
    """Columns aligned by spaces, as Markdown has them."""
    align = ["left"] + ["right"] * (len(grid.head) - 1)
    rows = [[entry.text for entry in row] for row in grid.rows]
    table = tabulate(rows, grid.head, tablefmt="github", colalign=align, disable_numparse=True) if rows else ""
    return "\n".join([grid.title, "", *([table] if rows else []), *grid.notes])


def as_markdown(grid: Grid) -> str:
    def mark(entry: Entry) -> str:
        text = entry.text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
        return {"best": f"**{text}**", "second": f"<u>{text}</u>"}.get(entry.style, text)

    align = ["left"] + ["right"] * (len(grid.head) - 1)
    rows = [[mark(entry) for entry in row] for row in grid.rows]
    head = [mark(Entry(text)) for text in grid.head]
    table = tabulate(rows, head, tablefmt="github", colalign=align, disable_numparse=True) if rows else ""
    notes = [f"- {mark(Entry(note))}" for note in grid.notes]
    return "\n".join([mark(Entry(grid.title)), "", *([table, ""] if rows else []), *notes]).rstrip("\n")


LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
}


def as_latex(grid: Grid) -> str:
    """A booktabs table; title and notes follow as a paragraph."""

    def escape(text: str) -> str:
        escaped = "".join(LATEX.get(character, character) for character in text)
        return re.sub(r"(?<!\w)-(?=\d)", "$-$", escaped)

    def mark(entry: Entry) -> str:
        text = escape(entry.text)
        return {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}"}.get(entry.style, text)

    def line(row: Sequence[Entry]) -> str:
        return "  " + " & ".join(mark(entry) for entry in row) + r" \\"

    blocks = [[line(row) for row in rows] for _, rows in grid.groups] + (
        [[line(row) for row in grid.foot]] if grid.foot else []
    )
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{tabular}{l" + "r" * (len(grid.head) - 1) + "}",
        r"  \toprule",
        line([Entry(text) for text in grid.head]),
    ]
    for block in blocks:
        lines += [r"  \midrule", *block]
    lines += [r"  \bottomrule", r"\end{tabular}", "", r"\par\smallskip\noindent " + escape(grid.title) + "."]
    return "\n".join([*lines, *(escape(note) for note in grid.notes)])


def as_csv(comparison: Comparison, published: Sequence[Mapping[str, Any]] = (), subject: str = "fair") -> str:
    """One line for each method and data set (and average), in full precision."""
    kinds = {INDUCTIVE: "inductive", TRANSDUCTIVE: "transductive", LABELLED: "labels"}
    stream = io.StringIO()
    fields = [
        "method",
        "trainer",
        "kind",
        "dataset",
        "config",
        "status",
        "seeds",
        "mean",
        "sd",
        "rank",
        "trainable_parameters",
        "seconds",
        "views_per_image",
        "gain_over",
        "gain",
        "gain_low",
        "gain_high",
        "source",
        "protocol",
    ]
    table = csv.DictWriter(stream, fields, restval="", lineterminator="\n")
    table.writeheader()
    for column in [*comparison.columns, *([None] if len(comparison.columns) > 1 else [])]:
        found = {
            m: stats.average(comparison, m) if column is None else stats.scores(comparison, m, column)
            for m in comparison.methods
        }
        ranks = stats.rank(comparison, found)
        for m in comparison.methods:
            line = {
                "method": m.name,
                "trainer": m.trainer,
                "kind": kinds[comparison.group(m)],
                "dataset": "average" if column is None else column.dataset,
                "config": "" if column is None else column.config,
                "status": "missing",
            }
            cell = None if column is None else comparison.cell(m, column)
            if cell is not None and cell.runs:
                results = [run.results for run in cell.runs.values()]
                line["status"] = "mixed" if cell.differences else "partial" if cell.missing else "complete"
                for name in ("trainable_parameters", "seconds", "views_per_image"):
                    values = [r[name] for r in results if name in r]
                    line[name] = statistics.mean(values) if values else ""
            if (scores := found[m]) is not None:
                line["status"] = "complete" if cell is None else line["status"]
                line |= {
                    "seeds": "" if m.once and cell is None else " ".join(map(str, scores.by_seed)),
                    "mean": scores.mean,
                    "sd": "" if scores.sd is None else scores.sd,
                    "rank": ranks.get(m, ""),
                }
            if m.key == subject and (gain := stats.gain(comparison, m, found)) is not None:
                line |= {"gain_over": gain.other.name, "gain": gain.mean}
                if gain.half is not None:
                    line |= {"gain_low": gain.mean - gain.half, "gain_high": gain.mean + gain.half}
            table.writerow(line)
    for entry in published:
        table.writerow({"kind": "published", **entry})
    return stream.getvalue().rstrip("\n")
