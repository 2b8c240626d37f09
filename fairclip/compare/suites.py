"""Suites: data sets that are compared together under one name (configs/suites.yaml)."""

from collections.abc import Iterable

import yaml

from fairclip.core.places import CONFIGS


def read_suites() -> dict[str, list[str]]:
    """Name -> data sets."""
    return yaml.safe_load((CONFIGS / "suites.yaml").read_text(encoding="utf-8"))


def expand(names: Iterable[str]) -> list[str]:
    """The names with suites replaced by their data sets, each once: a, fine13/tiny -> a, synth_cars_s6/tiny, …"""
    suites, found = read_suites(), []
    for name in names:
        suite, slash, config = name.partition("/")
        found += [f"{bed}{slash}{config}" for bed in suites[suite]] if suite in suites else [name]
    return list(dict.fromkeys(found))
