"""What ends its process, or is ended from outside, done in a fork of the tests: nothing is imported again."""

import contextlib
import faulthandler
import logging
import os
import re
import runpy
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = ("clip", "dassl", "datasets", "fairclip", "trainers")  # and what they are in checkouts of others
INSTALLED = re.compile(r"(?:^|/)(?:site|dist)-packages|lib/python3|python3\d+\.zip$")


class Forked:
    """A fork that does ``work`` in a process group of its own, and ends with the status that it returns.

    Args: folder, where what it prints is kept; it is made.
    """

    def __init__(self, work: Callable[[], int | None], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.err = folder / "out", folder / "err"
        for file in (self.out, self.err):
            file.touch()
        self.returncode: int | None = None  # as subprocess has it: negative for a signal
        self.pid = os.fork()
        if self.pid == 0:
            _end(work, self.out, self.err)
        with contextlib.suppress(OSError):  # the fork has done it already, or has ended
            os.setpgid(self.pid, self.pid)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, seconds: float = 60) -> int:
        """Its status. One that does not end is killed, and TimeoutError raised."""
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGUSR1)  # it prints where it is
                time.sleep(0.5)
                self.kill()
                raise TimeoutError(f"no end in {seconds} seconds: {self.said()}")
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        """Wait for what it is to do, as long as it runs."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.poll() is None, self.said()
            if time.monotonic() > deadline:
                self.wait(0)
            time.sleep(0.005)

    def kill(self) -> None:
        """With all its children, if it still runs."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def said(self) -> tuple[str, str]:
        """What it printed to stdout and stderr."""
        return self.out.read_text(), self.err.read_text()


def _end(work: Callable[[], int | None], out: Path, err: Path) -> None:
    """In the fork: the streams go into files, and nothing of pytest goes on."""
    status: object = 1
    try:
        os.setpgid(0, 0)
        for number, file in ((1, out), (2, err)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
        faulthandler.register(signal.SIGUSR1, file=2)
        sys.excepthook = sys.__excepthook__
        status = _status(work)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))


def _status(work: Callable[[], int | None]) -> object:
    """What Python would end with."""
    try:
        try:
            return work()
        except SystemExit:
            raise
        except BaseException:
            sys.excepthook(*sys.exc_info())
            return 1
    except SystemExit as end:
        return end.code


def anew(*path: Path, packages: Sequence[str] = ()) -> None:
    """In a fork: as in a new process with these folders on its path. Our packages, and these, are imported again."""
    for name in list(sys.modules):
        if name.split(".")[0] in (*OURS, *packages):
            del sys.modules[name]
    for name in ("fairclip", "fairclip.details", "dassl"):
        logging.getLogger(name).handlers.clear()
    sys.path[:] = [*map(str, path), *(folder for folder in sys.path if INSTALLED.search(folder))]
    sys.dont_write_bytecode = False
    warnings.simplefilter("ignore")


def without(*packages: str) -> None:
    """In a fork: as in a new process that has fairclip, but none of these packages."""
    anew(ROOT, packages=packages)
    sys.meta_path.insert(0, Absent(packages))


class Absent:
    """An import finder that knows of no such packages."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self.packages = packages

    def find_spec(self, name: str, *_: object) -> None:
        if name.split(".")[0] in self.packages:
            raise ModuleNotFoundError(name)


def python(cwd: Path, folder: Path, *arguments: str, path: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
    """What ``python arguments`` does in ``cwd``: ``-c CODE``, ``-m MODULE`` or a script, with further arguments.

    Args: folder, see ``Forked``; path, PYTHONPATH.
    """

    def work() -> None:
        os.chdir(cwd)
        anew(cwd, *path)
        start, *rest = arguments
        if start == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        elif start == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(arguments)
            runpy.run_path(start, run_name="__main__")

    fork = Forked(work, folder)
    return subprocess.CompletedProcess(arguments, fork.wait(), *fork.said())
