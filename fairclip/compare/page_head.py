"""The head of the page: what was compared, by what, where and when, and how FAIR did."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from fairclip.compare import stats
from fairclip.compare.comparison import Comparison
from fairclip.compare.grid import column_name, show_gain, show_scores
from fairclip.compare.many_sets import MANY
from fairclip.compare.markup import facts
from fairclip.compare.methods import Method
from fairclip.compare.runs import Column, Run


def head_part(comparison: Comparison, command: str, date: str) -> str:
    names = [column_name(column, comparison.columns) for column in comparison.columns]
    title = ", ".join(names) if len(names) < MANY else f"{len(names)} data sets"
    return (
        f"<h1>Methods compared on {escape(title)}</h1>"
        + summary(comparison)
        + facts({"Made": date, "Command": command, **run_facts(comparison)})
    )


def summary(comparison: Comparison) -> str:
    """FAIR's place: in a sentence for each data set, or in one on many."""
    fair = next((m for m in comparison.methods if m.key == "fair"), None)
    if fair is None:
        return ""
    if len(comparison.columns) >= MANY:
        return f"<p>{escape(place(comparison, fair))}</p>"
    lines = [text for column in comparison.columns if (text := sentence(comparison, fair, column))]
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in lines)}</ul>" if lines else ""


def place(comparison: Comparison, fair: Method) -> str:
    ranks = []
    for column in comparison.columns:
        found = stats.rank(comparison, {m: stats.scores(comparison, m, column) for m in comparison.methods}, column)
        if fair in comparison.methods and found:
            ranks.append(found.get(fair))
    return f"FAIR has the highest accuracy of the ranked methods on {ranks.count(1)} of {len(ranks)} data sets."


def sentence(comparison: Comparison, fair: Method, column: Column) -> str:
    found = {m: stats.scores(comparison, m, column) for m in comparison.methods}
    own = found[fair]
    if own is None:
        return ""
    text = f"{column.dataset}: FAIR {show_scores(own)} %"
    if (gain := stats.gain(comparison, fair, found)) is not None:
        text += f"; {show_gain(gain).text}"
        if gain.half is not None:
            zero = ", which includes zero" if abs(gain.mean) <= gain.half else ""
            text += f" ({stats.LEVEL * 100:g} % interval over {gain.seeds} seeds{zero})"
    return f"{text}."


def run_facts(comparison: Comparison) -> dict[str, str]:
    """What all runs have in common, or the values that there are; "" of what none has noted."""
    runs = comparison.runs()
    results = [run.results for run in runs]
    return {
        "Runs": f"{len(runs)} of {len(comparison.methods)} methods on {counted(len(comparison.columns), 'data set')}",
        "Test images": test_images(comparison),
        "Backbone": values(r.get("backbone") for r in results),
        "Hardware": values(r.get("hardware") or r.get("device") for r in results),
        "Versions": versions(results),
        "Commit": values(short(r.get("commit")) for r in results),
    }


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def values(found: Iterable[Any]) -> str:
    return ", ".join(sorted({str(value) for value in found if value}))


def short(commit: object) -> str:
    text = str(commit or "")
    return text[:7] + ("-dirty" if text.endswith("-dirty") else "")


def versions(results: Sequence[Mapping[str, Any]]) -> str:
    """Of each package; all versions, where the runs had several."""
    noted = [r["versions"] for r in results if isinstance(r.get("versions"), Mapping)]
    names = list(dict.fromkeys(name for found in noted for name in found))
    shown = ((name, values(found.get(name) for found in noted)) for name in names)
    return "; ".join(f"{name} {text}" for name, text in shown if text)


def test_images(comparison: Comparison) -> str:
    """How many each data set has, by the predictions of its runs; the data sets by name where they differ."""
    counts: dict[int, list[str]] = {}
    for column in comparison.columns:
        runs = [run for m in comparison.methods for run in comparison.cell(m, column).runs.values()]
        for number in sorted({len(rows) for run in runs if (rows := predicted(run))}):
            counts.setdefault(number, []).append(column_name(column, comparison.columns))
    if len(counts) == 1 and len(comparison.columns) == len(next(iter(counts.values()))):
        return f"{next(iter(counts)):,}" + (" each" if len(comparison.columns) > 1 else "")
    return "; ".join(f"{', '.join(names)}: {number:,}" for number, names in counts.items())


def predicted(run: Run) -> Sequence[object]:
    return run.predictions or []
