"""The parts of a run by themselves: state, checkpoints, memory, optimizers, what is said of epochs, settings."""

import logging
import sys
from pathlib import Path

import pytest
import torch
from dassl.config import get_cfg_default
from dassl.optim import build_optimizer as dassl_optimizer
from torch import nn
from yacs.config import CfgNode

from fairclip.backbones.towers import Passes
from fairclip.core.errors import OneMessage, UserError
from fairclip.core.log import as_details, core_as_details, details, log, recorded, show_messages
from fairclip.method.memory import Queue
from fairclip.method.rates import cosine
from fairclip.run import checkpoints, resume
from fairclip.run.evaluation import more_figures
from fairclip.run.finished import different_settings, in_words
from fairclip.run.memory import MemoryGuard
from fairclip.run.optimizers import NAMES, build_optimizer, split_biases
from fairclip.run.progress import LINES, epoch_line, is_shown
from fairclip.run.settings import own_settings, run_hash
from fairclip.run.state import Kept

# -- State -------------------------------------------------------------------------------------------------------------


class Owner:
    """What a trainer keeps, of all three kinds."""

    def __init__(self) -> None:
        self.recent, self.prototypes, self.selected = Queue(3), torch.zeros(2, 3), None
        self.kept = Kept(self)
        for name in ("recent", "prototypes", "selected"):
            self.kept.add(name)


def test_what_is_declared_comes_back():
    one, other = Owner(), Owner()
    one.recent.push(torch.arange(4.0))
    one.prototypes, one.selected = torch.rand(2, 3), [3, 1]
    other.kept.load_state_dict(one.kept.state_dict())
    assert torch.equal(other.recent.mean(), torch.arange(4.0)) and other.selected == [3, 1]
    assert torch.equal(other.prototypes, one.prototypes)


def test_a_checkpoint_that_lacks_what_is_declared_is_an_error():
    state = Owner().kept.state_dict()
    del state["recent"]
    with pytest.raises(KeyError, match="recent"):
        Owner().kept.load_state_dict(state)


# -- Checkpoints -------------------------------------------------------------------------------------------------------


def state(epoch: int, **more) -> dict:
    facts = {"backbone": "tiny", "classnames": ["a"], "config_hash": "h", "seed": 1, "descriptions": None}
    return facts | {"epoch": epoch, "state_dict": {"weight": torch.ones(1, 2) * epoch}} | more


@pytest.mark.parametrize("keep, left", [(0, {4}), (2, {2, 4})])
def test_old_checkpoints_go_but_for_those_to_keep(tmp_path, keep, left):
    (tmp_path / "model.pth.tar-1.bak").touch()  # somebody's copy
    for epoch in (1, 2, 3, 4):
        checkpoints.write_checkpoint(tmp_path, state(epoch), keep)
    names = {f"model.pth.tar-{epoch}" for epoch in left} | {"checkpoint", "model.pth.tar-1.bak"}
    assert {file.name for file in tmp_path.iterdir()} == names
    newest = checkpoints.find_checkpoint(tmp_path)
    assert newest == tmp_path / "model.pth.tar-4" and checkpoints.read_checkpoint(newest)["epoch"] == 4
    assert checkpoints.find_checkpoint(tmp_path, 2) == tmp_path / "model.pth.tar-2"


def test_no_checkpoint_yet(tmp_path):
    assert checkpoints.find_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda path: None, "no checkpoint at .* \\(there: other\\)"),
        (lambda path: path.write_bytes(b"x"), "torch did not write it, or it breaks off"),
        (lambda path: torch.save([1], path), "it holds something else"),
        (lambda path: torch.save({"a": 1}, path), "it lacks backbone, classnames, config_hash, epoch, state_dict"),
        (lambda path: torch.save(state(1, backbone="RN50"), path), "belongs to backbone RN50, not tiny"),
    ],
)
def test_what_is_no_checkpoint_is_said(tmp_path, write, message):
    (tmp_path / "other").touch()
    write(tmp_path / "model.pth.tar-1")
    with pytest.raises(UserError, match=message):
        checkpoints.read_checkpoint(tmp_path / "model.pth.tar-1", "tiny")


