"""Are the images whole, and which are the same? Every file is decoded once; what came out is on record in the cache."""

import hashlib
import os
import signal
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import PIL
from PIL import Image

from fairclip.core.bars import bar
from fairclip.core.cache import cache_folder, keep_record, kept_record
from fairclip.core.download import checksum_of
from fairclip.core.errors import UserError
from fairclip.core.log import log
from fairclip.core.rgb import as_rgb, check_is_file, why_unreadable

FEW = 200  # so many images are decoded sooner than processes start
CHUNK = 32  # images that a process takes at a time


class Checked(NamedTuple):
    """What was found: (path, reason) of each image that cannot be decoded, by path; and the paths of equal files, a
    list for each content that is there more than once."""

    bad: list[tuple[str, str]]
    same: list[list[str]]


_seen: dict[str, Checked] = {}  # of this process, by fingerprint: trainers build a data set twice


def check_images(paths: Sequence[str], name: str, again: bool = False) -> list[tuple[str, str]]:
    """(path, reason) of each image that cannot be decoded to RGB, sorted by path; otherwise as `examine`."""
    return list(examine(paths, name, again).bad)


def examine(paths: Sequence[str], name: str, again: bool = False) -> Checked:
    """Find the images that cannot be decoded and those of equal content, in parallel and with a progress bar.

    The result is kept in `checked/` of the cache folder ($FAIR_CACHE, else ~/.cache/fair) under a fingerprint of the
    files' paths, sizes and times. So it is computed once, and again as soon as a file has changed.

    Args:
        paths: image files, in any order; whatever their extensions say, Pillow decides the format.
        name: what the images belong to, for the bar and the record.
        again: decode them although a result is on record.

    Raises:
        UserError: a process that decodes images was killed, most likely for want of memory.
    """
    paths = sorted(set(paths))
    fingerprint = _fingerprint(paths)
    if fingerprint not in _seen:
        record = _record(name, fingerprint)
        checked = None if again else _read(record)
        if checked is None:
            checked = _check(paths, name)
            # One that cannot be written costs another check.
            keep_record(record, {"images": len(paths), **checked._asdict()})
        _seen[fingerprint] = checked
    return _seen[fingerprint]


def _check(paths: list[str], name: str) -> Checked:
    workers = min(_cpus(), len(paths) // FEW)
    if workers > 1:
        log.info(f"Checking the {len(paths):,} images of {name} with {workers} processes, this once")
    progress = bar(None, f"checking {name}", "image", total=len(paths))
    bad, equal = [], defaultdict(list)
    with progress:
        for path, (reason, digest) in zip(paths, _looks(paths, workers), strict=True):
            if reason:
                bad.append((path, reason))
            elif digest:
                equal[digest].append(path)
            progress.update()
    return Checked(bad, [group for group in equal.values() if len(group) > 1])


def _looks(paths: list[str], workers: int) -> Iterator[tuple[str, str]]:
    """What is wrong with each image, and its digest, in order."""
    if workers < 2:
        yield from map(look_at, paths)
        return
    # Forking starts at once; elsewhere than on Linux it is not safe. Python 3.12 warns of it beside threads (a bar has
    # one), but the children only decode and touch no lock of theirs.
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_be_quiet)
    try:
        with warnings.catch_warnings(), _ctrl_c_held():
            warnings.simplefilter("ignore", DeprecationWarning)
            results = pool.map(look_at, paths, chunksize=CHUNK)
        yield from results
    except BrokenProcessPool:
        raise UserError(
            "a process that checked images was killed, most likely because memory ran out. Run again with fewer "
            "programs beside it."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """While workers start: a Ctrl-C waits, so that it finds none that has not yet come to `_be_quiet`."""
    if hasattr(signal, "pthread_sigmask"):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    yield
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be_quiet() -> None:
    """In a worker: what the image libraries write to the terminal is of no use, and Ctrl-C ends it at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as a KeyboardInterrupt it would end one chunk, and the next begin
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def look_at(path: str) -> tuple[str, str]:
    """Why an image cannot be decoded, "" if it can; and a digest of its file's bytes, "" where it cannot be read."""
    if reason := decode_error(path):
        return reason, ""
    try:
        return "", checksum_of(Path(path))
    except OSError:
        return "", ""


def decode_error(path: str) -> str:
    """Why an image cannot be decoded to RGB, or "" if it can."""
    try:
        check_is_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                as_rgb(image)
    except Exception as error:  # Pillow's plugins raise about everything for a broken file
        return why_unreadable(error, path)
    return ""


def _cpus() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- The record --------------------------------------------------------------------------------------------------------


def _fingerprint(paths: list[str]) -> str:
    digest = hashlib.sha256(f"pillow {PIL.__version__}\n".encode())
    for path in paths:
        try:
            status = os.stat(path)
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "absent"
        digest.update(os.fsencode(path) + f"\0{state}\n".encode())
    return digest.hexdigest()[:16]


def _record(name: str, fingerprint: str) -> Path:
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
    return cache_folder("checked") / f"{safe}-{fingerprint}.json"


def _read(record: Path) -> Checked | None:
    """The result on record; None where there is none that can be read."""
    content = kept_record(record)
    if content is None or "same" not in content:  # "same" came later
        return None
    bad = [(str(path), str(reason)) for path, reason in content["bad"]]
    return Checked(bad, [[str(path) for path in group] for group in content["same"]])
