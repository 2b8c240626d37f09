"""The part of the page on what the methods learn from epoch to epoch."""

import statistics

from fairclip.compare.classes import reference
from fairclip.compare.comparison import Comparison
from fairclip.compare.curves import Curve, draw, read_curve
from fairclip.compare.looks import COLOURS, legend
from fairclip.compare.markup import Names
from fairclip.compare.methods import Method
from fairclip.compare.runs import Column

MEASURES = {"pseudo_accuracy": "Pseudo-label accuracy on the training images", "test_accuracy": "Test accuracy"}


def read_curves(comparison: Comparison, column: Column, measure: str, names: Names) -> list[Curve]:
    """Of the methods that have any."""
    curves = [Curve(m.name, names.looks[m], read_curve(comparison.cell(m, column), measure)) for m in names.looks]
    return [curve for curve in curves if curve.mean]


def zero_shot_level(comparison: Comparison, column: Column, names: Names) -> dict[str, tuple[float, int]]:
    zero_shot = reference(comparison, column, comparison.methods)
    if zero_shot is None:
        return {}
    return {zero_shot.name: (max(comparison.cell(zero_shot, column).accuracies.values()), names.looks[zero_shot])}


def curves_part(comparison: Comparison, column: Column, ident: str, names: Names) -> str:
    parts: list[str] = []
    lines: dict[str, int] = {}  # how the line of each method looks
    missing = ""
    for measure, title in MEASURES.items():
        curves = read_curves(comparison, column, measure, names)
        if not curves:
            if measure == "test_accuracy":
                missing = "No test accuracy by epoch: the runs were made without TEST.EVERY_EPOCH True. "
            continue
        levels = zero_shot_level(comparison, column, names) if measure == "test_accuracy" else {}
        lines |= {curve.name: curve.look for curve in curves} | {name: look for name, (_, look) in levels.items()}
        picture = draw(f"{title}, {column.dataset}", curves, levels, f"{ident}-{measure}")
        parts.append(f"<figure>{picture}<figcaption>{title}, in %</figcaption></figure>")
    if not parts:
        return "<h3>Learning curves</h3><p>None of the runs trains in epochs.</p>"
    return (
        f'<h3>Learning curves</h3><div class="panels">{"".join(parts)}</div>{legend(lines)}'
        f'<p class="note">{missing}{"Thick: mean over seeds; thin: each seed. " if comparison.several_seeds() else ""}'
        "Nothing is chosen by these curves: the last epoch is the result. Pseudo-labels are held against labels for "
        "this picture alone.</p>"
    )


def labels_part(comparison: Comparison, column: Column, ident: str, names: Names) -> str:
    """How good FAIR's own labels are, what comes of them, and what true labels would bring: in one picture."""
    found = {m.key: m for m in comparison.methods}
    fair, oracle = found.get("fair"), found.get("oracle")
    if fair is None or not comparison.cell(fair, column).accuracies:
        return ""
    look, cell = names.looks[fair], comparison.cell(fair, column)
    pseudo, test = (read_curve(cell, measure) for measure in MEASURES)
    curves = [Curve("Its labels of the training images", look + COLOURS, pseudo), Curve("Test", look, test)]
    levels: dict[str, tuple[float, int]] = {}
    if not curves[1].mean:
        levels["Test, last epoch"] = (statistics.mean(cell.accuracies.values()), look)
    if cell.crop_accuracies:
        levels["Test with crops too, last epoch"] = (statistics.mean(cell.crop_accuracies.values()), look + 2 * COLOURS)
    if oracle is not None:
        curves, levels = with_oracle(comparison, column, oracle, names, curves, levels)
    curves = [curve for curve in curves if curve.mean]
    if not curves or len(curves) + len(levels) < 2:
        return ""
    picture = draw(f"FAIR and true labels, {column.dataset}", curves, levels, f"{ident}-labels")
    lines = {c.name: c.look for c in curves} | {name: own for name, (_, own) in levels.items()}
    ends = [(c.name, c.mean[max(c.mean)]) for c in curves] + [(name, value) for name, (value, _) in levels.items()]
    said = "; ".join(f"{name}: {value:.1f}" for name, value in ends)
    return (
        f'<h3>FAIR’s labels, its tests, and true labels</h3><figure class="single">{picture}'
        f"<figcaption>Accuracy in % by epoch. At the last one: {said}.</figcaption></figure>{legend(lines)}"
    )


def with_oracle(
    comparison: Comparison,
    column: Column,
    oracle: Method,
    names: Names,
    curves: list[Curve],
    levels: dict[str, tuple[float, int]],
) -> tuple[list[Curve], dict[str, tuple[float, int]]]:
    """With the line of FAIR with true labels: by epoch, or else as it ends; its labels are right by definition."""
    cell, look = comparison.cell(oracle, column), names.looks[oracle]
    curve = Curve("Test of FAIR with true labels", look, read_curve(cell, "test_accuracy"))
    if curve.mean:
        return [*curves, curve], levels
    if cell.accuracies:
        last = statistics.mean(cell.accuracies.values())
        return curves, levels | {"Test of FAIR with true labels, last epoch": (last, look)}
    return curves, levels
