"""fair install-into on a checkout made like CoOp: its own train.py, data sets, trainers and clip folder."""

import ast
import hashlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import commands
import forked
import numpy as np
import pytest
from forked import Forked
from PIL import Image
from yacs.config import CfgNode

from fairclip.install import apply, parts, train_file
from fairclip.install.plan import MANIFEST
from fairclip.predict.predictor import Predictor

ROOT = Path(__file__).resolve().parents[1]

TRAIN = '''\
import argparse

import torch
from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from dassl.utils import collect_env_info, set_random_seed, setup_logger

# data sets and trainers register themselves
import datasets.blobs

import trainers.coop
import trainers.zsclip


def print_args(args, cfg):
    for name in sorted(vars(args)):
        print(name, "=", getattr(args, name))
    print(cfg)


def reset_cfg(cfg, args):
    if args.root:
        cfg.DATASET.ROOT = args.root
    if args.output_dir:
        cfg.OUTPUT_DIR = args.output_dir
    if args.seed:
        cfg.SEED = args.seed
    if args.trainer:
        cfg.TRAINER.NAME = args.trainer
    if args.backbone:
        cfg.MODEL.BACKBONE.NAME = args.backbone


def extend_cfg(cfg):
    """Config nodes of the trainers."""
    from yacs.config import CfgNode as Node

    cfg.TRAINER.COOP = Node()
    cfg.TRAINER.COOP.N_CTX = 16  # words
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # or base, or new


def setup_cfg(args):
    cfg = get_cfg_default()
    extend_cfg(cfg)
    for file in (args.dataset_config_file, args.config_file):
        if file:
            cfg.merge_from_file(file)
    reset_cfg(cfg, args)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    return cfg


def main(args):
    cfg = setup_cfg(args)
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    setup_logger(cfg.OUTPUT_DIR)
    print_args(args, cfg)
    print(collect_env_info())
    trainer = build_trainer(cfg)
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.test()
    else:
        trainer.train()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for flag in ("root", "output-dir", "config-file", "dataset-config-file", "trainer", "backbone", "model-dir"):
        parser.add_argument(f"--{flag}", type=str, default="")
    parser.add_argument("--seed", type=int, default=-1)
    parser.add_argument("--load-epoch", type=int)
    parser.add_argument("--eval-only", action="store_true")
    parser.add_argument("opts", default=None, nargs=argparse.REMAINDER)
    torch.set_num_threads(1)
    main(parser.parse_args())
'''

DATASET = """\
import os

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum

COLOURS = ["red", "green", "blue"]


@DATASET_REGISTRY.register()
class Blobs(DatasetBase):
    def __init__(self, cfg):
        parts = {}
        for part in ("train", "test"):
            folder = os.path.join(cfg.DATASET.ROOT, part)
            parts[part] = [
                Datum(impath=os.path.join(folder, name), label=int(name[0]), classname=COLOURS[int(name[0])])
                for name in sorted(os.listdir(folder))
            ]
        super().__init__(train_x=parts["train"], val=parts["test"], test=parts["test"])
"""

TRAINER = """\
from dassl.engine import TRAINER_REGISTRY, TrainerX


@TRAINER_REGISTRY.register()
class {}(TrainerX):
    pass
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A checkout and, beside it, images of three classes."""
    import clip

    folder = tmp_path_factory.mktemp("template")
    checkout = folder / "Co Op"  # a space in the path
    for name, text in (
        ("train.py", TRAIN),
        ("datasets/__init__.py", ""),
        ("datasets/blobs.py", DATASET),
        ("trainers/__init__.py", ""),
        ("trainers/coop.py", TRAINER.format("CoOp")),
        ("trainers/zsclip.py", TRAINER.format("ZeroshotCLIP")),
        ("configs/datasets/blobs.yaml", 'DATASET:\n  NAME: "Blobs"\n'),
        ("configs/trainers/CoOp/vit.yaml", "OPTIM:\n  MAX_EPOCH: 1\n"),
    ):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)
    (checkout / "train.py").chmod(0o755)
    shutil.copytree(Path(clip.__file__).parent, checkout / "clip", ignore=shutil.ignore_patterns("__pycache__"))
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 2)):
        (folder / "data" / part).mkdir(parents=True)
        for label in range(3):
            for i in range(count):
                pixels = rng.integers(0, 128, (40, 52, 3), dtype=np.uint8)
                pixels[10:30, 10:40, label] += 100
                Image.fromarray(pixels).save(folder / "data" / part / f"{label}_{i}.png")
    return checkout


