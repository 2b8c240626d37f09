"""Ctrl-C and SIGTERM: a run ends once, at the next step at the latest, and without a traceback."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_state: dict[str, Any] = {"asked": False, "process": 0}


def stop_if_asked() -> None:
    """For loops. A signal raises KeyboardInterrupt where the program is, and Python drops an exception that is raised
    within a destructor or while a process is forked: the loop then raises it again.

    Raises:
        KeyboardInterrupt: a signal came.
    """
    if _state["asked"]:
        raise KeyboardInterrupt


def _stop(signum: int, frame: FrameType | None) -> None:
    if os.getpid() != _state["process"]:  # a worker, just forked: its parent says what there is to say
        os._exit(128 + signum)
    _state["asked"] = True
    raise KeyboardInterrupt


@contextmanager
def stops_on_signals() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, once more in the next ``stop_if_asked``.

    An error that follows from the end of a worker, which had the same signal, is a KeyboardInterrupt too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.update(asked=False, process=os.getpid())
    before = {which: signal.signal(which, _stop) for which in SIGNALS}
    unraisable = sys.unraisablehook
    sys.unraisablehook = lambda dropped: None if _state["asked"] else unraisable(dropped)
    try:
        yield
    except Exception as error:
        if _state["asked"]:
            raise KeyboardInterrupt from error
        raise
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
        sys.unraisablehook = unraisable
        _state["asked"] = False


def leave_stopping_to_parent() -> None:
    """For the start of a worker process: Ctrl-C is for its parent, at whose end it ends too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """On Linux: this process is killed when the one that started it ends, even by SIGKILL."""
    if sys.platform != "linux":
        return
    import ctypes

    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        return
    parent = multiprocessing.parent_process()
    if parent and os.getppid() != parent.pid:  # it ended meanwhile
        os._exit(1)
