"""Reading files that may be damaged. Whatever is wrong with one is one UserError: which file, what, what to do."""

import json
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import yaml

from fairclip.core.errors import UserError

LARGEST = 2**26  # bytes of a file of settings or results: far more than any of ours has
DEEPEST = 100  # levels of a YAML file
MOST = 10**6  # values that one may have once its aliases are written out
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast


@contextmanager
def reading(path: str | Path, what: str, advice: str = "") -> Iterator[None]:
    """Inside, every error is a UserError that names the file, says what is wrong with it, and ends with the advice.

    Args: what, such as "the config of a run"; advice, whole sentences.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # libraries have many ways to say that a file is damaged
        raise UserError(f"{path} cannot be read as {what}: {in_a_line(error)}{_behind(advice)}") from error


def in_a_line(error: BaseException) -> str:
    """What an exception says, in one line of 300 characters at most, and its kind where that helps."""
    if isinstance(inner := getattr(error, "reason", None), BaseException):  # of urllib
        return in_a_line(inner)
    if isinstance(error, URLError) and isinstance(inner, str):
        return printable(inner)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeEncodeError):
        return "it has halves of characters (surrogates)"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not {error.encoding.upper()}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    text = " ".join(str(error).split())
    if isinstance(error, KeyError) or not text:
        text = f"{type(error).__name__} {text}".strip()
    return printable(text)


def printable(text: str, most: int = 300) -> str:
    """The text in one line of so many characters, in which whatever could steer a terminal is escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:most])[:most]


def read_text(path: str | Path, what: str, advice: str = "", largest: int = LARGEST) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        UserError: no plain file, one that is larger than ``largest`` bytes, or another encoding.
    """
    with reading(path, what, advice):
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise ValueError("it is no file")
        if status.st_size > largest:
            raise ValueError(f"it has {status.st_size:,} bytes, more than {largest:,}")
        return Path(path).read_bytes().decode("utf-8-sig")


def read_json(path: str | Path, what: str, advice: str = "") -> dict[str, Any]:
    """The JSON object in a file, strictly: no key twice, no NaN or Infinity.

    Raises:
        UserError: anything else.
    """
    return _read_mapping(path, what, advice, parse_json, "it is not a JSON object")


def parse_json(text: str, objects: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Strict JSON; ``objects``: what makes an object of its pairs, by default a dictionary that has each key once.

    Raises:
        ValueError, RecursionError: it is not valid, has a key twice, NaN, or halves of characters ("\\ud800").
    """
    try:
        content = json.loads(text, object_pairs_hook=objects or each_once, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON, {error}") from error
    if "\\ud" in text.lower():  # pairs of these are one character, and a single one cannot be written anywhere
        json.dumps(content, ensure_ascii=False).encode()
    return content


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dictionary, which would keep the last of two equal keys. Raises ValueError for these."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return content


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number in JSON")


def read_yaml(path: str | Path, what: str, advice: str = "") -> dict[str, Any]:
    """The mapping in a YAML file: no key twice, and no more of anything than a file of settings needs.

    Raises:
        UserError: anything else.
    """
    return _read_mapping(path, what, advice, parse_yaml, "it holds no settings, KEY: VALUE")


def _read_mapping(
    path: str | Path, what: str, advice: str, parse: Callable[[str], Any], otherwise: str
) -> dict[str, Any]:
    """Args: otherwise, what is said of a file that holds something else."""
    text = read_text(path, what, advice)
    with reading(path, what, advice):
        content = parse(text)
        if not isinstance(content, dict):
            raise ValueError(otherwise)
        return content


def parse_yaml(text: str) -> Any:
    """YAML of plain data. Raises ValueError or yaml.YAMLError, also for what would take all memory or never end."""
    check_yaml(text)
    return yaml.load(text, LOADER)


class Open(NamedTuple):
    """A collection that has begun: its anchor, and the keys it has so far (None: a list)."""

    anchor: str | None
    keys: set[str] | None


def check_yaml(text: str) -> None:
    """Raises ValueError for a key that is there twice, nesting without end, and aliases that contain themselves or
    stand for more than ``MOST`` values."""
    stack: list[Open] = []
    sizes: list[int] = [0]  # of the open collections, the whole document first
    children: list[int] = [0]
    known: dict[str, int] = {}  # anchor -> values
    for event in yaml.parse(text, LOADER):
        anchor, size = getattr(event, "anchor", None), 1
        if isinstance(event, yaml.CollectionStartEvent):
            if len(stack) == DEEPEST:
                raise ValueError("it is nested too deeply")
            stack.append(Open(anchor, set() if isinstance(event, yaml.MappingStartEvent) else None))
            sizes.append(1)
            children.append(0)
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = stack.pop().anchor, sizes.pop()
            children.pop()
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in known:
                raise ValueError(f"the alias *{anchor} stands for nothing, or for what it is in")
            size, anchor = known[anchor], None
        elif not isinstance(event, yaml.ScalarEvent):
            continue
        keys = stack[-1].keys if stack else None
        if keys is not None and children[-1] % 2 == 0 and isinstance(event, yaml.ScalarEvent):
            if event.value in keys:
                raise ValueError(f"the key {event.value!r} is there twice")
            keys.add(event.value)
        if anchor:
            known[anchor] = size
        sizes[-1] += size
        children[-1] += 1
        if sizes[-1] > MOST:
            raise ValueError(f"it stands for more than {MOST:,} values")


def _behind(advice: str) -> str:
    return f". {advice}" if advice else ""
