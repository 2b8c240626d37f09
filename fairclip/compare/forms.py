"""Tables as text, Markdown, LaTeX and CSV."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from fairclip.compare import stats
from fairclip.compare.comparison import INDUCTIVE, LABELLED, STREAM, TRANSDUCTIVE, Comparison
from fairclip.compare.grid import Entry, Grid
from fairclip.compare.methods import Method
from fairclip.compare.runs import Cell, Column
from fairclip.compare.stats import Scores
from fairclip.core import csv_files


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
    "§": r"\S{}",
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


FIELDS = (
    *("method", "trainer", "kind", "dataset", "config", "status", "seeds", "mean", "sd", "rank"),
    *("trainable_parameters", "seconds", "views_per_image"),
    *("gain_over", "gain", "gain_low", "gain_high", "source", "protocol"),
)
KINDS = {INDUCTIVE: "inductive", TRANSDUCTIVE: "transductive", STREAM: "stream", LABELLED: "labels"}


def as_csv(
    comparison: Comparison,
    published: Sequence[Mapping[str, Any]] = (),
    subject: str = "fair",
    more: Sequence[Mapping[str, Any]] = (),
) -> str:
    """One line for each method and data set (and average), in full precision; then ``more`` lines, by field."""
    rows: list[Mapping[str, Any]] = []
    for column in comparison.columns:
        found = {m: stats.scores(comparison, m, column) for m in comparison.methods}
        for m, line in lines(comparison, found, column, subject).items():
            cell = comparison.cell(m, column)
            rows.append(line | {"dataset": column.dataset, "config": column.config} | csv_costs(cell))
    if len(comparison.columns) > 1:
        found = {m: stats.average(comparison, m) for m in comparison.methods}
        for m, line in lines(comparison, found, None, subject).items():
            seeds = "" if m.once else line.get("seeds", "")  # the one run may have another seed on each data set
            rows.append(line | {"dataset": "average", "config": "", "seeds": seeds})
    rows += more
    for entry in published:
        rows.append({"kind": "published", **entry})
    return in_columns(FIELDS, rows)


def lines(
    comparison: Comparison, found: Mapping[Method, Scores | None], column: Column | None, subject: str
) -> dict[Method, dict[str, Any]]:
    """What the CSV says of each method's scores on a data set, or of their average."""
    ranks, result = stats.rank(comparison, found, column), {}
    for m, scores in found.items():
        line: dict[str, Any] = {"method": m.name, "trainer": m.trainer, "kind": KINDS[comparison.group(m)]}
        line["status"] = "missing" if scores is None else "complete"
        if scores is not None:
            line["seeds"] = " ".join(map(str, scores.by_seed))
            line |= {"mean": scores.mean, "sd": "" if scores.sd is None else scores.sd, "rank": ranks.get(m, "")}
        if m.key == subject and (gain := stats.gain(comparison, m, found)) is not None:
            line |= {"gain_over": gain.other.name, "gain": gain.mean}
            if gain.half is not None:
                line |= {"gain_low": gain.mean - gain.half, "gain_high": gain.mean + gain.half}
        result[m] = line
    return result


RUN_FIELDS = (
    *("dataset", "config", "method", "trainer", "kind", "seed", "accuracy", "crop_accuracy", "macro_f1"),
    *("pseudo_accuracy", "seconds", "views_per_image", "trainable_parameters", "prec", "config_hash", "commit"),
)


def runs_as_csv(comparison: Comparison) -> str:
    """One line for each finished run, in full precision. ``pseudo_accuracy`` is that of the last epoch."""
    rows: list[Mapping[str, Any]] = []
    for column in comparison.columns:
        for m in comparison.methods:
            named = {
                "dataset": column.dataset,
                "config": column.config,
                "method": m.name,
                "kind": KINDS[comparison.group(m)],
            }
            for seed, run in comparison.cell(m, column).runs.items():
                last = run.results["epochs"][-1] if run.results.get("epochs") else {}
                figures = {name: run.results[name] for name in RUN_FIELDS if name in run.results}
                figures |= {"seed": seed, "pseudo_accuracy": last.get("pseudo_accuracy", "")}
                rows.append(figures | named)
    return in_columns(RUN_FIELDS, rows)


def in_columns(fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV; what a row does not have stays empty."""
    return csv_files.as_csv(fields, ([row.get(field, "") for field in fields] for row in rows)).rstrip("\n")


def csv_costs(cell: Cell) -> dict[str, Any]:
    """Status and mean costs of the runs of one method on one data set."""
    if not cell.runs:
        return {}
    line: dict[str, Any] = {"status": "mixed" if cell.differences else "partial" if cell.missing else "complete"}
    for name in ("trainable_parameters", "seconds", "views_per_image"):
        values = [run.results[name] for run in cell.runs.values() if name in run.results]
        line[name] = statistics.mean(values) if values else ""
    return line
