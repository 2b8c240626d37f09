"""The part of the page that shows several data sets side by side: small pictures with one scale."""

from html import escape

from fairclip.compare import stats
from fairclip.compare.comparison import Comparison
from fairclip.compare.curves import draw, ticks
from fairclip.compare.grid import column_name
from fairclip.compare.looks import legend, look_classes
from fairclip.compare.markup import Names, svg
from fairclip.compare.page_curves import MEASURES, read_curves
from fairclip.compare.runs import Column

WIDTH, LEFT, RIGHT, ROW, BOTTOM = 380, 200, 34, 17, 22
SIZE = (250, 190)  # of a small learning curve


def sets_part(comparison: Comparison, names: Names) -> str:
    return accuracies_part(comparison, names) + small_curves_part(comparison, names)


def accuracies_part(comparison: Comparison, names: Names) -> str:
    """Test accuracy of each method, in a picture for each data set."""
    found = [
        value for c in comparison.columns for m in names.looks for value in comparison.cell(m, c).accuracies.values()
    ]
    if not found:
        return ""
    scale = ticks(min(found), max(found), 4)
    figures = []
    for i, column in enumerate(comparison.columns):
        picture, name = dots(comparison, column, names, scale, f"dots-{i}"), column_name(column, comparison.columns)
        figures.append(f"<figure><figcaption>{escape(name)}</figcaption>{picture}</figure>")
    seeds = " Large: mean over seeds; small: each seed." if comparison.several_seeds() else ""
    return (
        f'<h3>Test accuracy</h3><div class="panels dots">{"".join(figures)}</div>'
        f'<p class="note">In %, with one scale for all.{seeds}</p>'
    )


def dots(comparison: Comparison, column: Column, names: Names, scale: list[float], ident: str) -> str:
    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - scale[0]) / (scale[-1] - scale[0])

    found = {m: s for m in names.looks if (s := stats.scores(comparison, m, column)) is not None}
    height = ROW * len(found)
    parts = []
    for tick in scale:
        parts.append(
            f'<path class="grid" d="M{x(tick):.1f} 0V{height}"/>'
            f'<text x="{x(tick):.1f}" y="{height + 15}" text-anchor="middle">{tick:g}</text>'
        )
    for row, (method, scores) in enumerate(found.items()):
        y, colour = (row + 0.5) * ROW, look_classes(names.looks[method])
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:g}" text-anchor="end">{escape(names.marked[method])}</text>')
        if len(scores.by_seed) > 1:
            parts += [
                f'<circle class="dot seed {colour}" cx="{x(v):.1f}" cy="{y:g}" r="3"/>' for v in scores.by_seed.values()
            ]
        parts.append(f'<circle class="dot {colour}" cx="{x(scores.mean):.1f}" cy="{y:g}" r="5"/>')
        parts.append(f'<text x="{WIDTH}" y="{y + 4:g}" text-anchor="end">{scores.mean:.1f}</text>')
    means = "; ".join(f"{method.name} {scores.mean:.2f}" for method, scores in found.items())
    return svg(f"Test accuracy, {column.dataset}", f"In percent. {means}.", WIDTH, height + BOTTOM, parts, ident)


def small_curves_part(comparison: Comparison, names: Names) -> str:
    """The test accuracy by epoch, or that of pseudo-labels where the runs did not test after each epoch."""
    for measure in reversed(MEASURES):
        found = {column: read_curves(comparison, column, measure, names) for column in comparison.columns}
        found = {column: curves for column, curves in found.items() if curves}
        if len(found) > 1:
            break
    else:
        return ""
    every = [v for curves in found.values() for c in curves for points in c.seeds for v in points.values()]
    figures: list[str] = []
    lines: dict[str, int] = {}
    for i, (column, curves) in enumerate(found.items()):
        name = column_name(column, comparison.columns)
        picture = draw(f"{MEASURES[measure]}, {name}", curves, {}, f"small-{i}", SIZE, (min(every), max(every)))
        figures.append(f"<figure><figcaption>{escape(name)}</figcaption>{picture}</figure>")
        lines |= {curve.name: curve.look for curve in curves}
    return (
        f'<h3>{MEASURES[measure]} by epoch</h3><div class="small">{"".join(figures)}</div>{legend(lines)}'
        '<p class="note">In %, with one scale for all.</p>'
    )
