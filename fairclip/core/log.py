"""Messages for people: `log.info` for everybody, `details.info` for a run's log.txt alone.

Nothing is shown where a program that imports this package has not asked for it. One that gives the logger "fairclip" a
handler of its own gets the messages there alone; `logging.getLogger("fairclip").setLevel(logging.WARNING)` silences it.
"""

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO

log = logging.getLogger("fairclip")
core = logging.getLogger("dassl")  # of the bundled Dassl
details = logging.getLogger("fairclip.details")
details.propagate = False
details.setLevel(logging.DEBUG)


class Console(logging.Handler):
    """Prints to what is sys.stdout at that moment, which notebooks replace. A warning says that it is one."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stdout
        while isinstance(stream, (Tee, Captured)):  # the file has a handler of its own
            stream = stream.stream
        print(in_words(record), file=stream, flush=True)


class InFile(logging.StreamHandler):
    """Writes messages to a file, worded as ``Console`` does."""

    def format(self, record: logging.LogRecord) -> str:
        return in_words(record)


def in_words(record: logging.LogRecord) -> str:
    prefix = f"{record.levelname.capitalize()}: " if record.levelno >= logging.WARNING else ""
    return prefix + record.getMessage()


def show_messages() -> None:
    """For commands, and for trainers that others build: print messages, unless these loggers have handlers already."""
    for logger in (log, core):
        if not logger.handlers:
            logger.addHandler(Console())
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)


class Captured(io.StringIO):
    """What others print, kept; ``stream`` is where messages go meanwhile."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream


class Tee:
    """A stream whose text goes into a file too."""

    def __init__(self, stream: TextIO, file: TextIO) -> None:
        self.stream, self.file = stream, file

    def write(self, text: str) -> int:
        self.file.write(text)
        return self.stream.write(text)

    def flush(self) -> None:
        self.file.flush()
        self.stream.flush()

    def __getattr__(self, name: str) -> object:  # isatty, encoding, fileno, ...
        return getattr(self.stream, name)


@contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Inside, messages, details and what is printed go into a file, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stdout = sys.stdout
    with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
        handler = InFile(file)
        sys.stdout = Tee(stdout, file)
        for logger in (log, core, details):
            logger.addHandler(handler)
        try:
            yield
        finally:
            sys.stdout = stdout
            for logger in (log, core, details):
                logger.removeHandler(handler)


@contextmanager
def as_details() -> Iterator[None]:
    """Inside, what others print and what the bundled core reports is for log.txt alone, if one is being written."""
    if not details.handlers:
        yield
        return
    text = Captured(sys.stdout)
    try:
        with redirect_stdout(text), core_as_details():
            yield
    finally:
        if text.getvalue():
            details.info(text.getvalue().rstrip("\n"))


@contextmanager
def core_as_details() -> Iterator[None]:
    """Inside, what the bundled core reports is a detail. Our trainers say themselves what they have."""

    def move(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            details.handle(record)
            return False
        return True

    core.addFilter(move)
    try:
        yield
    finally:
        core.removeFilter(move)
