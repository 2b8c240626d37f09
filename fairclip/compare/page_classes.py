"""The parts of the page that go by class: look-alikes, the confusion matrix, gains over zero-shot."""

import statistics
from collections.abc import Sequence
from html import escape

from fairclip.compare.classes import all_confusions, reference, siblings
from fairclip.compare.comparison import INDUCTIVE, Comparison
from fairclip.compare.markup import Names, table, td, th
from fairclip.compare.matrix import MOST, draw_matrix
from fairclip.compare.methods import Method
from fairclip.compare.runs import Column


def siblings_part(comparison: Comparison, column: Column, names: Names) -> str:
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
    return "<h3>Look-alike classes</h3>" + table(caption, ["Pair", *(m.name for m in found)], [("", rows)], names=names)


def matrix_part(comparison: Comparison, column: Column, ident: str, names: Names) -> str:
    """The whole confusion matrix of zero-shot and of FAIR, or of the best that trains."""
    found = all_confusions(comparison, column)
    shown = [m for m in (reference(comparison, column, list(found)), subject(comparison, column, list(found))) if m]
    if not shown:
        return ""
    title, classes = "<h3>Confusion matrix</h3>", max(len(found[m].classes) for m in shown)
    if classes > MOST:
        return (
            f"{title}<p>{classes} classes are too many for a picture: the pairs above are those that matter most.</p>"
        )
    figures = []
    for i, method in enumerate(shown):
        picture = draw_matrix(f"Confusion matrix of {method.name}, {column.dataset}", found[method], f"{ident}-m{i}")
        label = f"Confusion matrix of {method.name}"
        figures.append(
            f'<figure><figcaption>{names[method]}</figcaption><div class="scroll" role="region" tabindex="0" '
            f'aria-label="{escape(label)}">{picture}</div></figure>'
        )
    over = ", over all seeds" if comparison.several_seeds() else ""
    return (
        f'{title}<div class="matrices">{"".join(figures)}</div><p class="note">Rows: the true classes; columns: the '
        f"predictions, in the same order. Each cell: how many of the row’s images, in %{over}. Green: right.</p>"
    )


def subject(comparison: Comparison, column: Column, among: Sequence[Method]) -> Method | None:
    """FAIR, or without it the best of the ranked methods that depend on the seed."""
    fair = next((m for m in among if m.key == "fair"), None)
    ranked = [m for m in among if not m.zero_shot and comparison.group(m) == INDUCTIVE]
    means = {m: statistics.mean(comparison.cell(m, column).accuracies.values()) for m in ranked}
    return fair or max(ranked, key=lambda m: means[m], default=None)


def classes_part(comparison: Comparison, column: Column, names: Names) -> str:
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
    return title + table(caption, head, [("", rows)], names=names)
