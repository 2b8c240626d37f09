"""Writing files and folders so that a reader finds the complete one or none, also where the writer is killed."""

import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: what killed runs leave behind stays there
    fcntl = None  # type: ignore[assignment]

# The name of what is being written, process and chance. The process alone would not do: machines that share a folder
# may have equal ones.
TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")
_swept: set[str] = set()  # folders in which this process has looked for leftovers


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it takes the name `path` only if the block ends well.

    The first time that a process writes into a folder, what killed processes left there is removed. A file that was
    there keeps its rights, and a new one has those that the umask gives: some libraries, such as safetensors, write one
    that only its owner may read.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_once(path.parent)
    temporary, lock = _begin(path, folder=False)
    try:
        rights = stat.S_IMODE((path if path.is_file() else temporary).stat().st_mode)
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != rights:
            temporary.chmod(rights)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(lock)


@contextmanager
def work_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which is removed at the end, or when the next process comes here."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_once(path.parent)
    temporary, lock = _begin(path, folder=True)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


def _begin(path: Path, folder: bool) -> tuple[Path, int]:
    """Make a temporary file or folder, and hold it: as long as this process lives, nobody sweeps it away."""
    while True:
        temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        if folder:
            temporary.mkdir()
        else:
            temporary.touch(exist_ok=False)
        if fcntl is None:  # an open file could not be renamed there
            return temporary, os.open(os.devnull, os.O_RDONLY)
        with suppress(FileNotFoundError):
            lock = os.open(temporary, os.O_RDONLY)
            if _hold(lock) and is_still(temporary, lock):
                return temporary, lock
            os.close(lock)
        # somebody who sweeps was quicker


def _hold(lock: int) -> bool:
    """Whether nobody else has it. Where the file system knows no locks, it counts as ours, and nobody can sweep."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def is_still(path: Path, file: int) -> bool:
    """Whether a path leads to the file that was opened by it, which somebody may have removed since."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except OSError:
        return False


def sweep_once(folder: Path) -> None:
    if (place := os.path.abspath(folder)) not in _swept:
        _swept.add(place)
        sweep(folder)


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders of processes that were killed: those with our names that nobody holds."""
    if fcntl is None:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries if TEMPORARY.fullmatch(entry.name)]:
            with suppress(OSError):
                _remove_unless_held(folder / name)


def _remove_unless_held(path: Path) -> None:
    lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    finally:
        os.close(lock)
