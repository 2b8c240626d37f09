"""ECE and NLL, against sums by hand in exact fractions and float64."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from made_up_runs import finish

from fairclip.compare import reliability, runs
from fairclip.core.errors import UserError
from fairclip.run.results import write_predictions


def write(folder, images: list[tuple[bool, str, str]]):
    """Predictions of two classes: whether right, the confidence, and the label's probability."""
    head = "image,label,prediction,confidence,label_probability"
    lines = [f"{i}.png,a,{'a' if right else 'b'},{sure},{own}" for i, (right, sure, own) in enumerate(images)]
    finish(folder)
    (folder / "predictions.csv").write_text("\n".join([head, *lines]) + "\n")
    return folder


def by_hand(images: list[tuple[bool, str, str]], bins: int = 15) -> float:
    total = Fraction(0)
    for i in range(bins):
        low, high = Fraction(i, bins), Fraction(i + 1, bins)
        inside = [(right, Fraction(sure)) for right, sure, _ in images if low < Fraction(sure) <= high]
        total += abs(sum(right for right, _ in inside) - sum(sure for _, sure in inside))
    return float(100 * total / len(images))


def test_calibration_error_and_nll(tmp_path):
    rng = random.Random(0)
    sure = [f"{rng.randint(1, 10000) / 10000:.4f}" for _ in range(400)] + ["0.2000", "0.4000", "0.6000", "1.0000"] * 9
    images = [(rng.random() < float(p), p, f"{rng.random() * float(p) ** 3:.4g}") for p in sure]
    folder = write(tmp_path / "FAIR/tiny/seed1", images)
    found = reliability.reliability(runs.Cell({1: runs.Run(folder, 1, {})}))
    assert found.ece == [pytest.approx(by_hand(images), abs=1e-9)] and found.exact
    nll = -np.log(np.array([float(own) for _, _, own in images], dtype=np.float64)).mean()
    assert found.nll == [pytest.approx(nll, rel=1e-12)]
    assert sum(b.images for b in found.bins) == len(images)
    assert found.confidence == [pytest.approx(100 * np.mean([float(p) for p in sure]))]


def test_figures_of_each_seed_and_bins_of_all(tmp_path):
    first = write(tmp_path / "FAIR/tiny/seed1", [(True, "0.9000", "0.9"), (False, "0.9000", "0.1")])
    second = write(tmp_path / "FAIR/tiny/seed2", [(True, "0.9000", "0.9")])
    found = reliability.reliability(runs.Cell({1: runs.Run(first, 1, {}), 2: runs.Run(second, 2, {})}))
    assert found.ece == pytest.approx([40, 10]) and [b.images for b in found.bins] == [3]


def test_without_the_labels_probability_nll_is_a_bound(tmp_path):
    names = ["a", "b", "c"]
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], 50)
    labels = np.arange(50) % 3
    rows = [(f"{i}", labels[i], p.argmax(), p.max()) for i, p in enumerate(probabilities)]
    own = probabilities[np.arange(50), labels]
    found = {}
    for name, of_labels in (("new", own.tolist()), ("old", ())):
        folder = finish(tmp_path / f"{name}/FAIR/tiny/seed1")
        write_predictions(folder, "/data", names, rows, of_labels)
        found[name] = reliability.reliability(runs.Cell({1: runs.Run(folder, 1, {})}))
    assert found["new"].nll == [pytest.approx(-np.log(own).mean(), rel=1e-3)]
    assert found["old"].nll[0] <= found["new"].nll[0] and not found["old"].exact
    assert found["old"].ece == found["new"].ece


def test_zeros_and_damage(tmp_path):
    folder = write(tmp_path / "FAIR/tiny/seed1", [(False, "1.0000", "0"), (True, "0.0000", "0.0")])
    found = reliability.reliability(runs.Cell({1: runs.Run(folder, 1, {})}))
    assert math.isfinite(found.nll[0]) and found.nll[0] > 700
    for text in ("1.5", "nan", "sure"):
        write(folder, [(True, text, "0.5")])
        with pytest.raises(UserError, match=f"predictions.csv: '{text}' is no probability. Delete it"):
            reliability.read_judged(folder)
    (folder / "predictions.csv").write_text("image,label,prediction\n1.png,a,a\n")
    assert reliability.reliability(runs.Cell({1: runs.Run(folder, 1, {})})) is None
