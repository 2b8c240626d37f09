"""Oxford Flowers: 102 flowers of the British Isles (Nilsback and Zisserman, 2008)."""

from collections.abc import Mapping
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.core.errors import UserError
from fairclip.data.annotations import read_mat
from fairclip.data.benchmark import Benchmark
from fairclip.data.classes import class_list, folders_of_classes, number_in_front
from fairclip.data.copies import Copy
from fairclip.data.folders import find_folder, folders_in
from fairclip.data.messages import warn_once
from fairclip.data.sources import Source


@DATASET_REGISTRY.register()
class OxfordFlowers(Benchmark):
    """CoOp's split deals all images out anew, so results on it do not compare with those on the official one.

    Source names of the classes are their official numbers, from 1, which are what folders are called, too.
    """

    dataset_dir = "oxford_flowers"
    other_names = (
        "flowers-102",
        "flowers102",
        "102flowers",
        "oxford-flowers",
        "oxfordflowers",
        "oxford-102-flowers",
        "flowers",
        "flower_data",
        "dataset",
    )
    vague_names = ("flowers", "flower_data", "dataset")
    image_name = r"image_\d{5}\.jpg"
    split_file = "split_zhou_OxfordFlowers.json"
    drive_id = "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"
    rule = "all"
    counts = {"zhou": (4093, 1633, 2463), "official": (1020, 1020, 6149)}
    sources = (
        Source(
            url="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/imagelabels.mat",
            path="imagelabels.mat",
            size=502,
            checksum="e0620be6f572b9609742df49c70aed4d",
        ),
        Source(
            url="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/setid.mat",
            path="setid.mat",
            size=14_989,
            checksum="a5357ecc9cb78c4bef273ce3793fc85c",
        ),
        Source(
            url="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz",
            path="jpg",
            size=344_862_509,
            checksum="52808999861908f626f3c1f4e79d11fa",
            inside=".",
        ),
    )
    how_to_get = """
Oxford Flowers is expected as
  {folder}/
    jpg/image_00001.jpg ... image_08189.jpg
    imagelabels.mat                      (not needed with the split file)
    setid.mat                            (only for DATASET.SPLIT official)
    split_zhou_OxfordFlowers.json        (4,093 train, 1,633 val, 2,463 test)
Also read: flowers-102/ (torchvision), train/<1 to 102>/, valid/ and test/ folders (Kaggle),
001 to 102 or 0 to 101, too.
How to get it: {fair} data fetch oxford_flowers, or by hand
  - images: https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz
    (344,862,509 bytes, MD5 52808999861908f626f3c1f4e79d11fa), unpacks to jpg/
  - labels: imagelabels.mat (502 bytes, MD5 e0620be6f572b9609742df49c70aed4d) and setid.mat (14,989 bytes,
    MD5 a5357ecc9cb78c4bef273ce3793fc85c) in the same place
  - split: CoOp's file, fetched if it is missing, or with
      gdown 1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT -O split_zhou_OxfordFlowers.json
    or in a browser  https://drive.google.com/file/d/1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"""

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        images = find_folder(folder, "jpg")
        return [Copy("jpg/", folder, (("", images),))] if images else []

    @classmethod
    def all_images(cls, copy: Copy) -> list[tuple[str, str]]:
        labels = read_mat(copy.note("imagelabels.mat"), "labels")
        return [(_key(number), str(int(label))) for number, label in enumerate(labels, 1)]

    @classmethod
    def official(cls, copy: Copy) -> dict[str, list[tuple[str, str]]]:
        source = dict(cls.all_images(copy))
        ids = {"train": "trnid", "val": "valid", "test": "tstid"}
        file = copy.note("setid.mat")
        keys = {part: [_key(number) for number in read_mat(file, name)] for part, name in ids.items()}
        if strange := sorted({key for part in keys.values() for key in part} - source.keys()):
            raise UserError(f"{file} names {strange[0]}, of which imagelabels.mat does not know the class")
        return {part: [(key, source[key]) for key in keys[part]] for part in keys}

    @classmethod
    def tree_folders(cls, parts: Mapping[str, Path]) -> list[tuple[str, Path, int]]:
        classes = class_list(cls.dataset_dir)
        numbers = {number_in_front(folder.name) for place in parts.values() for folder in folders_in(place)}
        if "0" not in numbers or str(len(classes)) in numbers:
            return folders_of_classes(parts, classes)
        warn_once(
            f"{cls.__name__}: the class folders in {', '.join(map(str, parts.values()))} are numbered from 0, and the "
            f"official numbers run from 1: folder 0 is read as class 1, {classes[0][0]}, and so on"
        )
        return folders_of_classes(parts, [(name, str(int(source) - 1)) for name, source in classes])

    @classmethod
    def tree_key(cls, part: str, source: str) -> str:
        return ""  # file names are unique


def _key(number: int) -> str:
    return f"image_{number:05}.jpg"
