"""What messages call `fair`: as the user has called it, so that what they advise works."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fairclip.compare.calls import child_environment
from fairclip.core import invocation

ROOT = Path(__file__).resolve().parents[1]
CLEAN = {name: text for name, text in os.environ.items() if name != invocation.VARIABLE}


@pytest.fixture
def installed(tmp_path) -> Path:
    """The script of an installation, as pip writes it."""
    script = tmp_path / "a place/bin/fair"
    script.parent.mkdir(parents=True)
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom fairclip.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("how", ["script", "module", "PATH", "path"])
def test_messages_name_the_command_as_it_was_called(how, where, installed, tmp_path):
    here, script = (
        (ROOT, ROOT / "scripts/fair.sh") if how in ("script", "module") else (installed.parents[1], installed)
    )
    called = str(script.relative_to(here) if where == "here" else script)
    words = {
        "script": ["bash", called],
        "module": [sys.executable, "-m", "fairclip"],
        "PATH": ["fair"],
        "path": [called],
    }
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [
            "bash",
            "-c",
            shlex.join([*words[how], "data", "fly"]),
        ],  # a shell gives a program that it finds its whole path
        cwd=here if where == "here" else elsewhere,
        env=CLEAN
        | {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
        | {"PATH": f"{installed.parent if how == 'PATH' else ''}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    advised = done.stderr.rpartition("(")[2].partition(" data --help")[0]
    assert done.returncode == 2 and shlex.split(advised) == words[how], done.stderr


def test_runs_of_a_comparison_name_it_as_their_caller_does(monkeypatch):
    monkeypatch.delenv(invocation.VARIABLE)
    monkeypatch.chdir(ROOT)
    assert child_environment()[invocation.VARIABLE] == "bash scripts/fair.sh"  # tests are a program of another name
    monkeypatch.setattr(invocation, "HOME", ROOT / "absent")
    monkeypatch.setattr(sys, "executable", str(ROOT / "absent/python"))
    assert invocation.fair_command() == "python -m fairclip"
