"""Download data sets that are on the web, into the folders of CoOp's layout.

    fair data fetch eurosat dtd --root /path/to/data

What is there already is left alone, and what was broken off goes on. Data sets that no program can get are explained by
`fair data doctor NAME`.
"""

import argparse
import inspect
import os
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fairclip.core.download import TIMEOUT, download
from fairclip.core.errors import UserError
from fairclip.core.log import log
from fairclip.data.archives import unpack
from fairclip.data.benchmark import Benchmark
from fairclip.data.copies import Copy
from fairclip.data.known import add_root, benchmarks, find
from fairclip.data.sources import DRIVE, Source
from fairclip.data.split_store import fetch_split, split_places


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `fair data fetch`."""
    on_the_web = [name for name, cls in benchmarks().items() if cls.sources]
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"data sets; on the web are {', '.join(on_the_web)}")
    add_root(parser)


def main(args: argparse.Namespace) -> int:
    """Returns the exit status: 0, 1 if a data set could not be fetched, 130 after Ctrl-C."""
    try:
        return 1 if fetch(args.names, args.root) else 0
    except KeyboardInterrupt:
        log.warning("broken off. What has arrived is kept: the same command goes on from there.")
        return 130


def fetch(names: Iterable[str], root: str | Path) -> list[str]:
    """Download data sets; what is there already is left alone, what was broken off goes on.

    Args:
        names: see `known.find`.
        root: the folder that holds the data sets.

    Returns:
        The names of those that are not there afterwards; the log says why.

    Raises:
        UserError: an unknown name; then nothing is downloaded.
    """
    root = Path(os.path.abspath(os.path.expanduser(root)))
    known, failed = benchmarks(), []
    for name in dict.fromkeys(find(name, known) for name in names):
        try:
            _fetch(name, known[name], root)
        except UserError as error:
            log.error(f"{name}: {error}")
            failed.append(name)
    return failed


def _fetch(name: str, cls: type[Benchmark], root: Path) -> None:
    folder, sources = root / cls.dataset_dir, cls.sources
    copy = _copy(cls, root)
    if copy and not (sources and (folder / sources[-1].path).exists()):
        log.info(f"{name}: there is a copy already ({copy.layout} in {copy.home})")
        return
    if not sources:
        raise UserError(f"there is no source that a program could download it from.\n{cls.help(root)}")
    missing = [source for source in sources if not (folder / source.path).exists()]
    if missing:
        size = sum(source.size for source in missing)
        _check_room(folder, size)
        log.info(f"{name}: downloading to {folder}" + (f", {size / 1e6:,.1f} MB" if size else ""))
    for source in missing:
        try:
            _get(source, folder)
        except UserError as error:
            if not source.needless:
                raise
            log.warning(f"{name}: {source.path} could not be fetched, but {source.needless}. {error}")
    if cls.drive_id and not any(path.is_file() for path in split_places(folder, cls.split_file)):
        fetch_split(cls.drive_id, folder, cls.split_file)  # says itself how that went; a split can be made, too
    copy = cls.locate(root)
    log.info(f"{name}: complete ({copy.layout} in {copy.home})")


def _copy(cls: type[Benchmark], root: Path) -> Copy | None:
    """A copy that is there in whatever layout: beside it, another one would make the data ambiguous."""
    try:
        return cls.locate(root) if root.is_dir() else None
    except UserError:
        return None


def _check_room(folder: Path, size: int) -> None:
    """Raises UserError unless `folder` can be made and the disk has room for the archives and what comes out."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UserError(f"cannot write to {folder}. Name another parent folder: DATA=/path or --root /path.")
    free = shutil.disk_usage(folder).free
    if free < 2 * size:
        raise UserError(f"this takes about {2 * size / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free")


def _get(source: Source, folder: Path) -> None:
    """Put what one source gives into `folder`."""
    file = folder / source.file
    brought = file.exists()  # by hand, so it is not ours to delete
    if not source.url.startswith(DRIVE):
        download(source.url, file, source.checksum)
    elif not brought:
        _get_from_drive(source, file)
    if source.inside:
        _unpack(source, file, folder)
        if not brought:
            file.unlink()


def _get_from_drive(source: Source, file: Path) -> None:
    """A zip from Google Drive; gdown goes on where it was broken off."""
    by_hand = f"Or open {source.page} in a browser and put the file at {file}."
    try:
        import gdown  # imported here: only this needs it

        # Releases before 6 know no timeout.
        patience: dict[str, Any] = (
            {"timeout": TIMEOUT} if "timeout" in inspect.signature(gdown.download).parameters else {}
        )
        gdown.download(id=source.url.removeprefix(DRIVE), output=str(file), resume=True, **patience)
    except Exception as error:  # gdown's own kinds, those of requests, plain ones
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"Google Drive did not give {file.name}: {reason}. {by_hand}") from error
    if not file.is_file():  # some releases of gdown return None instead of raising
        raise UserError(f"Google Drive did not give {file.name}. {by_hand}")
    if not zipfile.is_zipfile(file):
        file.unlink()
        raise UserError(f"Google Drive gave something else than {file.name}, which was removed. {by_hand}")


def _unpack(source: Source, archive: Path, folder: Path) -> None:
    """Unpack beside the destination, and move things there when all of them are out, `source.path` last."""
    place = folder / f".{source.file}.unpacked"
    shutil.rmtree(place, ignore_errors=True)  # of a call that was killed
    try:
        content = place / "outer"
        unpack(archive, content, _limit(archive))
        if source.inner:
            inner, content = content / source.inner, place / "inner"
            if inner.is_file():
                unpack(inner, content, _limit(inner))
        content = content / source.inside
        if not (content / source.path).exists():
            raise UserError(f"{archive} has changed its content: {source.path} is not where it was in it")
        for path in sorted(content.iterdir(), key=lambda path: (path.name == source.path, path.name)):
            if not (folder / path.name).exists():
                os.rename(path, folder / path.name)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _limit(archive: Path) -> int:
    """Bytes that may come out: images hardly shrink, lists of text do."""
    return 3 * archive.stat().st_size + 2**30
