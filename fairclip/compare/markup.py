"""Pieces of the page: tables, their cells, and the names of methods with their colours."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from fairclip.compare.comparison import Comparison
from fairclip.compare.grid import MARKS, Entry, Grid
from fairclip.compare.looks import looks, sample
from fairclip.compare.methods import Method

WIDE, WIDEST = 7, 13  # columns, from beyond which on paper takes smaller print, and names of columns that stand upright
LONG = 14  # characters, beyond which a cell's text may wrap
SPOKEN = {"best": '<span class="hidden"> (best)</span>', "second": '<span class="hidden"> (second)</span>', "": ""}


class Names:
    """The names of a comparison's methods as HTML, each after a piece of its line."""

    def __init__(self, comparison: Comparison) -> None:
        self.looks = looks(comparison.methods)
        self.marked = {m: m.name + MARKS[comparison.group(m)] for m in comparison.methods}
        self._samples = {self.marked[m]: sample(look) for m, look in self.looks.items()}
        self._samples |= {m.name: sample(look) for m, look in self.looks.items()}

    def html(self, text: str) -> str:
        """A text as HTML; if it is a method's name, with its colour."""
        return self._samples.get(text, "") + escape(text)

    def __getitem__(self, method: Method) -> str:
        return self.html(self.marked[method])


def table(
    caption: str,
    head: Sequence[str],
    bodies: Sequence[tuple[str, Sequence[Sequence[str]]]],
    foot: Sequence[Sequence[str]] = (),
    names: Names | None = None,
) -> str:
    """A table that sorts. The cells are finished HTML (see ``td``); the first of a row is its heading."""
    span = len(head)
    width = " widest" if span > WIDEST else " wide" if span > WIDE else ""
    shown = escape if names is None else names.html
    parts = [
        f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0">'
        f'<table class="sortable{width}" style="--columns: {span}">',
        f"<caption><span>{escape(caption)}</span></caption><thead><tr>",
        *(f'<th scope="col">{shown(name)}</th>' for name in head),
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


def th(text: str, names: Names | None = None) -> str:
    return f'<th scope="row">{escape(text) if names is None else names.html(text)}</th>'


def td(
    text: str, number: float | None = None, style: str = "", inner: str = "", css: str = "", numeric: bool = False
) -> str:
    """A cell. ``number`` is what it sorts by; ``inner`` is HTML that follows the text.

    A ``numeric`` cell without a number has a word for what is missing, and comes last in any order.
    """
    whole = number is not None and len(text) <= LONG
    classes = " ".join(filter(None, [style, "number" if whole else ""]))
    value = "" if number is None else repr(number)
    return (
        "<td"
        + (f' class="{classes}"' if classes else "")
        + (f' style="{css}"' if css else "")
        + (f' data-number data-sort="{value}"' if numeric or number is not None else "")
        + f">{escape(text)}{inner}</td>"
    )


def grid_table(grid: Grid, names: Names) -> str:
    """The table with its notes; the notes alone if it has no rows."""

    def row(entries: Sequence[Entry]) -> list[str]:
        cells = (td(e.text, e.sort, e.style, SPOKEN[e.style], numeric=True) for e in entries[1:])
        return [th(entries[0].text, names), *cells]

    several = len(grid.groups) > 1
    bodies = [(title if several else "", [row(entries) for entries in rows]) for title, rows in grid.groups]
    shown = (
        table(f"{grid.title}.", grid.head, bodies, [row(entries) for entries in grid.foot], names)
        if bodies
        else f"<p>{escape(grid.title)}.</p>"
    )
    return shown + notes(grid.notes)


def notes(texts: Iterable[str]) -> str:
    return f'<ul class="note">{"".join(f"<li>{escape(text)}</li>" for text in texts)}</ul>'


def svg(
    title: str, description: str, width: float, height: float, parts: Iterable[str], ident: str, more: str = ""
) -> str:
    """A picture that says to those who cannot see it what it shows.

    Args:
        ident: an id that is unique on the page.
        more: attributes.
    """
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="{ident}-t {ident}-d"{more}>'
        f'<title id="{ident}-t">{escape(title)}</title><desc id="{ident}-d">{escape(description)}</desc>'
        + "".join(parts)
        + "</svg>"
    )


def facts(entries: Mapping[str, str]) -> str:
    """Terms and what is said of them; those of which nothing is said are left out."""
    rows = (f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in entries.items() if text)
    return f'<dl class="facts">{"".join(rows)}</dl>'
