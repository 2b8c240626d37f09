"""Which of our files a checkout gets. Files are named by their path in the checkout: "fairclip/run/base.py"."""

import ast
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from fairclip.core.places import HOME, PACKAGE

FAIR = "trainers/fair.py"
# What must work in a checkout: the trainer, and `python -m fairclip predict`. What these import comes with them.
START = (FAIR, f"{PACKAGE.name}/__main__.py", f"{PACKAGE.name}/predict/command.py")


def our_copy(file: str) -> Path:
    """Where our copy of a file is: a wheel keeps trainers/, configs/ and descriptions/ apart from the package."""
    return (PACKAGE.parent if file.startswith(f"{PACKAGE.name}/") else HOME) / file


def content(file: str) -> bytes:
    return our_copy(file).read_bytes()


def listed(folder: str, pattern: str) -> list[str]:
    """Our files in a folder whose names match."""
    return sorted(f"{folder}/{path.name}" for path in our_copy(folder).glob(pattern) if path.is_file())


# -- What imports what -------------------------------------------------------------------------------------------------


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements inside a module or a statement, at any depth. Much faster than ast.walk."""
    for part in ("body", "orelse", "handlers", "finalbody", "cases"):
        for inner in getattr(node, part, ()):
            yield inner
            yield from statements(inner)


def imported(file: str) -> Iterator[str]:
    """Our modules that a module of ours imports, anywhere in it: also in a function, where it is imported late."""
    for node in statements(ast.parse(content(file))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = PurePosixPath(file).parts[: -node.level] if node.level else ()
            base = [*above, *(node.module.split(".") if node.module else ())]
            names = [base, *([*base, alias.name] for alias in node.names)]  # a name may be a module, too
        else:
            continue
        for name in names:
            if name[0] in (PACKAGE.name, "trainers"):
                path = "/".join(name)
                yield from (found for found in (f"{path}.py", f"{path}/__init__.py") if our_copy(found).is_file())


def packages_of(file: str) -> list[str]:
    """The __init__.py of the packages that a module is in. Only those of fairclip/: trainers/ is the checkout's."""
    folders = [str(folder) for folder in PurePosixPath(file).parents]
    return [f"{folder}/__init__.py" for folder in folders if f"{folder}/".startswith(f"{PACKAGE.name}/")]


def with_imports(files: Iterable[str]) -> set[str]:
    """These modules, and all modules of ours that they need."""
    found: set[str] = set()
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += [*imported(file), *packages_of(file)]
    return found - {"trainers/__init__.py"}


def data_beside(modules: Iterable[str]) -> set[str]:
    """Files of other kinds in the rooms of these modules: weights of the small backbones, tables."""
    top = PurePosixPath(PACKAGE.name)
    found = set()
    for room in {PurePosixPath(module).parent for module in modules}:
        if room.is_relative_to(top) and room != top:
            for path in our_copy(str(room)).rglob("*"):
                below = path.relative_to(our_copy(str(room)))
                hidden = any(part.startswith((".", "__pycache__")) for part in below.parts)
                if path.is_file() and path.suffix != ".py" and not hidden:
                    found.add(str(room / below.as_posix()))
    return found


# -- Trainers ----------------------------------------------------------------------------------------------------------


def registered(source: bytes) -> list[str]:
    """Names of the trainers that a module registers."""
    return [
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and any("TRAINER_REGISTRY" in ast.unparse(d) for d in node.decorator_list)
    ]


def baselines() -> dict[str, list[str]]:
    """Our other modules that register trainers, and which."""
    found = {file: registered(content(file)) for file in listed("trainers", "*.py") if file != FAIR}
    return {file: names for file, names in found.items() if names}


def has_extend_cfg(file: str) -> bool:
    body = ast.parse(content(file)).body
    return any(isinstance(node, ast.FunctionDef) and node.name == "extend_cfg" for node in body)


def files_for(modules: Sequence[str], descriptions: Sequence[str]) -> set[str]:
    """All that a checkout gets for these modules of trainers/, and the class descriptions of these data sets."""
    needed = with_imports([*modules, *START])
    trainers = [name for module in modules for name in registered(content(module))]
    configs = {file for name in trainers for file in listed(f"configs/trainers/{name}", "*.yaml")}
    return needed | data_beside(needed) | configs | {f"descriptions/{name}.json" for name in descriptions}