@pytest.fixture
def checkout(template, tmp_path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "Co Op"))


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file's content and every folder below a folder; modes as well."""
    return {
        f"{path.relative_to(folder)} {path.stat().st_mode:o}": None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


def install(checkout: Path, *arguments: str) -> int:
    return commands.install_into([str(checkout), *arguments])


# -- What it is for ----------------------------------------------------------------------------------------------------


@pytest.fixture
def python(tmp_path, monkeypatch) -> Callable[..., CompletedProcess[str]]:
    """Does in a checkout what Python does with these arguments. Its Dassl is the one that comes with this project."""
    monkeypatch.setenv("FAIR_DASSL", "")

    def call(checkout: Path, *arguments: str) -> CompletedProcess[str]:
        return forked.python(checkout, tmp_path / "said", *arguments, path=[ROOT / "toolbox"])

    return call


@pytest.fixture
def train_fair(python, template) -> Callable[..., CompletedProcess[str]]:
    """A short run by a checkout's own script."""
    return partial(short_run, python, template)


def short_run(
    python: Callable[..., CompletedProcess[str]], template: Path, checkout: Path, out: Path, script: str = "train.py"
) -> CompletedProcess[str]:
    flags = {
        "root": template.parent / "data",
        "seed": 1,
        "trainer": "FAIR",
        "dataset-config-file": "configs/datasets/blobs.yaml",
        "config-file": "configs/trainers/FAIR/tiny.yaml",
        "output-dir": out,
    }
    short = {
        "OPTIM.MAX_EPOCH": 1,
        "DATALOADER.NUM_WORKERS": 0,
        "DATALOADER.TRAIN_X.BATCH_SIZE": 12,
        "TRAINER.FAIR.N_CROPS": 2,
        "TRAINER.FAIR.TOP_K": 1,
    }
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    return python(checkout, script, *words, *(str(word) for pair in short.items() for word in pair))


def test_the_checkout_trains_fair_and_is_itself_again_afterwards(template, checkout, capsys, train_fair, python):
    before = snapshot(checkout)
    assert install(checkout, "--yes") == 0
    assert "python train.py --root DATA" in capsys.readouterr().out

    out = checkout.parent / "out"
    done = train_fair(checkout, out)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^epoch \[?1/1\b.*\bloss\b", done.stdout, re.MULTILINE), done.stdout
    results = json.loads((out / "results.json").read_text())
    assert (results["dataset"], results["trainer"], len(results["epochs"])) == ("Blobs", "FAIR", 1)
    assert results["versions"]["clip"] is None, "the installed clip was used, not the checkout's"
    assert (checkout / "trainers/__pycache__").is_dir() and (checkout / "fairclip/run/__pycache__").is_dir()

    predictor = Predictor.load(out)
    assert predictor.classnames == ["red", "green", "blue"]
    assert predictor.explain(template.parent / "data/test/0_0.png")[0].selected
    done = python(checkout, "-m", "fairclip", "predict", str(out), str(template.parent / "data/test"))
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"\d_\d\.png,(?:red|green|blue),", done.stdout)) == 6, done.stdout

    assert install(checkout, "--uninstall", "--yes") == 0
    for cache in list(checkout.rglob("__pycache__")):  # of the checkout's own modules
        assert {file.name.split(".")[0] for file in cache.iterdir()} <= {
            "__init__",
            "blobs",
            "coop",
            "zsclip",
            "clip",
            "model",
            "simple_tokenizer",
        }
        shutil.rmtree(cache)
    assert snapshot(checkout) == before


def test_a_mistake_there_ends_in_one_message(checkout, tmp_path, train_fair):
    text = TRAIN.replace("cfg.TRAINER.COOP = Node()", "cfg.TRAINER.COOP = Node()\n    cfg.DATASET.NUM_SHOTS = 16")
    (checkout / "train.py").write_text(text)
    assert install(checkout, "--yes") == 0
    done = train_fair(checkout, tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "Error: DATASET.NUM_SHOTS 16 picks training images by label, and FAIR trains without labels: give "
        "DATASET.NUM_SHOTS -1 on the command line\n"
    )


LOOP = (
    TRAIN[: TRAIN.index("    trainer = build_trainer")]
    + """\
    trainers = []
    for i in range(2):  # as UPL
        trainer = build_trainer(cfg)
        trainers.append(trainer.fit_its_own_way(i))


"""
    + TRAIN[TRAIN.index("if __name__") :]
)


def test_a_script_of_another_name_that_trains_its_own_way(checkout, tmp_path, capsys, train_fair):
    (checkout / "train.py").unlink()
    (checkout / "upl_train.py").write_text(LOOP)
    before = snapshot(checkout)
    assert install(checkout, "--yes") == 2
    assert re.search("it has no train.py. Give .* by --script; .*: upl_train.py\n$", capsys.readouterr().err)
    assert install(checkout, "--yes", "--script", "upl_test.py") == 2
    assert "it has no upl_test.py" in capsys.readouterr().err
    assert install(checkout, "--yes", "--script", "../train.py") == 2
    assert "the name of a file in" in capsys.readouterr().err and snapshot(checkout) == before

    assert install(checkout, "--yes", "--script", "upl_train.py") == 0
    assert "  python upl_train.py --root DATA" in capsys.readouterr().out
    done = train_fair(checkout, tmp_path / "out", "upl_train.py")
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "out/results.json").read_text())["epochs"]) == 1

    assert install(checkout) == 0 and "nothing to do" in capsys.readouterr().out  # the record knows the script
    (checkout / "other.py").write_text(LOOP)
    assert install(checkout, "--script", "other.py", "--yes") == 2
    assert "registered in upl_train.py already. First take it back by --uninstall" in capsys.readouterr().err
    (checkout / "other.py").unlink()
    assert install(checkout, "--uninstall", "--yes") == 0
    for cache in list(checkout.rglob("__pycache__")):
        shutil.rmtree(cache)
    assert snapshot(checkout) == before


