"""Every trainer on towers of other shapes, on a miniature of a real data set, through train.py."""

import math
import sys

import miniatures as mini
import pytest
from commands import train
from toys import ROOT, arguments, build, save_clip

from fairclip.run.results import read_results
from fairclip.run.settings import own_settings

TRAINERS = sorted(folder.name for folder in (ROOT / "configs" / "trainers").iterdir())
SMALL = {  # what makes a run short
    "FAIR": ("TRAINER.FAIR.N_CROPS", "2", "TRAINER.FAIR.TOP_K", "1"),
    "GTA": ("TRAINER.GTA.PER_CLASS", "1"),
    "LinearProbe": ("TRAINER.LINEARPROBE.ITERATIONS", "30"),
    "LaFTer": ("TRAINER.LAFTER.TEXT_STEPS", "5"),
    "PromptLearning": ("DATASET.NUM_SHOTS", "1"),
    "ReCLIP": ("TRAINER.RECLIP.TEMPLATES", "('a photo of a {}.',)"),
    "WCA": ("TRAINER.WCA.N_CROPS", "2"),
    "microCLIP": ("TRAINER.MICROCLIP.N_CROPS", "2"),
}


@pytest.fixture(scope="module")
def cars(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    mini.stanford_cars(root, "coop")
    return root


@pytest.fixture(scope="module", params=["vit_l", "resnet"])
def tower(tmp_path_factory, request):
    path = tmp_path_factory.mktemp("clip") / f"{request.param}.pt"
    return request.param, save_clip(path, request.param, pixels=28 if request.param == "vit_l" else 32)


@pytest.fixture(scope="module")
def common(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(common, monkeypatch):
    """One for all: texts of 196 classes take a while."""
    monkeypatch.setenv("FAIR_CACHE", str(common))


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_trainer(trainer, tower, cars, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # setup_logger replaces it
    shape, clip = tower
    status = train(
        arguments(
            trainer,
            cars,
            clip,
            tmp_path,
            "DATASET.NAME",
            "StanfordCars",
            "OPTIM.MAX_EPOCH",
            "1",
            "DATALOADER.TRAIN_X.BATCH_SIZE",
            "16",
            *SMALL.get(trainer, ()),
        )
    )
    if trainer in ("LaFTer", "microCLIP") and shape == "resnet":
        assert status == 2 and "ViT" in capsys.readouterr().err
        return
    assert status == 0
    results = read_results(tmp_path)
    assert results["trainer"] == trainer and 0 <= results["accuracy"] <= 100
    assert all(math.isfinite(value) for epoch in results["epochs"] for value in epoch.values())
    assert results["uses_labels"] == (trainer in ("PromptLearning", "LinearProbe"))
    assert results["transductive"] == (trainer in ("TransCLIP", "StatA"))
    assert results["stream"] == (trainer == "TDA")


@pytest.mark.parametrize("trainer", ["CuPL", "LinearProbe"])
def test_without_our_train_py_there_is_a_config_too(trainer, tower, cars, tmp_path, monkeypatch):
    """Other checkouts' train.py builds the trainer and trains, no more; predictor and tables read config.yaml."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    built = build(trainer, cars, tower[1], tmp_path, "DATASET.NAME", "StanfordCars", *SMALL.get(trainer, ()))
    assert not (tmp_path / "config.yaml").exists()
    built.train()
    assert (tmp_path / "config.yaml").read_text() == own_settings(built.cfg).dump()
    assert read_results(tmp_path)["trainer"] == trainer
