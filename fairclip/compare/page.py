"""The comparison as one HTML file that loads nothing from elsewhere: for people who would rather look than read."""

import statistics
from collections.abc import Sequence
from html import escape
from pathlib import Path

from fairclip.compare import stats
from fairclip.compare.classes import all_confusions, reference, siblings
from fairclip.compare.comparison import INDUCTIVE, Comparison
from fairclip.compare.curves import Curve, draw, legend, read_curve
from fairclip.compare.examples import Missing, examples
from fairclip.compare.grid import MARKS, Entry, Grid, column_name, show_gain, show_scores
from fairclip.compare.methods import Method
from fairclip.compare.runs import Column

HERE = Path(__file__).parent
# Whatever a name in the results says, the page runs no other script and fetches nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
MEASURES = {"pseudo_accuracy": "Pseudo-label accuracy on the training images", "test_accuracy": "Test accuracy"}


def make_page(comparison: Comparison, grids: Sequence[Grid], data: Path | None = None, images: int = 4) -> str:
    """The whole page.

    Args:
        grids: the table of the comparison, and any others to show below it.
        data: the folder with all data sets, for example images; None: where the runs found them.
        images: example images of each data set.
    """
    sections = [(f"set-{i}", column_name(column, comparison.columns)) for i, column in enumerate(comparison.columns)]
    links = [("table", "Table"), *sections, ("runs", "Runs")]
    body = [
        '<a class="skip" href="#main">Skip to the table</a>',
        f"<header><h1>Methods compared on {escape(', '.join(name for _, name in sections))}</h1>",
        summary(comparison),
        '<nav aria-label="Sections"><ul>',
        *(f'<li><a href="#{ident}">{escape(name)}</a></li>' for ident, name in links),
        "</ul></nav></header>",
        '<main id="main"><section id="table" aria-labelledby="table-h"><h2 id="table-h">Table</h2>',
        *(grid_table(grid) for grid in grids),
        "</section>",
    ]
    for (ident, name), column in zip(sections, comparison.columns, strict=True):
        body.append(f'<section id="{ident}" aria-labelledby="{ident}-h"><h2 id="{ident}-h">{escape(name)}</h2>')
        body += [
            curves_part(comparison, column, ident),
            siblings_part(comparison, column),
            classes_part(comparison, column),
            examples_part(comparison, column, data, images),
            "</section>",
        ]
    body += [runs_part(comparison), '</main><p id="status" class="hidden" role="status" aria-live="polite"></p>']
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="color-scheme" content="light dark"><title>Methods compared</title>'
        f"<style>\n{(HERE / 'page.css').read_text(encoding='utf-8')}</style>"
    )
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n'
        + "\n".join(body)
        + f"\n<script>\n{script}</script>\n</body></html>"
    )


def summary(comparison: Comparison) -> str:
    """FAIR's place, in a sentence for each data set."""
    fair = next((m for m in comparison.methods if m.key == "fair"), None)
    if fair is None:
        return ""
    lines = []
    for column in comparison.columns:
        found = {m: stats.scores(comparison, m, column) for m in comparison.methods}
        own = found[fair]
        if own is None:
            continue
        text = f"{column.dataset}: FAIR {show_scores(own)} %"
        if (gain := stats.gain(comparison, fair, found)) is not None:
            text += f"; {show_gain(gain).text}"
            if gain.half is not None:
                inside = abs(gain.mean) <= gain.half
                zero = ", which includes zero" if inside else ""
                text += f" ({stats.LEVEL * 100:g} % interval over {gain.seeds} seeds{zero})"
        lines.append(f"<li>{escape(text)}.</li>")
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


# -- Tables ------------------------------------------------------------------------------------------------------------


def table(
    caption: str,
    head: Sequence[str],
    bodies: Sequence[tuple[str, Sequence[Sequence[str]]]],
    foot: Sequence[Sequence[str]] = (),
) -> str:
    """A table that sorts. The cells are finished HTML (see ``td``); the first of a row is its heading."""
    span = len(head)
    parts = [
        f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0"><table class="sortable">',
        f"<caption>{escape(caption)}</caption><thead><tr>",
        *(f'<th scope="col">{escape(name)}</th>' for name in head),
        "</tr></thead>",
    ]
    for title, rows in bodies:
        parts.append("<tbody>")
        if title:
            parts.append(f'<tr class="group"><th colspan="{span}" scope="rowgroup">{escape(title)}</th></tr>')
        parts += [f"<tr>{''.join(row)}</tr>" for row in rows]
        parts.append("</tbody>")
    if foot:
        parts += ["<tfoot>", *(f"<tr>{''.join(row)}</tr>" for row in foot), "</tfoot>"]
    return "".join([*parts, "</table></div>"])


