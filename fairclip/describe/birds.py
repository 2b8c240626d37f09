"""Write cub200.json and birdsnap.json anew from birds.json.

    fair describe birds

CUB-200 and Birdsnap have most kinds of birds in common: descriptions/birds.json describes each kind once, for both.
"""

import argparse
import json
from functools import cache

from fairclip.core.errors import UserError, few
from fairclip.core.files import atomic
from fairclip.core.log import log
from fairclip.data.classes import class_list
from fairclip.text.descriptions import DESCRIPTIONS, match_names, read_table

SOURCE = DESCRIPTIONS / "birds.json"


@cache
def build() -> dict[str, dict[str, list[str]]]:
    """The descriptions of `cub200` and `birdsnap`, made of birds.json.

    Raises:
        UserError: birds.json lacks a class.
    """
    source = read_table(SOURCE)
    made = {}
    for dataset in ("cub200", "birdsnap"):
        names = [name for name, _ in class_list(dataset)]
        keys = match_names(names, source)
        if lacking := [name for name in names if name not in keys]:
            raise UserError(f"{SOURCE} has no entry for {few(lacking, 10)} of {dataset}")
        made[dataset] = {name: source[keys[name]] for name in names}
    return made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def main(args: argparse.Namespace) -> None:
    """Write cub200.json and birdsnap.json."""
    for dataset, table in build().items():
        with atomic(DESCRIPTIONS / f"{dataset}.json") as path:
            path.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        log.info(f"{dataset}.json: {len(table)} classes from {SOURCE.name}")
