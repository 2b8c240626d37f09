"""toolbox.use_dassl: which Dassl a fresh interpreter ends up with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ASK = (
    "from fairclip.core import log, toolbox; log.show_messages(); print('ANSWER', toolbox.use_dassl()); "
    "import dassl; print('FILE', dassl.__file__)"
)


def ask(*path: Path | str, choice: str | None = None, code: str = ASK) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k not in ("FAIR_DASSL", "PYTHONPATH")}
    env["PYTHONPATH"] = os.pathsep.join(map(str, [*path, ROOT]))
    if choice is not None:
        env["FAIR_DASSL"] = choice
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=ROOT / "tests")


def fake_upstream(folder: Path, engine: str = "") -> Path:
    """A package that stands in for upstream Dassl; `engine` is the code of dassl.engine."""
    (folder / "dassl" / "engine").mkdir(parents=True)
    (folder / "dassl" / "__init__.py").write_text('__version__ = "0.6.3"\n')
    (folder / "dassl" / "engine" / "__init__.py").write_text(engine)
    return folder


def test_upstream_wins_and_is_announced(tmp_path):
    run = ask(fake_upstream(tmp_path))
    assert "ANSWER upstream" in run.stdout, run.stderr
    assert f"FILE {tmp_path}" in run.stdout
    assert f"Dassl: upstream, 0.6.3 ({tmp_path / 'dassl'})" in run.stdout


def test_upstream_wins_even_behind_the_bundled_folder(tmp_path):
    run = ask(ROOT / "toolbox", fake_upstream(tmp_path))
    assert "ANSWER upstream" in run.stdout, run.stderr
    assert f"FILE {tmp_path}" in run.stdout


def another_clone(folder: Path) -> Path:
    return Path(shutil.copytree(ROOT / "toolbox", folder / "toolbox", ignore=shutil.ignore_patterns("__pycache__")))


def test_the_core_of_another_clone_is_no_upstream(tmp_path):
    other = another_clone(tmp_path / "clone")
    run = ask(other)  # upstream may be installed
    assert run.returncode == 0 and str(other) not in run.stdout, run.stderr
    run = ask(other, fake_upstream(tmp_path / "upstream"))
    assert "ANSWER upstream" in run.stdout and f"FILE {tmp_path / 'upstream'}" in run.stdout, run.stderr
    run = ask(other, choice="bundled", code="import dassl; " + ASK)  # it was imported before
    assert f"Dassl: bundled, 0.6.3+bundled ({other / 'dassl'})" in run.stdout, run.stderr


def test_a_copy_of_fair_without_a_core_uses_that_on_the_path(tmp_path):
    other = another_clone(tmp_path)
    run = ask(
        other,
        choice="bundled",
        code="from fairclip.core import toolbox; toolbox.BUNDLED = toolbox.HOME / 'none'; " + ASK,
    )
    assert "ANSWER bundled" in run.stdout and f"FILE {other}" in run.stdout, run.stderr


@pytest.mark.parametrize(("version", "warned"), [("2.6.0", False), ("2.7.1+cu128", True), ("2.14.0a0", True)])
def test_says_what_breaks_on_a_newer_torch(tmp_path, version, warned):
    code = f"import importlib.metadata as m; m.version = lambda name: '{version}'; {ASK}"
    run = ask(fake_upstream(tmp_path), code=code)
    assert "ANSWER upstream" in run.stdout, run.stderr
    assert ("WARMUP_EPOCH" in run.stdout and "FAIR_DASSL=bundled" in run.stdout) == warned


def test_bundled_by_choice(tmp_path):
    run = ask(fake_upstream(tmp_path), choice="bundled")
    assert "ANSWER bundled" in run.stdout, run.stderr
    assert f"FILE {ROOT / 'toolbox'}" in run.stdout
    assert "Note" not in run.stdout


def test_broken_upstream_is_reported_and_replaced(tmp_path):
    broken = fake_upstream(tmp_path, engine="import dassl.left_behind_nowhere")
    run = ask(broken, code=ASK + "; import dassl.engine; print(dassl.engine.__file__)")
    assert "ANSWER bundled" in run.stdout, run.stderr
    assert (
        "Warning: upstream Dassl is not used: importing it fails: No module named 'dassl.left_behind_nowhere'"
        in run.stdout
    )
    assert str(tmp_path) not in run.stdout, "a module of the broken package is left in use"


def test_broken_upstream_by_choice_stops(tmp_path):
    run = ask(fake_upstream(tmp_path, engine="1 / 0"), choice="upstream")
    assert run.returncode == 1
    assert "FAIR_DASSL=upstream, but upstream Dassl cannot be used" in run.stderr
    assert "ZeroDivisionError: division by zero" in run.stderr
    assert "Traceback" not in run.stderr


def test_unknown_choice_stops():
    run = ask(choice="upsteam")
    assert run.returncode == 1
    assert 'must be "upstream" or "bundled"' in run.stderr and '"upsteam"' in run.stderr
    assert "Traceback" not in run.stderr


def test_choice_against_what_is_imported_stops():
    run = ask(ROOT / "toolbox", choice="upstream", code="import dassl; " + ASK)
    assert run.returncode == 1
    assert "bundled Dassl was imported before" in run.stderr


def test_absent_upstream_is_no_news():
    hide = "import sys, importlib.abc as a\n"
    hide += "class Hide(a.MetaPathFinder):\n"
    hide += "    def find_spec(self, name, path, target=None):\n"
    hide += "        if name == 'dassl' and not any(p.endswith('toolbox') for p in sys.path):\n"
    hide += "            raise ModuleNotFoundError('hidden', name='dassl')\n"
    hide += "sys.meta_path.insert(0, Hide())\n"
    run = ask(code=hide + ASK)
    assert "ANSWER bundled" in run.stdout, run.stderr
    assert run.stdout.count("Dassl") == 1
    run = ask(code=hide + ASK, choice="upstream")
    assert run.returncode == 1 and "it is not installed" in run.stderr


def test_announcement_can_be_left_out_and_a_second_call_agrees():
    run = ask(
        code="from fairclip.core import toolbox as t; print(t.use_dassl(False) == t.use_dassl(announce=False))",
        choice="bundled",
    )
    assert run.stdout == "True\n", run.stderr
