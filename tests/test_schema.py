"""Values and keys that a run is given: what is taken, and what is said of the rest, before anything is loaded."""

import pytest
from commands import train
from dassl.engine import TRAINER_REGISTRY
from test_settings import COOP, FILES, Foreign, config  # noqa: F401 (registers it)
from toys import ROOT

from fairclip.core.errors import UserError
from fairclip.core.plugins import import_plugins
from fairclip.run.settings import own_settings


@pytest.fixture(scope="module")
def modules():
    return import_plugins("trainers", "datasets")[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_the_files_that_come_along_are_valid(modules, file):
    config(modules, file.parent.name, file)


def test_a_whole_number_is_a_number_and_a_number_is_a_name(modules, tmp_path):
    cfg = config(modules, "FAIR", "", "OPTIM.LR", "1", "DATASET.NAME", "ImageFolder", "DATASET.FOLDER", "2024")
    assert (cfg.OPTIM.LR, type(cfg.OPTIM.LR), cfg.DATASET.FOLDER) == (1.0, float, "2024")
    (tmp_path / "a.yaml").write_text("OPTIM:\n  LR: 1\n  WEIGHT_DECAY: 1e-3\nTRAIN:\n  # nothing\n")
    cfg = config(modules, "FAIR", tmp_path / "a.yaml", "INPUT.SIZE", "[32, 32]", "DATASET.NAME", "'Toy'")
    assert (cfg.OPTIM.LR, cfg.OPTIM.WEIGHT_DECAY, cfg.INPUT.SIZE, cfg.DATASET.NAME) == (1.0, 1e-3, (32, 32), "Toy")


WRONG = [
    ("OPTIM.MAX_EPOCH", "0"),
    ("OPTIM.LR", "1e30"),
    ("OPTIM.LR", "nan"),
    ("OPTIM.LR", "None"),
    ("OPTIM.LR", "(" * 3000),
    ("OPTIM.LR.X", "1"),
    ("OPTIM", "1"),
    ("OPTIM.NAME", "foo"),
    ("OPTIM.ADAM_BETA1", "1.0"),
    ("SEED", "-5"),
    ("SEED", str(2**32)),
    ("DATALOADER.TRAIN_X.BATCH_SIZE", "0"),
    ("DATALOADER.TRAIN_X.BATCH_SIZE", "True"),
    ("DATALOADER.TEST.BATCH_SIZE", str(10**30)),
    ("DATALOADER.NUM_WORKERS", "-1"),
    ("TRAIN.PRINT_FREQ", "0"),
    ("DATASET.SPLIT", "foo"),
    ("INPUT.PIXEL_MEAN", "[1]"),
    ("TRAINER.FAIR.TEMPLATES", "(5,)"),
    ("TRAINER.FAIR.PRIOR", "~no such user/a.json"),
    ("OUTPUT_DIR", ""),
    ("USE_CUDA", "1"),
]
UNREAD = [
    ("OPTIM.LR_SCHEDULER", "multi_step"),
    ("OPTIM.MOMENTUM", "0.5"),
    ("MODEL.HEAD.NAME", "mlp"),
    ("TRAINER.UPL.TOP_K", "3"),
    ("INPUT.CROP_PADDING", "8"),
    ("DATASET.FOLDER", "mine"),
    ("DATASET.VAL_PERCENT", "0.5"),
]


@pytest.mark.parametrize("key, value", WRONG)
def test_a_value_that_cannot_be_is_one_message(modules, key, value):
    with pytest.raises(UserError, match=key.replace(".", r"\.")) as refused:
        config(modules, "FAIR", "", key, value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("key, value", UNREAD)
def test_a_key_that_nothing_reads_is_refused(modules, key, value):
    with pytest.raises(UserError, match=f"{key.replace('.', '[.]')}: .* does not read it"):
        config(modules, "FAIR", "", "DATASET.NAME", "SynthCars", key, value)


def test_what_is_stated_and_changes_nothing_is_no_mistake(modules, tmp_path):
    (tmp_path / "coop.yaml").write_text(COOP)
    config(modules, "FAIR", tmp_path / "coop.yaml", "OPTIM.LR_SCHEDULER", "cosine", "OPTIM.MOMENTUM", "0.9")
    config(modules, "UPL", "", "OPTIM.NAME", "sgd", "OPTIM.MOMENTUM", "0.5", "INPUT.CROP_PADDING", "8")


def test_a_comparison_gives_methods_without_steps_the_same_keys(modules, caplog):
    config(modules, "CuPL", "", "OPTIM.MAX_EPOCH", "3", "OPTIM.LR", "0.5")
    assert "CuPL takes no training steps and does not read OPTIM.MAX_EPOCH, OPTIM.LR" in caplog.text


@pytest.mark.parametrize("opts", [("OPTIM.LR", "1e30"), ("SEED", "-5"), ("MODEL.HEAD.NAME", "mlp"), ("SEED", "-1")])
def test_trainers_of_others_have_what_their_dassl_takes(modules, opts):
    assert "Foreign" in TRAINER_REGISTRY.registered_names()
    config(modules, "Foreign", "", *opts)
    with pytest.raises(UserError, match="Type mismatch"):
        config(modules, "Foreign", "", "OPTIM.LR", "1")


NO_YAML = {
    "a number as key": "5: 1\n",
    "an anchor within itself": "TRAINER: &x\n  FAIR: *x\n",
    "deep lists": "a: " + "[" * 5000 + "]" * 5000,
    "deep groups": "\n".join(" " * i + "a:" for i in range(300)),
    "aliases of aliases": "a: &a [1, 2]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "merged merges": "a: &a {x: 1}\n"
    + "".join(f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "too much": "a: " + "x" * 300_000,
    "a list": "- 1\n",
    "no date": "a: 2024-99-99\n",
    "a tab": "OPTIM:\n\tLR: 1\n",
    "an object": "a: !!python/object/apply:os.getcwd []\n",
    "dots": "OPTIM.LR: 1\n",
    "no group": "OPTIM: 5\n",
    "NUL": 'OUTPUT_DIR: "a\\0b"\n',
    "bytes": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("trainer", ["FAIR", "Foreign"])
@pytest.mark.parametrize("content", NO_YAML.values(), ids=NO_YAML)
def test_a_file_that_is_no_config_is_one_message(modules, tmp_path, trainer, content):
    file = tmp_path / "a.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    if trainer == "Foreign" and content == NO_YAML["NUL"]:
        return
    with pytest.raises(UserError):
        config(modules, trainer, file)


@pytest.mark.parametrize("trainer", ["FAIR", "Foreign"])
def test_a_python_file_is_not_run(modules, tmp_path, trainer):
    (tmp_path / "a.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom yacs.config import CfgNode\ncfg = CfgNode()"
    )
    with pytest.raises(UserError, match="Python files are not run"):
        config(modules, trainer, tmp_path / "a.py")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--seed", "-5"], "SEED -5"),
        (["--output-dir", ""], "OUTPUT_DIR"),
        (["--root", "/typo"], "there is no folder /typo"),
        (["--config-file", str(ROOT)], "is a folder"),
        (["--config-file", "x" * 300], "name too long"),
        (["OPTIM.LR"], "OPTIM.LR is alone"),
        (["OPTIM.LR", "1", "--seed", "2"], "put flags before the pairs"),
        ([".", "1"], "no config key"),
    ],
)
def test_flags_are_checked_too(capsys, flags, message):
    assert train(["--trainer", "FAIR", "--dataset-config-file", "configs/datasets/synth_cars.yaml", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and message in error and "Traceback" not in error


def test_the_config_that_a_run_leaves_can_be_given_again(modules, tmp_path):
    """As `fair eval` does: it states every default, also of keys that FAIR does not read."""
    cfg = config(modules, "FAIR", "", "DATASET.NAME", "SynthCars", "OPTIM.LR", "0.01")
    (tmp_path / "config.yaml").write_text(own_settings(cfg).dump())
    assert config(modules, "FAIR", tmp_path / "config.yaml").dump() == cfg.dump()