def test_a_checkout_in_the_only_folder_that_has_one(checkout, tmp_path, capsys):
    root = tmp_path / "KgCoOp"
    shutil.copytree(checkout, root / "KgCoOp")
    (root / "Dassl").mkdir()
    (root / "Dassl/train.py").write_text("")  # without trainers/
    before = snapshot(root)
    assert install(root, "--yes") == 0
    assert f"{root} has no train.py, but KgCoOp/ in it has" in capsys.readouterr().out
    assert (root / "KgCoOp/trainers/fair.py").is_file()
    assert install(root, "--uninstall", "--yes") == 0 and snapshot(root) == before
    shutil.copytree(checkout, root / "plot-pp")
    assert install(root, "--yes") == 2
    assert "There is one in: KgCoOp, plot-pp; give one of these as PATH" in capsys.readouterr().err


def test_baselines_come_where_the_checkout_has_none_so_named(checkout, capsys, python):
    before = snapshot(checkout)
    assert install(checkout, "--yes", "--baselines", "--descriptions", "dtd") == 0
    message = capsys.readouterr().out
    assert "Left out: trainers/zsclip.py, the checkout has a trainer ZeroshotCLIP" in message
    assert (checkout / "trainers/zsclip.py").read_text() == TRAINER.format("ZeroshotCLIP")
    assert not (checkout / "configs/trainers/ZeroshotCLIP").exists()
    assert (checkout / "configs/trainers/CuPL/tiny.yaml").is_file() and (checkout / "descriptions/dtd.json").is_file()
    assert [file.name for file in (checkout / "descriptions").iterdir()] == ["dtd.json"]

    # All that registers itself here does so there, and has its config.
    done = python(
        checkout,
        "-c",
        "import train; from dassl.engine import TRAINER_REGISTRY\n"
        "print(TRAINER_REGISTRY.registered_names())\n"
        "cfg = train.get_cfg_default(); train.extend_cfg(cfg); print(sorted(cfg.TRAINER))",
    )
    assert done.returncode == 0, done.stderr
    names, nodes = map(ast.literal_eval, done.stdout.splitlines()[-2:])
    installed = {
        name for file, found in parts.baselines().items() if f"Left out: {file}" not in message for name in found
    }
    assert {"CuPL", "FAIR"} <= installed | {"FAIR"} <= set(names)
    assert {"COOP", "FAIR", *(name.upper() for name in installed)} <= set(nodes)

    assert install(checkout, "--uninstall", "--yes") == 0
    for cache in list(checkout.rglob("__pycache__")):
        shutil.rmtree(cache)
    assert snapshot(checkout) == before


def installed_files(checkout: Path) -> set[str]:
    return set(json.loads((checkout / MANIFEST).read_text())["files"])


def test_only_what_fair_and_predictions_need_is_copied(template, checkout):
    assert install(checkout, "--yes") == 0
    new = snapshot(checkout).keys() - snapshot(template).keys()
    new = {name.rpartition(" ")[0] for name in new if (checkout / name.rpartition(" ")[0]).is_file()}
    assert new == installed_files(checkout) | {MANIFEST}
    for file in installed_files(checkout):
        assert file == "trainers/fair.py" or file.startswith(("fairclip/", "configs/trainers/FAIR/")), file
        assert (checkout / file).read_bytes() == (ROOT / file).read_bytes()
    rooms = {folder.name for folder in (checkout / "fairclip").iterdir() if folder.is_dir()}
    assert {"core", "backbones", "method", "predict", "run", "text", "views"} <= rooms
    assert not rooms & {"compare", "describe", "install"}, "not for training or predicting"
    assert not (checkout / "fairclip/bench.py").exists() and not (checkout / "fairclip/method/transclip.py").exists()
    assert (checkout / "fairclip/backbones/weights/tiny.pt").is_file()


