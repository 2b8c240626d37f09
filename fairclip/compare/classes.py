"""What predictions.csv says by class: accuracies, and which classes are taken for one another."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fairclip.compare.comparison import Comparison
from fairclip.compare.methods import Method
from fairclip.compare.runs import Cell, Column


@dataclass(frozen=True)
class Confusions:
    """A method's predictions on one data set, over all its seeds."""

    images: Counter[str]  # by label
    counts: Counter[tuple[str, str]]  # by label and prediction

    @property
    def classes(self) -> list[str]:
        """All that have images or are predicted, by name."""
        return sorted({*self.images, *(predicted for _, predicted in self.counts)})

    def accuracy(self, label: str) -> float:
        """Of the images of that class, in percent."""
        return 100 * self.counts[label, label] / self.images[label]

    def mixed_up(self, a: str, b: str) -> float:
        """Of the images of two classes, those of each taken for the other, in percent."""
        return 100 * (self.counts[a, b] + self.counts[b, a]) / (self.images[a] + self.images[b])


def confusions(cell: Cell) -> Confusions | None:
    """None if there are no runs, one of them has no predictions.csv, or they must not be averaged."""
    found = [rows for run in cell.runs.values() if (rows := run.predictions)]
    if not found or cell.differences or len(found) < len(cell.runs):
        return None
    images: Counter[str] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    for rows in found:
        images.update(label for _, label, _ in rows)
        counts.update((label, predicted) for _, label, predicted in rows)
    return Confusions(images, counts)


def all_confusions(comparison: Comparison, column: Column) -> dict[Method, Confusions]:
    """Of the methods that have predictions for the same classes as the first of them."""
    found = {m: c for m in comparison.methods if (c := confusions(comparison.cell(m, column))) is not None}
    classes = {frozenset(c.images) for c in found.values()}
    return found if len(classes) == 1 else {}


def reference(comparison: Comparison, column: Column, methods: Sequence[Method]) -> Method | None:
    """The zero-shot method with the highest accuracy, of those given."""
    zero_shot = [m for m in methods if m.zero_shot and comparison.cell(m, column).accuracies]
    return max(zero_shot, key=lambda m: max(comparison.cell(m, column).accuracies.values()), default=None)


def siblings(found: Sequence[Confusions], most: int = 12) -> list[tuple[str, str]]:
    """The pairs of classes that are taken for one another most, on the mean over the methods, worst first."""
    pairs = {
        (min(a, b), max(a, b))
        for c in found
        for (a, b), count in c.counts.items()
        if count and a != b and b in c.images
    }
    rates = {pair: sum(c.mixed_up(*pair) for c in found) for pair in pairs}
    return sorted(pairs, key=lambda pair: (-rates[pair], pair))[:most]
