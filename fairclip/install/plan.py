"""What an installation or its removal will do to a checkout. Nothing is changed here."""

import ast
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fairclip.core.errors import UserError, few
from fairclip.core.files import atomic
from fairclip.core.reading import read_json
from fairclip.core.rules import Rule, check, is_flag, is_text
from fairclip.install.parts import (
    FAIR,
    baselines,
    content,
    files_for,
    has_extend_cfg,
    our_copy,
    registered,
    with_imports,
)
from fairclip.install.train_file import Unrecognised, parse, register, trainers_of, unregister

MANIFEST = ".fair_install.json"


def is_inside(name: object) -> bool:
    """A name of a file that does not lead out of the checkout, from which it may be removed."""
    path = PurePosixPath(name) if isinstance(name, str) else PurePosixPath("..")
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def are_inside(value: object) -> bool:
    return isinstance(value, list) and all(map(is_inside, value))


def are_digests(value: object) -> bool:
    return isinstance(value, dict) and are_inside([*value]) and all(isinstance(d, list) for d in value.values())


RULES = {
    "files": Rule(are_digests, "lists of SHA-256, by file of the checkout"),
    "folders": Rule(are_inside, "a list of folders in the checkout"),
    "baselines": Rule(is_flag, "true or false"),
    "descriptions": Rule(lambda value: isinstance(value, list) and all(map(is_text, value)), "a list of names"),
    "script": Rule(is_inside, "a file of the checkout", optional=True),
}


