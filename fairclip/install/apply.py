"""Carries out a plan. Killed at any moment, the manifest knows every file that was written."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from fairclip.core.files import atomic
from fairclip.install.plan import MANIFEST, Manifest, Plan


def install(checkout: Path, plan: Plan) -> None:
    """Writes first, removes last: an update that breaks off leaves what the training script imports."""
    old, new = Manifest.read(checkout), plan.manifest
    files = {file: sorted({*new.files.get(file, ()), *old.files.get(file, ())}) for file in {*new.files, *old.files}}
    replace(new, files=files).write(checkout)
    for file, content in plan.write.items():
        put(checkout / file, content)
    if plan.train[0] != plan.train[1]:
        put(checkout / plan.manifest.script, plan.train[1])
    for file in plan.remove:
        remove(checkout, file)
    remove_unfinished(checkout, (*files, new.script))
    remove_empty(checkout, new.folders)
    replace(new, folders=[folder for folder in new.folders if (checkout / folder).is_dir()]).write(checkout)


def uninstall(checkout: Path, plan: Plan) -> None:
    if plan.train[0] != plan.train[1]:
        put(checkout / plan.manifest.script, plan.train[1])
    for file in plan.remove:
        remove(checkout, file)
    remove_unfinished(checkout, (*plan.manifest.files, plan.manifest.script))
    remove_empty(checkout, plan.manifest.folders)
    (checkout / MANIFEST).unlink(missing_ok=True)


def put(path: Path, content: bytes) -> None:
    path = path.resolve()  # what a link leads to, not the link
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def remove(checkout: Path, file: str) -> None:
    """A file of ours, and what Python compiled from it."""
    path = checkout / file
    path.unlink(missing_ok=True)
    if path.suffix == ".py":
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink(missing_ok=True)


def remove_unfinished(checkout: Path, files: Iterable[str]) -> None:
    """What `atomic` leaves beside these files where it is killed."""
    for file in (*files, MANIFEST):
        path = (checkout / file).resolve()
        for unfinished in path.parent.glob(f".{path.name}.*-*.tmp"):
            unfinished.unlink(missing_ok=True)


def remove_empty(checkout: Path, folders: Sequence[str]) -> None:
    """Folders that were made, where nothing is left in them."""
    for folder in sorted(folders, key=len, reverse=True):
        for place in (checkout / folder / "__pycache__", checkout / folder):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
