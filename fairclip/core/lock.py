"""A folder for one process at a time."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairclip.core.errors import UserError
from fairclip.core.files import is_still

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILENAME = ".lock"  # is there while the folder is locked; it says by whom
HELD: set[int] = set()  # descriptors of this process


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Inside, no other process gets past this for the same folder, which is made if it is not there.

    The system takes the lock back when its holder ends, in whatever way: nothing has to be removed by hand. A file
    system that cannot lock is used without.

    Raises:
        UserError: another process has it; the message names that one.
        OSError: the folder cannot be written to.
    """
    path = Path(folder) / FILENAME
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _take(path)
    HELD.add(descriptor)
    try:
        yield
    finally:
        HELD.discard(descriptor)
        with contextlib.suppress(OSError):
            path.unlink()  # while it is locked: whoever opened it meanwhile sees that it is gone
        os.close(descriptor)


def _take(path: Path) -> int:
    """The descriptor of the locked file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode("utf-8", "replace").strip()
            os.close(descriptor)
            raise UserError(
                f"another run is at work in {path.parent} ({holder or 'it has just begun'}): wait for it, or choose "
                "another --output-dir"
            ) from None
        except OSError:  # a file system without locks
            pass
        if is_still(path, descriptor):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {time.ctime()}\n".encode())
            return descriptor
        os.close(descriptor)  # its holder has removed it just now


def _forget() -> None:
    """A child has the descriptors too, and must not keep the lock where it outlives its parent."""
    for descriptor in HELD:
        os.close(descriptor)
    HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
