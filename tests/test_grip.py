"""Prompts learned over rounds, CPL and GRIP: whole runs through train.py."""

import json
from pathlib import Path

import pytest
import torch
from test_candidates import as_boards, as_sets, boards_by_hand, inter_by_hand, intra_by_hand
from test_upl import probabilities
from toys import (
    arguments,
    build,
    check_refused,
    checkpoint,
    make_data,
    run,
)

from fairclip.method.context import initial_context
from fairclip.views.loading import mixed_seed

pytestmark = pytest.mark.usefixtures("console")

TRAINERS = ["GRIP", "CPL"]


def short(trainer: str, **more: object) -> tuple[str, ...]:
    """Options of runs with two epochs a round, half of the images in the first, and one context for all classes."""
    keys = {"ROUND_EPOCHS": 2, "STEP": 0.5, "N_CTX": 16, "CSC": False} | more
    own = [word for key, value in keys.items() for word in (f"TRAINER.{trainer}.{key}", str(value))]
    return (*own, "OPTIM.LR", "0.01", "OPTIM.WARMUP_EPOCH", "1", "DATALOADER.TRAIN_X.BATCH_SIZE", "4")


@pytest.fixture(scope="module")
def finished(data, backbone, tmp_path_factory) -> dict[str, tuple[Path, dict]]:
    outs = {trainer: tmp_path_factory.mktemp(trainer) for trainer in TRAINERS}
    return {trainer: (out, run(trainer, data, backbone, out, *short(trainer))) for trainer, out in outs.items()}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_run(trainer, finished):
    out, results = finished[trainer]
    rates = [1e-4, 0.01, 1e-4]  # the second round begins as the first did
    assert [record["lr"] for record in results["epochs"]] == pytest.approx(rates)
    state = checkpoint(out, trainer)
    assert {name: value.shape for name, value in state["state_dict"].items()} == {"contexts": (1, 16, 64)}
    extra = state["extra"]
    assert len(extra["chosen"]) == len(extra["boards"]) == len(extra["sets"])
    assert extra["sets"][range(len(extra["boards"])), extra["boards"]].all()
    assert max(extra["boards"].bincount()) <= 12
    if trainer == "GRIP":
        assert len(extra["chosen"]) == 36 and (extra["sets"].sum(dim=1) == 1).all()  # all images in the second round


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_first_round_is_labelled_by_names(trainer, data, backbone, tmp_path):
    rules = {} if trainer == "GRIP" else {"ALPHA": 1.0, "GAMMA": 3.0}
    opts = ("OPTIM.MAX_EPOCH", "1", f"TRAINER.{trainer}.PREC", "fp32")
    run(trainer, data, backbone, tmp_path, *short(trainer, TOP_K=4, **rules), *opts)
    extra = checkpoint(tmp_path, trainer, 1)["extra"]
    probs, allowed = probabilities(data, backbone).double().tolist(), None
    if trainer == "CPL":
        both = zip(intra_by_hand(probs, 1.0), inter_by_hand(probs, 0.0), strict=True)
        allowed = [a & b for a, b in both]
        assert as_sets(extra["sets"]) == [allowed[i] for i in extra["chosen"].tolist()]
        assert extra["sets"].sum() > len(extra["sets"])
    assert as_boards(extra["chosen"], extra["boards"]) == boards_by_hand(probs, 4, allowed)


@pytest.mark.parametrize("restart", [True, False])
def test_a_round_begins(restart, data, backbone, tmp_path):
    trainer = build("GRIP", data, backbone, tmp_path, *short("GRIP", RESTART=restart))
    trainer.before_train()
    trainer.epoch = 0
    trainer.before_epoch()
    trainer.forward_backward(next(iter(trainer.train_loader_x)))
    moved = trainer.model.contexts.detach().clone()
    start = initial_context(mixed_seed(1, 0), 16, 64)
    (optim,) = trainer._optims.values()
    assert optim.state and not torch.equal(moved[0], start) and len(trainer.chosen) == 18
    trainer.epoch = 1
    trainer.before_epoch()
    assert optim.state and len(trainer.chosen) == 18
    trainer.epoch = 2
    trainer.before_epoch()
    assert not optim.state and len(trainer.chosen) == 36
    assert torch.equal(trainer.model.contexts[0], start if restart else moved[0])


def test_the_gradient_of_cpl_is_not_longer_than_its_limit(data, backbone, tmp_path):
    opts = (*short("CPL", MAX_NORM=0.01), "OPTIM.LR", "0.5", "OPTIM.WEIGHT_DECAY", "0.0", "OPTIM.WARMUP_EPOCH", "0")
    trainer = build("CPL", data, backbone, tmp_path, *opts)
    trainer.before_train()
    trainer.epoch = 0
    trainer.before_epoch()
    before = trainer.model.contexts.detach().clone()
    trainer.forward_backward(next(iter(trainer.train_loader_x)))
    assert (trainer.model.contexts - before).norm().item() == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_images_without_labels(backbone, tmp_path):
    source, root = make_data(tmp_path, train=4, test=1), tmp_path / "mine"
    (root / "train").mkdir(parents=True)
    for part, items in json.loads((source / "split.json").read_text()).items():
        for name, label in items:
            folder = root / part if part == "train" else root / part / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(source / name)
    (root / "classes.txt").write_text("0\n1\n2\n")
    results = run("CPL", root, backbone, tmp_path / "out", *short("CPL"), "DATASET.NAME", "ImageFolder")
    assert not any("pseudo_accuracy" in record for record in results["epochs"])


@pytest.mark.parametrize(
    "trainer, opts, message",
    [
        ("GRIP", ("TRAINER.GRIP.STEP", "0.0"), "TRAINER.GRIP.STEP 0.0: a share above 0"),
        ("GRIP", ("TRAINER.GRIP.TOP_K", "-1"), "TRAINER.GRIP.TOP_K -1"),
        ("GRIP", ("TRAINER.GRIP.ROUND_EPOCHS", "0"), "TRAINER.GRIP.ROUND_EPOCHS 0"),
        ("GRIP", ("INPUT.CUTOUT_N", "2"), "GRIP does not read it"),
        ("CPL", ("TRAINER.CPL.ALPHA", "1.5"), "TRAINER.CPL.ALPHA 1.5: a quantile"),
        ("CPL", ("TRAINER.CPL.GAMMA", "0.0"), "TRAINER.CPL.GAMMA 0.0"),
        ("CPL", ("TRAINER.CPL.MAX_NORM", "0.0"), "TRAINER.CPL.MAX_NORM 0.0"),
    ],
)
def test_mistakes(data, backbone, tmp_path, capsys, trainer, opts, message):
    check_refused(arguments(trainer, data, backbone, tmp_path, *opts), message, capsys)
