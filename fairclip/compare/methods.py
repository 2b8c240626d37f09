"""The methods that are compared: the rows of configs/methods.txt, or of another table in its form."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairclip.core.errors import UserError, require
from fairclip.core.places import CONFIGS
from fairclip.core.reading import read_text

USUAL = CONFIGS / "methods.txt"
RUNS = ("zero-shot", "once", "seeds")
# What `fair run` runs for a method that is not measured alone, in this order.
BESIDE = {
    "fair": ("zsclip", "cupl", "plain", "plain_aligned", "fair"),
    "zsclip": ("zsclip", "zsclip2", "cupl"),
}


@dataclass(frozen=True)
class Method:
    """A row of the tables: a line of methods.txt, or a trainer that is not there."""

    key: str  # its name on the command line
    trainer: str
    variant: str  # follows the config in the folder's name, after "_"
    once: bool  # the result does not depend on the seed
    name: str  # in the tables
    zero_shot: bool = False  # nothing is fitted: what gains are measured from
    options: tuple[str, ...] = ()  # KEY, VALUE, KEY, VALUE, ...


def find_table(name: str = "") -> Path:
    """The file of a table: "ablation" of configs/, or a path. "": what METHODS_FILE says, or the usual one.

    Raises:
        UserError: there is no such file.
    """
    name = name or os.environ.get("METHODS_FILE") or USUAL.stem
    places = [CONFIGS / f"{name}.txt", Path(name).expanduser()]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        known = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.txt")))
        raise UserError(f"there is no table of methods '{name}'. It is one of {known}, or a file in their form")
    return found


def read_methods(path: Path | None = None) -> list[Method]:
    """The methods of a table, in its order; without a path, of the one that `find_table` finds.

    Raises:
        UserError: a line that does not have the form that the head of methods.txt explains.
    """
    path = path or find_table()
    methods: list[Method] = []
    for number, line in enumerate(read_text(path, "a table of methods").splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            try:
                methods.append(_method(line))
            except UserError as error:
                raise UserError(f"{path}, line {number}: {error}") from None
    return methods


def _method(line: str) -> Method:
    fields = [text.strip() for text in line.split("|")]
    require(len(fields) in (5, 6), f"a row has 5 or 6 columns, this one {len(fields)}")
    key, trainer, variant, runs, name, *rest = fields
    # They become names of folders.
    for text in (key, trainer, variant or "x"):
        require(re.fullmatch(r"\w[\w.-]*", text, re.ASCII), f"'{text}' is no name: use letters, digits, dots, dashes")
    require(runs in RUNS, f"'{runs}' must be one of {', '.join(RUNS)}")
    options = tuple(" ".join(rest).split())
    require(len(options) % 2 == 0, f"the config keys come in pairs, KEY VALUE. Got: {' '.join(options)}")
    return Method(key, trainer, variant, runs != "seeds", name, runs == "zero-shot", options)


def variants() -> list[str]:
    """What the usual table appends to the config in the folders of some methods' runs."""
    return [method.variant for method in read_methods(USUAL) if method.variant]


def find_method(key: str, known: Sequence[Method]) -> Method:
    """Raises UserError, with the names to choose from, for one that is not there."""
    found = next((method for method in known if method.key == key), None)
    if found is None:
        raise UserError(f"Unknown method '{key}'. Choose from: {' '.join(method.key for method in known)}")
    return found


def rows_beside(method: Method, known: Sequence[Method]) -> list[Method]:
    """The method and what it is run beside, as far as the table has it."""
    rows = {row.key: row for row in known}
    return [rows[key] for key in BESIDE.get(method.key, (method.key,)) if key in rows]


def of_trainer(trainer: str, known: Sequence[Method]) -> Method:
    """A trainer by itself, whether it stands in the table or not."""
    plain = next((m for m in known if m.trainer == trainer and not m.variant), None)
    return plain or Method(trainer, trainer, "", any(m.once for m in known if m.trainer == trainer), trainer)