def test_all_that_the_copied_modules_import_is_there(checkout, python):
    assert install(checkout, "--yes", "--baselines") == 0
    files = [file for file in installed_files(checkout) if file.endswith(".py")]
    for file in files:
        text = (checkout / file).read_text()
        names = re.findall(r"(?:from|import) (fairclip[\w.]*)", text)
        names += [".".join(found) for found in re.findall(r"from (fairclip[\w.]*) import (\w+)", text)]
        for name in names:
            places = [f"{name.replace('.', '/')}{end}" for end in (".py", "/__init__.py")]
            if any((ROOT / place).is_file() for place in places):  # else it is a function or the like
                assert any((checkout / place).is_file() for place in places), f"{file}: {name}"
    # Its own copies, all of them, not those of this repository.
    modules = sorted(file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in files)
    modules = [module for module in modules if not module.endswith("__main__")]
    done = python(
        checkout,
        "-c",
        "import importlib, sys\n"
        "files = [importlib.import_module(name).__file__ for name in sys.argv[1:]]\n"
        "from fairclip.core.places import HOME\n"
        "print([str(HOME), *files])",
        *modules,
    )
    assert done.returncode == 0, done.stderr
    home, *found = ast.literal_eval(done.stdout.splitlines()[-1])
    assert home == str(checkout) and len(found) == len(modules) > 40
    assert all(Path(file).is_relative_to(checkout) for file in found)


def test_other_commands_say_that_they_were_not_copied(checkout, python):
    assert install(checkout, "--yes") == 0
    done = python(checkout, "-m", "fairclip", "install-into", str(ROOT))
    assert done.returncode == 2 and "has no `install-into`" in done.stderr and "Traceback" not in done.stderr


def test_from_a_clone_that_is_not_installed(checkout, python):
    done = python(ROOT, "-m", "fairclip", "install-into", str(checkout), "--dry-run")
    assert done.returncode == 0 and "  fairclip/run/base.py" in done.stdout.splitlines(), done.stderr


def test_from_a_wheel_that_keeps_the_package_apart(checkout, tmp_path, monkeypatch):
    share = tmp_path / "share"
    for name in ("trainers", "configs"):
        shutil.copytree(ROOT / name, share / name, ignore=shutil.ignore_patterns("__pycache__"))
    before = snapshot(checkout)
    assert install(checkout, "--yes") == 0
    from_a_clone = snapshot(checkout)
    assert install(checkout, "--uninstall", "--yes") == 0 and snapshot(checkout) == before
    monkeypatch.setattr(parts, "HOME", share)
    assert install(checkout, "--yes") == 0
    assert snapshot(checkout) == from_a_clone


# -- Showing, asking, repeating ----------------------------------------------------------------------------------------


