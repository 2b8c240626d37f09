"""Reading annotation files: lists of lines, and MATLAB's structs and cells."""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from fairclip.core.errors import UserError


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without the spaces at their ends."""
    try:
        return [line.rstrip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({error})") from None


def read_mat(path: Path, variable: str) -> Any:
    """A variable in a MATLAB file, as an array of one dimension: cells of text as strings, structs as records.

    Raises:
        UserError: it is not a MATLAB file, or has no such variable.
    """
    content, problem = in_a_child(load_variable, path, variable)
    if problem:
        raise UserError(f"{path} {problem}")
    return np.atleast_1d(content)


def load_variable(path: Path, variable: str) -> tuple[Any, str]:
    """The variable, and what is wrong with the file; "": nothing."""
    from scipy.io import loadmat  # imported here: few data sets need it

    try:
        content = loadmat(str(path), squeeze_me=True)
    except Exception as error:  # scipy raises its own kinds, and plain ones from wherever a damaged file leads it
        return None, f"cannot be read as a MATLAB file ({error})"
    return (content[variable], "") if variable in content else (None, f"has no variable {variable}")


def in_a_child(function: Callable[..., tuple[Any, str]], *args: Any) -> tuple[Any, str]:
    """What a function returns, called in a process of its own: scipy's reader can end the one that it is in."""
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else None)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=send_result, args=(sender, function, *args), daemon=True)
    child.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:  # it ended without a word
        return None, "is damaged: reading it ended the process that did"
    finally:
        child.join()


def send_result(sender: Connection, function: Callable[..., tuple[Any, str]], *args: Any) -> None:
    sender.send(function(*args))
    sender.close()


def mat_rows(path: Path, variable: str, *fields: str) -> list[tuple[Any, ...]]:
    """The named fields of every element of a struct array in a MATLAB file, in file order.

    Fields are read by name, because their order differs between releases. Raises UserError for what is missing.
    """
    table = read_mat(path, variable)
    have = table.dtype.names or ()
    if absent := [name for name in fields if name not in have]:
        raise UserError(f"{path}: {variable} has no field {', '.join(absent)}, but {', '.join(have) or 'none'}")
    return [tuple(row[name] for name in fields) for row in table]


def name_of_number(names: Sequence[Any], number: Any, path: Path) -> str:
    """The name with this number, counted from 1 as MATLAB does. `path` is the file to blame in the UserError."""
    if not 1 <= int(number) <= len(names):
        raise UserError(f"{path} has class number {number}; there are classes 1 to {len(names)}")
    return str(names[int(number) - 1])
