"""The tables: methods against data sets, and one data set seed by seed."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from fairclip.compare import stats
from fairclip.compare.comparison import (
    INDUCTIVE,
    LABELLED,
    STREAM,
    TRANSDUCTIVE,
    Comparison,
    column_differences,
    load_comparison,
)
from fairclip.compare.grid import MARKS, Entry, Grid, column_name, mean_sd, show_gain, show_scores, value_range
from fairclip.compare.methods import Method
from fairclip.compare.runs import Cell, Column, choose_methods
from fairclip.compare.stats import Scores
from fairclip.core.errors import UserError

GROUPS = {
    INDUCTIVE: "Label-free, one test image at a time",
    TRANSDUCTIVE: "Transductive: sees all test images at once",
    STREAM: "Stream: test images as they come, one by one or in batches",
    LABELLED: "Trained with labels: references",
}
GROUP_NOTES = {
    TRANSDUCTIVE: "†: transductive, sees all test images at once; ranked by themselves.",
    STREAM: "§: stream, sees test images one by one or in batches; ranked by themselves.",
    LABELLED: "‡: trained with labels, a reference; not ranked.",
}
MISSING, MIXED = "missing", "not averaged"
STYLES = {1: "best", 2: "second"}  # by rank


# -- The comparison ----------------------------------------------------------------------------------------------------

COSTS = ("Parameters", "Seconds", "Views")


def comparison_grid(comparison: Comparison, subject: str = "fair") -> Grid:
    """Methods in rows; data sets, their average and costs in columns; below, what the subject is ahead of others."""
    columns, several = comparison.columns, len(comparison.columns) > 1
    places: list[Column | None] = [*columns, *([None] if several else [])]  # None: the average
    results = [
        {m: stats.average(comparison, m) if c is None else stats.scores(comparison, m, c) for m in comparison.methods}
        for c in places
    ]
    ranks = [stats.rank(comparison, found, c) for found, c in zip(results, places, strict=True)]

    def row(method: Method) -> list[Entry]:
        name = Entry(method.name + MARKS[comparison.group(method)])
        shown = zip(places, results, ranks, strict=True)
        entries = [score_entry(comparison, method, column, found[method], rank) for column, found, rank in shown]
        return [name, *entries, *costs(comparison, method)]

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
    title = "Test accuracy in %, last epoch" + (
        ", mean ± standard deviation over seeds" if comparison.several_seeds() else ""
    )
    return Grid(title, head, groups, foot, comparison_notes(comparison, bool(foot)))


def score_entry(
    comparison: Comparison, method: Method, column: Column | None, found: Scores | None, ranks: Mapping[Method, int]
) -> Entry:
    """A method's scores on a data set, or, where that is None, their average over all."""
    cell = None if column is None else comparison.cell(method, column)
    if found is not None:
        return Entry(show_scores(found, cell), STYLES.get(ranks.get(method, 0), ""), found.mean)
    return Entry("–" if cell is None else MIXED if cell.differences else MISSING)


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
    """What stands below the table: what was compared, how the figures are to be read, and what keeps them from it."""
    several = comparison.several_seeds()
    devices = sorted({str(run.results["device"]) for run in comparison.runs() if "device" in run.results})
    on = f" on {' '.join(devices)}" if devices else ""
    alike: dict[str, list[str]] = {}
    for column in comparison.columns:
        alike.setdefault(column_note(comparison, column), []).append(column.dataset)
    notes = [f"{', '.join(names)}: {note}" for note, names in alike.items()]
    notes.append(
        f"Seconds: training and test of a run{on}{', mean over seeds' if several else ''}. "
        "Views: per image and training step."
    )
    if gains:
        how = (
            f", paired by seed, from {stats.SEEDS} seeds on with a {stats.LEVEL * 100:g} % interval (Student's t)"
            if several
            else ""
        )
        notes.append(
            "Gain: over the best other label-free method that sees one test image at a time and has the same seeds"
            f"{how}."
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
    return notes + cell_notes(comparison) + cautions(comparison)


def column_note(comparison: Comparison, column: Column) -> str:
    backbones = ", ".join(comparison.backbones(column)) or "unknown"
    seeds = sorted({s for m in comparison.methods if not m.once for s in comparison.cell(m, column).runs})
    shown = f", seed{'s' * (len(seeds) > 1)} {' '.join(map(str, seeds))}" if seeds else ""
    return f"config {column.config} (CLIP {backbones}){shown}."


def cell_notes(comparison: Comparison) -> list[str]:
    """What is missing, and what must not be averaged."""
    notes, absent, partial = [], [], False
    for method in comparison.methods:
        for column in comparison.columns:
            cell, where = comparison.cell(method, column), f"{method.name} on {column.dataset}"
            if not cell.runs:
                absent.append(where)
            elif cell.missing:
                absent.append(f"{where}, seed{'s' * (len(cell.missing) > 1)} {' '.join(map(str, cell.missing))}")
                partial = True
            if cell.differences:
                notes.append(f"Not averaged: the runs of {where} differ in {cell.differences}.")
    if absent:
        notes.append(f"Missing: {'; '.join(absent)}.")
    if partial:
        notes.append("Where seeds are missing, a method is not ranked.")
    if len(comparison.columns) > 1:
        left_out = [m.name for m in comparison.methods if stats.average(comparison, m) is None]
        if left_out:
            notes.append(f"No average where a data set is missing or has other seeds: {', '.join(left_out)}.")
    return notes


def cautions(comparison: Comparison) -> list[str]:
    """What keeps the methods from being compared like for like."""
    notes = [
        f"Caution: {column.dataset}: the methods differ in {text}."
        for column in comparison.columns
        for text in column_differences(comparison, column)
    ]
    commits = {str(commit) for run in comparison.runs() if (commit := run.results.get("commit")) is not None}
    if len(commits) > 1:
        shown = ", ".join(sorted(commit[:7] + ("-dirty" if commit.endswith("-dirty") else "") for commit in commits))
        notes.append(f"Note: the runs are of different commits: {shown}.")
    return notes


# -- One data set, seed by seed ----------------------------------------------------------------------------------------


def seed_table(
    output: Path, column: Column, table: Sequence[Method], names: Sequence[str] = (), seeds: Sequence[int] = ()
) -> Grid:
    """One row for each method with finished runs.

    The gain is the mean accuracy less that of the best zero-shot row. Zero-shot results do not depend on the seed, so
    they fill no seed columns.

    Args:
        table: the methods that are known.
        names: those that are shown; none: all.

    Raises:
        UserError: if there is no finished run.
    """
    comparison = load_comparison(output, [column], choose_methods(output, [column], names, table), seeds)
    methods = [m for m in comparison.methods if comparison.cell(m, column).runs]
    if not methods:
        raise UserError(f"no finished run of config '{column.config}' in {output / column.dataset}")
    runs = {m: comparison.cell(m, column).runs for m in methods}
    seen = sorted({seed for m in methods if not m.once for seed in runs[m]})
    zero_shot = max((run.results["accuracy"] for m in methods if m.zero_shot for run in runs[m].values()), default=None)
    lines, notes = [], [note for group, note in GROUP_NOTES.items() if group in map(comparison.group, methods)]
    for m in methods:
        cell, name = comparison.cell(m, column), m.name + MARKS[comparison.group(m)]
        lines.append([name, *seed_row(m, cell, seen, zero_shot)])
        if cell.differences:
            notes.append(f"Not averaged: the runs of '{m.name}' differ in {cell.differences}.")
        if crops := cell.crop_accuracies:
            lines.append([f"{name}, crops in the test too", *accuracies(crops, seen, zero_shot), ""])
        if m.key == "cupl" and any(run.results.get("descriptions", "") is None for run in runs[m].values()):
            notes.append(f"Note: there are no class descriptions, so '{m.name}' goes by the names too.")
    notes += [f"Caution: the methods differ in {text}." for text in column_differences(comparison, column)]
    backbones = ", ".join(comparison.backbones(column))
    title = f"{column.dataset}, {column.config} (CLIP {backbones}), test accuracy in %, last epoch"
    head = ["Method", *(f"Seed {seed}" for seed in seen), "Accuracy", "Over zero-shot", "Macro-F1"]
    return Grid(title, head, [("", [[Entry(text) for text in line] for line in lines])], [], notes)


def seed_row(method: Method, cell: Cell, seeds: Sequence[int], zero_shot: float | None) -> list[str]:
    """Accuracy of each seed, their mean, its gain, and the mean macro-F1."""
    found = {seed: run.results["accuracy"] for seed, run in cell.runs.items()}
    if cell.differences:
        return [*by_seed({} if method.once else found, seeds), MIXED, "", ""]
    f1 = statistics.mean(run.results["macro_f1"] for run in cell.runs.values())
    row = accuracies(found, [] if method.once else seeds, None if method.zero_shot else zero_shot)
    return [*([""] * len(seeds) if method.once else []), *row, f"{f1:.2f}"]


def by_seed(found: Mapping[int, float], seeds: Sequence[int]) -> list[str]:
    return [f"{found[seed]:.2f}" if seed in found else "" for seed in seeds]


def accuracies(found: Mapping[int, float], seeds: Sequence[int], zero_shot: float | None) -> list[str]:
    """Those of each seed, their mean ± deviation, and what the mean is ahead of zero-shot."""
    gain = "" if zero_shot is None else f"{statistics.mean(found.values()) - zero_shot:+.2f}"
    return [*by_seed(found, seeds), mean_sd(list(found.values())), gain]
