"""Made-up results of finished runs, and what tables of them say."""

import json
from pathlib import Path

import pytest
import yaml
from commands import table

from fairclip.compare import comparison, runs
from fairclip.compare.methods import read_methods


def finish(folder: Path, accuracy: float = 50.0, config: dict | None = None, predictions=(), **more) -> Path:
    """Writes what a finished run leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = folder.parents[1].name
    results = {
        "accuracy": accuracy,
        "macro_f1": accuracy - 1,
        "backbone": "tiny",
        "config_hash": "a",
        "trainer": trainer,
        "trainable_parameters": 5120,
        "seconds": 10.4,
        "views_per_image": 2,
        "epochs": [
            {"epoch": e, "pseudo_accuracy": accuracy - 3 + e, "test_accuracy": accuracy - 2 + e} for e in (1, 2)
        ],
        **more,
    }
    (folder / "results.json").write_text(json.dumps(results))
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if predictions:
        lines = ["image,label,prediction,confidence", *(f"{i}.png,{a},{b},0.5" for i, (a, b) in enumerate(predictions))]
        (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def one_set(tmp_path) -> Path:
    """One data set, three seeds."""
    folder = tmp_path / "output"
    cars = folder / "synth_cars"
    finish(cars / "ZeroshotCLIP" / "tiny" / "seed1", 40)
    finish(cars / "CuPL" / "tiny" / "seed1", 48)
    for seed, plain, fair in ((1, 50, 60), (2, 52, 63), (10, 54, 63)):
        finish(cars / "FAIR" / "tiny_plain" / f"seed{seed}", plain)
        finish(cars / "FAIR" / "tiny" / f"seed{seed}", fair)
    return folder


@pytest.fixture
def two_sets(one_set) -> Path:
    """A second data set, and methods of the other groups."""
    cars, own = one_set / "synth_cars", one_set / "synth_cars_s2"
    finish(own / "CuPL" / "tiny" / "seed7", 58)
    for seed, plain, fair in ((1, 70, 66), (2, 70, 65), (10, 70, 67)):
        finish(own / "FAIR" / "tiny_plain" / f"seed{seed}", plain)
        finish(own / "FAIR" / "tiny" / f"seed{seed}", fair)
        for folder in (cars, own):
            finish(folder / "LinearProbe" / "tiny" / f"seed{seed}", 88 + seed, uses_labels=True)
            finish(folder / "TransCLIP" / "tiny" / f"seed{seed}", 80, transductive=True)
    return one_set


def load(folder: Path, *names: str, seeds=(), config="", methods=()) -> comparison.Comparison:
    known = read_methods()
    columns = runs.choose_columns(folder, names, config, known)
    return comparison.load_comparison(folder, columns, runs.choose_methods(folder, columns, methods, known), seeds)


def cells(text: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def shown(folder: Path, *arguments: str, capsys) -> str:
    assert table([str(folder), *arguments]) == 0
    return capsys.readouterr().out
