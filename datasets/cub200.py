"""CUB-200-2011: 200 birds (Wah et al., 2011)."""

from collections.abc import Iterable
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.data.annotations import read_lines
from fairclip.data.benchmark import Benchmark
from fairclip.data.classes import class_list, match_classes
from fairclip.data.copies import Copy
from fairclip.data.folders import find_folder, folders_in
from fairclip.data.sources import Source


@DATASET_REGISTRY.register()
class CUB200(Benchmark):
    """CoOp has no such data set. The split is the official one, and labels are the official class ids."""

    dataset_dir = "cub200"
    other_names = ("cub_200_2011", "cub-200-2011", "cub-200", "cub_200", "cub")
    image_name = r".+_\d{4}_\d+\.jpg"
    counts = {"official": (5994, 0, 5794)}
    sources = (
        Source(
            url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            path="images",
            size=1_150_585_339,
            checksum="97eceeb196236b17998738112f37df78",
            inside="CUB_200_2011",
        ),
    )
    how_to_get = """
CUB-200-2011 is expected as
  {folder}/
    images/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg ...   (11,788)
    images.txt, train_test_split.txt
Also read: the archive as it unpacks (CUB_200_2011/, there or in the folder above), train/<class>/ and test/<class>/.
How to get it: {fair} data fetch cub200, or by hand
  https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz
  (1,150,585,339 bytes, MD5 97eceeb196236b17998738112f37df78)"""

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        images = find_folder(folder, "images")
        if not images:
            return []
        # Some copies spell 141.Artic_Tern otherwise; the keys are those of the official list.
        sources = {
            name: f"{usual}/" for name, usual in _official_names([inner.name for inner in folders_in(images)]).items()
        }
        places = tuple((start, images / name) for name, start in sources.items())
        return [Copy("images/ and images.txt", folder, places or (("", images),))]

    @classmethod
    def official(cls, copy: Copy) -> dict[str, list[tuple[str, str]]]:
        keys, train = (
            dict(line.split(maxsplit=1) for line in read_lines(copy.note(name)))
            for name in ("images.txt", "train_test_split.txt")
        )
        usual = _official_names({key.split("/")[0] for key in keys.values()})
        split: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
        for number, key in keys.items():
            source, _, file = key.partition("/")
            source = usual.get(source, source)
            split["train" if train.get(number) == "1" else "test"].append((f"{source}/{file}", source))
        return split


def _official_names(names: Iterable[str]) -> dict[str, str]:
    """Name of a folder -> the official name of its class, for folders of classes."""
    classes = class_list(CUB200.dataset_dir)
    return {name: classes[label][1] for name, label in match_classes(names, classes).items()}
