"""Two processes do what one does: torchrun, gloo, the toy data set."""

import csv
import json
import os
import runpy
import signal
import sys
from pathlib import Path

import pytest
import torch
from commands import train
from short_runs import METHODS, UNTRAINED, USUAL_FORMS, few_are_many, short
from torch import distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from toys import ROOT, arguments, checkpoint, run, untimed

from fairclip.core.distributed import gather_list, main_first, processes, rank
from fairclip.core.errors import UserError
from fairclip.method.confidence import masked_cross_entropy
from fairclip.method.losses import fairness
from fairclip.views.loading import Batches, build_loader
from trainers import fair


def torchrun(folder: Path, function, *args) -> list[tuple[str, str]]:
    """Run a function in two processes through torchrun's own launcher, forked, so that nothing is imported again.

    Returns what each printed to stdout and stderr. Raises ChildFailedError where one fails.
    """
    logs = DefaultLogsSpecs(log_dir=str(folder), redirects=Std.ALL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend="c10d",
        start_method="fork",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        logs_specs=logs,
        run_id="test",
    )
    elastic_launch(config, function)(*args)
    return said(folder)


def said(folder: Path) -> list[tuple[str, str]]:
    return [
        tuple(next(folder.rglob(f"{number}/std{name}.log")).read_text() for name in ("out", "err"))
        for number in range(2)
    ]


class Stopped(Exception):
    pass


def stop_midway(how) -> None:
    """Let FAIR end in the middle of its second epoch."""
    step = fair.FAIR.forward_backward

    def forward_backward(self, batch):
        if (self.epoch, self.batch_idx) == (1, 1):
            how()
        return step(self, batch)

    fair.FAIR.forward_backward = forward_backward


@pytest.fixture(scope="module")
def two(few, vit, tmp_path_factory):
    """The folder of short runs in two processes, by key, and what these said; `resumed` is one of FAIR
    that one process began."""
    root = tmp_path_factory.mktemp("two")
    resumed = short("fair", few, vit, root / "resumed")

    def worker():
        with processes():
            torch.save(losses_of_parts(), root / f"losses{rank()}.pt")
            for job in (*(short(key, few, vit, root / key) for key in USUAL_FORMS), resumed):
                assert train(arguments(*job)) == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAIR_CACHE", str(root / "cache"))
        few_are_many(patch)
        with pytest.MonkeyPatch.context() as begun:
            begun.setattr(fair.FAIR, "forward_backward", fair.FAIR.forward_backward)  # put back in the end

            def stop():
                raise Stopped

            stop_midway(stop)
            with pytest.raises(Stopped):
                run(*resumed)
        return root, torchrun(root / "logs", worker)


def close(a: object, b: object) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


def compare(key: str, a: Path, b: Path) -> None:
    """Results, predictions and checkpoints of two runs are the same but for rounding."""
    first, second = (json.loads((folder / "results.json").read_text()) for folder in (a, b))
    assert first.keys() == second.keys()
    for name in first.keys() - {"epochs", "seconds", "test_seconds", "processes", "versions", "commit"}:
        assert second[name] == (pytest.approx(first[name]) if isinstance(first[name], float) else first[name]), name
    assert len(first["epochs"]) == len(second["epochs"])
    for x, y in zip(untimed(first["epochs"]), untimed(second["epochs"]), strict=True):
        assert y == pytest.approx(x, rel=1e-4, abs=1e-6)
    x, y = (list(csv.reader((folder / "predictions.csv").open())) for folder in (a, b))
    assert [row[:3] for row in x] == [row[:3] for row in y] and len(x) == 10
    assert [float(row[3]) for row in x[1:]] == pytest.approx([float(row[3]) for row in y[1:]], abs=2e-4)
    if key not in UNTRAINED:
        x, y = (checkpoint(folder, METHODS[key].trainer) for folder in (a, b))
        for part in ("state_dict", "extra"):
            close(x[part], y[part])


@pytest.mark.parametrize("key", USUAL_FORMS)
def test_two_processes_equal_one(key, short_run, two):
    one, other = short_run(key), two[0] / key
    compare(key, one, other)
    assert [json.loads((folder / "results.json").read_text())["processes"] for folder in (one, other)] == [1, 2]


def test_the_main_process_alone_writes_and_prints(short_run, two):
    root, ((out, _), (other, _)) = two
    assert "Results: " in out and other == ""
    names = [{file.name for file in folder.iterdir()} for folder in (short_run("fair"), root / "fair")]
    assert names[0] == names[1] == {"config.yaml", "log.txt", "fair", "tensorboard", "predictions.csv", "results.json"}
    assert len(list((root / "fair" / "tensorboard").iterdir())) == 1
    assert not list(root.rglob("*.tmp"))


def test_begun_by_one_and_ended_by_two(short_run, two):
    compare("fair", short_run("fair"), two[0] / "resumed")
    assert "Resume" in two[1][0][0]


def test_begun_by_two_and_ended_by_one(short_run, few, vit, tmp_path, monkeypatch):
    """One of the two is killed: the other is not left waiting."""
    job = short("fair", few, vit, tmp_path / "run")

    def die():
        if rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def worker():
        stop_midway(die)
        sys.exit(train(arguments(*job)))

    with pytest.raises(ChildFailedError):
        torchrun(tmp_path / "logs", worker)
    assert (tmp_path / "run" / "fair" / "checkpoint").read_text() == "model.pth.tar-1\n"
    run(*job)
    compare("fair", short_run("fair"), tmp_path / "run")


