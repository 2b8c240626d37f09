"""Learning curves as SVG: one line for each method, the mean over its seeds, and a thin line for each seed."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairclip.compare.looks import look_classes
from fairclip.compare.markup import svg
from fairclip.compare.runs import Cell

WIDTH, HEIGHT = 420, 290
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 12, 40

Points = dict[int, float]  # epoch -> value


@dataclass(frozen=True)
class Curve:
    """One measure of one method by epoch."""

    name: str
    look: int  # the same number has the same colour and dashes in every picture
    seeds: Sequence[Points]

    @property
    def mean(self) -> Points:
        """Over the seeds, at the epochs that all of them have."""
        epochs = set.intersection(*(set(points) for points in self.seeds)) if self.seeds else set()
        return {e: statistics.mean(points[e] for points in self.seeds) for e in sorted(epochs)}


def read_curve(cell: Cell, measure: str) -> list[Points]:
    """A measure by epoch, of each run that has it."""
    found = []
    for run in {} if cell.differences else cell.runs.values():
        epochs = run.results.get("epochs") or []
        points = {int(e["epoch"]): float(e[measure]) for e in epochs if e.get(measure) is not None}
        if points:
            found.append(points)
    return found


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers from at most ``low`` to at least ``high``."""
    span = max(high - low, 1e-9)
    power = 10 ** math.floor(math.log10(span / count))
    step = next(m * power for m in (1, 2, 5, 10) if m * power * count >= span)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def draw(
    title: str,
    curves: Sequence[Curve],
    levels: Mapping[str, tuple[float, int]],
    ident: str,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    limits: Sequence[float] = (),
) -> str:
    """An SVG picture.

    Args:
        curves: those without points are left out; there must be one with points.
        levels: values to draw as horizontal lines, with their look, by name.
        ident: an id that is unique on the page.
        size: width and height.
        limits: values that must be on the picture too, so that several have one scale.
    """
    curves = [curve for curve in curves if curve.mean]
    width, height = size
    values = [v for curve in curves for points in curve.seeds for v in points.values()]
    values += [*limits, *(value for value, _ in levels.values())]
    epochs = [e for curve in curves for points in curve.seeds for e in points]
    y_ticks = ticks(min(values), max(values))
    first, last = min(epochs), max(epochs)
    x_ticks = [t for t in ticks(first, last, 6) if first <= t <= last and t == int(t)]

    def x(epoch: float) -> float:
        return LEFT + (width - LEFT - RIGHT) * ((epoch - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return height - BOTTOM - (height - TOP - BOTTOM) * (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    def path(points: Points, kind: str) -> str:
        if len(points) == 1:  # a line of one point would not show
            ((epoch, value),) = points.items()
            return f'<path class="{kind}" d="M{x(epoch) - 4:.1f} {y(value):.1f}h8"/>'
        line = "L".join(f"{x(e):.1f} {y(v):.1f}" for e, v in sorted(points.items()))
        return f'<path class="{kind}" d="M{line}"/>'

    parts = []
    for tick in y_ticks:
        parts.append(
            f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{width - RIGHT}"/>'
            f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in x_ticks:
        parts.append(f'<text x="{x(tick):.1f}" y="{height - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{(LEFT + width - RIGHT) / 2:.1f}" y="{height - 5}" text-anchor="middle">epoch</text>')
    for value, look in levels.values():
        parts.append(f'<path class="level {look_classes(look)}" d="M{LEFT} {y(value):.1f}H{width - RIGHT}"/>')
    for curve in curves:
        classes = look_classes(curve.look)
        if len(curve.seeds) > 1:
            parts += [path(points, f"seed {classes}") for points in curve.seeds]
        parts.append(path(curve.mean, f"line {classes}"))
    ends = [f"{c.name} ends at {c.mean[max(c.mean)]:.1f}" for c in curves]
    ends += [f"{name}: {value:.1f}" for name, (value, _) in levels.items()]
    return svg(title, f"By epoch, in percent. {'; '.join(ends)}.", width, height, parts, ident)
