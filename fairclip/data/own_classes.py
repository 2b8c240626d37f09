"""The classes of a person's own images: from classes.txt, or from the names of the folders."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fairclip.core.errors import UserError
from fairclip.core.image_files import one_form, printable
from fairclip.data.annotations import read_lines

CLASSES = "classes.txt"
Classes = list[tuple[str, str]]  # (class name, folder name) in label order


def listed_classes(file: Path) -> Classes:
    """The classes of classes.txt. A comment is a line of # and a space, or # alone: "#1 pony" is a class.

    Raises:
        UserError: no class, or one that is there twice.
    """
    lines = [line.strip().split("\t") for line in read_lines(file) if not re.match(r"\s*#(\s|$)", line)]
    classes = [(one_form(line[0].strip()), line[-1].strip()) for line in lines]
    if not classes:
        raise UserError(f"{file} names no class")
    check_once(classes, file)
    return classes


def named_classes(folders: Sequence[str], place: Path) -> Classes:
    """Classes that are called like their folders, in natural order. Raises UserError for a name that is there twice."""
    names = sorted(folders, key=natural)
    classes = list(zip(map(readable, without_numbers(names)), names, strict=True))
    check_once(classes, place)
    return classes


def readable(name: str) -> str:
    """A folder's name as a class name: spaces for underscores, accents in one form, what is not UTF-8 escaped."""
    return one_form(printable(name).replace("_", " ")).strip() or printable(name)


def without_numbers(names: Sequence[str]) -> list[str]:
    """Names without the numbers that number them: "Black_footed_Albatross" for "001.Black_footed_Albatross".

    Only where every name has one, all different, that are filled up with zeros or run from 0 or 1 without a gap, and
    the rest of each name is different: "2_door" and "4_door" stay.
    """
    parts = [re.fullmatch(r"(\d+)[._ -]+(?=\D)(.+)", name) for name in names]
    found = [part.groups() for part in parts if part]
    numbers, rest = [number for number, _ in found], [name for _, name in found]
    if not found or len(found) < len(names) or len(set(map(readable, rest))) < len(names):
        return list(names)
    values = sorted(map(int, numbers))
    filled = len(set(map(len, numbers))) == 1 and any(number.startswith("0") and len(number) > 1 for number in numbers)
    counted = values in (list(range(len(values))), list(range(1, len(values) + 1)))
    return rest if len(set(values)) == len(values) and (filled or counted) else list(names)


def check_once(classes: Classes, source: Path) -> None:
    """Raises UserError for a class or a folder that is there twice, whatever its Unicode form."""
    for kind, values in zip(("class", "folder"), zip(*classes, strict=True), strict=True):
        if twice := [value for value, count in Counter(map(one_form, values)).items() if count > 1]:
            raise UserError(f"{source}: the {kind} '{printable(twice[0])}' is there twice")


def natural(name: str) -> tuple[list[int | str], str]:
    """To sort by: 2 before 10, a before B."""
    pieces = re.split(r"([0-9]+)", one_form(name).casefold())
    return [(int(piece) if i % 2 else piece) for i, piece in enumerate(pieces)], name
