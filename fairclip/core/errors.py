"""The exception whose message is written for the user, and helpers to raise and word it."""

import sys
from collections.abc import Callable, Sequence
from types import TracebackType


class UserError(ValueError):
    """A mistake that the user can correct: the message says what is wrong, where, and what to do.

    Every command prints the message alone, without a traceback, and exits with status 2. So do programs of others
    that build our trainers (see ``OneMessage``).
    """


class OneMessage:
    """A ``sys.excepthook`` that ends the program as our commands end, where a UserError comes to it.

    All other exceptions go to the hook that was there before. If one was raised in the place of a UserError, the
    message follows it. At Python's prompt, which would be closed, nothing changes.
    """

    def __init__(self, before: Callable[[type[BaseException], BaseException, TracebackType | None], object]) -> None:
        self.before = before

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        mistake: BaseException | None = error
        while mistake and not isinstance(mistake, UserError):
            mistake = mistake.__cause__ or mistake.__context__
        prompt = hasattr(sys, "ps1")
        if mistake is not error or prompt:
            self.before(kind, error, trace)
        if mistake and not prompt:
            print(f"Error: {mistake}", file=sys.stderr)
            raise SystemExit(2)

    @classmethod
    def install(cls) -> None:
        """For trainers: the train.py of a CoOp checkout does not know UserError. A second call changes nothing."""
        if not isinstance(sys.excepthook, cls):
            sys.excepthook = cls(sys.excepthook)


def in_one_line(error: BaseException) -> str | None:
    """What to say of an exception in the place of a traceback: of a UserError, and of what the machine refuses, such as
    a full disk. None for all others: they are mistakes of a program, whose place matters."""
    text = str(error)
    if isinstance(error, UserError):
        return text
    if text.startswith("Caught "):  # in a worker of a loader; its traceback follows, and what it raised
        text = text.strip().splitlines()[-1]
    if isinstance(error, OSError):
        place = f": {error.filename}" if error.filename is not None else ""
        return f"{error.strerror}{place}" if error.strerror else text
    if not isinstance(error, RuntimeError):
        return None
    if "PytorchStreamWriter" in text or "inline_container" in text:  # how torch.save reports a full disk
        return f"a file could not be written, perhaps as the disk is full ({text.splitlines()[0]})"
    if text.startswith("DataLoader worker (pid"):
        return f"a process that reads images has ended ({text.splitlines()[0]}): set DATALOADER.NUM_WORKERS lower"
    if text.startswith("Could not determine home directory"):
        return "a path begins with ~ and a name that no user here has"
    return None


def few(names: Sequence[str], n: int = 3) -> str:
    """The first `n` names and the number of the others: "a, b, c and 5 more"."""
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def require(condition: object, message: str) -> None:
    """Raise UserError with this message unless the condition holds: how settings are checked."""
    if not condition:
        raise UserError(message)
