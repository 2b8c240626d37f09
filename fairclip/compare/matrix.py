"""A confusion matrix as a picture."""

from html import escape

from fairclip.compare.classes import Confusions
from fairclip.compare.markup import svg

MOST = 60  # classes that fit into a picture
WITH_NUMBERS = 24  # classes, up to which the cells are wide enough for a number
LABEL, SHADES = 170, 10


def draw_matrix(title: str, confusions: Confusions, ident: str) -> str:
    """SVG. Rows are the true classes, columns the predictions, in the same order; a cell says how many of a row's
    images are there, in percent.

    Args:
        ident: an id that is unique on the page.
    """
    classes = confusions.classes
    place = {name: i for i, name in enumerate(classes)}
    numbers = len(classes) <= WITH_NUMBERS
    side, font = (24, 11) if numbers else (14, 9)
    parts = []
    for i, name in enumerate(classes):
        middle = LABEL + (i + 0.5) * side
        parts.append(
            f'<text x="{LABEL - 6}" y="{side + (i + 0.65) * side:.1f}" text-anchor="end">'
            f"{short(name)} {i + 1}</text>"
            f'<text x="{middle:g}" y="{side - 6}" text-anchor="middle">{i + 1}</text>'
        )
    cells: dict[str, list[str]] = {}
    for (label, predicted), count in confusions.counts.items():
        share = count / confusions.images[label]
        kind = "right" if label == predicted else "wrong"
        x, y = LABEL + place[predicted] * side, side + place[label] * side
        cells.setdefault(f"{kind} s{max(1, round(share * SHADES))}", []).append(f"M{x} {y}h{side}v{side}h-{side}z")
        if numbers and count:
            parts.append(
                f'<text class="value" x="{x + side / 2:g}" y="{y + 0.65 * side:.1f}" '
                f'text-anchor="middle">{100 * share:.0f}</text>'
            )
    shades = [f'<path class="{kind}" d="{"".join(paths)}"/>' for kind, paths in sorted(cells.items())]
    size = side * len(classes)
    frame = f'<path class="grid frame" d="M{LABEL} {side}h{size}v{size}h-{size}z"/>'
    # A narrow screen scrolls over it rather than making it too small to read.
    least = f' style="--wide: {LABEL + size}px"'
    return svg(title, describe(confusions), LABEL + size + 2, side + size + 2, [*shades, frame, *parts], ident, least)


def short(name: str, most: int = 24) -> str:
    return escape(name if len(name) <= most else name[: most - 1] + "…")


def describe(confusions: Confusions) -> str:
    right = sum(count for (a, b), count in confusions.counts.items() if a == b)
    text = f"Rows: true classes; columns: predictions. Right: {100 * right / confusions.images.total():.1f} %."
    wrong = {pair: count for pair, count in confusions.counts.items() if pair[0] != pair[1] and count}
    if wrong:
        a, b = max(wrong, key=lambda pair: (wrong[pair] / confusions.images[pair[0]], pair))
        text += f" Most often taken for another: {a} for {b}, {wrong[a, b]} of {confusions.images[a]} images."
    return text
