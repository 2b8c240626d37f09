"""What this package reports is printed, and a copy of everything printed goes to `OUTPUT_DIR/log.txt`."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TextIO

from .tools import mkdir_if_missing

__all__ = ["Logger", "setup_logger", "show_messages"]

log = logging.getLogger("dassl")


class Console(logging.Handler):
    """Prints to what is `sys.stdout` at that moment, so that `Logger` gets a copy."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "Warning: " if record.levelno >= logging.WARNING else ""
        print(prefix + record.getMessage())


def show_messages() -> None:
    """Print what this package reports, as upstream does. A program that has log handlers of its own keeps to them, and
    `logging.getLogger("dassl").setLevel(logging.WARNING)` silences all but warnings."""
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)
    if not log.hasHandlers():
        log.addHandler(Console(logging.INFO))


class Logger:
    """A text stream that writes to the console and to a file.

    All else (`isatty`, `encoding`, `fileno`, ...) is the console's, so code that inspects `sys.stdout` keeps working.
    """

    def __init__(self, fpath: str | None = None, console: TextIO | None = None) -> None:
        self.console = console or sys.stdout
        self.file = None
        if fpath is not None:
            mkdir_if_missing(os.path.dirname(fpath))
            # Line by line, so that a killed run loses nothing.
            self.file = open(fpath, "w", buffering=1, encoding="utf-8")  # noqa: SIM115

    def __getattr__(self, name: str) -> object:
        if name == "console":  # not yet set: __init__ failed or the object is being copied
            raise AttributeError(name)
        return getattr(self.console, name)

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def write(self, msg: str) -> int:
        if self.file is not None:
            self.file.write(msg)
        return self.console.write(msg)

    def flush(self) -> None:
        self.console.flush()
        if self.file is not None:
            self.file.flush()

    def close(self) -> None:
        """Close the file; the console belongs to somebody else."""
        if self.file is not None:
            self.file.close()
            self.file = None


def setup_logger(output: str | None = None) -> None:
    """Send a copy of `sys.stdout` to `output` (a .txt or .log file, or a folder, which gets log.txt).

    A log that is already there is kept; the new one then carries the time in its name. From here on this package also
    prints its messages.
    """
    show_messages()
    if not output:
        return
    fpath = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    if os.path.exists(fpath):
        fpath += time.strftime("-%Y-%m-%d-%H-%M-%S")
    console = sys.stdout
    if isinstance(console, Logger):  # set up before: replace its file rather than stack loggers
        console.close()
        console = console.console
    sys.stdout = Logger(fpath, console)
