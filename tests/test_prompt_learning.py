"""Prompt learning with labels, through train.py."""

import json
from pathlib import Path

import pytest
import torch
from commands import train
from dassl.engine import TRAINER_REGISTRY
from toys import (
    CLASSES,
    arguments,
    build,
    check_refused,
    checkpoint,
    run,
    save_clip,
)

from fairclip.core.plugins import import_plugins
from fairclip.method.context import initial_context
from fairclip.run import config as configs
from fairclip.run import launch
from fairclip.views.loading import mixed_seed
from trainers.prompt_learning import PromptLearning
from trainers.upl import UPL

pytestmark = pytest.mark.usefixtures("console")

NAME = "PromptLearning"


@pytest.fixture(scope="module")
def finished(data, backbone, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    run(NAME, data, backbone, out)
    return out


def weights(out: Path) -> torch.Tensor:
    ((name, value),) = checkpoint(out, "promptlearning")["state_dict"].items()
    assert name == "contexts"
    return value


def test_a_run(finished):
    results = json.loads((finished / "results.json").read_text())
    assert [record["epoch"] for record in results["epochs"]] == [1, 2, 3]
    assert results["trainable_parameters"] == 16 * 64 and weights(finished).shape == (1, 16, 64)
    assert not any("pseudo_accuracy" in record for record in results["epochs"])


def test_it_is_marked_and_stands_beside_coop():
    assert PromptLearning.uses_labels and not getattr(UPL, "uses_labels", False)
    modules, _ = import_plugins("trainers", "datasets")
    assert "CoOp" not in TRAINER_REGISTRY.registered_names()
    cfg = configs.build_cfg(launch.parse_args([]), modules)
    assert cfg.TRAINER.COOP.PREC == "fp16" and cfg.TRAINER.PROMPTLEARNING.PREC == "auto"


def test_it_learns_what_the_labels_say(data, backbone, tmp_path):
    """Contexts of the classes' own fit the training images. (A shared one cannot: the text tower is random here.)"""
    split = json.loads((data / "split.json").read_text())
    seen = tmp_path / "data"
    seen.mkdir()
    for file in data.iterdir():
        (seen / file.name).symlink_to(file)
    (seen / "split.json").unlink()
    (seen / "split.json").write_text(json.dumps({"train": split["train"], "test": split["train"]}))
    opts = ("OPTIM.MAX_EPOCH", "6", "INPUT.TRANSFORMS", "('normalize',)", "TRAINER.PROMPTLEARNING.CSC", "True")
    results = run(NAME, seen, backbone, tmp_path / "out", *opts)
    losses = [record["loss"] for record in results["epochs"]]
    assert losses[-1] < 0.2 * losses[0] and results["accuracy"] > 90


def test_shots(data, backbone, tmp_path, monkeypatch):
    seen, step = set(), PromptLearning.forward_backward

    def watch(self, batch):
        seen.update(zip(batch["impath"], batch["label"].tolist(), strict=True))
        return step(self, batch)

    monkeypatch.setattr(PromptLearning, "forward_backward", watch)
    run(NAME, data, backbone, tmp_path, "DATASET.NUM_SHOTS", "2", "OPTIM.MAX_EPOCH", "1")
    assert sorted(label for _, label in seen) == [0, 0, 1, 1, 2, 2]


def test_a_resnet_tower_and_a_context_for_each_class(data, tmp_path):
    clip = save_clip(tmp_path / "rn.pt", "resnet")
    opts = ("TRAINER.PROMPTLEARNING.CSC", "True", "TRAINER.PROMPTLEARNING.PREC", "bf16")
    run(NAME, data, clip, tmp_path / "out", *opts)
    assert weights(tmp_path / "out").shape == (1, 3, 16, 64)


def test_the_seed_decides(finished, data, backbone, tmp_path):
    run(NAME, data, backbone, tmp_path / "again")
    run(NAME, data, backbone, tmp_path / "other", seed=2)
    assert torch.equal(weights(tmp_path / "again"), weights(finished))
    assert not torch.equal(weights(tmp_path / "other"), weights(finished))
    seed = run(NAME, data, backbone, tmp_path / "any", seed=-1)["seed"]  # drawn, and written down
    run(NAME, data, backbone, tmp_path / "same", seed=seed)
    assert torch.equal(weights(tmp_path / "same"), weights(tmp_path / "any"))


def test_the_seed_decides_the_start(data, backbone, tmp_path):
    still = ("OPTIM.LR", "1e-12", "OPTIM.WARMUP_CONS_LR", "1e-12")
    run(NAME, data, backbone, tmp_path, *still, seed=7)
    torch.testing.assert_close(weights(tmp_path)[0], initial_context(mixed_seed(7, 0), 16, 64), atol=1e-8, rtol=0)


def test_images_without_labels_are_refused(data, backbone, tmp_path, capsys):
    root = tmp_path / "mine"
    (root / "train").mkdir(parents=True)
    (root / "train" / "a.png").symlink_to(data / "train_0_0.png")
    (root / "test" / CLASSES[0]).mkdir(parents=True)
    (root / "test" / CLASSES[0] / "b.png").symlink_to(data / "test_0_0.png")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    opts = ("DATASET.NAME", "ImageFolder", "DATASET.NUM_SHOTS", "-1")
    assert train(arguments(NAME, root, backbone, tmp_path / "out", *opts)) == 2
    assert "1 training images have none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.PROMPTLEARNING.NCTX", "4"), "did you mean TRAINER.PROMPTLEARNING.N_CTX?"),
        (("TRAINER.PROMPTLEARNING.N_CTX", "0"), "N_CTX 0"),
        (("TRAINER.PROMPTLEARNING.PREC", "fp16"), "PREC"),
        (("OPTIM.LR_SCHEDULER", "single_step"), "LR_SCHEDULER"),
        (("OPTIM.WARMUP_TYPE", "linear"), "WARMUP_TYPE"),
        (("OPTIM.LR", "0.0"), "OPTIM.LR"),
        (("DATALOADER.K_TRANSFORMS", "2"), "K_TRANSFORMS"),
        (("TEST.FINAL_MODEL", "best_val"), "last_step"),
    ],
)
def test_mistakes(data, backbone, tmp_path, capsys, opts, message):
    check_refused(arguments(NAME, data, backbone, tmp_path, *opts), message, capsys)


def test_the_ensemble_is_the_mean_of_its_members_logits(data, backbone, tmp_path):
    trainer = build("UPL", data, backbone, tmp_path, "TRAINER.UPL.ENSEMBLE", "3")
    with torch.no_grad():
        trainer.model.contexts.normal_(std=0.5)
        images = torch.randn(4, 3, 32, 32)
        torch.testing.assert_close(trainer.model_inference(images), trainer.model(images).mean(dim=0))