def test_what_fails_in_one_process_is_said_once_and_ends_both(tmp_path):
    def worker():
        try:
            with processes():
                with main_first():
                    pass
                if rank() == 1:
                    raise UserError("only here")
                dist.barrier()  # for which the other does not come
        except UserError as error:
            print(f"Error: {error}", file=sys.stderr)
            sys.exit(2)

    with pytest.raises(ChildFailedError):
        torchrun(tmp_path, worker)
    (_, first), (_, second) = said(tmp_path)
    assert "Error: only here" in second and "Traceback" not in first + second


def test_a_batch_that_cannot_be_shared(tmp_path):
    """The script itself, as torchrun calls it."""
    args = [
        "--trainer",
        "FAIR",
        "--config-file",
        "configs/trainers/FAIR/tiny.yaml",
        "--output-dir",
        str(tmp_path / "out"),
        "DATASET.NAME",
        "SynthCars",
        "DATALOADER.TRAIN_X.BATCH_SIZE",
        "7",
    ]

    def worker():
        sys.argv = ["train.py", *args]
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")

    with pytest.raises(ChildFailedError):
        torchrun(tmp_path / "logs", worker)
    errors = "".join(error for _, error in said(tmp_path / "logs"))
    assert errors.count("DATALOADER.TRAIN_X.BATCH_SIZE 7 cannot be shared evenly by 2 processes") == 1
    assert "Traceback" not in errors
    assert "set it to a multiple of 2, such as 6" in errors and not (tmp_path / "out" / "fair").exists()


# -- The pieces --------------------------------------------------------------------------------------------------------


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, labels, and a mask that keeps three of the first four and none of the others."""
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return logits, torch.arange(8) % 3, torch.tensor([1, 0, 1, 1, 0, 0, 0, 0]).bool()


def losses(logits, labels, mask) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The losses that are no plain means over the batch, and their gradients."""
    found = []
    for loss in (
        lambda x: fairness(x.softmax(dim=1))[0],
        lambda x: fairness(x.softmax(dim=1), torch.full((3,), 1 / 3, dtype=x.dtype), 0.25)[0],
        lambda x: masked_cross_entropy(x, labels, mask),
    ):
        x = logits.clone().requires_grad_()
        value = loss(x)
        value.backward()
        found.append((value.detach(), x.grad))
    return found


def losses_of_parts():
    return losses(*(part.chunk(2)[rank()] for part in batch()))


def test_losses_of_the_global_batch_with_gradient(two):
    parts = [torch.load(two[0] / f"losses{number}.pt") for number in range(2)]
    for (value, gradient), (a, a_gradient), (b, b_gradient) in zip(losses(*batch()), *parts, strict=True):
        torch.testing.assert_close((a + b) / 2, value)
        torch.testing.assert_close(torch.cat([a_gradient, b_gradient]) / 2, gradient)  # as DDP averages


def split(monkeypatch, count: int, size: int, train: bool, workers: int) -> list[list[list[int]]]:
    """The batches of each of several processes."""
    monkeypatch.setattr("fairclip.views.loading.world", lambda: workers)
    shares = []
    for number in range(workers):
        monkeypatch.setattr("fairclip.views.loading.rank", lambda number=number: number)
        batches = Batches(count, size, shuffle=train, train=train)
        shares.append(list(batches))
        assert len(batches) == len(shares[-1])
    return shares


def test_training_batches_are_those_of_one_process(monkeypatch):
    for count in (26, 6):  # six are less than a batch, and the only one
        whole = split(monkeypatch, count, 8, True, 1)[0]
        parts = split(monkeypatch, count, 8, True, 2)
        assert [a + b for a, b in zip(*parts, strict=True)] == whole and len(whole[0]) == min(count, 8)
    with pytest.raises(UserError, match="5 training images are less than a batch.*not above 5"):
        split(monkeypatch, 5, 8, True, 2)


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17])
def test_in_evaluation_every_image_comes_once_and_in_order(count, monkeypatch):
    shares = split(monkeypatch, count, 4, False, 3)
    assert sorted(i for share in shares for part in share for i in part) == list(range(count))
    assert all(len(part) <= 4 for share in shares for part in share)
    rows = [[torch.tensor(part)[:, None] for part in share] for share in shares]
    monkeypatch.setattr("fairclip.core.distributed.world", lambda: 3)
    monkeypatch.setattr(
        "fairclip.core.distributed.gather_objects",
        lambda own: [torch.cat(parts) if parts else None for parts in rows],
    )
    assert gather_list(rows[0]).flatten().tolist() == list(range(count))


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr("fairclip.views.loading.cores", lambda: 8)
    for processes_here, expected in ((1, 6), (2, 4), (16, 1)):
        monkeypatch.setattr("fairclip.views.loading.local_world", lambda n=processes_here: n)
        assert build_loader([0], 1, 6, torch.device("cpu")).num_workers == expected
    assert build_loader([0], 1, 0, torch.device("cpu")).num_workers == 0
