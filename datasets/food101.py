"""Food-101: dishes, 1,000 photos of each (Bossard et al., 2014); the training labels are noisy on purpose."""

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.data.annotations import read_lines
from fairclip.data.benchmark import Benchmark
from fairclip.data.copies import Copy
from fairclip.data.folders import find_folder
from fairclip.data.sources import Source


@DATASET_REGISTRY.register()
class Food101(Benchmark):
    """CoOp sets the official split aside and deals all images out anew: 50 % train, 20 % val, 30 % test."""

    dataset_dir = "food-101"
    other_names = ("food101", "food_101")
    image_name = r"\d+\.jpg"
    split_file = "split_zhou_Food101.json"
    drive_id = "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"
    rule = "all"
    counts = {"zhou": (50500, 20200, 30300), "official": (75750, 0, 25250)}
    sources = (
        Source(
            url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            path="images",
            size=4_996_278_331,
            checksum="85eeb15f3717b99a5da872d97d918f87",
            inside="food-101",
        ),
    )
    how_to_get = """
Food-101 is expected as
  {folder}/
    images/<class>/<number>.jpg    (101 classes of 1,000)
    meta/train.txt, meta/test.txt  (only for DATASET.SPLIT official)
    split_zhou_Food101.json        (50,500 train, 20,200 val, 30,300 test)
Also read: food-101/food-101/, train/<class>/ and test/<class>/ folders.
How to get it: {fair} data fetch food101, or by hand
  - images: http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz
    (4,996,278,331 bytes, MD5 85eeb15f3717b99a5da872d97d918f87), unpacks to food-101/
  - split: CoOp's file, fetched if it is missing, or with
      gdown 1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl -O split_zhou_Food101.json
    or in a browser  https://drive.google.com/file/d/1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"""

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        images = find_folder(folder, "images")
        return [Copy("images/ and meta/", folder, (("", images),))] if images else []

    @classmethod
    def official(cls, copy: Copy) -> dict[str, list[tuple[str, str]]]:
        return {
            part: [(f"{line}.jpg", line.split("/")[0]) for line in read_lines(copy.note(f"meta/{part}.txt"))]
            for part in ("train", "test")
        }
