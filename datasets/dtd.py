"""DTD: 47 textures by the words that describe them (Cimpoi et al., 2014)."""

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.data.annotations import read_lines
from fairclip.data.benchmark import Benchmark
from fairclip.data.copies import Copy
from fairclip.data.folders import find_folder
from fairclip.data.sources import Source


@DATASET_REGISTRY.register()
class DescribableTextures(Benchmark):
    """CoOp deals all images out anew; DATASET.SPLIT official is the first of the ten official partitions."""

    dataset_dir = "dtd"
    other_names = (
        "describabletextures",
        "describable_textures",
        "describable-textures",
        "dtd-r1.0.1",
        "describable-textures-dataset-dtd",
    )
    image_name = r"[a-z-]+_\d{4}\.jpg"
    split_file = "split_zhou_DescribableTextures.json"
    drive_id = "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"
    rule = "all"
    counts = {"zhou": (2820, 1128, 1692), "official": (1880, 1880, 1880)}
    sources = (
        Source(
            url="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
            path="images",
            size=625_239_812,
            checksum="fff73e5086ae6bdbea199a49dfb8a4c1",
            inside="dtd",
        ),
    )
    how_to_get = """
DTD is expected as
  {folder}/
    images/banded/banded_0002.jpg ...            (47 classes of 120)
    labels/train1.txt, val1.txt, test1.txt       (only for DATASET.SPLIT official)
    split_zhou_DescribableTextures.json          (2,820 train, 1,128 val, 1,692 test)
Also read: dtd/dtd/ (torchvision), train/<class>/, val/<class>/ and test/<class>/ folders.
How to get it: {fair} data fetch dtd, or by hand
  - images: https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz
    (625,239,812 bytes, MD5 fff73e5086ae6bdbea199a49dfb8a4c1), unpacks to dtd/
  - split: CoOp's file, fetched if it is missing, or with
      gdown 1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x -O split_zhou_DescribableTextures.json
    or in a browser  https://drive.google.com/file/d/1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"""

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        images = find_folder(folder, "images")
        return [Copy("images/ and labels/", folder, (("", images),))] if images else []

    @classmethod
    def official(cls, copy: Copy) -> dict[str, list[tuple[str, str]]]:
        return {
            part: [(line, line.split("/")[0]) for line in read_lines(copy.note(f"labels/{part}1.txt"))]
            for part in ("train", "val", "test")
        }
