"""The tables over protocols: how methods do on batches with few classes and on streams, beside the usual test.

Transductive and stream methods were tested so in their runs (TEST.PROTOCOLS). A method that sees one test image at a
time says the same of an image whatever comes with it: its accuracies follow from predictions.csv. Each protocol is a
column of its own, ranked by itself; none is averaged with another.
"""

from collections.abc import Mapping
from typing import Any

from fairclip.compare import stats
from fairclip.compare.comparison import Comparison
from fairclip.compare.forms import KINDS
from fairclip.compare.grid import MARKS, Entry, Grid
from fairclip.compare.methods import Method
from fairclip.compare.published import published_entry
from fairclip.compare.runs import Column, Run
from fairclip.compare.stats import Scores
from fairclip.compare.tables import GROUP_NOTES, GROUPS, score_entry
from fairclip.run.protocol import N_BATCHES, N_STREAMS, PROTOCOLS, STREAM_BATCH, accuracies

TITLES = {"all": "All", **{name: protocol.title for name, protocol in PROTOCOLS.items()}}  # all: the usual test
NOTES = (
    f"Columns: classes in a batch and its images, the mean over {N_BATCHES} batches; streams: the mean over "
    f"{N_STREAMS} orders of the test set, of which transductive methods get {STREAM_BATCH} images at a time. All: the "
    "usual test. The labels of the test images say which come together; methods do not see them.",
    "All methods and seeds have the same batches and streams. Each column is ranked by itself.",
)


def protocol_grids(comparison: Comparison, sources: list[dict[str, Any]]) -> list[Grid]:
    """A table for each data set, then what others published, by ``read_published`` or nothing."""
    theirs = published_protocols_grid(comparison, sources)
    return [*(protocols_grid(comparison, column) for column in comparison.columns), *([theirs] if theirs else [])]


def of_run(run: Run) -> dict[str, float]:
    """Accuracies by protocol, "all" among them; without the others where a run has not measured them."""
    found = dict(run.results.get("protocols") or {})
    if not found and not run.results.get("transductive") and not run.results.get("stream") and run.predictions:
        import numpy as np  # takes a moment, and other tables do without

        right = np.array([label == prediction for _, label, prediction in run.predictions])
        found = accuracies([label for _, label, _ in run.predictions], lambda parts: right[np.concatenate(parts)])
    return {"all": run.results["accuracy"], **{name: found[name] for name in PROTOCOLS if name in found}}


def protocol_scores(comparison: Comparison, column: Column) -> dict[str, dict[Method, Scores | None]]:
    """By protocol and method, for one data set: those of the runs that may be averaged. A protocol that no method has
    is left out."""
    cells = {m: comparison.cell(m, column) for m in comparison.methods}
    by_run = {
        m: {} if cell.differences else {seed: of_run(run) for seed, run in cell.runs.items()}
        for m, cell in cells.items()
    }

    def scores(m: Method, name: str) -> Scores | None:
        found = {seed: values[name] for seed, values in by_run[m].items() if name in values}
        return Scores(found, m.once) if found and len(found) == len(by_run[m]) else None

    found = {name: {m: scores(m, name) for m in comparison.methods} for name in TITLES}
    return {name: own for name, own in found.items() if any(own.values())}


def protocols_grid(comparison: Comparison, column: Column) -> Grid:
    """Methods in rows, protocols in columns."""
    found = protocol_scores(comparison, column)
    ranks = {name: stats.rank(comparison, own, column) for name, own in found.items()}

    def entry(m: Method, name: str) -> Entry:
        absent = found[name][m] is None and name != "all"
        return Entry("–") if absent else score_entry(comparison, m, column, found[name][m], ranks[name])

    def row(m: Method) -> list[Entry]:
        return [Entry(m.name + MARKS[comparison.group(m)]), *(entry(m, name) for name in found)]

    members = {g: [m for m in comparison.methods if comparison.group(m) == g] for g in GROUPS}
    groups = [(GROUPS[g], [row(m) for m in own]) for g, own in members.items() if own]
    notes = [*NOTES, *(note for g, note in GROUP_NOTES.items() if members[g])]
    more = [own for name, own in found.items() if name != "all"]
    only = [m.name for m in comparison.methods if comparison.cell(m, column).runs and not any(own[m] for own in more)]
    if only:
        notes.append(
            f"The usual test alone: {', '.join(only)}. Transductive and stream methods are tested so with "
            "TEST.PROTOCOLS True, of others a run's predictions.csv is read."
        )
    title = f"{column.dataset}, {column.config}: test accuracy in % by what comes together"
    return Grid(title, ["Method", *(TITLES[name] for name in found)], groups, notes=notes)


def published_protocols_grid(comparison: Comparison, sources: list[dict[str, Any]]) -> Grid | None:
    """Averages that others published by protocol, of the comparison's backbones; None if there are none."""
    ours = {backbone for column in comparison.columns for backbone in comparison.backbones(column)}
    told = [source for source in sources if "by_protocol" in source and source["backbone"] in ours]
    names = [name for name in TITLES if any(name in row for s in told for row in s["by_protocol"].values())]
    groups = [
        (
            source["source"],
            [[Entry(method), *(published_entry(row.get(name)) for name in names)] for method, row in rows.items()],
        )
        for source in told
        if (rows := source["by_protocol"])
    ]
    notes = [f"{s['source']}. {s['protocol']}. Backbone: {s['backbone']}." for s in told]
    title = "Published by others, averages over data sets: not comparable like for like"
    return Grid(title, ["Method", *(TITLES[name] for name in names)], groups, notes=notes) if told else None


def protocol_rows(comparison: Comparison) -> list[Mapping[str, Any]]:
    """Lines of the CSV, told apart by the field "protocol"; the usual test has lines without it."""
    rows: list[Mapping[str, Any]] = []
    for column in comparison.columns:
        for name, own in protocol_scores(comparison, column).items():
            ranks = stats.rank(comparison, own, column)
            for m, scores in own.items():
                if name == "all" or scores is None:
                    continue
                line: dict[str, Any] = {"method": m.name, "trainer": m.trainer, "kind": KINDS[comparison.group(m)]}
                line |= {"dataset": column.dataset, "config": column.config, "status": "complete", "protocol": name}
                line |= {"seeds": " ".join(map(str, scores.by_seed)), "mean": scores.mean, "rank": ranks.get(m, "")}
                rows.append(line | ({} if scores.sd is None else {"sd": scores.sd}))
    return rows
