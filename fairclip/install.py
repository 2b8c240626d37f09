"""Puts FAIR into a checkout of CoOp, or of a repository made like it: fair install-into PATH [--dry-run]

Copies the trainer, the pieces it needs and its configs, and registers it in the checkout's train.py: one import, and
one call at the end of extend_cfg. Shows what will change first, and asks. Afterwards the checkout's own
`python train.py --trainer FAIR ...` works with its own data sets, clip/ folder and Dassl.

Nothing of the checkout is overwritten: a file of the same name and other content ends the call. What was written is
recorded in PATH/.fair_install.json; a second call brings it up to date, --uninstall takes all of it back.
"""

import argparse
import ast
import difflib
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fairclip.core.errors import UserError
from fairclip.core.files import atomic
from fairclip.core.places import HOME, few

MANIFEST = ".fair_install.json"
NOTE = "  # FAIR: scripts/install_into.py"  # marks our lines in train.py
START = ("trainers/fair.py", "trainers/predictor.py")  # what a checkout gets, with all that these import


# -- What belongs to a trainer -----------------------------------------------------------------------------------------


def relative_imports(file: str) -> Iterator[str]:
    """The modules of ours that a module of ours imports (`from .modules.views import ...`), as paths below HOME."""
    for node in ast.walk(ast.parse((HOME / file).read_bytes())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = PurePosixPath(file).parents[node.level - 1]
        if node.module:
            base = base.joinpath(*node.module.split("."))
        for path in (f"{base}.py", *(f"{base / alias.name}.py" for alias in node.names)):
            if (HOME / path).is_file():
                yield path


def with_imports(files: Iterable[str]) -> set[str]:
    """These files and all that they import of ours, with the packages' __init__.py."""
    found, waiting = set(), list(files)
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += relative_imports(file)
    packages = {str(PurePosixPath(file).parent / "__init__.py") for file in found}
    return found | {package for package in packages if package != "trainers/__init__.py"}


def registered(source: bytes) -> list[str]:
    """Names of the trainers that a module registers."""
    return [
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and any("TRAINER_REGISTRY" in ast.unparse(d) for d in node.decorator_list)
    ]


def baselines() -> dict[str, list[str]]:
    """Our other modules that register trainers, and which."""
    files = [f"trainers/{file.name}" for file in sorted((HOME / "trainers").glob("*.py"))]
    found = {file: registered((HOME / file).read_bytes()) for file in files if file not in START}
    return {file: names for file, names in found.items() if names}


def has_extend_cfg(file: str) -> bool:
    body = ast.parse((HOME / file).read_bytes()).body
    return any(isinstance(node, ast.FunctionDef) and node.name == "extend_cfg" for node in body)


def registered_there(checkout: Path) -> dict[str, str]:
    """Trainers that modules of the checkout register: name -> file. Those that are word for word ours do not count."""
    found = {}
    for path in sorted((checkout / "trainers").glob("*.py")):
        file, content = f"trainers/{path.name}", path.read_bytes()
        if content != read(HOME / file):
            try:
                found.update(dict.fromkeys(registered(content), file))
            except (SyntaxError, ValueError):  # not for us to judge
                continue
    return found


# -- The checkout's train.py -------------------------------------------------------------------------------------------


def insertions(source: bytes, modules: dict[str, bool]) -> dict[int, list[bytes]]:
    """What train.py needs to know our modules: number of the line to insert behind -> lines.

    Only what is lacking: an import or a call that is there already is not repeated.

    Args:
        modules: name ("trainers.fair") -> whether it has an extend_cfg to call.

    Raises:
        UserError: the file is not made like CoOp's train.py.
    """
    tree = parse(source)
    imports = [node for node in tree.body if any(name.count(".") == 1 for name in trainers_of(node))]
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "extend_cfg"]
    if not imports:
        raise unrecognised("it imports no module of trainers/ at its top level (as in `import trainers.coop`)")
    if len(functions) != 1 or not functions[0].args.args:
        raise unrecognised("it has no function extend_cfg(cfg)" if len(functions) < 2 else "it has several extend_cfg")
    function = functions[0]
    if function.body[0].lineno == function.lineno:
        raise unrecognised("its extend_cfg is written on one line")
    known = {name for node in tree.body if isinstance(node, ast.Import) for name in trainers_of(node)}
    called = {ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}

    lines = source.splitlines(keepends=True)
    first = lines[function.body[0].lineno - 1]
    indent = first[: len(first) - len(first.lstrip())]
    cfg = function.args.args[0].arg
    # At the end of the function, but before a `return`: what stands behind one is not run.
    end = function.lineno
    for node in function.body:
        if any(isinstance(part, ast.Return) for part in ast.walk(node)):
            end = max(end, start_line(node) - 1)
            break
        end = node.end_lineno

    def line(text: str, indent: bytes = b"") -> bytes:
        return indent + text.encode() + NOTE.encode() + newline_of(source)

    wanted = {
        max(node.end_lineno for node in imports): [line(f"import {m}") for m in modules if m not in known],
        end: [
            line(f"{m}.extend_cfg({cfg})", indent)
            for m, extends in modules.items()
            if extends and f"{m}.extend_cfg" not in called
        ],
    }
    return {number: new for number, new in wanted.items() if new}


