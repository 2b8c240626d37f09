"""Statistics over seeds: mean ± standard deviation, averages over data sets, ranks, and paired intervals."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairclip.compare.comparison import INDUCTIVE, RANKED, Comparison
from fairclip.compare.methods import Method
from fairclip.compare.runs import Column

LEVEL = 0.95
SEEDS, SETS = 3, 5  # from so many on an interval is shown: that of two values would be wider than any difference


@dataclass(frozen=True)
class Scores:
    """A method's accuracies by seed. Where the seed does not matter there is one, and it stands for every seed."""

    by_seed: Mapping[int, float]
    once: bool = False

    @property
    def mean(self) -> float:
        return statistics.mean(self.by_seed.values())

    @property
    def sd(self) -> float | None:
        """Sample standard deviation; None of a single value."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None


@dataclass(frozen=True)
class Gain:
    """What one method is ahead of another, paired by seed."""

    other: Method
    mean: float
    half: float | None  # half the width of the interval; None of too few seeds
    seeds: int


def scores(comparison: Comparison, method: Method, column: Column) -> Scores | None:
    """None where no run is finished, or those that are must not be averaged."""
    found = comparison.cell(method, column).accuracies
    return Scores(found, method.once) if found else None


def average(comparison: Comparison, method: Method) -> Scores | None:
    """The mean over all data sets, seed by seed. None unless every data set is there with the same seeds."""
    cells = [s for column in comparison.columns if (s := scores(comparison, method, column)) is not None]
    if len(cells) < len(comparison.columns):
        return None
    if method.once:  # the one run may have another seed on each data set
        return Scores({0: statistics.mean(cell.mean for cell in cells)}, once=True)
    if len({tuple(cell.by_seed) for cell in cells}) > 1:
        return None
    return Scores({seed: statistics.mean(cell.by_seed[seed] for cell in cells) for seed in cells[0].by_seed})


def rank(
    comparison: Comparison, found: Mapping[Method, Scores | None], column: Column | None = None
) -> dict[Method, int]:
    """1 for the best mean and 2 for the second of each label-free group; equal means share a rank. Methods that see
    more of the test images than others are never ranked with them, and a group of one method is not ranked.

    Args:
        column: what the scores are of; methods that lack seeds there are not ranked. None: the average, where those
            that lack seeds on any data set are not.
    """
    columns = comparison.columns if column is None else [column]
    whole = [m for m in found if not any(comparison.cell(m, c).missing for c in columns)]
    ranks: dict[Method, int] = {}
    for group in RANKED:
        means = {m: s.mean for m in whole if (s := found[m]) is not None and comparison.group(m) == group}
        best = sorted(set(means.values()), reverse=True)[:2] if len(means) > 1 else []
        ranks |= {m: best.index(mean) + 1 for m, mean in means.items() if mean in best}
    return ranks


def interval(differences: Sequence[float], least: int = 2, level: float = LEVEL) -> float | None:
    """Half the width of Student's t interval of the mean; None of fewer than ``least`` values, which is 2 or more."""
    if len(differences) < least:
        return None
    from scipy.stats import t  # takes a second to import

    quantile = float(t.ppf((1 + level) / 2, len(differences) - 1))
    return quantile * statistics.stdev(differences) / math.sqrt(len(differences))


def paired_differences(a: Scores, b: Scores) -> list[float]:
    """a - b for each seed that both have."""
    if a.once and b.once:
        return [a.mean - b.mean]
    if a.once or b.once:
        seeds = b.by_seed if a.once else a.by_seed
        return [(a.mean if a.once else a.by_seed[s]) - (b.mean if b.once else b.by_seed[s]) for s in seeds]
    return [value - b.by_seed[seed] for seed, value in a.by_seed.items() if seed in b.by_seed]


def differences_over_sets(comparison: Comparison, a: Method, b: Method) -> list[float]:
    """a - b on each data set, paired by seed. Empty unless both are on every data set, with a seed that they share."""
    found = []
    for column in comparison.columns:
        own, other = scores(comparison, a, column), scores(comparison, b, column)
        differences = paired_differences(own, other) if own is not None and other is not None else []
        if not differences:
            return []
        found.append(statistics.mean(differences))
    return found


def gain(comparison: Comparison, method: Method, found: Mapping[Method, Scores | None]) -> Gain | None:
    """What ``method`` is ahead of the best other label-free inductive method that has all its seeds: that with the
    highest mean over them.

    None if ``method`` has no scores, or no other has all its seeds.
    """
    own = found.get(method)
    if own is None:
        return None
    others = {m: s for m, s in found.items() if m != method and s is not None and comparison.group(m) == INDUCTIVE}
    ahead = {m: paired_differences(own, s) for m, s in others.items() if s.once or set(s.by_seed) >= set(own.by_seed)}
    if not ahead:
        return None
    best = min(ahead, key=lambda m: statistics.mean(ahead[m]))
    return Gain(best, statistics.mean(ahead[best]), interval(ahead[best], SEEDS), len(ahead[best]))
