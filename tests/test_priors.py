"""Class priors: the file that gives them, what they do to a run, and the long-tailed built-in set."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
import toys

from datasets.synth_cars import long_tail
from fairclip.core.errors import UserError
from fairclip.text.priors import read_prior

NAMES = ["red car", "green car", "blue car"]


def write(path, shares) -> str:
    path.write_text(shares if isinstance(shares, str) else json.dumps(shares))
    return str(path)


def test_numbers_of_images_become_shares_in_the_order_of_the_classes(tmp_path):
    file = write(tmp_path / "prior.json", {"blue car": 10, "red car": 25.0, "green car": 15})
    assert read_prior(file, NAMES).tolist() == pytest.approx([0.5, 0.3, 0.2])


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ("{", "not valid JSON"),
        ([1, 2, 3], "not a JSON object"),
        ({"red car": 1, "green car": 1}, "no share of blue car"),
        (dict.fromkeys([*NAMES, "bike"], 1), "does not have: bike"),
        (dict.fromkeys(NAMES, 0), "no positive numbers"),
        (dict.fromkeys(NAMES, True), "no positive numbers"),
        (dict.fromkeys(NAMES, "1"), "no positive numbers"),
        ('{"red car": NaN, "green car": 1, "blue car": 1}', "NaN is no number"),
    ],
)
def test_mistakes(tmp_path, shares, message):
    with pytest.raises(UserError, match=message):
        read_prior(write(tmp_path / "prior.json", shares), NAMES)
    with pytest.raises(UserError, match="absent.json cannot be read as a class prior"):
        read_prior(str(tmp_path / "absent.json"), NAMES)


def test_a_prior_changes_labels(data, backbone, tmp_path):  # noqa: F811
    """Labels move to the class that is said to be common; a prior of equal shares is none."""
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(32, 5, 16, generator=generator), dim=-1)
    counts = []
    for name, shares in {"none": None, "even": [7, 7, 7], "red": [1000, 1, 1]}.items():
        opts = ()
        if shares:
            file = write(tmp_path / f"{name}.json", dict(zip(NAMES, shares, strict=True)))
            opts = ("TRAINER.FAIR.PRIOR", file)
        trainer = toys.build("FAIR", data, backbone, tmp_path / name, *opts)
        labels = trainer.pseudo_label(features[:, 0], features[:, 1:], {"index": torch.arange(32)})
        counts.append(Counter(labels.y.tolist()))
    assert counts[0] == counts[1] and counts[2][0] > counts[0][0]


def test_a_run_of_a_prior(data, backbone, tmp_path):  # noqa: F811
    file = write(tmp_path / "prior.json", {"red car": 3, "green car": 2, "blue car": 1})
    results = toys.run("FAIR", data, backbone, tmp_path / "run", "TRAINER.FAIR.PRIOR", file)
    assert len(results["epochs"]) == toys.EPOCHS


def test_a_long_tail_falls_to_its_ratio():
    items = [SimpleNamespace(impath=f"{label}/{i}", label=label) for label in range(5) for i in range(40)]
    kept = long_tail(items, 10.0, seed=1)
    sizes = Counter(item.label for item in kept)
    assert sorted(sizes.values(), reverse=True) == [40, 22, 13, 7, 4]
    assert kept == long_tail(items, 10.0, seed=1) != long_tail(items, 10.0, seed=2)
    for label, size in sizes.items():
        assert [item.impath for item in kept if item.label == label] == [f"{label}/{i}" for i in range(size)]
