"""Messages about data, each of them once: a trainer may build its data set twice."""

import logging
from functools import cache

from fairclip.core.log import log


@cache
def tell_once(message: str, level: int = logging.INFO) -> None:
    """Log a message, unless it has been logged before."""
    log.log(level, message)


def warn_once(message: str) -> None:
    """Log a warning, unless it has been logged before."""
    tell_once(message, logging.WARNING)
