"""Progress bars, for all that takes a while: on a terminal alone. A file gets lines, by ``fairclip.core.log``."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bar(items: Iterable[T] | None, title: str, unit: str = "it", shown: bool = True, **options: object) -> "tqdm[T]":
    """The items with a bar beside them, or a bar to update, where ``items`` is None.

    Args:
        unit: what an item is.
        shown: False for none at all, also on a terminal.
        options: further ones of tqdm, such as ``total``.
    """
    return tqdm(items, desc=title, unit=unit, leave=False, disable=None if shown else True, **options)
