"""What a data set is: lists of `Datum`, one list a split."""

from __future__ import annotations

import errno
import logging
import os
import random
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Sequence

from ...utils import mkdir_if_missing

log = logging.getLogger("dassl")


class Datum:
    """One image: its path, class label, domain label and class name.

    Raises:
        FileNotFoundError: `impath` is not a file.
    """

    # CoOp pickles these objects: the attribute names and this module's path are part of the interface.
    def __init__(self, impath: str = "", label: int = 0, domain: int = 0, classname: str = "") -> None:
        if not isinstance(impath, str):
            raise TypeError(f"impath must be a string, got {type(impath).__name__}")
        if not os.path.isfile(impath):
            raise FileNotFoundError(errno.ENOENT, "An image of the data set is missing (check DATASET.ROOT)", impath)
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    @property
    def impath(self) -> str:
        return self._impath

    @property
    def label(self) -> int:
        return self._label

    @property
    def domain(self) -> int:
        return self._domain

    @property
    def classname(self) -> str:
        return self._classname


class DatasetBase:
    """Base class of data sets: a subclass reads its files and hands the splits to `super().__init__`.

    Args:
        train_x: labelled training images; they define the classes, labels 0 to K - 1.
        train_u: unlabelled training images (optional).
        val: validation images (optional).
        test: test images.

    Raises:
        ValueError: no training image, or a class without any.
    """

    dataset_dir = ""  # folder below DATASET.ROOT
    domains: Sequence[str] = ()  # names of all domains, for data sets that have them

    def __init__(
        self,
        train_x: list[Datum] | None = None,
        train_u: list[Datum] | None = None,
        val: list[Datum] | None = None,
        test: list[Datum] | None = None,
    ) -> None:
        if not train_x:
            raise ValueError(f"{type(self).__name__} has no training images (train_x is empty)")
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self._num_classes = self.get_num_classes(train_x)
        self._lab2cname, self._classnames = self.get_lab2cname(train_x)
        # The position in classnames is the label everywhere, so a gap would silently shift all later names.
        if missing := sorted(set(range(self._num_classes)) - set(self._lab2cname)):
            raise ValueError(
                f"{type(self).__name__}: labels must run from 0 to {self._num_classes - 1}, "
                f"but no training image has label {', '.join(map(str, missing[:10]))}"
            )

    @property
    def train_x(self) -> list[Datum]:
        return self._train_x

    @property
    def train_u(self) -> list[Datum] | None:
        return self._train_u

    @property
    def val(self) -> list[Datum] | None:
        return self._val

    @property
    def test(self) -> list[Datum] | None:
        return self._test

    @property
    def lab2cname(self) -> dict[int, str]:
        """Class name of each label."""
        return self._lab2cname

    @property
    def classnames(self) -> list[str]:
        """Class names in the order of their labels."""
        return self._classnames

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @staticmethod
    def get_num_classes(data_source: list[Datum]) -> int:
        return max(item.label for item in data_source) + 1

    @staticmethod
    def get_lab2cname(data_source: list[Datum]) -> tuple[dict[int, str], list[str]]:
        """The class name of each label, as a dictionary and as a list in label order."""
        names = {item.label: item.classname for item in data_source}
        mapping = {label: names[label] for label in sorted(names)}
        return mapping, list(mapping.values())

    def check_input_domains(self, source_domains: Sequence[str], target_domains: Sequence[str]) -> None:
        self.is_input_domain_valid(source_domains)
        self.is_input_domain_valid(target_domains)

    def is_input_domain_valid(self, input_domains: Sequence[str]) -> None:
        for domain in input_domains:
            if domain not in self.domains:
                raise ValueError(f"Input domain must belong to {list(self.domains)}, but got [{domain}]")

    def download_data(self, url: str, dst: str, from_gdrive: bool = True) -> None:
        """Download an archive from Google Drive to `dst` and unpack it beside it."""
        if not from_gdrive:
            raise NotImplementedError(f"Only Google Drive links can be downloaded; get {url} by hand")
        import gdown  # few data sets need it

        folder = os.path.dirname(dst)
        mkdir_if_missing(folder)
        gdown.download(url, dst, quiet=False)
        log.info("Extracting file ...")
        if zipfile.is_zipfile(dst):
            with zipfile.ZipFile(dst) as archive:
                archive.extractall(folder)
        else:
            with tarfile.open(dst) as archive:
                archive.extractall(folder, filter="data")
        log.info(f"File extracted to {folder}")

    def generate_fewshot_dataset(
        self, *data_sources: list[Datum], num_shots: int = -1, repeat: bool = False
    ) -> list[Datum] | list[list[Datum]]:
        """Sample `num_shots` images of each class from each list with Python's `random` generator.

        Args:
            data_sources: lists of Datum.
            num_shots: images of a class; below 1 the lists come back as they are.
            repeat: draw with replacement where a class has fewer; otherwise take all it has.

        Returns:
            One list for one list, otherwise a list of lists.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        log.info(f"Creating a {num_shots}-shot dataset")
        output = []
        for data_source in data_sources:
            chosen = []
            for items in self.split_dataset_by_label(data_source).values():
                if len(items) >= num_shots:
                    items = random.sample(items, num_shots)
                elif repeat:
                    items = random.choices(items, k=num_shots)
                chosen.extend(items)
            output.append(chosen)
        return output[0] if len(output) == 1 else output

    def split_dataset_by_label(self, data_source: list[Datum]) -> dict[int, list[Datum]]:
        groups = defaultdict(list)
        for item in data_source:
            groups[item.label].append(item)
        return groups

    def split_dataset_by_domain(self, data_source: list[Datum]) -> dict[int, list[Datum]]:
        groups = defaultdict(list)
        for item in data_source:
            groups[item.domain].append(item)
        return groups
