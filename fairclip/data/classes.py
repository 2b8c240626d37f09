"""Class lists of the data sets, and which class a name of a folder or in an annotation file means."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fairclip.core.places import CLASSES
from fairclip.data.folders import folders_in
from fairclip.text.descriptions import bare_letters, letters

NUMBERED = re.compile(r"^(\d{1,3})[._]")


def number_in_front(name: str) -> str:
    """ "141" of "141.Artic_Tern", "1" of "001"; "" where there is none."""
    found = NUMBERED.match(name) or re.fullmatch(r"(\d{1,3})", name)
    return str(int(found[1])) if found else ""


FORMS = (letters, bare_letters, number_in_front)


def class_list(dataset_dir: str) -> list[tuple[str, str]]:
    """(class name, source name) of every class of a data set, in label order.

    The source name is what the official annotations or folders call the class. The lists are the files
    `classes/<dataset_dir>.txt`: a class a line, the source name behind a tab where it differs, comments behind #.
    """
    lines = (CLASSES / f"{dataset_dir}.txt").read_text(encoding="utf-8").splitlines()
    classes = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    return [(names[0], names[-1]) for names in classes]


def match_classes(found: Iterable[str], classes: Sequence[tuple[str, str]], by_number: bool = True) -> dict[str, int]:
    """Which class each found name (of a folder, in an annotation file) means.

    Args:
        found: the names.
        classes: (class name, source name) in label order, as `class_list` gives them.
        by_number: whether numbers in front say which class it is, as those of a data set with official numbers do.

    Returns:
        name -> label, for the names that match: exactly, else in one Unicode form without case and punctuation, else
        also without a number in front ("001.Black_footed_Albatross", "000_AM_General_Hummer_SUV_2000"), else also
        without accents, else by that number, if the class has it in front ("141.Arctic_Tern" for
        "141.Artic_Tern"), or is one ("001" for "1"). A match that is not unique is none.
    """
    exact: dict[str, int] = {}
    forms = FORMS if by_number else FORMS[:-1]
    tables: list[dict[str, set[int]]] = [{} for _ in forms]
    for label, names in enumerate(classes):
        for name in names:
            exact.setdefault(name, label)
            for form, table in zip(forms, tables, strict=True):
                table.setdefault(form(name), set()).add(label)
    matched = {}
    for name in found:
        bare = NUMBERED.sub("", name)
        if name in exact:
            matched[name] = exact[name]
            continue
        for form, table in zip(forms, tables, strict=True):
            keys = [form(name)] if form is number_in_front else [form(name), form(bare)]
            labels = next((table[key] for key in keys if key and len(table.get(key, ())) == 1), None)
            if labels:
                (matched[name],) = labels
                break
    return matched


def class_folders(folder: Path, classes: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Folder name -> label of the class folders in `folder`; {} unless most of its folders are classes."""
    names = [inner.name for inner in folders_in(folder)]
    matched = match_classes(names, classes)
    return matched if len(matched) > len(names) / 2 else {}


def folders_of_classes(parts: Mapping[str, Path], classes: Sequence[tuple[str, str]]) -> list[tuple[str, Path, int]]:
    """(part, folder, label) of the class folders in the folders of several parts, as `class_folders` finds them."""
    return [
        (part, place / name, label)
        for part, place in parts.items()
        for name, label in class_folders(place, classes).items()
    ]