def test_saved_parameters_must_fit():
    model = nn.Linear(2, 1, bias=False)
    checkpoints.load_trained(model, state(3))
    assert torch.equal(model.weight, torch.full((1, 2), 3.0))
    with pytest.raises(UserError, match="parameters that the model lacks: other"):
        checkpoints.load_trained(model, state(3, state_dict={"weight": torch.ones(1, 2), "other": torch.ones(1)}))
    with pytest.raises(UserError, match="lacks parameters that this run trains: weight"):
        checkpoints.load_trained(model, state(3, state_dict={}))
    with pytest.raises(UserError, match="does not fit the model"):
        checkpoints.load_trained(model, state(3, state_dict={"weight": torch.ones(5)}))


@pytest.mark.parametrize(
    "now, message",
    [
        ({"config_hash": "g"}, "unfinished run with TRAINER.MINE.K 4 \\(now 8\\): choose another OUTPUT_DIR"),
        ({"seed": 2}, "unfinished run with seed 1 \\(now 2\\)"),
        ({"config_hash": "g", "seed": 2}, "TRAINER.MINE.K 4 \\(now 8\\) and seed 1 \\(now 2\\)"),
        ({"descriptions": {"file": "a.json", "sha256": "0"}}, "other class descriptions: none, now a.json"),
    ],
)
def test_another_run_is_not_gone_on_with(now, message, tmp_path):
    same = {"config_hash": "h", "seed": 1, "descriptions": None}
    (tmp_path / "config.yaml").write_text(own_settings(config()).dump())
    resume.check_same_run(state(1), str(tmp_path), config(), same)
    with pytest.raises(UserError, match=message):
        resume.check_same_run(state(1), str(tmp_path), config(K=8), same | now)


def test_without_a_config_the_hashes_of_an_unfinished_run_are_said(tmp_path):
    now = {"config_hash": "g", "seed": 1, "descriptions": None}
    with pytest.raises(UserError, match="other settings \\(config_hash h, now g\\)"):
        resume.check_same_run(state(1), str(tmp_path), config(), now)


@pytest.mark.parametrize("by_step", [False, True])
def test_a_longer_schedule_is_entered_where_it_would_be(by_step):
    """Rates of cosines, which torch counts from the rate before, and momentum as it was."""

    def made(length: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
        optim = torch.optim.AdamW([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.1}], lr=1.0)
        if by_step:
            return optim, torch.optim.lr_scheduler.LambdaLR(optim, cosine(length, 0.01))
        return optim, torch.optim.lr_scheduler.CosineAnnealingLR(optim, length, 1e-3)

    def step(optim: torch.optim.Optimizer, sched: torch.optim.lr_scheduler.LRScheduler) -> list[float]:
        rates = [group["lr"] for group in optim.param_groups]
        for group in optim.param_groups:
            group["params"][0].grad = torch.ones(2)
        optim.step()
        sched.step()
        return rates

    short, longer, whole = made(3), made(7), made(7)
    for _ in range(3):
        step(*short)
    expected = [step(*whole) for _ in range(7)]
    resume.follow(longer[1], longer[0], 3, short[0].state_dict())
    assert longer[0].state_dict()["state"][0]["step"] == 3
    assert [step(*longer) for _ in range(4)] == expected[3:]


# -- Memory ------------------------------------------------------------------------------------------------------------


def guard(auto: bool) -> MemoryGuard:
    return MemoryGuard(Passes(chunk=8), auto, "BATCH_SIZE (now 3)")


def scarce(guard: MemoryGuard, limit: int):
    """Work on 8 images that fits only ``limit`` at once."""

    def work(images: torch.Tensor) -> int:
        pieces = guard.passes.split(images, "chunk")
        if len(pieces[0]) > limit:
            raise torch.cuda.OutOfMemoryError("out of memory\nmore")
        return len(pieces)

    return work


def test_work_is_done_again_in_smaller_pieces():
    one = guard(auto=True)
    assert one.run(scarce(one, 2), torch.zeros(8, 1)) == 4 and one.passes.chunk == 2


@pytest.mark.parametrize("auto, advice", [(False, "AUTO_CHUNK True"), (True, "BATCH_SIZE \\(now 3\\)")])
def test_where_nothing_is_left_to_lower_the_keys_are_named(auto, advice):
    one = guard(auto)
    with pytest.raises(UserError, match=f"out of memory .*TRAIN.CHUNK .*{advice}"):
        one.run(scarce(one, 0), torch.zeros(8, 1))


