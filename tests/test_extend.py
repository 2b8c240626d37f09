"""More epochs from a finished run: fair train ... --resume-from RUN."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from commands import train
from toys import arguments, check_refused, check_same_end, checkpoint, run, run_killed, untimed

pytestmark = pytest.mark.usefixtures("console")

# The first epoch has the same learning rate in every schedule.
BY_EPOCH = ("FAIR", "UPL", "GRIP", "LaFTer", "PromptLearning")
BY_STEP = ("DPA", "MUST", "microCLIP")


@pytest.fixture(scope="module")
def short(data, backbone, tmp_path_factory) -> Path:
    """A finished run of FAIR with one epoch."""
    out = tmp_path_factory.mktemp("short")
    run("FAIR", data, backbone, out, "OPTIM.MAX_EPOCH", "1")
    return out


def longer(trainer: str, data: Path, backbone: Path, out: Path, before: Path, *opts: str, **kwargs) -> list[str]:
    """The command line of a run of three epochs that goes on from a finished one."""
    return ["--resume-from", str(before), *arguments(trainer, data, backbone, out, *opts, **kwargs)]


def read(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("trainer", [*BY_EPOCH, *BY_STEP])
def test_more_epochs(trainer, data, backbone, tmp_path, capsys):
    """Where the first epoch is that of a longer run, the end is that of a longer run, to the bit."""
    before, out, whole = (tmp_path / name for name in ("before", "out", "whole"))
    first = run(trainer, data, backbone, before, "OPTIM.MAX_EPOCH", "1")
    state, name = checkpoint(before, trainer, 1), f"{trainer.lower()}/model.pth.tar-1"
    written = (before / name).read_bytes()
    capsys.readouterr()
    assert train(longer(trainer, data, backbone, out, before)) == 0
    assert "Resume" in (said := capsys.readouterr().out)
    assert "after epoch 1; the learning rate is that of a schedule of 3 epochs" in said

    results, fresh = read(out), run(trainer, data, backbone, whole)
    assert untimed(results["epochs"][:1]) == untimed(first["epochs"]) and len(results["epochs"]) == 3
    rates = [[record["lr"] for record in each["epochs"][1:]] for each in (results, fresh)]
    assert rates[0] == rates[1]
    if trainer in BY_EPOCH:
        check_same_end(trainer, out, whole)
    assert results["config_hash"] not in (fresh["config_hash"], first["config_hash"])
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["RESUME"] == str(before) and config["TRAIN"]["EXTENDS"] == 1
    # The finished run stays as it was.
    assert (before / name).read_bytes() == written and read(before) == first and state["epoch"] == 1


def test_a_killed_extension_goes_on_with_its_own_epochs(short, data, backbone, tmp_path, capsys):
    opts, out = ("OPTIM.MAX_EPOCH", "4", "TRAIN.CHECKPOINT_FREQ", "1"), tmp_path
    assert train(longer("FAIR", data, backbone, out, short, *opts)) == 0
    whole = read(out)
    for file in ("results.json", "fair/model.pth.tar-3", "fair/model.pth.tar-4"):
        (out / file).unlink()
    (out / "fair/checkpoint").write_text("model.pth.tar-2\n")
    capsys.readouterr()
    assert train(longer("FAIR", data, backbone, out, short, *opts)) == 0
    said = capsys.readouterr().out
    assert f"Resume {out / 'fair'} after epoch 2\n" in said and "epoch 3/4" in said and "epoch 2/4" not in said
    assert untimed(read(out)["epochs"]) == untimed(whole["epochs"])
    assert train(longer("FAIR", data, backbone, out, short, *opts)) == 0
    assert "finished already" in capsys.readouterr().out


def test_an_extension_can_be_extended(short, data, backbone, tmp_path):
    assert train(longer("FAIR", data, backbone, tmp_path / "2", short, "OPTIM.MAX_EPOCH", "2")) == 0
    assert train(longer("FAIR", data, backbone, tmp_path / "3", tmp_path / "2")) == 0
    assert [record["epoch"] for record in read(tmp_path / "3")["epochs"]] == [1, 2, 3]


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.FAIR.N_CROPS", "3", "TRAINER.FAIR.TOP_K", "3"), "that run has TRAINER.FAIR.N_CROPS 4 (now 3)"),
        (("OPTIM.LR", "0.5"), "OPTIM.LR 0.001 (now 0.5). Only OPTIM.MAX_EPOCH and folders may differ"),
        (("OPTIM.MAX_EPOCH", "1"), "that run ends with epoch 1, and OPTIM.MAX_EPOCH is 1"),
        (("TRAIN.EXTENDS", "1"), "TRAIN.EXTENDS is not to be given: --resume-from RUN sets it"),
    ],
)
def test_other_settings_are_refused_by_their_names(short, data, backbone, tmp_path, capsys, opts, message):
    check_refused(longer("FAIR", data, backbone, tmp_path / "out", short, *opts), message, capsys)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_extended(short, data, backbone, tmp_path, capsys):
    def refused(
        message: str, before: Path = short, trainer: str = "FAIR", out: Path = tmp_path / "out", **more
    ) -> None:
        words = [*more.pop("flags", []), *longer(trainer, data, backbone, out, before, **more)]
        check_refused(words, message, capsys)

    refused("seed 1 (now 2)", seed=2)
    refused("TRAINER.NAME FAIR (now DPA)", trainer="DPA")
    refused("there is no finished run, it has no results.json", tmp_path)
    refused("an --output-dir of its own", out=short)
    refused("leave one out", flags=["--resume", str(short)])
    refused("leave out --eval-only", flags=["--eval-only"])
    run("LinearProbe", data, backbone, tmp_path / "probe")
    refused("does not train by epochs", tmp_path / "probe", "LinearProbe")

    damaged = Path(shutil.copytree(short, tmp_path / "damaged"))
    (damaged / "fair/checkpoint").unlink()
    refused("there is no checkpoint in", damaged)
    (damaged / "config.yaml").unlink()
    refused("other settings (config_hash", damaged)


def test_other_settings_of_an_unfinished_run_are_named(data, backbone, tmp_path, capsys):
    run_killed("FAIR", data, backbone, tmp_path)
    check_refused(
        arguments("FAIR", data, backbone, tmp_path, "OPTIM.LR", "0.5", seed=2),
        "unfinished run with OPTIM.LR 0.001 (now 0.5) and seed 1 (now 2): choose another OUTPUT_DIR",
        capsys,
    )


def test_a_finished_run_says_how_to_add_epochs(short, data, backbone, capsys):
    message = f"OPTIM.MAX_EPOCH 1 (now 3): choose another --output-dir (the scripts: TAG or OUTPUT), or remove that \
folder. For more epochs of that run: --resume-from {short}"
    check_refused(arguments("FAIR", data, backbone, short), message, capsys)