def parse(source: bytes) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise unrecognised(f"it is not valid Python ({error})") from None


def unrecognised(reason: str) -> UserError:
    return UserError(
        f"train.py is not recognised: {reason}. Nothing was changed. To register FAIR by hand, add `import "
        "trainers.fair` to the imports and call `trainers.fair.extend_cfg(cfg)` before the config files are merged"
    )


def trainers_of(node: ast.stmt) -> list[str]:
    """Modules of trainers/ that a statement imports, by full name."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.startswith("trainers.") and not alias.asname]
    if isinstance(node, ast.ImportFrom) and not node.level and node.module:
        if node.module == "trainers":
            return [f"trainers.{alias.name}" for alias in node.names]
        return [node.module] if node.module.startswith("trainers.") else []
    return []


def start_line(node: ast.stmt) -> int:
    """The first line of a statement, its decorators included."""
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def newline_of(source: bytes) -> bytes:
    return b"\r\n" if b"\r\n" in source else b"\n"


def insert(source: bytes, new: dict[int, list[bytes]]) -> bytes:
    lines = source.splitlines(keepends=True)
    for number in sorted(new, reverse=True):
        if number and not lines[number - 1].endswith((b"\n", b"\r")):
            # The file ends without a line break: the new line takes over that it does.
            lines[number - 1] += newline_of(source)
            new = new | {number: [*new[number][:-1], new[number][-1].rstrip(b"\r\n")]}
        lines[number:number] = new[number]
    return b"".join(lines)


def register(source: bytes, modules: dict[str, bool]) -> bytes:
    """train.py with our modules registered, in the place of those that were.

    Raises:
        UserError: the file is not made like CoOp's train.py.
    """
    source = unregister(source)
    result = insert(source, insertions(source, modules))
    parse(result)
    return result


def unregister(source: bytes) -> bytes:
    """train.py without the lines that carry our mark, byte for byte as it was."""
    mark, result = NOTE.encode(), b""
    for line in source.splitlines(keepends=True):
        if not line.rstrip(b"\r\n").endswith(mark):
            result += line
        elif not line.endswith((b"\n", b"\r")):  # the last line: the one before it had no line break
            result = result.removesuffix(b"\n").removesuffix(b"\r")
    return result


# -- The plan ----------------------------------------------------------------------------------------------------------


@dataclass
class Manifest:
    """What earlier calls left in a checkout."""

    files: dict[str, list[str]] = field(default_factory=dict)  # path -> SHA-256 of the content, or of two during a call
    folders: list[str] = field(default_factory=list)  # that were made
    baselines: bool = False
    descriptions: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, checkout: Path) -> "Manifest":
        path = checkout / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{name: content[name] for name in ("files", "folders", "baselines", "descriptions")})
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is damaged ({type(error).__name__}: {error}). Restore it, or remove it and the "
                "files that came with it"
            ) from error

    def write(self, checkout: Path) -> None:
        with atomic(checkout / MANIFEST) as path:
            path.write_text(json.dumps(vars(self), indent=1, sort_keys=True) + "\n", encoding="utf-8")


@dataclass
class Plan:
    """What a call will do."""

    write: dict[str, bytes] = field(default_factory=dict)  # path -> content
    remove: list[str] = field(default_factory=list)
    train: tuple[bytes, bytes] = (b"", b"")  # train.py before and after
    notes: list[str] = field(default_factory=list)
    manifest: Manifest = field(default_factory=Manifest)  # when it is done

    @property
    def empty(self) -> bool:
        return not self.write and not self.remove and self.train[0] == self.train[1]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def module_name(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")


def read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def find_checkout(path: Path) -> Path:
    checkout = path.expanduser().resolve()
    if not (checkout / "train.py").is_file():
        raise UserError(f"{path} is no checkout made like CoOp: it has no train.py")
    if checkout == HOME:
        raise UserError(f"{path} is this repository, FAIR is at home here")
    return checkout


def plan_install(checkout: Path, with_baselines: bool, descriptions: Sequence[str]) -> Plan:
    """Raises UserError if something is in the way; then nothing has been changed."""
    old = Manifest.read(checkout)
    with_baselines = with_baselines or old.baselines
    descriptions = sorted({*old.descriptions, *descriptions})
    plan, there = Plan(), registered_there(checkout)
    there = {name: file for name, file in there.items() if file not in old.files}

    modules, left_out = {START[0]: registered((HOME / START[0]).read_bytes())}, {}
    for file, names in baselines().items() if with_baselines else ():
        if taken := [f"{name} ({there[name]})" for name in names if name in there]:
            left_out[file] = f"a trainer {taken[0]}"
        elif file not in old.files and read(checkout / file) not in (None, (HOME / file).read_bytes()):
            left_out[file] = f"a {file}"
        else:
            modules[file] = names
    for file in list(modules):
        if needed := with_imports([file]) & left_out.keys():  # what it imports is not there
            left_out[file] = f"another {' and '.join(sorted(needed))}, which it needs,"
            del modules[file]
    plan.notes += [f"Left out: {file}, the checkout has {what} of its own" for file, what in left_out.items()]
    trainers = [name for names in modules.values() for name in names]
    if clash := [name for name in modules[START[0]] if there.get(name, START[0]) != START[0]]:
        raise UserError(f"{checkout / there[clash[0]]} registers a trainer {clash[0]} of its own. Nothing was changed")

    wanted = with_imports([*modules, *START])
    for name in trainers:
        wanted |= {f"configs/trainers/{name}/{file.name}" for file in (HOME / "configs/trainers" / name).glob("*.yaml")}
    wanted |= {f"trainers/modules/weights/{file.name}" for file in (HOME / "trainers/modules/weights").glob("*.pt")}
    wanted |= {f"descriptions/{name}.json" for name in descriptions}

    in_the_way, changed, ours = [], [], {}
    for file in sorted(wanted):
        new, have = (HOME / file).read_bytes(), read(checkout / file)
        if file in old.files:
            ours[file] = [sha256(new)]
            if have is not None and have != new and sha256(have) not in old.files[file]:
                changed.append(file)
        elif have is None:
            ours[file] = [sha256(new)]
        elif have != new:
            in_the_way.append(file)
        if have != new:
            plan.write[file] = new
    for file in sorted(old.files.keys() - wanted):  # of an earlier version
        have = read(checkout / file)
        if have is not None and sha256(have) in old.files[file]:
            plan.remove.append(file)
    if in_the_way:
        raise UserError(
            f"{checkout} has files of its own where FAIR's belong: {few(in_the_way, 10)}. Nothing was changed. Rename "
            "or move them away, then run this again"
        )
    if changed:
        raise UserError(
            f"these files of {checkout} were changed after they had been installed: {few(changed, 10)}. Nothing was "
            "changed. Move your version away (or --uninstall, which leaves it), then run this again"
        )
    source = (checkout / "train.py").read_bytes()
    plan.train = (source, register(source, {module_name(file): has_extend_cfg(file) for file in modules}))
    folders = {str(parent) for file in ours for parent in PurePosixPath(file).parents if str(parent) != "."}
    made = [folder for folder in folders if not (checkout / folder).exists()]
    plan.manifest = Manifest(ours, sorted({*old.folders, *made}), with_baselines, descriptions)
    return plan


def plan_uninstall(checkout: Path) -> Plan:
    """Raises UserError if nothing is installed, or train.py would go on using what is removed."""
    if not (checkout / MANIFEST).exists():
        raise UserError(f"{checkout} has no {MANIFEST}: nothing is installed there by this script")
    old, source = Manifest.read(checkout), (checkout / "train.py").read_bytes()
    plan = Plan(train=(source, unregister(source)))
    for file, known in sorted(old.files.items()):
        have = read(checkout / file)
        if have is None:
            continue
        if sha256(have) in known:
            plan.remove.append(file)
        else:
            plan.notes.append(f"Stays: {file}, which was changed after it had been installed")
    gone = {module_name(file) for file in plan.remove}
    for node in ast.walk(parse(plan.train[1])):
        used = {ast.unparse(node)} if isinstance(node, ast.Attribute) else set(trainers_of(node))
        if used := used & gone:
            raise UserError(
                f"train.py uses {', '.join(used)} in a line that this script did not write: "
                f"{ast.unparse(node)!r}. Nothing was changed. Remove that line first"
            )
    plan.manifest = old
    return plan


# -- Doing it ----------------------------------------------------------------------------------------------------------


def show(checkout: Path, plan: Plan, undo: bool) -> None:
    """The plan in print: train.py's and changed files' diffs, and the names of new and removed files."""
    edits = {"train.py": plan.train}
    edits |= {file: (have, new) for file, new in plan.write.items() if (have := read(checkout / file)) is not None}
    for file, (before, after) in edits.items():
        if file.endswith(".pt"):
            print(f"Replace {file}")
            continue
        diff = difflib.unified_diff(
            *(text.decode("utf-8", "replace").splitlines() for text in (before, after)),
            f"a/{file}",
            f"b/{file}",
            lineterm="",
        )
        for line in diff:
            print(line)
    new = [file for file in plan.write if file not in edits]
    for title, files in (("New files", new), ("Removed files", plan.remove)):
        if files:
            print(f"\n{title} in {checkout}:")
            print("\n".join(f"  {file}" for file in files))
    if undo:
        print(f"  {MANIFEST}")
    for note in plan.notes:
        print(note)


def put(path: Path, content: bytes) -> None:
    path = path.resolve()  # what a link leads to, not the link
    with atomic(path) as temporary:
        temporary.write_bytes(content)
        if path.exists():
            os.chmod(temporary, path.stat().st_mode)


def remove(checkout: Path, file: str) -> None:
    """A file of ours, and what Python compiled from it."""
    path = checkout / file
    path.unlink(missing_ok=True)
    if path.suffix == ".py":
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink(missing_ok=True)


def install(checkout: Path, plan: Plan) -> None:
    """Killed at any moment, the manifest knows every file that was written, and train.py is the old or the new one."""
    old, new = Manifest.read(checkout), plan.manifest
    files = {file: sorted({*new.files.get(file, ()), *old.files.get(file, ())}) for file in {*new.files, *old.files}}
    Manifest(files, new.folders, new.baselines, new.descriptions).write(checkout)
    for file, content in plan.write.items():
        put(checkout / file, content)
    if plan.train[0] != plan.train[1]:
        put(checkout / "train.py", plan.train[1])
    for file in plan.remove:
        remove(checkout, file)
    new.write(checkout)


def uninstall(checkout: Path, plan: Plan) -> None:
    if plan.train[0] != plan.train[1]:
        put(checkout / "train.py", plan.train[1])
    for file in plan.remove:
        remove(checkout, file)
    for folder in sorted(plan.manifest.folders, key=len, reverse=True):
        for place in (checkout / folder / "__pycache__", checkout / folder):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
    (checkout / MANIFEST).unlink(missing_ok=True)


def agreed(question: str, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UserError("there is no terminal to ask on: give --yes to go on without asking. Nothing was changed")
    return input(f"\n{question} [y/N] ").strip().lower() in ("y", "yes")


def next_steps(checkout: Path) -> str:
    text = (
        f"Done. In {checkout}, for a data set of its own:\n\n"
        "  python train.py --root DATA --seed 1 --trainer FAIR --dataset-config-file configs/datasets/NAME.yaml \\\n"
        "    --config-file configs/trainers/FAIR/vit_b32.yaml --output-dir output/NAME/FAIR/vit_b32/seed1\n\n"
        "without DATASET.NUM_SHOTS, which picks images by their labels. Class descriptions are read from "
        "descriptions/NAME.json."
    )
    if importlib.util.find_spec("dassl") is None:
        text += f"\nDassl is not installed here; the bundled core will do: PYTHONPATH={HOME / 'toolbox'}"
    return text


def known_descriptions(names: Sequence[str] | None) -> list[str]:
    """The names of description files asked for; all of them if none is named."""
    known = sorted(file.stem for file in (HOME / "descriptions").glob("*.json"))
    if unknown := [name for name in names or () if name not in known]:
        raise UserError(f"there are no descriptions called {unknown[0]}. There are: {', '.join(known)}")
    return [] if names is None else list(names) or known


def main(args: argparse.Namespace) -> None:
    checkout = find_checkout(args.path)
    if args.uninstall:
        if args.baselines or args.descriptions is not None:
            raise UserError("--uninstall takes back everything: leave --baselines and --descriptions out")
        plan = plan_uninstall(checkout)
    else:
        plan = plan_install(checkout, args.baselines, known_descriptions(args.descriptions))
        if plan.empty:
            if (checkout / MANIFEST).exists() and not args.dry_run:
                plan.manifest.write(checkout)  # a call that was killed may have left it unfinished
            print(*plan.notes, f"{checkout}: FAIR is installed already, nothing to do", sep="\n")
            return
    show(checkout, plan, args.uninstall)
    if args.dry_run:
        print("\nNothing was changed (--dry-run)")
    elif not agreed("Take this back?" if args.uninstall else "Do this?", args.yes):
        print("Nothing was changed")
    elif args.uninstall:
        uninstall(checkout, plan)
        print(f"\n{checkout}: FAIR is uninstalled")
    else:
        install(checkout, plan)
        print(f"\n{next_steps(checkout)}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="the checkout, a folder with train.py")
    parser.add_argument("--dry-run", action="store_true", help="show what would change, change nothing")
    parser.add_argument("--uninstall", action="store_true", help="take back everything")
    parser.add_argument("--baselines", action="store_true", help="the other trainers too, where it has none so named")
    parser.add_argument(
        "--descriptions",
        nargs="*",
        metavar="NAME",
        help="class descriptions too: of these data sets, or all (stanford_cars, ...)",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
