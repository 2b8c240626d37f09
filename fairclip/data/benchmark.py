"""A benchmark data set: from whatever copy is on disk to labelled images.

A file of datasets/ states the facts and how images and annotations are arranged (`facts.Facts`); `datasets/food101.py`
is a short example. This module puts the steps together: which copy counts (`locate`), which split (`choose_split`), and
whether all of it is there (`completeness`).
"""

from pathlib import Path

from yacs.config import CfgNode

from fairclip.core.errors import UserError
from fairclip.data.choose_split import Found, check_split_name, choose_split
from fairclip.data.completeness import compare_counts, find_images
from fairclip.data.copies import Copy
from fairclip.data.facts import Facts
from fairclip.data.labelled import LabelledDataset, drop_corrupt
from fairclip.data.locate import locate
from fairclip.data.messages import tell_once, warn_once
from fairclip.data.settings import data_root
from fairclip.data.splits import PARTS


class Benchmark(Facts, LabelledDataset):
    """A data set that people have in several layouts.

    Args:
        cfg: the whole Dassl config.

    Raises:
        UserError: no copy or more than one, no split to be had, most images missing, images that cannot be decoded;
            with DATASET.STRICT any difference from the full data set.
    """

    def __init__(self, cfg: CfgNode) -> None:
        name = type(self).__name__
        option = cfg.DATASET.get
        found = self.read(data_root(cfg), option("SPLIT", ""), option("DOWNLOAD", True))
        sizes = ", ".join(f"{len(found.items[part]):,} {part}" for part in PARTS)
        place = f"{found.copy.layout} in {found.copy.home}"
        tell_once(f"{name}: {place}, split: {found.source}, {len(found.names)} classes, {sizes}")
        if found.warnings and option("STRICT", False):
            raise UserError("\n".join([f"{name} is not as it should be (DATASET.STRICT):", *found.warnings]))
        for warning in found.warnings:
            warn_once(f"{name}: {warning}")
        super().__init__(cfg, drop_corrupt(cfg, name, found.items), found.names)

    @classmethod
    def read(cls, root: Path, split: str = "", download: bool = True, keep: bool = True) -> Found:
        """Find the data set below `root` and read it, without decoding any image.

        Args:
            root: the folder that holds the data sets.
            split: as DATASET.SPLIT.
            download: whether CoOp's split file may be fetched.
            keep: whether a split that had to be made is written to a file.

        Returns:
            What was found; `items` holds (path, label).

        Raises:
            UserError: as the class does.
        """
        copy = cls.locate(root)
        check_split_name(cls, copy, split)
        try:
            found = choose_split(cls, copy, split, download, keep)
        except UserError as error:
            raise UserError(f"{cls.__name__} in {copy.home}: {error}\n{cls.advice(root)}") from None
        found.warnings += compare_counts(cls, found)
        find_images(cls, found, cls.advice(root))
        return found

    @classmethod
    def locate(cls, root: Path) -> Copy:
        """The one copy below `root`. Raises NotThere if there is none, UserError for more than one or a useless one."""
        return locate(cls, root)
