"""How far the probabilities of a method can be believed: what predictions.csv says of confidence and correctness."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairclip.compare.runs import Cell
from fairclip.core.csv_files import read_csv
from fairclip.core.errors import require
from fairclip.run.results import FILENAME, PREDICTIONS

BINS = 15
ROUNDING = 5e-5  # confidences are written with four digits


@dataclass(frozen=True)
class Judged:
    """What is said of a test image."""

    right: bool
    confidence: float  # the probability of the prediction
    of_label: float | None  # the probability of the label; None: not noted, as in runs of before


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies in one part of 0 to 1."""

    images: int
    confidence: float  # mean
    accuracy: float  # of 0 to 1


@dataclass(frozen=True)
class Reliability:
    """Of a method on one data set; the figures are those of each seed."""

    ece: list[float]  # expected calibration error, in percent
    nll: list[float]  # mean of -ln of the label's probability
    exact: bool  # whether the NLL is; else it is at least that
    confidence: list[float]  # mean, in percent
    bins: list[Bin]  # over all seeds, those with images


def read_judged(folder: Path) -> list[Judged]:
    """What a run's predictions.csv says; nothing if it is not there or has no probabilities.

    Raises:
        UserError: it is damaged.
    """
    path = folder / PREDICTIONS
    if not path.exists():
        return []
    advice = f"Delete it and {FILENAME} beside it to test again"
    optional = ("probability", "confidence", "label_probability")  # "confidence": older runs' name of the probability
    rows = read_csv(path, ("label", "prediction"), "the predictions of a run", advice, optional)

    def probability(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        require(0 <= value <= 1, f"{path}: '{text}' is no probability. {advice}")
        return value

    return [
        Judged(label == prediction, probability(sure or older), probability(own) if own else None)
        for label, prediction, sure, older, own in rows
        if sure or older
    ]


def bin_of(confidence: float, bins: int = BINS) -> int:
    """Which of so many equal parts of 0 to 1 it lies in; each has its upper end."""
    return max(0, math.ceil(round(confidence * bins, 9)) - 1)


def in_bins(judged: Sequence[Judged], bins: int = BINS) -> list[Bin]:
    groups: list[list[Judged]] = [[] for _ in range(bins)]
    for image in judged:
        groups[bin_of(image.confidence, bins)].append(image)
    return [
        Bin(len(group), statistics.fmean(j.confidence for j in group), statistics.fmean(j.right for j in group))
        for group in groups
        if group
    ]


def calibration_error(judged: Sequence[Judged], bins: int = BINS) -> float:
    """ECE in percent: how far confidence and accuracy lie apart, on the mean over images."""
    found = in_bins(judged, bins)
    return 100 * sum(b.images * abs(b.accuracy - b.confidence) for b in found) / len(judged)


def surprise(image: Judged) -> float:
    """-ln of the label's probability, or the least that it can be where that probability is not noted.

    What a wrong prediction leaves for the label is at most its rest, and no more than the prediction has.
    """
    if image.of_label is not None:
        return -math.log(max(image.of_label, math.ulp(0.0)))
    if image.right:
        return -math.log(max(image.confidence, ROUNDING))
    return -math.log(min(image.confidence, 1 - image.confidence) + ROUNDING)


def reliability(cell: Cell) -> Reliability | None:
    """None if there are no runs, one of them has no confidences, or they must not be averaged."""
    found = [read_judged(run.folder) for run in cell.runs.values()]
    if not found or cell.differences or not all(found):
        return None
    return Reliability(
        ece=[calibration_error(judged) for judged in found],
        nll=[statistics.fmean(map(surprise, judged)) for judged in found],
        exact=all(image.of_label is not None for judged in found for image in judged),
        confidence=[100 * statistics.fmean(image.confidence for image in judged) for judged in found],
        bins=in_bins([image for judged in found for image in judged]),
    )
