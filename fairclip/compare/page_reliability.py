"""The part of the page on whether probabilities can be believed."""

import statistics

from fairclip.compare.comparison import Comparison
from fairclip.compare.grid import mean_sd
from fairclip.compare.looks import look_classes
from fairclip.compare.markup import Names, svg, table, td, th
from fairclip.compare.reliability import BINS, Reliability, reliability
from fairclip.compare.runs import Column

SIDE, LEFT, BOTTOM, TOP = 190, 34, 34, 8


def reliability_part(comparison: Comparison, column: Column, ident: str, names: Names) -> str:
    title = "<h3>Reliability of the probabilities</h3>"
    found = {m: r for m in comparison.methods if (r := reliability(comparison.cell(m, column))) is not None}
    if not found:
        return f"{title}<p>The runs have no predictions.csv with probabilities.</p>"
    rows, figures = [], []
    for i, (method, r) in enumerate(found.items()):
        accuracy = list(comparison.cell(method, column).accuracies.values())
        at_least = "" if r.exact else "≥ "
        rows.append(
            [
                th(names.marked[method], names),
                td(mean_sd(accuracy), statistics.mean(accuracy)),
                td(mean_sd(r.confidence), statistics.mean(r.confidence)),
                td(mean_sd(r.ece), statistics.mean(r.ece)),
                td(at_least + mean_sd(r.nll), statistics.mean(r.nll)),
            ]
        )
        picture = draw_reliability(
            f"Reliability of {method.name}, {column.dataset}", r, names.looks[method], f"{ident}-r{i}"
        )
        figures.append(f"<figure>{picture}<figcaption>{names[method]}</figcaption></figure>")
    caption = (
        f"ECE: how far confidence and accuracy lie apart, in %, over {BINS} equal bins of confidence. "
        "NLL: mean of −ln of the true class’s probability."
    )
    if not all(r.exact for r in found.values()):
        caption += " ≥: the least that it can be, as these runs noted the probability of the prediction alone."
    head = ["Method", "Accuracy", "Confidence", "ECE", "NLL"]
    return (
        title
        + table(caption, head, [("", rows)], names=names)
        + f'<div class="small">{"".join(figures)}</div><p class="note">Accuracy by confidence. On the diagonal both '
        "are equal; below it, a method believes more than is true. The larger a dot, the more images.</p>"
    )


def draw_reliability(title: str, found: Reliability, look: int, ident: str) -> str:
    def x(value: float) -> float:
        return LEFT + SIDE * value

    def y(value: float) -> float:
        return TOP + SIDE * (1 - value)

    parts = []
    for tick in (0, 0.5, 1):
        parts.append(
            f'<path class="grid" d="M{LEFT} {y(tick):g}h{SIDE}M{x(tick):g} {TOP}v{SIDE}"/>'
            f'<text x="{LEFT - 5}" y="{y(tick) + 4:g}" text-anchor="end">{100 * tick:g}</text>'
            f'<text x="{x(tick):g}" y="{TOP + SIDE + 15}" text-anchor="middle">{100 * tick:g}</text>'
        )
    parts.append(f'<path class="diagonal" d="M{x(0):g} {y(0):g}L{x(1):g} {y(1):g}"/>')
    parts.append(f'<text x="{x(0.5):g}" y="{TOP + SIDE + 29}" text-anchor="middle">confidence</text>')
    colour = look_classes(look)
    line = "L".join(f"{x(b.confidence):.1f} {y(b.accuracy):.1f}" for b in found.bins)
    parts.append(f'<path class="line {colour}" d="M{line}"/>')
    most = max(b.images for b in found.bins)
    for b in found.bins:
        radius = 1.5 + 5 * (b.images / most) ** 0.5
        parts.append(
            f'<circle class="dot {colour}" cx="{x(b.confidence):.1f}" cy="{y(b.accuracy):.1f}" r="{radius:.1f}"/>'
        )
    bins = "; ".join(
        f"{b.images} images of confidence {100 * b.confidence:.0f}: {100 * b.accuracy:.0f} right" for b in found.bins
    )
    width, height = LEFT + SIDE + 14, TOP + SIDE + BOTTOM
    return svg(title, f"In percent. {bins}.", width, height, parts, ident)