@dataclass
class Manifest:
    """What earlier calls left in a checkout. The format is older than fairclip/: then all lay in trainers/."""

    files: dict[str, list[str]] = field(default_factory=dict)  # path -> SHA-256 of the content, or of two during a call
    folders: list[str] = field(default_factory=list)  # that were made
    baselines: bool = False
    descriptions: list[str] = field(default_factory=list)
    script: str = "train.py"  # where our trainers are registered

    @classmethod
    def read(cls, checkout: Path) -> "Manifest":
        path = checkout / MANIFEST
        if not path.exists():
            return cls()
        advice = "Restore it, or remove it and the files that came with it"
        stored = read_json(path, "the list of what was installed", advice)
        check(stored, RULES, path, advice=advice)
        return cls(**{name: stored[name] for name in RULES if name in stored})

    def write(self, checkout: Path) -> None:
        with atomic(checkout / MANIFEST) as path:
            path.write_text(json.dumps(vars(self), indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def wrote(self, file: str, found: bytes) -> bool:
        """Whether a file is as it was installed."""
        return sha256(found) in self.files.get(file, ())


@dataclass
class Plan:
    """What a call will do."""

    write: dict[str, bytes] = field(default_factory=dict)  # path -> content
    remove: list[str] = field(default_factory=list)
    train: tuple[bytes, bytes] = (b"", b"")  # the training script before and after
    notes: list[str] = field(default_factory=list)
    manifest: Manifest = field(default_factory=Manifest)  # when it is done; of a removal, the one that was found

    @property
    def empty(self) -> bool:
        return not self.write and not self.remove and self.train[0] == self.train[1]


def sha256(found: bytes) -> str:
    return hashlib.sha256(found).hexdigest()


def module_name(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")


def read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


# -- Installing --------------------------------------------------------------------------------------------------------


def plan_install(checkout: Path, with_baselines: bool, descriptions: Sequence[str], script: str = "train.py") -> Plan:
    """What is lacking or out of date, and what an earlier version left that is needed no more.

    Raises:
        UserError: something is in the way.
    """
    old = Manifest.read(checkout)
    if old.files and old.script != script:
        raise UserError(f"{checkout}: FAIR is registered in {old.script} already. First take it back by --uninstall")
    with_baselines = with_baselines or old.baselines
    descriptions = sorted({*old.descriptions, *descriptions})
    modules, notes = choose_trainers(checkout, old, with_baselines)
    wanted = files_for(modules, descriptions)
    check_free(checkout, old, wanted)

    ours: dict[str, list[str]] = {}
    plan = Plan(notes=notes)
    for file in sorted(wanted):
        new, found = content(file), read(checkout / file)
        if found is None or file in old.files:  # the same file of the checkout's own stays its own
            ours[file] = [sha256(new)]
        if found != new:
            plan.write[file] = new
    plan_removal(checkout, old, sorted(old.files.keys() - wanted), plan)

    source = (checkout / script).read_bytes()
    extends = {module_name(file): has_extend_cfg(file) for file in modules}
    trainers = [name for file in modules for name in registered(content(file))]
    plan.train = (source, register(source, extends, trainers, script))
    folders = {str(parent) for file in ours for parent in PurePosixPath(file).parents if str(parent) != "."}
    made = [folder for folder in folders if not (checkout / folder).exists()]
    plan.manifest = Manifest(ours, sorted({*old.folders, *made}), with_baselines, descriptions, script)
    return plan


def choose_trainers(checkout: Path, old: Manifest, with_baselines: bool) -> tuple[list[str], list[str]]:
    """Our modules of trainers/ that the checkout gets, and notes on those that it does not.

    Raises:
        UserError: the checkout has a trainer FAIR of its own.
    """
    theirs = registered_there(checkout, old)
    for name in registered(content(FAIR)):
        if theirs.get(name, FAIR) != FAIR:
            raise UserError(f"{checkout / theirs[name]} registers a trainer {name} of its own. Nothing was changed")

    chosen, left_out = [FAIR], dict[str, str]()
    for file, names in baselines().items() if with_baselines else ():
        if taken := [f"{name} ({theirs[name]})" for name in names if name in theirs]:
            left_out[file] = f"a trainer {taken[0]}"
        elif file not in old.files and read(checkout / file) not in (None, content(file)):
            left_out[file] = f"a {file}"
        else:
            chosen.append(file)
    for file in [file for file in chosen if file != FAIR] if left_out else ():
        if needed := sorted(with_imports([file]) & left_out.keys()):
            left_out[file] = f"another {' and '.join(needed)}, which it needs,"
            chosen.remove(file)
    return chosen, [f"Left out: {file}, the checkout has {what} of its own" for file, what in left_out.items()]


def registered_there(checkout: Path, old: Manifest) -> dict[str, str]:
    """Trainers that modules of the checkout register, name -> file: not those installed, nor those that equal ours."""
    found: dict[str, str] = {}
    for path in sorted((checkout / "trainers").glob("*.py")):
        file, source = f"trainers/{path.name}", path.read_bytes()
        if file not in old.files and source != read(our_copy(file)):
            try:
                found.update(dict.fromkeys(registered(source), file))
            except (SyntaxError, ValueError):  # not for us to judge
                continue
    return found


def check_free(checkout: Path, old: Manifest, wanted: Iterable[str]) -> None:
    """Raises UserError where something would be overwritten that no earlier call wrote."""
    differ = {file: found for file in sorted(wanted) if (found := read(checkout / file)) not in (None, content(file))}
    if theirs := [file for file in differ if file not in old.files]:
        raise UserError(
            f"{checkout} has files of its own where FAIR's belong: {few(theirs, 10)}. Nothing was changed. Rename "
            "or move them away, then run this again"
        )
    if changed := [file for file, found in differ.items() if found is not None and not old.wrote(file, found)]:
        raise UserError(
            f"these files of {checkout} were changed after they had been installed: {few(changed, 10)}. Nothing was "
            "changed. Move your version away (or --uninstall, which leaves it), then run this again"
        )


# -- Taking back -------------------------------------------------------------------------------------------------------


def plan_uninstall(checkout: Path) -> Plan:
    """All that earlier calls wrote.

    Raises:
        UserError: nothing is installed, or the training script would go on using what is removed.
    """
    if not (checkout / MANIFEST).exists():
        raise UserError(f"{checkout} has no {MANIFEST}: nothing is installed there by `fair install-into`")
    old = Manifest.read(checkout)
    source = (checkout / old.script).read_bytes()
    plan = Plan(train=(source, unregister(source)), manifest=old)
    plan_removal(checkout, old, sorted(old.files), plan)
    gone = {module_name(file) for file in plan.remove}
    try:
        tree = parse(plan.train[1])
    except Unrecognised as error:
        raise UserError(f"{checkout / old.script}: {error}. Nothing was changed. Make it valid first") from None
    for node in ast.walk(tree):
        used = {ast.unparse(node)} if isinstance(node, ast.Attribute) else set(trainers_of(node))
        if used := used & gone:
            raise UserError(
                f"{old.script} uses {', '.join(used)} in a line that `fair install-into` did not write: "
                f"{ast.unparse(node)!r}. Nothing was changed. Remove that line first"
            )
    return plan


def plan_removal(checkout: Path, old: Manifest, files: Iterable[str], plan: Plan) -> None:
    """Those of the files that are as they were installed will be removed; those that were changed are named."""
    for file in files:
        found = read(checkout / file)
        if found is None:
            continue
        if old.wrote(file, found):
            plan.remove.append(file)
        else:
            plan.notes.append(f"Stays: {file}, which was changed after it had been installed; FAIR has no use for it")
