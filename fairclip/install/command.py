"""Puts FAIR into a checkout of CoOp, or of a repository made like it: fair install-into PATH [--dry-run]

    fair install-into ~/CoOp --dry-run              show what would change
    fair install-into ~/CoOp --descriptions dtd     do it, with the class descriptions of a data set

Copies trainers/fair.py, the part of the package fairclip/ that it needs and its configs, and registers it in the
checkout's train.py (or another --script): one import, and one call at the end of extend_cfg. Shows what will change
first, and asks. Afterwards the checkout's own `python train.py --trainer FAIR ...` works with its own data
sets, clip/ folder and Dassl.

Nothing of the checkout is overwritten: a file of the same name and other content ends the call. What was written is
recorded in PATH/.fair_install.json; a second call brings it up to date, --uninstall takes all of it back.
"""

import argparse
import difflib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from fairclip.core.errors import UserError, few
from fairclip.core.places import DESCRIPTIONS, HOME
from fairclip.install.apply import install, uninstall
from fairclip.install.plan import MANIFEST, Manifest, Plan, plan_install, plan_uninstall, read
from fairclip.install.train_file import register


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="the checkout, a folder with train.py")
    parser.add_argument("--script", metavar="FILE", help="the checkout's training script, where it is not train.py")
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


def main(args: argparse.Namespace) -> None:
    checkout, script = find_checkout(args.path, args.script)
    if args.uninstall:
        if args.baselines or args.descriptions is not None:
            raise UserError("--uninstall takes back everything: leave --baselines and --descriptions out")
        plan = plan_uninstall(checkout)
    else:
        plan = plan_install(checkout, args.baselines, known_descriptions(args.descriptions), script)
        if plan.empty:
            if (checkout / MANIFEST).exists() and not args.dry_run:
                install(checkout, plan)  # a call that was killed may have left its record unfinished
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
        print(f"\n{next_steps(checkout, script)}")


def find_checkout(path: Path, script: str | None) -> tuple[Path, str]:
    """The folder of the training script, and its name: the folder given, or the one folder in it that has one.

    Raises:
        UserError: there is none, or several.
    """
    checkout = path.expanduser().resolve()
    if checkout == HOME:
        raise UserError(f"{path} is this repository, FAIR is at home here")
    if script and Path(script).name != script:
        raise UserError(f"--script {script}: the name of a file in {checkout} itself, where its trainers/ is")
    name = script or Manifest.read(checkout).script
    if (checkout / name).is_file():
        return checkout, name
    below = sorted(file.parent for file in checkout.glob(f"*/{name}") if (file.parent / "trainers").is_dir())
    if len(below) == 1:
        print(f"{path} has no {name}, but {below[0].name}/ in it has: FAIR goes there")
        return below[0], name
    hint = f". There is one in: {few([folder.name for folder in below])}; give one of these as PATH" if below else ""
    if others := [file.name for file in sorted(checkout.glob("*.py")) if is_script(file)]:
        hint += f". Give the script that trains by --script; these are made like CoOp's: {few(others)}"
    raise UserError(f"{path} is no checkout made like CoOp: it has no {name}{hint}")


def is_script(file: Path) -> bool:
    """Whether our trainers can be registered in this file."""
    try:
        register(file.read_bytes(), {})
        return True
    except UserError:
        return False


def known_descriptions(names: Sequence[str] | None) -> list[str]:
    """The names of description files asked for; all of them if none is named."""
    known = sorted(file.stem for file in DESCRIPTIONS.glob("*.json"))
    if unknown := [name for name in names or () if name not in known]:
        raise UserError(f"there are no descriptions called {unknown[0]}. There are: {', '.join(known)}")
    return [] if names is None else list(names) or known


def show(checkout: Path, plan: Plan, undo: bool) -> None:
    """The plan in print: the training script's and changed files' diffs, and the names of new and removed files."""
    edits = {plan.manifest.script: plan.train}
    edits |= {file: (found, new) for file, new in plan.write.items() if (found := read(checkout / file)) is not None}
    for file, versions in edits.items():
        if b"\0" in versions[1]:
            print(f"Replace {file}")
            continue
        before, after = (text.decode("utf-8", "replace").splitlines() for text in versions)
        for line in difflib.unified_diff(before, after, f"a/{file}", f"b/{file}", lineterm=""):
            print(line)
    new_files = [file for file in plan.write if file not in edits]
    for title, files in (("New files", new_files), ("Removed files", plan.remove)):
        if files:
            print(f"\n{title} in {checkout}:")
            print("\n".join(f"  {file}" for file in files))
    if undo:
        print(f"  {MANIFEST}")
    for note in plan.notes:
        print(note)


def agreed(question: str, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UserError("there is no terminal to ask on: give --yes to go on without asking. Nothing was changed")
    return input(f"\n{question} [y/N] ").strip().lower() in ("y", "yes")


def next_steps(checkout: Path, script: str) -> str:
    text = (
        f"Done. In {checkout}, for a data set of its own:\n\n"
        f"  python {script} --root DATA --seed 1 --trainer FAIR --dataset-config-file configs/datasets/NAME.yaml \\\n"
        "    --config-file configs/trainers/FAIR/vit_b32.yaml --output-dir output/NAME/FAIR/vit_b32/seed1 \\\n"
        "    DATASET.NUM_SHOTS -1\n"
        "  python -m fairclip predict output/NAME/FAIR/vit_b32/seed1 IMAGES\n\n"
        "NUM_SHOTS -1 takes all images: other values pick some by their labels. Class descriptions are read from "
        "descriptions/NAME.json."
    )
    if importlib.util.find_spec("dassl") is None:
        text += f"\nDassl is not installed here; the bundled core will do: PYTHONPATH={HOME / 'toolbox'}"
    return text