def test_a_step_that_was_taken_is_not_taken_again():
    one, calls = guard(auto=True), []

    def step() -> None:
        calls.append(1)
        one.moved = True
        raise torch.cuda.OutOfMemoryError("late")

    with pytest.raises(UserError, match="late"):
        one.run(step)
    assert len(calls) == 1


# -- Optimizers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_optimizers_step_as_dassls_do(name):
    cfg = get_cfg_default().OPTIM
    cfg.merge_from_list(["NAME", name, "LR", 0.1, "WEIGHT_DECAY", 0.01])
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optims = [
        build_optimizer(cfg, [{"params": [ours.weight]}, {"params": [ours.bias], "weight_decay": 0.0}]),
        dassl_optimizer(theirs, cfg, [{"params": [theirs.weight]}, {"params": [theirs.bias], "weight_decay": 0.0}]),
    ]
    x = torch.rand(4, 3)
    for _ in range(8):
        for model, optim in zip((ours, theirs), optims, strict=True):
            optim.zero_grad()
            model(x).square().mean().backward()
            optim.step()
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()))


def test_an_unknown_optimizer_is_a_message():
    with pytest.raises(UserError, match="OPTIM.NAME 'foo': choose one of adam, "):
        build_optimizer(CfgNode({"NAME": "foo"}), [])


def test_biases_are_told_apart():
    weights, biases = split_biases(dict(nn.LayerNorm(3).named_parameters()))
    assert len(weights) == len(biases) == 1


# -- What is said ------------------------------------------------------------------------------------------------------


def test_the_line_of_an_epoch():
    record = {"epoch": 2, "loss": 1.23456, "weight": 0.5, "pseudo_accuracy": 81.26, "images_per_second": 33.4, "lr": 1}
    expected = "epoch 2/8: loss 1.235, pseudo-labels 81.3 % right, weight 0.50, 33 images/s, ETA 0:01:40"
    assert epoch_line(record, 8, 100.2) == expected
    assert epoch_line({"epoch": 8, "loss": 1.0}, 8, 0) == "epoch 8/8: loss 1"


@pytest.mark.parametrize("epochs", [1, 8, 15, 16, 50, 200])
def test_of_many_epochs_few_have_a_line_and_the_last_has(epochs):
    shown = [epoch for epoch in range(1, epochs + 1) if is_shown(epoch, epochs)]
    assert shown[-1] == epochs and len(shown) <= LINES + 1 and (epochs > LINES or len(shown) == epochs)


def test_details_go_into_the_file_alone(tmp_path, capsys):
    core = logging.getLogger("dassl")
    with recorded(tmp_path / "log.txt"):
        log.info("for all")
        details.info("detail")
        with as_details():
            print("others")
            core.info("core")
            log.warning("inside")
        with core_as_details():
            core.info("loading")
            print("an answer")
        log.warning("caution")
    details.info("lost")
    said, file = capsys.readouterr().out, (tmp_path / "log.txt").read_text()
    assert said == "for all\nWarning: inside\nan answer\nWarning: caution\n"
    assert file.count("Warning: inside") == 1
    assert set(file.splitlines()) == {
        "Warning: inside",
        "for all",
        "detail",
        "others",
        "core",
        "loading",
        "an answer",
        "Warning: caution",
    }


def test_a_host_has_the_messages_as_it_likes(tmp_path, capsys, monkeypatch):
    """Its own handler in the place of ours, and no details; log.txt has all the same."""
    host = logging.Handler()
    said: list[str] = []
    monkeypatch.setattr(host, "emit", lambda record: said.append(record.getMessage()))
    monkeypatch.setattr(log, "handlers", [host])
    with recorded(tmp_path / "log.txt"):
        log.info("for all")
        details.info("detail")
    assert said == ["for all"] and capsys.readouterr().out == ""
    assert (tmp_path / "log.txt").read_text() == "for all\ndetail\n"


def test_a_host_can_silence_messages(capsys):
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        show_messages()
        log.info("quiet")
        log.warning("caution")
    finally:
        log.setLevel(before)
    assert capsys.readouterr().out == "Warning: caution\n"


