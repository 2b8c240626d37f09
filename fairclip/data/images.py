"""Are the images whole? Every file is decoded once, and what came out is on record in a cache folder."""

import hashlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import PIL
from PIL import Image
from tqdm import tqdm

from fairclip.core.cache import cache_folder, keep_record, kept_record
from fairclip.core.errors import UserError
from fairclip.core.log import log

FEW = 200  # so many images are decoded sooner than processes start
CHUNK = 32  # images that a process takes at a time

_seen: dict[str, list[tuple[str, str]]] = {}  # of this process, by fingerprint: trainers build a data set twice


def check_images(paths: Sequence[str], name: str, again: bool = False) -> list[tuple[str, str]]:
    """Find the images that cannot be decoded, in parallel and with a progress bar.

    The result is kept in `checked/` of the cache folder ($FAIR_CACHE, else ~/.cache/fair) under a fingerprint of the
    files' paths, sizes and times. So it is computed once, and again as soon as a file has changed.

    Args:
        paths: image files, in any order; whatever their extensions say, Pillow decides the format.
        name: what the images belong to, for the bar and the record.
        again: decode them although a result is on record.

    Returns:
        (path, reason) of each image that cannot be decoded to RGB, sorted by path.

    Raises:
        UserError: a process that decodes images was killed, most likely for want of memory.
    """
    paths = sorted(set(paths))
    fingerprint = _fingerprint(paths)
    if fingerprint not in _seen:
        record = _record(name, fingerprint)
        bad = None if again else _read(record)
        if bad is None:
            bad = _check(paths, name)
            keep_record(record, {"images": len(paths), "bad": bad})  # one that cannot be written costs another check
        _seen[fingerprint] = bad
    return list(_seen[fingerprint])


def _check(paths: list[str], name: str) -> list[tuple[str, str]]:
    workers = min(_cpus(), len(paths) // FEW)
    if workers > 1:
        log.info(f"Checking the {len(paths):,} images of {name} with {workers} processes, this once")
    bar = tqdm(total=len(paths), desc=f"checking {name}", unit="image", leave=False, disable=None)  # on a terminal only
    bad = []
    with bar:
        for path, reason in zip(paths, _reasons(paths, workers), strict=True):
            if reason:
                bad.append((path, reason))
            bar.update()
    return bad


def _reasons(paths: list[str], workers: int) -> Iterator[str]:
    """What is wrong with each image, in order."""
    if workers < 2:
        yield from map(decode_error, paths)
        return
    # Forking starts at once; elsewhere than on Linux it is not safe. Python 3.12 warns of it beside threads (tqdm has
    # one), but the children only decode and touch no lock of theirs.
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_be_quiet)
    try:
        with warnings.catch_warnings(), _ctrl_c_held():
            warnings.simplefilter("ignore", DeprecationWarning)
            results = pool.map(decode_error, paths, chunksize=CHUNK)
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


def decode_error(path: str) -> str:
    """Why an image cannot be decoded to RGB, or "" if it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.convert("RGB")
    except Exception as error:  # Pillow's plugins raise about everything for a broken file
        return _shortened(error, path)
    return ""


def _shortened(error: Exception, path: str) -> str:
    if isinstance(error, Image.UnidentifiedImageError):  # says the path again
        return "empty file" if os.path.getsize(path) == 0 else "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return text or type(error).__name__


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


def _read(record: Path) -> list[tuple[str, str]] | None:
    """The result on record; None where there is none that can be read."""
    content = kept_record(record)
    return None if content is None else [(str(path), str(reason)) for path, reason in content["bad"]]
