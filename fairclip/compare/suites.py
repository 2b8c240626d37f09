"""Suites: data sets that are compared together under one name (configs/suites.yaml)."""

from collections.abc import Iterable
from pathlib import Path

from fairclip.core import rules
from fairclip.core.errors import UserError
from fairclip.core.places import CONFIGS
from fairclip.core.reading import read_yaml

FILE = CONFIGS / "suites.yaml"


def read_suites(file: Path = FILE) -> dict[str, list[str]]:
    """Name -> data sets.

    Raises:
        UserError: the file is damaged.
    """
    suites = read_yaml(file, "a file of suites, NAME: [data set, ...]")
    if wrong := [str(name) for name, sets in suites.items() if not (rules.is_text(name) and rules.are_names(sets))]:
        raise UserError(f"{file}: suite {wrong[0]} has to be a name and a list of data sets")
    return suites


def expand(names: Iterable[str]) -> list[str]:
    """The names with suites replaced by their data sets, each once: fine13/tiny -> synth_cars_s5_backlight/tiny, …"""
    suites, found = read_suites(), []
    for name in names:
        suite, slash, config = name.partition("/")
        found += [f"{bed}{slash}{config}" for bed in suites[suite]] if suite in suites else [name]
    return list(dict.fromkeys(found))