# -- Settings ----------------------------------------------------------------------------------------------------------


def config(**options) -> CfgNode:
    cfg = get_cfg_default()
    cfg.TRAINER.NAME = "Mine"
    cfg.TRAINER.MINE = CfgNode({"K": 4, "NAMES": ()} | options)
    cfg.OUTPUT_DIR = "somewhere"
    return cfg


def test_what_differs_is_named_by_its_key(tmp_path: Path):
    (tmp_path / "config.yaml").write_text(own_settings(config()).dump())
    assert different_settings(tmp_path, config()) == {}
    now = config(K=8)
    now.OPTIM.LR, now.SEED = 0.5, 3  # a seed is another run of the same settings
    different = different_settings(tmp_path, now)
    assert different == {"TRAINER.MINE.K": (4, 8), "OPTIM.LR": (0.0003, 0.5)}
    assert "TRAINER.MINE.K 4 (now 8)" in in_words(different, "a", "b")


def test_keys_that_came_later_do_not_make_other_runs_of_those_of_before(tmp_path: Path):
    now = config()
    (tmp_path / "config.yaml").write_text(own_settings(now).dump())
    before = run_hash(now)
    now.DATASET.SYNTH_LIGHT = "blue_hour"
    assert run_hash(now) == before and different_settings(tmp_path, now) == {}
    now.DATASET.SYNTH_LIGHT = "fog"
    assert run_hash(now) != before
    assert different_settings(tmp_path, now) == {"DATASET.SYNTH_LIGHT": ("blue_hour", "fog")}
    (tmp_path / "config.yaml").write_text(own_settings(now).dump())
    assert different_settings(tmp_path, config()) == {"DATASET.SYNTH_LIGHT": ("fog", "blue_hour")}


def test_a_config_of_before_has_the_nodes_of_all_trainers(tmp_path: Path):
    (tmp_path / "config.yaml").write_text(config().dump())  # Dassl's own methods among them
    assert different_settings(tmp_path, config()) == {}


def test_without_a_config_there_are_the_hashes(tmp_path: Path):
    assert in_words(different_settings(tmp_path, config()), "a", "b") == "other settings (config_hash a, now b)"


def test_figures_beside_the_accuracy():
    """By loops: a class without images does not count, and few classes have no top five."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(40, 7, generator=generator), [i % 6 for i in range(40)]  # none of class 6
    rows = logits.tolist()
    by_class = {c: [row.index(max(row)) == c for row, y in zip(rows, labels, strict=True) if y == c] for c in range(6)}
    among = [sum(other > row[y] for other in row) < 5 for row, y in zip(rows, labels, strict=True)]
    assert more_figures(logits, labels) == {
        "mean_class_accuracy": pytest.approx(100 * sum(sum(hits) / len(hits) for hits in by_class.values()) / 6),
        "top5_accuracy": pytest.approx(100 * sum(among) / 40),
    }
    assert more_figures(logits[:, :5], [0] * 40).keys() == {"mean_class_accuracy"}


# -- Mistakes in programs of others ------------------------------------------------------------------------------------


def test_an_unhandled_mistake_ends_a_program_of_others_in_one_message(monkeypatch, capsys):
    passed_on = []
    monkeypatch.setattr("sys.excepthook", lambda *error: passed_on.append(error[1]))
    OneMessage.install()
    hook = sys.excepthook
    OneMessage.install()
    assert sys.excepthook is hook

    mistake, failure = UserError("a is wrong: set it to b"), ValueError("a bug")
    with pytest.raises(SystemExit) as end:
        hook(UserError, mistake, None)
    assert end.value.code == 2 and capsys.readouterr().err == "Error: a is wrong: set it to b\n"
    hook(ValueError, failure, None)
    assert passed_on == [failure]
    instead = RuntimeError("the task failed")  # as DePT's train.py raises it
    instead.__context__ = mistake
    with pytest.raises(SystemExit):
        hook(RuntimeError, instead, None)
    assert passed_on == [failure, instead] and capsys.readouterr().err == "Error: a is wrong: set it to b\n"
    monkeypatch.setattr("sys.ps1", ">>> ", raising=False)  # Python's prompt goes on
    hook(UserError, mistake, None)
    assert passed_on == [failure, instead, mistake] and not capsys.readouterr().err
