"""The comparison as one HTML file that loads nothing from elsewhere: for people who would rather look than read."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from fairclip.compare.comparison import Comparison
from fairclip.compare.examples import examples_part
from fairclip.compare.grid import Grid, column_name
from fairclip.compare.markup import Names, grid_table, table, td, th
from fairclip.compare.page_classes import classes_part, matrix_part, siblings_part
from fairclip.compare.page_curves import curves_part, labels_part
from fairclip.compare.page_head import head_part
from fairclip.compare.page_reliability import reliability_part
from fairclip.compare.page_sets import sets_part

HERE = Path(__file__).parent
# Whatever a name in the results says, the page runs no other script and fetches nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def make_page(
    comparison: Comparison,
    grids: Sequence[Grid],
    data: Path | None = None,
    images: int = 4,
    command: str = "",
    date: str = "",
) -> str:
    """The whole page.

    Args:
        grids: the table of the comparison, and any others to show below it.
        data: the folder with all data sets, for example images; None: where the runs found them.
        images: example images of each data set.
        command: what made the page, and ``date``, when: they stand at its head; "": they are left out.
    """
    names = Names(comparison)
    sections = [(f"set-{i}", column_name(column, comparison.columns)) for i, column in enumerate(comparison.columns)]
    several = [("sets", "Side by side")] if len(sections) > 1 else []
    links = [("table", "Table"), *several, *sections, ("runs", "Runs")]
    body = [
        '<a class="skip" href="#main">Skip to the table</a>',
        f"<header>{head_part(comparison, command, date)}",
        '<nav aria-label="Sections"><ul>',
        *(f'<li><a href="#{ident}">{escape(name)}</a></li>' for ident, name in links),
        "</ul></nav></header>",
        '<main id="main">',
        section("table", "Table", [grid_table(grid, names) for grid in grids]),
    ]
    if several:
        body.append(section("sets", "Side by side", [sets_part(comparison, names)]))
    for (ident, name), column in zip(sections, comparison.columns, strict=True):
        parts = [
            curves_part(comparison, column, ident, names),
            labels_part(comparison, column, ident, names),
            siblings_part(comparison, column, names),
            matrix_part(comparison, column, ident, names),
            classes_part(comparison, column, names),
            reliability_part(comparison, column, ident, names),
            examples_part(comparison, column, data, images),
        ]
        body.append(section(ident, name, parts))
    body.append(section("runs", "Runs", [runs_table(comparison, names)]))
    body.append('</main><p id="status" class="hidden" role="status" aria-live="polite"></p>')
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


def section(ident: str, title: str, parts: Sequence[str]) -> str:
    return (
        f'<section id="{ident}" aria-labelledby="{ident}-h"><h2 id="{ident}-h">{escape(title)}</h2>'
        + "\n".join(parts)
        + "</section>"
    )


def runs_table(comparison: Comparison, names: Names) -> str:
    rows = []
    for column in comparison.columns:
        for method in comparison.methods:
            for seed, run in comparison.cell(method, column).runs.items():
                r = run.results
                seconds = r.get("seconds")
                rows.append(
                    [
                        th(names.marked[method], names),
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
    return table("All runs that the page is made of.", head, [("", rows)])