def test_a_dry_run_shows_the_diff_and_changes_nothing(checkout, capsys):
    before = snapshot(checkout)
    assert install(checkout, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["--- a/train.py", "+++ b/train.py", "@@ -10,6 +10,7 @@"]
    added = [line[1:] for line in lines if line.startswith("+") and not line.startswith("+++")]
    note = "  # FAIR: fair install-into"
    assert added == [f"import trainers.fair{note}", f"    trainers.fair.extend_cfg(cfg){note}"]
    assert not any(line.startswith("-") for line in lines[1:])
    assert "  trainers/fair.py" in lines and "  configs/trainers/FAIR/vit_b32.yaml" in lines
    assert snapshot(checkout) == before
    assert install(checkout, "--yes") == 0
    installed = snapshot(checkout)
    assert install(checkout, "--uninstall", "--dry-run") == 0
    assert f"-import trainers.fair{note}" in capsys.readouterr().out.splitlines()
    assert snapshot(checkout) == installed


@pytest.mark.parametrize("answer, done", [("y", True), ("Yes", True), ("", False), ("n", False)])
def test_it_asks_on_a_terminal(checkout, monkeypatch, answer, done):
    before = snapshot(checkout)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert install(checkout) == 0
    assert (snapshot(checkout) != before) == done == (checkout / "trainers/fair.py").exists()


def test_without_a_terminal_it_wants_to_be_told(checkout, monkeypatch, capsys):
    before = snapshot(checkout)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert install(checkout) == 2
    assert "--yes" in capsys.readouterr().err and snapshot(checkout) == before


def test_a_second_call_has_nothing_to_do(checkout, capsys):
    assert install(checkout, "--yes") == 0
    once = snapshot(checkout)
    capsys.readouterr()
    assert install(checkout) == 0
    assert "nothing to do" in capsys.readouterr().out and snapshot(checkout) == once


def test_what_was_registered_by_hand_is_not_repeated(checkout):
    text = TRAIN.replace("import trainers.zsclip\n", "import trainers.zsclip\nimport trainers.fair\n")
    (checkout / "train.py").write_text(text)
    assert install(checkout, "--yes") == 0
    result = (checkout / "train.py").read_text()
    assert result.count("import trainers.fair") == 1 and result.count("trainers.fair.extend_cfg(cfg)") == 1
    assert install(checkout, "--uninstall", "--yes") == 2  # its import would fail
    (checkout / "train.py").write_text(result.replace("import trainers.fair\n", ""))
    assert install(checkout, "--uninstall", "--yes") == 0
    assert (checkout / "train.py").read_text() == TRAIN


# -- Updates -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def newer(tmp_path) -> Path:
    """A newer version of this repository: fair.py has changed, and a module is called something else."""
    root = tmp_path / "newer"
    for name in ("fairclip", "trainers", "configs", "descriptions"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    fair = root / "trainers/fair.py"
    fair.write_text(fair.read_text().replace(".method.label_weights", ".method.weights_of_images") + "# newer\n")
    (root / "fairclip/method/label_weights.py").rename(root / "fairclip/method/weights_of_images.py")
    return root


def install_from(root: Path, monkeypatch) -> None:
    """From now on, install the version in this folder."""
    monkeypatch.setattr(parts, "HOME", root)
    monkeypatch.setattr(parts, "PACKAGE", root / "fairclip")


OLD_NOTE = "  # FAIR: scripts/install_into.py"
OLD_FILES = {
    "configs/trainers/FAIR/rn101.yaml": "MODEL: {}\n",
    "configs/trainers/FAIR/vit_b32.yaml": "MODEL:\n  OLD: True\n",
    "trainers/base.py": "class Trainer: pass\n",
    "trainers/fair.py": "from .base import Trainer\nfrom .modules import views\n\n\ndef extend_cfg(cfg): pass\n",
    "trainers/modules/__init__.py": "",
    "trainers/modules/views.py": "CROPS = 8\n",
    "trainers/modules/weights/tiny.pt": "weights\n",
    "trainers/predictor.py": "class Predictor: pass\n",
}


@pytest.fixture
def old_generation(checkout) -> Path:
    """A checkout as installations from before fairclip/ left it: all in trainers/, and another mark in train.py."""
    for file, text in OLD_FILES.items():
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        (checkout / file).write_text(text)
    record = {
        "baselines": False,
        "descriptions": [],
        "files": {file: [hashlib.sha256(text.encode()).hexdigest()] for file, text in OLD_FILES.items()},
        "folders": ["configs/trainers/FAIR", "trainers/modules", "trainers/modules/weights"],
    }
    (checkout / MANIFEST).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    text = TRAIN.replace("import trainers.zsclip\n", f"import trainers.zsclip\nimport trainers.fair{OLD_NOTE}\n")
    last = '    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # or base, or new\n'
    (checkout / "train.py").write_text(text.replace(last, f"{last}    trainers.fair.extend_cfg(cfg){OLD_NOTE}\n"))
    for folder in ("trainers", "trainers/modules"):
        (checkout / folder / "__pycache__").mkdir()
    for name in ("base", "fair", "predictor", "modules/views"):
        compiled = (checkout / "trainers" / name).parent / "__pycache__" / f"{Path(name).name}.cpython-310.pyc"
        compiled.write_bytes(b"compiled")
    return checkout


def without_caches(folder: Path) -> dict[str, bytes | None]:
    return {name: content for name, content in snapshot(folder).items() if "__pycache__" not in name}


def test_a_later_call_updates(checkout, newer, monkeypatch, capsys):
    before = snapshot(checkout)
    assert install(checkout, "--yes") == 0
    capsys.readouterr()
    install_from(newer, monkeypatch)
    assert install(checkout, "--yes") == 0
    assert "+# newer" in capsys.readouterr().out.splitlines()
    assert (checkout / "trainers/fair.py").read_bytes() == (newer / "trainers/fair.py").read_bytes()
    assert not (checkout / "fairclip/method/label_weights.py").exists()
    assert (checkout / "fairclip/method/weights_of_images.py").exists()
    assert install(checkout, "--uninstall", "--yes") == 0
    assert snapshot(checkout) == before


def test_files_of_the_old_layout_are_replaced(template, old_generation, tmp_path, capsys):
    assert install(old_generation, "--yes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  trainers/modules/views.py" in lines[lines.index(f"Removed files in {old_generation}:") :]
    assert f"-import trainers.fair{OLD_NOTE}" in lines and f"+import trainers.fair{train_file.NOTE}" in lines
    assert not (old_generation / "trainers/modules").exists()

    fresh = Path(shutil.copytree(template, tmp_path / "fresh"))
    assert install(fresh, "--yes") == 0
    assert without_caches(old_generation) == without_caches(fresh)  # the record, too
    assert install(old_generation) == 0  # nothing to ask
    assert install(old_generation, "--uninstall", "--yes") == 0
    assert without_caches(old_generation) == without_caches(template)
    assert not list(old_generation.rglob("*.pyc"))


def test_the_old_layout_can_be_taken_back_as_it_is(template, old_generation):
    assert install(old_generation, "--uninstall", "--yes") == 0
    assert without_caches(old_generation) == without_caches(template)
    assert not list(old_generation.rglob("*.pyc"))


@pytest.mark.parametrize("arguments", [[], ["--uninstall"]], ids=["update", "uninstall"])
def test_edited_files_of_the_old_layout_stay_and_are_named(template, old_generation, capsys, arguments):
    mine = {"trainers/base.py": "mine = 1\n", "trainers/modules/views.py": "mine = 2\n"}
    for file, text in mine.items():
        (old_generation / file).write_text(text)
    assert install(old_generation, "--yes", *arguments) == 0
    out = capsys.readouterr().out
    assert [line.split(",")[0] for line in out.splitlines() if line.startswith("Stays: ")] == [
        f"Stays: {file}" for file in mine
    ]
    left = [file for file in OLD_FILES if (old_generation / file).exists() and not file.startswith("configs/")]
    assert left == (["trainers/base.py", "trainers/modules/views.py"] if arguments else sorted([*mine, parts.FAIR]))
    if not arguments:
        assert install(old_generation, "--uninstall", "--yes") == 0
    for file, text in mine.items():
        assert (old_generation / file).read_text() == text
        (old_generation / file).unlink()
    shutil.rmtree(old_generation / "trainers/modules")  # it had an edited file in it
    assert without_caches(old_generation) == without_caches(template)


def test_an_edited_trainer_of_the_old_layout_is_not_overwritten(old_generation, capsys):
    (old_generation / "trainers/fair.py").write_text("mine = True\n")
    before = snapshot(old_generation)
    assert install(old_generation, "--yes") == 2
    assert "changed after they had been installed: trainers/fair.py" in capsys.readouterr().err
    assert snapshot(old_generation) == before


# -- Breaking off ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start, step, last",
    [
        ("fresh", "put", "views.py"),
        ("fresh", "put", "train.py"),
        ("update", "put", "weights_of_images.py"),
        ("update", "remove", "label_weights.py"),
        ("old layout", "put", "fair.py"),
        ("old layout", "put", "train.py"),
        ("old layout", "remove", "base.py"),
    ],
)
def test_a_call_that_broke_off_is_made_good(template, request, newer, monkeypatch, capsys, start, step, last):
    checkout = request.getfixturevalue("old_generation" if start == "old layout" else "checkout")
    if start == "update":
        assert install(checkout, "--yes") == 0
    install_from(newer, monkeypatch)
    real = getattr(apply, step)

    def full_disk(path, what):  # put(path, content), remove(checkout, file)
        if (path if step == "put" else Path(what)).name == last:
            raise OSError("no space left")
        real(path, what)

    with monkeypatch.context() as patch:
        patch.setattr(apply, step, full_disk)
        assert install(checkout, "--yes") == 2
    assert "no space left" in capsys.readouterr().err
    broken = shutil.copytree(checkout, checkout.with_name("broken"))
    assert install(broken, "--uninstall", "--yes") == 0
    assert without_caches(broken) == without_caches(template)
    assert install(checkout, "--yes") == 0
    assert (checkout / "fairclip/method/weights_of_images.py").exists()
    assert not (checkout / "fairclip/method/label_weights.py").exists() and not (checkout / "trainers/base.py").exists()
    assert install(checkout) == 0  # nothing is left to do
    assert install(checkout, "--uninstall", "--yes") == 0
    assert without_caches(checkout) == without_caches(template)


@pytest.mark.parametrize("last", [MANIFEST, "fairclip/cli.py", "trainers/fair.py", "train.py"])
def test_a_killed_call_leaves_nothing_behind_in_the_end(checkout, last):
    before = snapshot(checkout)
    replace = os.replace

    def replace_or_die(source, target) -> None:
        if str(target) == os.path.join(checkout, last):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    def work() -> int:
        os.replace = replace_or_die
        return install(checkout, "--yes")

    done = Forked(work, checkout.parent / "said")
    assert done.wait() == -signal.SIGKILL, done.said()
    assert len(list(checkout.rglob(".*.tmp"))) == 1
    broken = shutil.copytree(checkout, checkout.with_name("broken"))
    if last != MANIFEST:  # else nothing is written yet
        assert install(broken, "--uninstall", "--yes") == 0
        assert snapshot(broken) == before
    assert install(checkout, "--yes") == 0
    assert not list(checkout.rglob(".*.tmp"))
    assert install(checkout, "--uninstall", "--yes") == 0
    assert snapshot(checkout) == before


# -- The place in train.py ---------------------------------------------------------------------------------------------

IMPORT = "import trainers.zsclip\n"
BODIES = {
    "plain": f"{IMPORT}\ndef extend_cfg(cfg):\n    cfg.A = 1\n\nB = 2\n",
    "last, no line break at the end": f"{IMPORT}\ndef extend_cfg(cfg):\n    cfg.A = 1",
    "Windows line breaks": f"{IMPORT}\ndef extend_cfg(cfg):\n    cfg.A = 1\n".replace("\n", "\r\n"),
    "Windows, no line break at the end": f"{IMPORT}\ndef extend_cfg(cfg):\n    cfg.A = 1".replace("\n", "\r\n"),
    "tabs": f"{IMPORT}\ndef extend_cfg(cfg):\n\tif cfg:\n\t\tcfg.A = 1\n",
    "a return": f"{IMPORT}\ndef extend_cfg(cfg):\n    cfg.A = 1\n    return cfg\n",
    "an early return": f"{IMPORT}\ndef extend_cfg(cfg):\n    cfg.A = 1\n    if cfg:\n        return\n    cfg.B = 2\n",
    "nothing but a return": f"{IMPORT}\ndef extend_cfg(\n    cfg,\n):\n    return\n",
    "another name": f"{IMPORT}\ndef extend_cfg(config, *rest):\n    config.A = 1\n",
    "a docstring": f'{IMPORT}\ndef extend_cfg(cfg):\n    """Nothing\n\n    yet."""\n',
    "a statement of several lines": f"{IMPORT}\ndef extend_cfg(cfg):\n    cfg.A = [\n1,\n    ]  # ]\n",
    "two statements on a line": f"{IMPORT}\ndef extend_cfg(cfg):\n    cfg.A = 1; cfg.B = 2\n",
    "an import of several lines": "from trainers.zsclip import (\n    ZeroshotCLIP,\n    ZeroshotCLIP2,\n)\n\n"
    "def extend_cfg(cfg):\n    cfg.A = 1\n",
    "the package": "import trainers\n\ndef extend_cfg(cfg):\n    cfg.A = 1\n",
    "under another name": "import trainers.zsclip as z\n\ndef extend_cfg(cfg):\n    cfg.A = 1\n",
    "from the package": "from trainers import zsclip\n\ndef extend_cfg(cfg):\n    cfg.A = 1\n",
    "a comment before the end": f"{IMPORT}\ndef extend_cfg(cfg):\n    cfg.A = 1\n    # the end\n",
    "the text in a string": f'TEXT = """\nimport trainers.coop\ndef extend_cfg(cfg):\n"""\n{IMPORT}'
    "def extend_cfg(cfg):\n    cfg.A = 1\n",
    "another encoding": f"# -*- coding: latin-1 -*-\n# \xe9\n{IMPORT}\ndef extend_cfg(cfg):\n    cfg.A = 1  # \xe9\n",
}


@pytest.mark.parametrize("source", BODIES.values(), ids=BODIES)
def test_registering_works_and_can_be_taken_back(source):
    before = source.encode("latin-1")
    modules = {"trainers.fair": True, "trainers.cupl": True, "trainers.wca": False}
    after = train_file.register(before, modules)
    names = {}
    exec(compile(after, "train.py", "exec"), names)
    cfg = CfgNode({"TRAINER": {}})
    names["extend_cfg"](cfg)
    assert {"FAIR", "CUPL"} <= cfg.TRAINER.keys() and names["trainers"].wca
    if "A = 1" in source:
        assert cfg.A in (1, [1])
    new = [line for line in after.splitlines() if line not in before.splitlines()]
    assert len(new) == 5 and all(line.endswith(train_file.NOTE.encode()) for line in new)
    assert (b"\r\n" in before) == (b"\r\n" in after) and after.endswith(b"\n") == before.endswith(b"\n")
    assert train_file.unregister(after) == before
    assert train_file.register(after, modules) == after


@pytest.mark.parametrize(
    "lines, new",
    [
        ("for i in range(2):\n        a = engine.build_trainer(cfg)", "engine.build_trainer(cfg)"),
        ("b = 1\n    a = build_trainer(c)\n    a.model.train()", "build_trainer(c)"),
        ("a = build_trainer(cfg)\n    a.train()", ""),
        ("a = build_trainer(cfg)\n    build_trainer(cfg).train()", ""),
        ("a = build()", ""),
        ("if cfg:\n        c = cfg\n        a = build_trainer(c)", "build_trainer(c)"),
    ],
)
def test_our_trainers_train_where_the_script_only_builds_them(lines, new):
    source = f"{BODIES['plain']}\ndef main(cfg):\n    {lines}\n".encode()
    after = train_file.register(source, {"trainers.fair": True}, ["FAIR", "CuPL"])
    compile(after, "train.py", "exec")
    added = [line.strip() for line in after.decode().splitlines() if "build_trainer" in line and "FAIR" in line]
    cfg = "c" if new == "build_trainer(c)" else "cfg"
    line = f"if {cfg}.TRAINER.NAME in ('FAIR', 'CuPL'): return {new}.train(){train_file.NOTE}"
    assert added == ([line] if new else [])
    assert train_file.unregister(after) == source
    assert train_file.register(after, {"trainers.fair": True}, ["FAIR", "CuPL"]) == after


@pytest.mark.parametrize(
    "source, message",
    [
        (TRAIN.replace("extend_cfg", "add_cfg"), "no function extend_cfg(cfg)"),
        (TRAIN.replace("def extend_cfg(cfg)", "def extend_cfg()"), "no function extend_cfg(cfg)"),
        (TRAIN + "\n\ndef extend_cfg(cfg):\n    pass\n", "several extend_cfg"),
        (TRAIN.replace("import trainers.", "import models."), "no module of trainers/"),
        ("import trainers.coop\ndef extend_cfg(cfg): pass\n", "on one line"),
        (TRAIN + "def\n", "not valid Python"),
        ((ROOT / "train.py").read_text(), "no module of trainers/"),  # ours finds its trainers by itself
    ],
)
def test_another_train_py_is_refused(checkout, capsys, source, message):
    (checkout / "train.py").write_text(source)
    before = snapshot(checkout)
    assert install(checkout, "--yes") == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: train.py is not recognised: ") and message in error and "by hand" in error
    assert snapshot(checkout) == before


# -- What is in the way ------------------------------------------------------------------------------------------------


def test_files_of_the_checkout_are_never_overwritten(checkout, capsys):
    taken = checkout / "configs/trainers/FAIR/vit_b32.yaml"
    taken.parent.mkdir()
    taken.write_text("MINE: True\n")
    shutil.copy(ROOT / "trainers/fair.py", checkout / "trainers/fair.py")  # the same content is fine
    before = snapshot(checkout)
    assert install(checkout, "--yes") == 2
    error = capsys.readouterr().err
    assert "files of its own where FAIR's belong: configs/trainers/FAIR/vit_b32.yaml. Nothing was changed" in error
    assert snapshot(checkout) == before
    taken.unlink()
    assert install(checkout, "--yes") == 0
    assert install(checkout, "--uninstall", "--yes") == 0
    assert (checkout / "trainers/fair.py").exists()  # it was there before


def test_names_that_used_to_be_taken_are_free(checkout):
    for file in ("trainers/base.py", "trainers/predictor.py", "trainers/modules/views.py"):
        (checkout / file).parent.mkdir(exist_ok=True)
        (checkout / file).write_text("mine = True\n")
    before = snapshot(checkout)
    assert install(checkout, "--yes") == 0
    assert before.items() - snapshot(checkout).items() == {
        (name, content) for name, content in before.items() if name.startswith("train.py ")
    }
    assert install(checkout, "--uninstall", "--yes") == 0
    assert snapshot(checkout) == before


def test_a_trainer_of_that_name_is_in_the_way(checkout, capsys):
    (checkout / "trainers/other.py").write_text(TRAINER.format("FAIR"))
    assert install(checkout, "--yes") == 2
    assert "trainers/other.py registers a trainer FAIR of its own" in capsys.readouterr().err


def test_changed_files_are_not_overwritten_and_stay(checkout, newer, monkeypatch, capsys):
    assert install(checkout, "--yes") == 0
    install_from(newer, monkeypatch)
    fair = checkout / "trainers/fair.py"
    fair.write_text(fair.read_text() + "# mine\n")
    text = TRAIN + "# mine too\n"
    (checkout / "train.py").write_text((checkout / "train.py").read_text() + "# mine too\n")
    changed = snapshot(checkout)
    assert install(checkout, "--yes") == 2
    assert "changed after they had been installed: trainers/fair.py" in capsys.readouterr().err
    assert snapshot(checkout) == changed
    assert install(checkout, "--uninstall", "--yes") == 0
    assert "Stays: trainers/fair.py" in capsys.readouterr().out
    assert fair.read_text().endswith("# mine\n") and not (checkout / "fairclip").exists()
    assert (checkout / "train.py").read_text() == text


def test_uninstall_does_not_break_train_py(checkout, capsys):
    assert install(checkout, "--yes") == 0
    file = checkout / "train.py"
    file.write_text(file.read_text().replace("    cfg.freeze()", "    trainers.fair.extend_cfg(cfg)\n    cfg.freeze()"))
    before = snapshot(checkout)
    assert install(checkout, "--uninstall", "--yes") == 2
    assert "train.py uses trainers.fair" in capsys.readouterr().err and snapshot(checkout) == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--uninstall"], "nothing is installed there"),
        (["--descriptions", "stanford_card"], "no descriptions called stanford_card"),
        (["--uninstall", "--baselines"], "leave --baselines"),
    ],
)
def test_mistakes(checkout, capsys, arguments, message):
    before = snapshot(checkout)
    assert install(checkout, "--yes", *arguments) == 2
    assert message in capsys.readouterr().err and snapshot(checkout) == before


def test_other_folders_are_refused(tmp_path, capsys, checkout):
    (tmp_path / "empty").mkdir()
    assert install(tmp_path / "empty", "--yes") == 2
    assert "it has no train.py" in capsys.readouterr().err
    assert install(ROOT, "--yes") == 2
    assert "FAIR is at home here" in capsys.readouterr().err
    (checkout / MANIFEST).write_text("{}")
    assert install(checkout, "--yes") == 2
    assert "lacks files" in capsys.readouterr().err
