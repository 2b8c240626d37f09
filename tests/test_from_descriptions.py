"""TEXTS descriptions of DPA and MUST: they start at CuPL's classifier."""

import pytest
import torch
from toys import (
    arguments,
    build,
    check_refused,
    permute_labels,
)

RATE = ("OPTIM.LR", "1e-3")
TRAINERS = ("DPA", "MUST")

pytestmark = pytest.mark.usefixtures("console")


def described(trainer: str) -> tuple[str, ...]:
    return (*RATE, f"TRAINER.{trainer}.TEXTS", "descriptions")


def start(trainer: str, data, backbone, out, *opts: str) -> torch.Tensor:
    return build(trainer, data, backbone, out, *opts).model.anchors.weight.detach()


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_start_is_the_classifier_of_cupl(trainer, data, backbone, tmp_path):
    cupl = start("CuPL", data, backbone, tmp_path / "cupl")
    built = build(trainer, data, backbone, tmp_path, *described(trainer))
    torch.testing.assert_close(built.model.anchors.weight.detach(), cupl, rtol=0, atol=1e-6)
    assert built.descriptions["file"] == str(data / "descriptions.json")
    if trainer == "DPA":
        torch.testing.assert_close(built.prototypes, cupl, rtol=0, atol=1e-6)  # P of an empty memory
    else:
        torch.testing.assert_close(built.teacher.model.anchors.weight, cupl, rtol=0, atol=1e-6)
    assert not torch.allclose(start(trainer, data, backbone, tmp_path / "names", *RATE), cupl, atol=1e-2)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_without_descriptions_it_is_said_and_the_names_start(trainer, data, backbone, tmp_path, monkeypatch, capsys):
    names = start(trainer, data, backbone, tmp_path / "names", *RATE)
    monkeypatch.setattr("fairclip.run.texts.find_descriptions", lambda path, dataset: None)
    assert torch.equal(start(trainer, data, backbone, tmp_path, *described(trainer)), names)
    said = capsys.readouterr()
    said = said.out + said.err
    assert "there are no class descriptions for Toy, so its classes are known by their names alone" in said
    assert f"or name one by TRAINER.{trainer}.DESCRIPTIONS" in said


@pytest.mark.parametrize("trainer", TRAINERS)
def test_mistakes(trainer, data, backbone, tmp_path, capsys):
    key, value = f"TRAINER.{trainer}.DESCRIPTIONS", str(data / "descriptions.json")
    check_refused(arguments(trainer, data, backbone, tmp_path, key, value), f"{key} is read with", capsys)
    without = permute_labels(data, tmp_path / "without")
    (without / "descriptions.json").unlink()
    argv = arguments(trainer, without, backbone, tmp_path, *described(trainer))
    check_refused(argv, f"the description file {without / 'descriptions.json'} does not exist", capsys)
