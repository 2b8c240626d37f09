"""Class lists of the data sets, and which class a name of a folder or in an annotation file means."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fairclip.core.places import CLASSES
from fairclip.data.folders import folders_in


def class_list(dataset_dir: str) -> list[tuple[str, str]]:
    """(class name, source name) of every class of a data set, in label order.

    The source name is what the official annotations or folders call the class. The lists are the files
    `classes/<dataset_dir>.txt`: a class a line, the source name behind a tab where it differs, comments behind #.
    """
    lines = (CLASSES / f"{dataset_dir}.txt").read_text(encoding="utf-8").splitlines()
    classes = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    return [(names[0], names[-1]) for names in classes]


def squash(name: str) -> str:
    """A name without case and punctuation: "Ram C/V Cargo Van" and "Ram_C-V_Cargo_Van" are alike."""
    return re.sub(r"[\W_]", "", name.lower())


def match_classes(found: Iterable[str], classes: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Which class each found name (of a folder, in an annotation file) means.

    Args:
        found: the names.
        classes: (class name, source name) in label order, as `class_list` gives them.

    Returns:
        name -> label, for the names that match: exactly, else without case and punctuation, else also without a number
        in front ("001.Black_footed_Albatross", "000_AM_General_Hummer_SUV_2000").
    """
    exact: dict[str, int] = {}
    loose: dict[str, set[int]] = {}
    for label, names in enumerate(classes):
        for name in names:
            exact.setdefault(name, label)
            loose.setdefault(squash(name), set()).add(label)
    matched = {}
    for name in found:
        bare = re.sub(r"^\d{1,3}[._]", "", name)
        if name in exact:
            matched[name] = exact[name]
        else:
            for key in (squash(name), squash(bare)):
                if len(loose.get(key, ())) == 1:
                    (matched[name],) = loose[key]
                    break
    return matched


def class_folders(folder: Path, classes: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Folder name -> label of the class folders in `folder`; {} unless most of its folders are classes."""
    names = [inner.name for inner in folders_in(folder)]
    matched = match_classes(names, classes)
    return matched if len(matched) > len(names) / 2 else {}
