"""Ctrl-C and SIGTERM: a run ends once, at the next step at the latest, without a traceback, and its workers with it."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PR_SET_PDEATHSIG = 1  # of Linux: the signal that a process gets when its parent ends


class _State:
    asked = False  # whether a signal came
    process = 0  # the process that has the signals; 0: none
    parent = 0  # the process that has forked last
    prctl: Any = None


def stop_if_asked() -> None:
    """For loops. A signal raises KeyboardInterrupt where the program is, and Python drops an exception that is raised
    within a destructor or while a process is forked: the loop then raises it again.

    Raises:
        KeyboardInterrupt: a signal came.
    """
    if _State.asked:
        raise KeyboardInterrupt


@contextmanager
def stops_on_signals() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, once more in the next ``stop_if_asked``.
    On Linux, processes that are forked meanwhile are killed when this one ends, even by SIGKILL.

    An error that follows from the end of a worker, which had the same signal, is a KeyboardInterrupt too. Once one came
    the program is about to end, and further ones change nothing. Inside another of these, this one does nothing.
    """
    if threading.current_thread() is not threading.main_thread() or _State.process == os.getpid():
        yield
        return
    _State.asked, _State.process = False, os.getpid()
    if sys.platform == "linux":
        _State.prctl = getattr(ctypes.CDLL(None), "prctl", None)
    before = {which: signal.signal(which, _stop) for which in SIGNALS}
    try:
        yield
    except Exception as error:
        if _State.asked:
            raise KeyboardInterrupt from error
        raise
    finally:
        for which, handler in before.items():
            signal.signal(which, signal.SIG_IGN if _State.asked else handler)
        _State.asked, _State.process = False, 0


def leave_stopping_to_parent() -> None:
    """For the start of a worker: a Ctrl-C, which the terminal sends to all, is for its parent to see to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stop(signum: int, frame: FrameType | None) -> None:
    if os.getpid() != _State.process:  # a worker, just forked: its parent says what there is to say
        os._exit(128 + signum)
    _State.asked = True
    sys.unraisablehook = _drop  # what is dropped from here on is this very exception
    if hasattr(signal, "SIGCHLD"):  # workers may have had the same signal, and torch calls their end an error
        signal.signal(signal.SIGCHLD, _drop)
    raise KeyboardInterrupt


def _drop(*_: object) -> None:
    pass


def _note_parent() -> None:
    _State.parent = os.getpid()


def _end_with_parent() -> None:
    if _State.process and _State.prctl:
        _State.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != _State.parent:  # it ended meanwhile
            os._exit(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_note_parent, after_in_child=_end_with_parent)