def th(text: str) -> str:
    return f'<th scope="row">{escape(text)}</th>'


def td(
    text: str, number: float | None = None, style: str = "", inner: str = "", css: str = "", numeric: bool = False
) -> str:
    """A cell. ``number`` is what it sorts by; ``inner`` is HTML that follows the text.

    A ``numeric`` cell without a number has a word for what is missing, and comes last in any order.
    """
    classes = " ".join(filter(None, [style, "number" if number is not None else ""]))
    value = "" if number is None else repr(number)
    return (
        "<td"
        + (f' class="{classes}"' if classes else "")
        + (f' style="{css}"' if css else "")
        + (f' data-number data-sort="{value}"' if numeric or number is not None else "")
        + f">{escape(text)}{inner}</td>"
    )


SPOKEN = {"best": '<span class="hidden"> (best)</span>', "second": '<span class="hidden"> (second)</span>', "": ""}


def grid_table(grid: Grid) -> str:
    """The table with its notes; the notes alone if it has no rows."""

    def row(entries: Sequence[Entry]) -> list[str]:
        return [th(entries[0].text), *(td(e.text, e.sort, e.style, SPOKEN[e.style], numeric=True) for e in entries[1:])]

    several = len(grid.groups) > 1
    bodies = [(title if several else "", [row(entries) for entries in rows]) for title, rows in grid.groups]
    notes = "".join(f"<li>{escape(note)}</li>" for note in grid.notes)
    shown = (
        table(f"{grid.title}.", grid.head, bodies, [row(entries) for entries in grid.foot])
        if bodies
        else (f"<p>{escape(grid.title)}.</p>")
    )
    return f'{shown}<ul class="note">{notes}</ul>'


def runs_part(comparison: Comparison) -> str:
    rows = []
    for column in comparison.columns:
        for method in comparison.methods:
            for seed, run in comparison.cell(method, column).runs.items():
                r = run.results
                seconds = r.get("seconds")
                rows.append(
                    [
                        th(method.name + MARKS[comparison.group(method)]),
                        td(column.dataset),
                        td(str(seed), seed),
                        td(f"{r['accuracy']:.2f}", r["accuracy"]),
                        td(f"{r['macro_f1']:.2f}", r["macro_f1"]),
                        td("" if seconds is None else f"{seconds:,.0f}", seconds),
                        td(str(r.get("config_hash", ""))),
                        td(str(r.get("commit") or "")[:7]),
                    ]
                )
    head = ["Method", "Data set", "Seed", "Accuracy", "Macro-F1", "Seconds", "Settings", "Commit"]
    return (
        '<section id="runs" aria-labelledby="runs-h"><h2 id="runs-h">Runs</h2>'
        + table("All runs that the page is made of.", head, [("", rows)])
        + "</section>"
    )


# -- A data set --------------------------------------------------------------------------------------------------------


def curves_part(comparison: Comparison, column: Column, ident: str) -> str:
    parts: list[str] = []
    names: dict[str, int] = {}  # how the line of each method looks
    zero_shot = reference(comparison, column, comparison.methods)
    for measure, title in MEASURES.items():
        curves = [
            Curve(m.name, look, read_curve(comparison.cell(m, column), measure))
            for look, m in enumerate(comparison.methods)
        ]
        curves = [curve for curve in curves if curve.mean]
        if not curves:
            if measure == "test_accuracy" and parts:
                parts.append(
                    '<p class="note">No test accuracy by epoch: the runs were made without TEST.EVERY_EPOCH True.</p>'
                )
            continue
        names |= {curve.name: curve.look for curve in curves}
        levels = {}
        if measure == "test_accuracy" and zero_shot is not None:
            look = comparison.methods.index(zero_shot)
            levels[zero_shot.name] = (max(comparison.cell(zero_shot, column).accuracies.values()), look)
            names[zero_shot.name] = look
        picture = draw(f"{title}, {column.dataset}", curves, levels, f"{ident}-{measure}")
        parts.append(f"<figure>{picture}<figcaption>{title}, in %</figcaption></figure>")
    if not parts:
        return "<h3>Learning curves</h3><p>None of the runs trains in epochs.</p>"
    return (
        f'<h3>Learning curves</h3><div class="panels">{"".join(parts)}</div>{legend(names)}'
        f'<p class="note">{"Thick: mean over seeds; thin: each seed. " if comparison.several_seeds() else ""}'
        "Nothing is chosen by these curves: the last epoch is the result. Pseudo-labels are held against labels for "
        "this picture alone.</p>"
    )


