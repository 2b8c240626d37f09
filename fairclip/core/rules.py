"""What the values of a file may be: rules by key, and what is said where a value breaks one."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fairclip.core.errors import few, require


class Rule(NamedTuple):
    """Of one key: what a value has to be, as a test and in words, and whether the key may be missing."""

    test: Callable[[Any], bool]
    words: str
    optional: bool = False


def check(
    values: Mapping[str, Any],
    rules: Mapping[str, Rule],
    file: str | Path,
    prefix: str = "",
    closed: bool = False,
    advice: str = "",
) -> None:
    """Raises UserError for a key that is missing, and for a value that cannot be.

    Args: prefix, of the keys in messages; closed, keys without a rule are refused too; advice, a sentence that the
        messages end with.
    """
    behind = f". {advice}" if advice else ""
    unknown = sorted(str(key) for key in values.keys() - rules.keys()) if closed else []
    require(not unknown, f"{file} has keys that this version does not know: {few([prefix + key for key in unknown])}")
    for key, rule in rules.items():
        if key not in values:
            require(rule.optional, f"{file} lacks {prefix}{key}: {rule.words}{behind}")
            continue
        shown = ascii(values[key])[:60]
        require(rule.test(values[key]), f"{file}: {prefix}{key} is {shown}: it has to be {rule.words}{behind}")


def check_nested(values: Mapping[str, Any], rules: Mapping[str, Rule], file: str | Path) -> None:
    """The same for nested mappings, by rules with dotted keys: "MODEL.BACKBONE.NAME"."""
    for keys, rule in rules.items():
        *nodes, last = keys.split(".")
        node: Any = values
        for name in nodes:
            node = node.get(name)
            node = node if isinstance(node, Mapping) else {}
        check(node, {last: rule}, file, keys.removesuffix(last))


# -- Tests -------------------------------------------------------------------------------------------------------------


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def is_string(value: object) -> bool:
    return isinstance(value, str)


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """A finite one, of a size that means something."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e30 < value < 1e30


def is_amount(value: object) -> bool:
    return is_number(value) and value >= 0  # type: ignore[operator]


def is_flag(value: object) -> bool:
    return isinstance(value, bool)


def is_object(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def are_numbers(value: object, count: int = 0) -> bool:
    """A list of numbers, of this length if it is given."""
    return isinstance(value, list) and all(map(is_number, value)) and len(value) == (count or len(value))


def are_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_text, value))


def are_different_names(value: object) -> bool:
    return are_names(value) and len(set(value)) == len(value)  # type: ignore[arg-type, call-overload]


def is_hash(value: object) -> bool:
    return value is None or (isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None)


def is_percent(value: object) -> bool:
    return is_number(value) and 0 <= value <= 100  # type: ignore[operator]


def are_percents(value: object) -> bool:
    """By name."""
    return is_object(value) and all(map(is_percent, value.values()))  # type: ignore[attr-defined]


def or_null(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or test(value)


def is_source(value: object) -> bool:
    """Which file of descriptions a run had: nothing, or its name and SHA-256."""
    if value is None:
        return True
    return is_object(value) and is_text(value.get("file")) and bool(value.get("sha256")) and is_hash(value["sha256"])  # type: ignore[attr-defined, index]


def are_epochs(value: object) -> bool:
    """Records of epochs: numbers by name, or null where one is not known."""
    if not isinstance(value, list):
        return False
    return all(
        is_object(record) and is_whole(record.get("epoch")) and all(x is None or _figure(x) for x in record.values())
        for record in value
    )


def _figure(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
