"""Messages for people: `log.info` for everybody, `log.debug` for a run's log.txt alone.

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
LOGGERS = (log, logging.getLogger("dassl"))  # the bundled core says little, but it does


class Console(logging.Handler):
    """Prints to what is sys.stdout at that moment, as notebooks and `recorded` replace it. A warning says so."""

    def emit(self, record: logging.LogRecord) -> None:
        print(in_words(record), flush=True)


def in_words(record: logging.LogRecord) -> str:
    prefix = f"{record.levelname.capitalize()}: " if record.levelno >= logging.WARNING else ""
    return prefix + record.getMessage()


def show_messages() -> None:
    """For commands, and for trainers that others build: print messages, unless these loggers have handlers already."""
    for logger in LOGGERS:
        if not logger.handlers:
            logger.addHandler(Console(logging.INFO))
            logger.setLevel(logging.INFO)


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
    """Inside, what is printed also goes into a file, and so does `log.debug`, which nobody else sees."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels, stdout = [logger.level for logger in LOGGERS], sys.stdout
    with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
        details = logging.StreamHandler(file)
        details.addFilter(lambda record: record.levelno < logging.INFO)
        sys.stdout = Tee(stdout, file)
        for logger in LOGGERS:
            logger.addHandler(details)
            logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            sys.stdout = stdout
            for logger, level in zip(LOGGERS, levels, strict=True):
                logger.removeHandler(details)
                logger.setLevel(level)


@contextmanager
def as_details() -> Iterator[None]:
    """Inside, what others print and what the bundled core reports is for log.txt alone, if one is being written."""
    if not log.isEnabledFor(logging.DEBUG):
        yield
        return
    text = io.StringIO()
    try:
        with redirect_stdout(text), _lowered(LOGGERS[1]):
            yield
    finally:
        if text.getvalue():
            log.debug(text.getvalue().rstrip("\n"))


@contextmanager
def _lowered(logger: logging.Logger) -> Iterator[None]:
    def lower(record: logging.LogRecord) -> bool:
        record.levelno = min(record.levelno, logging.DEBUG)
        return True

    logger.addFilter(lower)
    try:
        yield
    finally:
        logger.removeFilter(lower)
