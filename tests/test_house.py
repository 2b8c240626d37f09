"""The order of the house: which room may import which, and how long things may get."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTHON = [
    file for folder in ("fairclip", "trainers", "datasets", "scripts") for file in sorted((ROOT / folder).rglob("*.py"))
]
BELOW_RUN = ["core", "backbones", "views", "text", "method"]

# What the modules of a room may import of fairclip/, besides those of their own room: rooms, or single modules. The
# modules beside the rooms (cli.py and other commands) may import all.
ALLOWED = {
    "core": [],
    "backbones": ["core"],
    "views": ["core", "backbones"],
    "text": ["core", "backbones", "views"],
    "method": ["core", "backbones", "views", "text"],
    "run": [*BELOW_RUN, "data.settings"],  # the settings that data sets have
    "data": ["core", "text"],
    # It checks runs before they begin, draws examples, and names the lights of the built-in set.
    "compare": ["core", "run", "predict", "backbones.openai", "data.synth.lights"],
    "predict": ["core", "backbones", "views", "text", "method", "run.results", "run.checkpoints"],
    "adapting": ["core", "backbones", "views", "text", "method", "data", "run", "predict"],
    "export": ["core", "backbones", "predict"],
    "describe": ["core", "backbones", "text", "data"],
    "bench": [*BELOW_RUN, "run"],
    "install": ["core"],
    "trainers": [*BELOW_RUN, "run"],
    "datasets": ["core", "text", "data"],
}


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, by its full name; of `from package import module` the module."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = file.relative_to(ROOT).parts[: -node.level] if node.level else ()  # of `from .module import name`
            path = [*above, *(node.module or "").split(".")]
            is_package = (ROOT.joinpath(*path)).is_dir()
            yield from (".".join([*filter(None, path), alias.name] if is_package else path) for alias in node.names)


def room(file: Path) -> str:
    parts = file.relative_to(ROOT).parts
    return parts[0] if parts[0] != "fairclip" else parts[1] if len(parts) > 2 else ""


def test_the_imports_are_found():
    assert {"fairclip.core.cache", "fairclip.backbones.backbone"} <= set(imports(ROOT / "fairclip/text/embeddings.py"))
    assert "trainers.prompt_learning" in set(imports(ROOT / "trainers/upl.py"))
    assert set(ALLOWED) == {room(file) for file in PYTHON if room(file) not in ("", "scripts")}


@pytest.mark.parametrize("name", ALLOWED)
def test_imports_point_down(name):
    wrong = []
    for file in (file for file in PYTHON if room(file) == name):
        for module in sorted(set(imports(file))):
            top, *rest = module.split(".")
            if top == "fairclip":
                allowed = [[name], *(place.split(".") for place in ALLOWED[name])]
                good = any(rest[: len(place)] == place for place in allowed)
            else:
                good = top not in ("trainers", "datasets") or top == name
            if not good:
                wrong.append(f"{file.relative_to(ROOT)} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_nothing_in_the_package_names_a_plugin():
    """Methods and data sets are found when the program runs, by fairclip/core/plugins.py."""
    for file in (ROOT / "fairclip").rglob("*.py"):
        assert not [m for m in imports(file) if m.split(".")[0] in ("trainers", "datasets")], file


def test_functions_are_short():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = [
        f"{file.relative_to(ROOT)}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for file in PYTHON
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, functions) and node.end_lineno - node.lineno >= 60
    ]
    assert not long, "\n".join(long)


def test_the_trainer_base_is_short():
    lines = (ROOT / "fairclip/run/base.py").read_text(encoding="utf-8").count("\n")
    assert lines <= 250


@pytest.mark.parametrize(
    "pattern, exceptions",
    [
        (r"#\s*fmt:\s*(skip|off)", ()),
        (r"\btqdm\b", ("fairclip/core/bars.py", "toolbox/dassl/engine/trainer.py")),  # a file gets no bars
        (r"\bsys\.path\b", ("fairclip/core/toolbox.py",)),  # of programs; tests have pyproject.toml's pythonpath
    ],
)
def test_what_no_file_may_have(pattern, exceptions):
    files = {*PYTHON, *(ROOT / "examples").glob("*.ipynb"), *(ROOT / "toolbox").rglob("*.py"), ROOT / "train.py"}
    found = {file.relative_to(ROOT).as_posix() for file in files if re.search(pattern, file.read_text("utf-8"))}
    assert found == set(exceptions)


def test_the_bundled_core_prints_only_answers():
    """Results, the summary of the data, and what `show_messages` is for."""
    calls = [
        file.relative_to(ROOT / "toolbox/dassl").as_posix()
        for file in (ROOT / "toolbox").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert set(calls) == {"evaluation/evaluator.py", "data/data_manager.py", "utils/logger.py"}
    assert calls.count("data/data_manager.py") == calls.count("utils/logger.py") == 1
