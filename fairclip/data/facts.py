"""What a file of datasets/ says of its data set: names of folders, counts, sources, and how its files are arranged."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from fairclip.core.errors import UserError
from fairclip.core.invocation import fair_command
from fairclip.data.classes import class_list, folders_of_classes
from fairclip.data.copies import Copy
from fairclip.data.sources import Source

ELSEWHERE = (
    "If the data is elsewhere, name the parent of {name}/: DATA=/path for the scripts, --root /path for fair, train.py."
)


class Facts:
    """The facts of one data set. A subclass sets the attributes and writes the class methods.

    A *key* is the path of an image as a split file has it. A *source name* is what the official annotations or folders
    call a class.
    """

    dataset_dir = ""  # CoOp's folder below DATASET.ROOT; names the class list, too
    other_names: Sequence[str] = ()  # other names of that folder, and of folders that archives unpack to
    vague_names: Sequence[str] = ()  # of these, those that other data has, too: there the names of the images decide
    image_name = (
        ""  # a regular expression for the names of its images, without regard to case; "": they may be anything
    )
    split_file = ""  # name of the split file called zhou; "" for none
    drive_id = ""  # of that file on Google Drive; "": it is always made by the rule
    rule = ""  # how CoOp made it: "trainval" (val from the official train) or "all" (all images dealt out anew)
    counts: Mapping[str, tuple[int, int, int] | int] = {}  # "zhou", "official" -> train, val, test images, or their sum
    sources: Sequence[Source] = ()  # downloads, the images last; none: no program can get it
    how_to_get = (
        ""  # the expected tree, where to get it, other layouts that are read; {folder} and {fair} are filled in
    )

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        """The copies that `folder` holds in layouts other than train/test trees (those are found without this)."""
        return []

    @classmethod
    def official(cls, copy: Copy) -> dict[str, list[tuple[str, str]]]:
        """The official split: train (and val) and test -> (key, source name of the class).

        Raises UserError for missing annotation files (as `copy.note` does), naming them and where to get them.
        """
        raise UserError(f"{cls.__name__} has no official split")

    @classmethod
    def all_images(cls, copy: Copy) -> list[tuple[str, str]]:
        """(key, source name of the class) of all images, for the rule "all". As it stands: class/file keys."""
        return [(key, os.path.dirname(key)) for key in copy.files]

    @classmethod
    def tree_key(cls, part: str, source: str) -> str:
        """How the keys of the images in a train/test tree start, given the part and the class's source name."""
        return f"{source}/"

    @classmethod
    def tree_folders(cls, parts: Mapping[str, Path]) -> list[tuple[str, Path, int]]:
        """(part, folder, label) of the class folders in a train/test tree, whose parts are these folders."""
        return folders_of_classes(parts, class_list(cls.dataset_dir))

    @classmethod
    def looks_like(cls, copy: Copy) -> bool:
        """Whether an image of the copy is called as the images of this data set are."""
        names = (key.rpartition("/")[2] for key in copy.files)
        return not cls.image_name or any(re.fullmatch(cls.image_name, name, re.IGNORECASE) for name in names)

    @classmethod
    def help(cls, root: Path) -> str:
        """What belongs below `root`, and how to get it."""
        text = cls.how_to_get.strip().format(folder=root / cls.dataset_dir, fair=fair_command())
        return f"{text}\n{ELSEWHERE.format(name=cls.dataset_dir)}"

    @classmethod
    def advice(cls, root: Path) -> str:
        """The command that says all of this, for messages."""
        doctor = f"{fair_command()} data doctor {cls.dataset_dir} --root {shlex.quote(str(root))}"
        return f"{doctor}    says what is expected where, and how to get it.\n{ELSEWHERE.format(name=cls.dataset_dir)}"
