"""The exception whose message is written for the user, and helpers to raise and word it."""

from collections.abc import Sequence


class UserError(ValueError):
    """A mistake that the user can correct: the message says what is wrong, where, and what to do.

    Every command prints the message alone, without a traceback, and exits with status 2.
    """


def few(names: Sequence[str], n: int = 3) -> str:
    """The first `n` names and the number of the others: "a, b, c and 5 more"."""
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def require(condition: object, message: str) -> None:
    """Raise UserError with this message unless the condition holds: how settings are checked."""
    if not condition:
        raise UserError(message)
