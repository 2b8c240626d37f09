"""The tables of many data sets: what FAIR is ahead of each method over all of them, then a row for each data set."""

import statistics

from fairclip.compare import stats
from fairclip.compare.comparison import Comparison
from fairclip.compare.grid import MARKS, Entry, Grid, column_name
from fairclip.compare.methods import Method
from fairclip.compare.tables import COSTS, GROUPS, comparison_grid, comparison_notes, costs, score_entry

MANY = 6  # data sets, from which on their table would be too wide


def comparison_grids(comparison: Comparison, subject: str = "fair") -> list[Grid]:
    """The tables that show a comparison: one with a column for each data set, or two where there are many."""
    if len(comparison.columns) < MANY:
        return [comparison_grid(comparison, subject)]
    return [summary_grid(comparison, subject), sets_grid(comparison)]


def summary_grid(comparison: Comparison, subject: str = "fair") -> Grid:
    """Methods in rows: their average over the data sets, what the subject is ahead of them, and costs."""
    columns = comparison.columns
    ahead = next((m for m in comparison.methods if m.key == subject), None)
    found = {m: stats.average(comparison, m) for m in comparison.methods}
    ranks = stats.rank(comparison, found)

    def row(method: Method) -> list[Entry]:
        shown = score_entry(comparison, method, None, found[method], ranks)
        gain = [] if ahead is None else gain_entries(comparison, ahead, method)
        return [name(comparison, method), shown, *gain, *costs(comparison, method)]

    groups = [(title, [row(m) for m in comparison.methods if comparison.group(m) == g]) for g, title in GROUPS.items()]
    lead = [] if ahead is None else [f"{ahead.name} ahead", f"{ahead.name} better on"]
    how = "ahead: mean over data sets, paired by seed on each, with a 95 % interval over data sets (Student's t)."
    return Grid(
        f"Test accuracy in %, last epoch, average over {len(columns)} data sets",
        ["Method", "Average", *lead, *COSTS],
        [(title, rows) for title, rows in groups if rows],
        notes=[f"{ahead.name} {how}"] if ahead is not None else [],
    )


def sets_grid(comparison: Comparison) -> Grid:
    """Data sets in rows, methods in columns."""
    rows = []
    for column in comparison.columns:
        found = {m: stats.scores(comparison, m, column) for m in comparison.methods}
        ranks = stats.rank(comparison, found, column)
        entries = [score_entry(comparison, m, column, found[m], ranks) for m in comparison.methods]
        rows.append([Entry(column_name(column, comparison.columns)), *entries])
    head = ["Data set", *(name(comparison, m).text for m in comparison.methods)]
    return Grid("Test accuracy in %, by data set", head, [("", rows)], notes=comparison_notes(comparison, False))


def name(comparison: Comparison, method: Method) -> Entry:
    return Entry(method.name + MARKS[comparison.group(method)])


def gain_entries(comparison: Comparison, method: Method, other: Method) -> list[Entry]:
    """What ``method`` is ahead of the other, and on how many data sets; of itself nothing."""
    differences = stats.differences_over_sets(comparison, method, other)
    if method == other or not differences:
        return [Entry("" if method == other else "–")] * 2
    mean, half = statistics.mean(differences), stats.interval(differences, stats.SETS)
    text = f"{mean:+.2f}" + (f" [{mean - half:+.2f}, {mean + half:+.2f}]" if half is not None else "")
    better = sum(difference > 0 for difference in differences)
    return [Entry(text, sort=mean), Entry(f"{better} of {len(differences)}", sort=better)]