def siblings_part(comparison: Comparison, column: Column) -> str:
    found = all_confusions(comparison, column)
    if not found:
        return "<h3>Look-alike classes</h3><p>The methods have no predictions.csv for the same classes.</p>"
    zero_shot = [found[m] for m in found if m.zero_shot]
    pairs = siblings(zero_shot or list(found.values()))
    most = max((c.mixed_up(*pair) for c in found.values() for pair in pairs), default=0) or 1
    rows = []
    for a, b in pairs:
        cells = [th(f"{a} / {b}")]
        for confusions in found.values():
            rate = confusions.mixed_up(a, b)
            cells.append(td(f"{rate:.1f}", rate, "heat", css=f"--share: {rate / most:.3f}"))
        rows.append(cells)
    by = "zero-shot CLIP mixes" if zero_shot else "the methods mix"
    caption = f"Images of two classes that are taken for one another, in %: the {len(pairs)} pairs that {by} up most."
    return "<h3>Look-alike classes</h3>" + table(caption, ["Pair", *(m.name for m in found)], [("", rows)])


def subject(comparison: Comparison, column: Column, among: Sequence[Method]) -> Method | None:
    """FAIR, or without it the best of the ranked methods that depend on the seed."""
    fair = next((m for m in among if m.key == "fair"), None)
    ranked = [m for m in among if not m.zero_shot and comparison.group(m) == INDUCTIVE]
    means = {m: statistics.mean(comparison.cell(m, column).accuracies.values()) for m in ranked}
    return fair or max(ranked, key=lambda m: means[m], default=None)


def classes_part(comparison: Comparison, column: Column) -> str:
    title = "<h3>Gain over zero-shot, by class</h3>"
    found = all_confusions(comparison, column)
    base = reference(comparison, column, list(found))
    method = subject(comparison, column, list(found))
    if base is None or method is None:
        return f"{title}<p>This takes predictions of a zero-shot method and of one that trains.</p>"
    gains = {label: found[method].accuracy(label) - found[base].accuracy(label) for label in found[base].images}
    largest = max(map(abs, gains.values())) or 1
    rest = [m for m in found if m not in (base, method)]
    rows = []
    for label in sorted(gains, key=lambda label: (-gains[label], label)):
        gain = gains[label]
        side = "up" if gain >= 0 else "down"
        bar = f'<span class="bar"><span class="{side}" style="width: {50 * abs(gain) / largest:.1f}%"></span></span>'
        before, after, *others = (
            td(f"{found[m].accuracy(label):.1f}", found[m].accuracy(label)) for m in (base, method, *rest)
        )
        rows.append([th(label), before, after, td(f"{gain:+.1f}", gain, side, bar), *others])
    better, worse = sum(g > 0 for g in gains.values()), sum(g < 0 for g in gains.values())
    over = ", over all seeds" if comparison.several_seeds() else ""
    caption = (
        f"Accuracy by class in %{over}. {method.name} is ahead of {base.name} on {better} of "
        f"{len(gains)} classes and behind on {worse}."
    )
    head = ["Class", base.name, method.name, "Gain", *(m.name for m in rest)]
    return title + table(caption, head, [("", rows)])


def examples_part(comparison: Comparison, column: Column, data: Path | None, count: int) -> str:
    title = "<h3>What FAIR looks at</h3>"
    fair = next((m for m in comparison.methods if m.key == "fair"), None)
    runs = list(comparison.cell(fair, column).runs.values()) if fair else []
    if count < 1 or not runs:
        return f"{title}<p>{'No example images were asked for.' if runs else 'There is no finished run of FAIR.'}</p>"
    figures = examples(runs[0], data, count)
    if isinstance(figures, Missing):
        return f"{title}<p>No example images: {escape(figures.reason)}.</p>"
    return (
        f'{title}<p class="note">The first test images of evenly spaced classes, by the run of seed '
        f"{runs[0].seed}. Boxes are the crops; the numbered ones are most like the whole image (r: "
        f'relevance) and decide, each with its weight w.</p><div class="examples">{"".join(figures)}</div>'
    )
