"""Predictions of finished runs of other methods than FAIR: what they have is one vector a class, too."""

import csv
import json
from pathlib import Path

import pytest
import torch
from commands import export, predict
from toys import build, checkpoint, make_data, run

from fairclip import Predictor
from fairclip.core.errors import UserError

pytestmark = pytest.mark.usefixtures("console")

# Trainer, its options, and what its logits have besides cosines.
METHODS = [
    ("UPL", (), set()),
    ("UPL", ("TRAINER.UPL.ENSEMBLE", "3"), {"lengths"}),
    ("PromptLearning", ("TRAINER.PROMPTLEARNING.CSC", "True"), set()),
    ("CPL", ("TRAINER.CPL.ROUND_EPOCHS", "1"), set()),
    ("GRIP", ("TRAINER.GRIP.ROUND_EPOCHS", "1"), set()),
    ("DPA", (), set()),
    ("MUST", ("OPTIM.LR", "1e-2"), {"lengths"}),
    ("GTA", ("OPTIM.LR", "1e-3"), {"lengths", "bias"}),
    ("LinearProbe", (), {"lengths", "bias"}),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), val=4)


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "predictions.csv", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("trainer, opts, beyond", METHODS)
def test_predictions_are_those_of_the_run(trainer, opts, beyond, data, backbone, tmp_path):
    run(trainer, data, backbone, tmp_path, "OPTIM.MAX_EPOCH", "2", *opts)
    predictor, said = Predictor.load(tmp_path, device="cpu"), rows(tmp_path)
    paths = [data / row["image"] for row in said]
    answers = predictor(paths, batch=5)
    # predictions.csv has four digits: the model itself says the rest.
    model = build(trainer, data, backbone, tmp_path / "again", "OPTIM.MAX_EPOCH", "2", *opts)
    model.load_model(str(tmp_path))
    model.set_model_mode("eval")
    expected = model.predict(model.test_loader, "test").softmax(dim=1)
    torch.testing.assert_close(answers, expected, atol=1e-5, rtol=0)
    best = answers.max(dim=1)
    assert [predictor.classnames[i] for i in best.indices] == [row["prediction"] for row in said]
    assert best.values.tolist() == pytest.approx([float(row["probability"]) for row in said], abs=6e-5)

    assert {"lengths", "bias"} & predictor.settings.keys() == beyond
    small = Predictor.load(predictor.save(tmp_path / "small.pt"))
    torch.testing.assert_close(small(paths), answers)
    others = predictor.with_classes(["red car", "bike"])  # what training said of classes is not said of these
    assert not {"lengths", "bias"} & others.settings.keys() and others(paths).shape == (len(paths), 2)


def test_the_lengths_of_an_ensemble_count(data, backbone, tmp_path, capsys):
    """Unit vectors would make it surer than it is."""
    shared = ("TRAINER.UPL.N_CTX", "16", "TRAINER.UPL.CSC", "False")
    run("UPL", data, backbone, tmp_path, "OPTIM.MAX_EPOCH", "1", "TRAINER.UPL.ENSEMBLE", "3", *shared)
    predictor, image = Predictor.load(tmp_path), data / "test_0_0.png"
    lengths = predictor.settings["lengths"]
    assert len(lengths) == 3 and all(0 < length < 0.9999 for length in lengths)
    surer = (predictor.model.tau * predictor.likeness(image)).softmax(dim=1)
    assert surer.max() > predictor(image).max() + 1e-4
    capsys.readouterr()
    assert predict([str(tmp_path), str(image), "--top", "1"]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert float(row["probability"]) == pytest.approx(predictor(image).max().item(), abs=1e-4)
    assert float(row["likeness"]) <= 1
    assert export([str(tmp_path), "--to", "openai", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "logits are more than cosines" in error and "have lengths" in error and not (tmp_path / "out").exists()


def test_prompts_of_one_member_can_be_exported(data, backbone, tmp_path):
    run("UPL", data, backbone, tmp_path, "OPTIM.MAX_EPOCH", "1")
    assert export([str(tmp_path), "--to", "openai", "--out", str(tmp_path / "out")]) == 0
    assert len(json.loads((tmp_path / "out/export.json").read_text())["classes"]) == 3


def test_what_has_no_vector_a_class_is_named(data, backbone, tmp_path):
    run("LaFTer", data, backbone, tmp_path / "lafter", "OPTIM.MAX_EPOCH", "1")
    with pytest.raises(UserError, match="a run of LaFTer, whose model is more than .* prompts go through the tower"):
        Predictor.load(tmp_path / "lafter")
    run("TransCLIP", data, backbone, tmp_path / "transclip", "TRAINER.TRANSCLIP.INDUCTIVE", "True")
    with pytest.raises(UserError, match="TransCLIP trains nothing"):
        Predictor.load(tmp_path / "transclip")


def test_prompt_runs_from_before_have_to_be_trained_again(data, backbone, tmp_path):
    run("UPL", data, backbone, tmp_path, "OPTIM.MAX_EPOCH", "1")
    state = checkpoint(tmp_path, "UPL", 1)
    torch.save(state | {"prediction": state["prediction"] | {"anchors": None}}, tmp_path / "upl/model.pth.tar-1")
    with pytest.raises(UserError, match="from before it had the vectors"):
        Predictor.load(tmp_path)
