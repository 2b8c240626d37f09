"""results.json: written whole or not at all; the facts that identify a run."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from fairclip.core.csv_files import harmless, original
from fairclip.core.errors import UserError
from fairclip.core.files import atomic
from fairclip.run import provenance
from fairclip.run.provenance import commit, versions
from fairclip.run.results import (
    config_hash,
    read_predictions,
    read_results,
    write_predictions,
    write_results,
)

FIGURES = {"accuracy": 50.0, "macro_f1": 49.0}


# ---------------------------------------------------------------------------------------------------------------------
# The file
# ---------------------------------------------------------------------------------------------------------------------
def test_round_trip(tmp_path):
    epochs = [{"epoch": 1, "loss": 0.1, "lr": 1e-4}]
    content = FIGURES | {"seed": 1, "accuracy": 200 / 3, "trainer": "FAIR", "epochs": epochs, "none": None}
    path = write_results(tmp_path / "new" / "folder", content)
    assert read_results(path.parent) == content  # full precision
    assert path.read_text().index('"accuracy"') < path.read_text().index('"epochs"')  # sorted
    assert os.listdir(path.parent) == ["results.json"]


def test_numbers_of_other_libraries(tmp_path):
    write_results(
        tmp_path,
        {
            "a": np.float64(0.1),
            "b": np.int64(3),
            "c": torch.tensor(0.5),
            "d": torch.ones(2),
            "e": np.zeros((1, 2)),
            "f": (1, 2),
            "g": tmp_path,
            4: float("nan"),
            "h": [float("inf"), torch.tensor(float("nan"))],
        }
        | FIGURES,
    )
    assert read_results(tmp_path) == FIGURES | {
        "a": 0.1,
        "b": 3,
        "c": 0.5,
        "d": [1, 1],
        "e": [[0, 0]],
        "f": [1, 2],
        "g": str(tmp_path),
        "4": None,
        "h": [None, None],
    }


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    write_results(tmp_path, FIGURES | {"seed": 1})
    with pytest.raises(TypeError):
        write_results(tmp_path, {"seed": object()})
    assert read_results(tmp_path) == FIGURES | {"seed": 1}


def test_failure_while_writing_leaves_the_old_file(tmp_path):
    target = tmp_path / "results.json"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic(target) as temporary:
        assert temporary.parent == tmp_path  # the same file system, or the renaming would copy
        temporary.write_text("half of the ne")
        assert target.read_text() == "old"
        raise RuntimeError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["results.json"]


def test_unfinished_and_damaged_runs(tmp_path):
    assert read_results(tmp_path) is None
    assert read_results(tmp_path / "absent") is None
    for content, message in (
        ('{"seed": 1', "not valid JSON"),
        ("[1]", "not a JSON object"),
        ("[" * 10**5, "nested too deeply"),
        ('{"accuracy": 1, "accuracy": 99, "macro_f1": 1}', "'accuracy' is there twice"),
        ('{"accuracy": NaN, "macro_f1": 1}', "NaN is no number"),
        ('{"accuracy": true, "macro_f1": 1}', "accuracy is True: it has to be a number from 0 to 100"),
        ('{"accuracy": -5, "macro_f1": 1}', "accuracy is -5"),
        ('{"macro_f1": 1}', "lacks accuracy"),
        ('{"accuracy": 1, "macro_f1": 1, "epochs": [{"loss": 1}]}', "epochs is .*each with its epoch"),
        ('{"accuracy": 1, "macro_f1": 1, "descriptions": {"file": "a"}}', "descriptions is .*file and sha256"),
        ('{"accuracy": 1, "macro_f1": 1, "seed": "\xe9"}'.encode("latin-1"), "byte 40 is not UTF-8"),
    ):
        (tmp_path / "results.json").write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UserError, match=f"results.json.*{message}.*Delete the file"):
            read_results(tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# The facts
# ---------------------------------------------------------------------------------------------------------------------
def config(**changes) -> CfgNode:
    cfg = CfgNode(
        {
            "SEED": 1,
            "OUTPUT_DIR": "a",
            "RESUME": "",
            "USE_CUDA": True,
            "VERBOSE": True,
            "DATASET": {"ROOT": "/data", "NAME": "SynthCars"},
            "DATALOADER": {"NUM_WORKERS": 2},
            "TRAIN": {"PRINT_FREQ": 10},
            "OPTIM": {"LR": 1e-4, "STEPSIZE": (-1,)},
            "INPUT": {"SIZE": (64, 64)},
        }
    )
    cfg.merge_from_list([item for key, value in changes.items() for item in (key.replace("__", "."), value)])
    return cfg


@pytest.mark.parametrize(
    "changes",
    [
        {"SEED": 2},
        {"OUTPUT_DIR": "b"},
        {"RESUME": "b"},
        {"USE_CUDA": False},
        {"VERBOSE": False},
        {"DATASET__ROOT": "/other"},
        {"DATALOADER__NUM_WORKERS": 0},
        {"TRAIN__PRINT_FREQ": 1},
    ],
)
def test_hash_ignores_where_a_run_is_done(changes):
    assert config_hash(config(**changes)) == config_hash(config())


@pytest.mark.parametrize(
    "changes",
    [
        {"DATASET__NAME": "StanfordCars"},
        {"OPTIM__LR": 1.0000001e-4},
        {"OPTIM__STEPSIZE": (-1, 3)},
        {"INPUT__SIZE": (64, 32)},
    ],
)
def test_hash_sees_what_is_computed(changes):
    assert config_hash(config(**changes)) != config_hash(config())


def test_hash_is_the_same_everywhere():
    """Another process (its hash seed differs) and another order of the keys; the digits themselves are fixed."""
    ordered, reordered = {"B": {"y": 1, "x": (1, 2)}, "A": 0.1}, {"A": 0.1, "B": {"x": [1, 2], "y": 1}}
    assert config_hash(ordered) == config_hash(reordered)
    assert config_hash({"B": {"SEED": 1}}) != config_hash({"B": {"SEED": 2}})  # only the top-level seed is left out
    assert config_hash({"A": 0.1, "SEED": 3}) == "e4b72272e671"


def test_versions(tmp_path):
    found = versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["numpy"] == np.__version__
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"torchvision", "pillow", "cuda", "clip", "dassl"} <= found.keys()
    json.dumps(found)


def test_a_clip_folder_has_no_version(tmp_path, monkeypatch):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "clip", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert versions()["clip"] is None


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit(tmp_path, monkeypatch):
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    for name in [name for name in os.environ if name.startswith("GIT_")]:  # set while a git hook runs the tests
        monkeypatch.delenv(name)
    monkeypatch.setattr(provenance, "HOME", tmp_path)
    assert commit() is None  # no repository
    git("init", "-q")
    assert commit() is None  # no commit
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    head = git("rev-parse", "HEAD").strip()
    assert commit() == head
    (tmp_path / "output.json").touch()
    assert commit() == head  # an untracked file is no change of the code
    (tmp_path / "file").write_text("2")
    assert commit() == head + "-dirty"
    (tmp_path / "inner").mkdir()
    monkeypatch.setattr(provenance, "HOME", tmp_path / "inner")
    assert commit() is None  # somebody else's repository
    monkeypatch.setattr(provenance, "HOME", tmp_path)
    monkeypatch.setenv("PATH", "")
    assert commit() is None  # no git


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1 b", "-x", "@sum", "\tx", "'=a", "'quoted", "-5", "a=b", ""])
def test_no_name_is_a_formula(tmp_path, name):
    write_predictions(tmp_path, "/data", [name, "b"], [(f"/data/{name}.png", 0, 1, 0.5)])
    assert read_predictions(tmp_path) == [(f"{name}.png", name, "b")]
    write_predictions(tmp_path, "/data", [name, "b"], [(f"/data/{name}.png", 0, 1, 0.5)], [1e-20])
    assert read_predictions(tmp_path) == [(f"{name}.png", name, "b")]
    assert (tmp_path / "predictions.csv").read_text().splitlines()[1].endswith(",0.5000,1e-20")
    cell = harmless(name)
    assert original(cell) == name and (cell[:1] not in set("=+-@\t") or name == "-5")
