"""The benchmark data sets that there are, and what people call them."""

import argparse
import difflib
import os

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.core.errors import UserError
from fairclip.core.places import DATA
from fairclip.core.plugins import import_plugins
from fairclip.data.benchmark import Benchmark
from fairclip.text.descriptions import letters


def benchmarks() -> dict[str, type[Benchmark]]:
    """The benchmark data sets, by the name that one types: that of their file in datasets/, in its order."""
    modules, _ = import_plugins("datasets")
    files = {module.__name__ for module in modules}
    registered = [DATASET_REGISTRY.get(name) for name in DATASET_REGISTRY.registered_names()]
    found = [cls for cls in registered if issubclass(cls, Benchmark) and cls.__module__ in files]
    return {cls.__module__.rpartition(".")[2]: cls for cls in sorted(found, key=lambda cls: cls.__module__)}


def find(name: str, known: dict[str, type[Benchmark]]) -> str:
    """The key of `known` that `name` means: that key, the registry's name or the folder's, in any case and punctuation.

    Raises:
        UserError: there is none.
    """
    table = {letters(text): own for own, cls in known.items() for text in (own, cls.__name__, cls.dataset_dir)}
    if letters(name) in table:
        return table[letters(name)]
    close = difflib.get_close_matches(letters(name), table, n=1)
    hint = f", did you mean {table[close[0]]}?" if close else "."
    raise UserError(f"there is no data set '{name}'{hint} Known: {', '.join(known)}.")


def add_root(parser: argparse.ArgumentParser) -> None:
    """The argument --root, the same for every command about data."""
    parser.add_argument(
        "--root",
        default=os.environ.get("DATA") or str(DATA),
        help="the folder that holds the data sets (default: $DATA if set; now %(default)s)",
    )
