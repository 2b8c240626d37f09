"""The shell scripts with a stand-in for Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted([*ROOT.glob("scripts/**/*.sh"), ROOT / ".ci" / "run"])

# Stands in for python3: it is content with any requirements, and prints how train.py and compare.py are called instead
# of running them, one argument a line in brackets. Training "fails" for seed 13.
FAKE_PYTHON = """#!/usr/bin/env bash
if [[ $1 == - ]]; then echo "$0"; exit; fi
printf 'CALL %s' "$(basename -- "$1")"
shift
printf ' [%s]' "$@"
echo
[[ " $* " != *" --seed 13 "* ]]
"""


@pytest.fixture
def clone(tmp_path):
    """The scripts and configs in a folder with a space in its name, as a clone has them."""
    folder = tmp_path / "my clone"
    for name in ("scripts", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "requirements.txt", folder)
    python = folder / "fake python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    return folder


def bash(clone: Path, script: str, *arguments: str, cwd: Path | None = None, **environment: str):
    """Runs a script of the clone, from another folder; returns (exit status, stdout, stderr)."""
    env = {k: v for k, v in os.environ.items() if k not in ("DATA", "OUTPUT", "TAG", "PYTHON")}
    env = {**env, "PYTHON": str(clone / "fake python"), **environment}
    done = subprocess.run(
        ["bash", str(clone / "scripts" / script), *arguments],
        capture_output=True,
        text=True,
        env=env,
        cwd=cwd or clone.parent,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout, done.stderr


def calls(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("CALL")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_parse(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


# Arguments


def test_defaults_for_the_built_in_data(clone):
    status, out, err = bash(clone, "run.sh", "FAIR", "synth_cars")
    assert (status, err) == (0, "")
    assert len(calls(out)) == 3
    for seed, call in zip((1, 2, 3), calls(out), strict=True):
        assert f"[--seed] [{seed}]" in call
        assert f"[--root] [{clone}/data]" in call
        assert f"[--output-dir] [{clone}/output/synth_cars/FAIR/tiny/seed{seed}]" in call
        assert f"[--config-file] [{clone}/configs/trainers/FAIR/tiny.yaml]" in call
        assert f"[--dataset-config-file] [{clone}/configs/datasets/synth_cars.yaml]" in call


def test_other_data_defaults_to_vit_b32(clone):
    _, out, _ = bash(clone, "run.sh", "FAIR", "stanford_cars", "7")
    assert len(calls(out)) == 1
    assert "/stanford_cars/FAIR/vit_b32/seed7]" in calls(out)[0]


def test_another_render_of_the_built_in_data(clone):
    _, out, _ = bash(clone, "run.sh", "FAIR", "synth_cars_s4", "0")
    assert "/synth_cars_s4/FAIR/tiny/seed0]" in calls(out)[0]
    assert "/datasets/synth_cars.yaml]" in calls(out)[0]
    assert calls(out)[0].endswith("[DATASET.SYNTH_SEED] [4]")


def test_options_and_folders_pass_through_untouched(clone):
    (clone.parent / "my data").mkdir()
    value = "$(touch hacked) 'quoted' *"
    status, out, _ = bash(
        clone,
        "run.sh",
        "FAIR",
        "stanford_cars",
        "rn50",
        "1",
        "--",
        "A.KEY",
        value,
        TAG="try.2",
        DATA="my data",
        OUTPUT="my output",
    )
    assert status == 0
    assert calls(out)[0].endswith(f"[A.KEY] [{value}]")
    assert "[--root] [my data] [--output-dir] [my output/stanford_cars/FAIR/rn50_try.2/seed1]" in calls(out)[0]
    assert not (clone.parent / "hacked").exists()


@pytest.mark.parametrize(
    "arguments, environment, message",
    [
        (["FAIR"], {}, "synth_cars"),
        (["FAIR", "synth_car"], {}, "Unknown data set 'synth_car'. Choose one of: aid birdsnap"),
        (["FAIR", "../x"], {}, "Unknown data set"),
        (["FAIR", ""], {}, "Unknown data set"),
        (["FAIR", "synth_cars", "vit"], {}, "Unknown config 'vit'. Choose one of: rn50 tiny tiny_rn"),
        (["FAIR", "synth_cars", "tiny", "one"], {}, "'one' is not a seed"),
        (["FAIR", "synth_cars", "tiny", "1.5"], {}, "'1.5' is not a seed"),
        (["FAIR", "synth_cars", "tiny", "--", "A", "1"], {}, "TAG=name"),
        (["FAIR", "synth_cars", "tiny", "--", "A"], {"TAG": "x"}, "in pairs"),
        (["FAIR", "synth_cars", "tiny", "--", "A", "1"], {"TAG": "plain"}, "Choose another name"),
        (["FAIR", "synth_cars"], {"TAG": "inductive"}, "Choose another name"),
        (["FAIR", "synth_cars"], {"TAG": "aligned"}, "Choose another name"),
        (["FAIR", "synth_cars"], {"TAG": "mine_aligned"}, "Choose another name"),
        (["FAIR", "synth_cars"], {"TAG": "../x"}, "TAG is"),
        (["FAIR", "stanford_cars"], {"DATA": "/no/such folder"}, "DATA=/no/such folder does not exist"),
        (["FAIR", "synth_cars"], {"PYTHON": "no-such-python"}, "There is no 'no-such-python'"),
        (["Fair", "synth_cars"], {}, "Unknown trainer 'Fair': there is no configs/trainers/Fair/. Choose one of: CuPL"),
        (["", "synth_cars"], {}, "Unknown trainer"),
        ([], {}, "usage: "),
    ],
)
def test_wrong_arguments_end_in_one_message(clone, arguments, environment, message):
    status, out, err = bash(clone, "run.sh", *arguments, **environment)
    assert (status, calls(out)) == (2, [])
    assert message in err
    assert ": line " not in err  # a message of ours, not of bash


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["run.sh", "--help"], "TRAINER  CuPL"),
        (["run.sh", "FAIR", "-h"], "run.sh FAIR DATASET"),
        (["fair/main.sh", "--help"], "[SEED...]"),
        (["compare.sh", "--help"], "--print"),
    ],
)
def test_help_is_an_answer(clone, arguments, part):
    status, out, err = bash(clone, *arguments)
    assert (status, err, calls(out)) == (0, "", []) and part in out


# Runs


def test_main_runs_the_rows_and_the_table(clone):
    status, out, err = bash(clone, "fair/main.sh", "synth_cars", "tiny", "1", "2")
    assert (status, err) == (0, "")
    seen = [
        call.split("[--output-dir] [")[1].split("]")[0].removeprefix(f"{clone}/output/synth_cars/")
        for call in calls(out)[:-1]
    ]
    assert seen == [
        "ZeroshotCLIP/tiny/seed1",
        "CuPL/tiny/seed1",
        "FAIR/tiny_plain/seed1",
        "FAIR/tiny_plain/seed2",
        "FAIR/tiny_aligned/seed1",
        "FAIR/tiny_aligned/seed2",
        "FAIR/tiny/seed1",
        "FAIR/tiny/seed2",
    ]
    assert "[TRAINER.FAIR.N_CROPS] [0] [TRAINER.FAIR.WEIGHT] [none]" in calls(out)[2]
    assert calls(out)[-1] == (f"CALL compare.py [{clone}/output] [--datasets] [synth_cars/tiny] [--by-seed]")


def test_zero_shot_runs_once(clone):
    _, out, _ = bash(clone, "zsclip/main.sh", "synth_cars")
    trainers = [call.split("[--trainer] [")[1].split("]")[0] for call in calls(out)[:-1]]
    assert trainers == ["ZeroshotCLIP", "ZeroshotCLIP2", "CuPL"]


def test_descriptions_reach_all_rows_that_use_them(clone):
    options = ["TRAINER.FAIR.N_CROPS", "4", "TRAINER.FAIR.DESCRIPTIONS", "my own.json"]
    _, out, _ = bash(clone, "fair/main.sh", "synth_cars", "1", "--", *options, TAG="own")
    cupl, plain, aligned, fair = calls(out)[1:5]
    assert cupl.endswith("[TRAINER.CUPL.DESCRIPTIONS] [my own.json]")
    for row in (plain, aligned):
        assert f"[{'] ['.join(options)}] [TRAINER.FAIR.N_CROPS] [0]" in row  # the last of a key counts
    assert fair.endswith(f"[{'] ['.join(options)}]")


def test_a_failed_run_stops_the_script(clone):
    status, out, _ = bash(clone, "fair/main.sh", "synth_cars", "13", "14")
    assert status != 0
    assert len(calls(out)) == 1


def test_eval_uses_the_saved_settings(clone):
    saved = clone / "output" / "synth_cars" / "FAIR" / "tiny" / "seed2"
    status, out, err = bash(clone, "fair/eval.sh", "synth_cars", "2")
    assert status == 2 and f"No run in {saved}. Train it first: bash scripts/fair/main.sh synth_cars tiny 2" in err
    saved.mkdir(parents=True)
    (saved / "config.yaml").touch()
    status, out, _ = bash(clone, "fair/eval.sh", "synth_cars", "2", "--", "TRAINER.FAIR.CROP_INFERENCE", "True")
    assert status == 0
    assert f"[--eval-only] [--model-dir] [{saved}] [--output-dir] [{saved}/eval]" in calls(out)[0]
    assert f"[--config-file] [{saved}/config.yaml] [TRAINER.FAIR.CROP_INFERENCE] [True]" in calls(out)[0]


def test_eval_of_plain_self_training(clone):
    saved = clone / "output" / "synth_cars" / "FAIR" / "tiny_aligned" / "seed2"
    status, _, err = bash(clone, "fair/eval.sh", "synth_cars", "2", TAG="aligned")
    assert status == 2 and f"No run in {saved}. Train it first: bash scripts/fair/main.sh synth_cars tiny 2" in err
    _, _, err = bash(clone, "fair/eval.sh", "synth_cars", "2", TAG="mine_plain")
    assert "tiny_mine_plain/seed2. Train it first: TAG=mine bash scripts/fair/main.sh synth_cars tiny 2" in err
    saved.mkdir(parents=True)
    (saved / "config.yaml").touch()
    status, out, _ = bash(clone, "fair/eval.sh", "synth_cars", "2", "--", "TRAINER.FAIR.N_CROPS", "8", TAG="aligned")
    assert status == 0 and f"[--config-file] [{saved}/config.yaml] [TRAINER.FAIR.N_CROPS] [8]" in calls(out)[0]


# Environment


def test_setup_refuses_an_old_python(clone):
    old = clone / "old"
    old.write_text('#!/usr/bin/env bash\nif [[ $1 == - ]]; then echo "Python 3.10 or newer"; fi\nexit 1\n')
    old.chmod(0o755)
    status, out, err = bash(clone, "setup.sh", PYTHON=str(old))
    assert status == 2
    assert "lacks Python 3.10 or newer." in out and "FAIR needs Python 3.10 or newer" in err
    assert not (clone / ".venv").exists()


# A Python without packages, run in the clone. Its copy in .venv/ has them after an installation, which fails the first
# time if there is a file `offline`.
BARE_PYTHON = """#!/usr/bin/env bash
case "$*" in
"- "*) if [[ -f installed && $0 == *.venv* ]]; then echo "$0"; else echo "torch>=2"; exit 1; fi ;;
"-m venv"*) echo MADE; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
"-m pip install"*) if rm offline 2>/dev/null; then exit 1; fi; echo INSTALLED; touch installed ;;
esac
"""


def test_setup_makes_the_environment_once_and_completes_a_broken_one(clone):
    bare = clone / "bare"
    bare.write_text(BARE_PYTHON)
    bare.chmod(0o755)
    (clone / "offline").touch()
    status, out, err = bash(clone, "setup.sh", PYTHON=str(bare), cwd=clone)
    assert status == 2 and "MADE" in out and "run the command again" in err
    status, out, err = bash(clone, "setup.sh", PYTHON=str(bare), cwd=clone)
    assert (status, err) == (0, "")
    assert "lacks torch>=2." in out and "MADE" not in out and "INSTALLED" in out
    assert out.endswith(f"Ready: {clone}/.venv/bin/python\n")
    status, out, err = bash(clone, "setup.sh", PYTHON=str(bare), cwd=clone)
    assert (status, out, err) == (0, f"Ready: {clone}/.venv/bin/python\n", "")


def check(clone: Path) -> tuple[int, str]:
    command = 'source "$1"; check "$2"'
    done = subprocess.run(
        ["bash", "-c", command, "bash", str(clone / "scripts" / "setup.sh"), sys.executable],
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


def test_setup_reads_the_requirements(clone):
    # These tests run in an environment that has them all.
    assert check(clone) == (0, sys.executable)
    (clone / "requirements.txt").write_text("# comment\nnumpy>=999\n\npytest\nno-such-package<3\n")
    assert check(clone) == (1, "numpy>=999, no-such-package<3")
