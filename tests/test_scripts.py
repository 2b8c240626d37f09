"""The shell scripts, most with a stand-in for Python."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted([*ROOT.glob("scripts/**/*.sh"), ROOT / ".ci" / "run"])

# Stands in for python3: it is content with any requirements, and prints how it is called, arguments in brackets, and
# what is exported. It "fails" for seed 13.
FAKE_PYTHON = """#!/usr/bin/env bash
if [[ $1 == - ]]; then echo "$0"; exit; fi
printf 'CALL'
printf ' [%s]' "$@"
printf '\\nDATA=%s OUTPUT=%s TAG=%s PYTHONPATH=%s\\n' "${DATA-}" "${OUTPUT-}" "${TAG-}" "${PYTHONPATH-}"
[[ " $* " != *" 13 "* ]]
"""
METHODS = sorted(path.parent.name for path in ROOT.glob("scripts/*/main.sh"))


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


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_parse(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


# What they call


@pytest.mark.parametrize(
    "script, words",
    [
        *((f"{name}/main.sh", f"[run] [{name}]") for name in METHODS),
        ("run.sh", "[run] [--trainer]"),
        ("compare.sh", "[compare]"),
        ("fair/ablation.sh", "[compare] [--table] [ablation]"),
        ("fair/eval.sh", "[eval]"),
        ("fair.sh", ""),
    ],
)
def test_scripts_hand_on_their_arguments_and_environment(clone, script, words):
    value = "$(touch hacked) 'quoted' *"
    given = {"DATA": "my data", "OUTPUT": "my output", "TAG": "try.2", "PYTHONPATH": "/theirs"}
    status, out, err = bash(clone, script, "synth_cars", "", "--", "A.KEY", value, **given)
    before = f"[-m] [fairclip] {words}".rstrip()
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"CALL {before} [synth_cars] [] [--] [A.KEY] [{value}]",
        f"DATA=my data OUTPUT=my output TAG=try.2 PYTHONPATH={clone}:/theirs",
    ]
    assert not (clone.parent / "hacked").exists()
    assert bash(clone, script, "13")[0] == 1  # the exit status is that of the command


def test_a_script_names_the_python_that_is_not_there(clone):
    status, out, err = bash(clone, "compare.sh", "synth_cars", PYTHON="no-such-python")
    assert (status, out) == (2, "") and "There is no 'no-such-python'" in err


@pytest.mark.parametrize("script", ["fair.sh", "upl/main.sh"])
def test_help_is_an_answer(tmp_path, script):
    """By the real Python, from another folder."""
    command = ["bash", str(ROOT / "scripts" / script), "--help"]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and re.search(r"^ *fair \w+ \w+", done.stdout, re.MULTILINE)


def test_wrong_arguments_end_in_one_message(tmp_path):
    environment = {**os.environ, "PYTHON": sys.executable, "TAG": "x"}
    command = ["bash", str(ROOT / "scripts" / "upl" / "main.sh"), "synth_cars", "tiny", "--", "A"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: The options after -- come in pairs, KEY VALUE. Got: A\n"


@pytest.mark.parametrize(
    "task, arguments, status, said",
    [
        ("2", ["my runs.txt"], 7, "two  $HOME"),
        ("3", ["my runs.txt"], 0, "three"),
        ("4", ["my runs.txt"], 2, "has no line 4, it has 3"),
        (None, ["my runs.txt"], 2, "--array=1-3"),
        ("1", ["none.txt"], 2, "Name the list"),
        ("1", [], 2, "Name the list"),
    ],
)
def test_a_slurm_task_runs_its_line(tmp_path, task, arguments, status, said):
    (tmp_path / "my runs.txt").write_text("echo one\nprintf '<%s>' 'two  $HOME'; exit 7\necho three\n")
    env = {"PATH": os.environ["PATH"], **({"SLURM_ARRAY_TASK_ID": task} if task else {})}
    done = subprocess.run(
        ["bash", str(ROOT / "scripts/slurm.sbatch"), *arguments], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == status and said in done.stdout + done.stderr
    if status != 2:  # the command, then what it said, and nothing of other lines
        assert done.stdout.splitlines()[1:] == [f"<{said}>" if task == "2" else said]


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
"-m pip install"*)
    if rm offline 2>/dev/null; then exit 1; fi
    echo INSTALLED
    touch installed
    cp "$0" "$(dirname -- "$0")/fair"
    ;;
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
