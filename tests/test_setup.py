"""scripts/setup.sh: what it asks of a Python, and what it installs (tests/test_scripts.py has how it finds one)."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A Python without packages: it says what pip is asked to install.
BARE_PYTHON = """#!/usr/bin/env bash
case "$*" in
"- "*) if [[ -f installed && $0 == *.venv* ]]; then echo "$0"; else echo nothing; exit 1; fi ;;
"-m venv"*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
"-m pip install"*) echo "PIP ${*:4}"; touch installed; cp "$0" "$(dirname -- "$0")/fair" ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "my clone"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup.sh", folder / "scripts")
    (folder / "requirements.txt").write_text("# comment\nnumpy>=1\n")
    (folder / "requirements-dev.txt").write_text("no-such-tool\n")
    (folder / "constraints.txt").write_text(f"# comment\nNumPy=={version('numpy')}\n")
    return folder


def bash(clone: Path, code: str, **environment: str) -> tuple[int, str]:
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PINNED")}
    env |= {"PYTHON": sys.executable, **environment}
    command = ["bash", "-c", f"source scripts/setup.sh; {code}"]
    done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


def test_the_repository_comes_first_on_the_path(clone):
    assert bash(clone, "setup; echo $PY:$PYTHONPATH") == (0, f"{sys.executable}:{clone}")
    status, out = bash(clone, "setup; echo $PYTHONPATH", PYTHONPATH="/theirs")
    assert (status, out) == (0, f"{clone}:/theirs")


def test_development_needs_more(clone):
    code = 'REQUIREMENTS+=("$ROOT/requirements-dev.txt"); check "$PYTHON"'
    assert bash(clone, code) == (1, "no-such-tool")


def test_pinned_means_exactly_these_versions(clone):
    assert bash(clone, 'check "$PYTHON"', PINNED="1") == (0, sys.executable)
    (clone / "constraints.txt").write_text("NumPy==1.0\nnot-required==1\n")
    status, out = bash(clone, 'check "$PYTHON"', PINNED="1")
    assert status == 1 and out.startswith("numpy") and "==1.0" in out and "not-required" not in out
    assert bash(clone, 'check "$PYTHON"', PINNED="0")[0] == 0


@pytest.mark.parametrize("pinned", ["", "1"])
def test_installation(clone, pinned):
    bare = clone / "bare"
    bare.write_text(BARE_PYTHON)
    bare.chmod(0o755)
    status, out = bash(clone, "setup dev; echo $PY", PYTHON=str(bare), PINNED=pinned)
    assert status == 0 and out.endswith(f"{clone}/.venv/bin/python")
    package, requirements = [line.removeprefix("PIP ") for line in out.splitlines() if line.startswith("PIP")]
    assert package.endswith(f"--no-deps -e {clone}")
    files = [f"--requirement={clone}/requirements.txt", f"--requirement={clone}/requirements-dev.txt"]
    assert requirements.endswith(" ".join(files + [f"--constraint={clone}/constraints.txt"] * bool(pinned)))


def test_an_older_environment_gets_the_command(clone):
    """Requirements that are met do not say that `fair` is there."""
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / "installed").touch()
    for file in (bare := clone / "bare", clone / ".venv" / "bin" / "python"):
        file.write_text(BARE_PYTHON)
        file.chmod(0o755)
    status, out = bash(clone, "setup", PYTHON=str(bare))
    assert status == 0 and out.splitlines()[-1].endswith(f"--no-deps -e {clone}")
    assert "PIP" not in bash(clone, "setup", PYTHON=str(bare))[1]


def test_the_recorded_versions_are_possible():
    """Every requirement has a pin, and each pin is one that the requirement allows."""
    from packaging.requirements import Requirement

    def read(name: str) -> list[Requirement]:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        return [Requirement(line) for line in lines if line and line[0] != "#"]

    pins = {pin.name.lower(): str(pin.specifier).removeprefix("==") for pin in read("constraints.txt")}
    for requirement in read("requirements.txt") + read("requirements-dev.txt"):
        if requirement.name != "pip":
            assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement
