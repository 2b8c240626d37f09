"""Caltech-101: objects (Fei-Fei et al., 2004), of which CoOp uses 100: not the background, nor the second faces."""

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.data.benchmark import Benchmark
from fairclip.data.classes import class_folders, class_list
from fairclip.data.copies import Copy
from fairclip.data.sources import Source

STRAYS = frozenset({"BACKGROUND_Google", "Faces_easy"})


@DATASET_REGISTRY.register()
class Caltech101(Benchmark):
    """There is no official split. Labels follow the sorted folders, capitals first: face, leopard, motorbike, ..."""

    dataset_dir = "caltech-101"
    other_names = ("101_objectcategories", "caltech101", "caltech_101")
    split_file = "split_zhou_Caltech101.json"
    drive_id = "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"
    rule = "all"
    counts = {"zhou": (4128, 1649, 2465)}
    sources = (
        Source(
            url="https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
            path="101_ObjectCategories",
            size=137_414_764,
            checksum="3138e1922a9193bfa496528edbbc45d0",
            inside=".",
            inner="caltech-101/101_ObjectCategories.tar.gz",
        ),
    )
    how_to_get = """
Caltech-101 is expected as
  {folder}/
    101_ObjectCategories/accordion/image_0001.jpg ...
    split_zhou_Caltech101.json   (4,128 train, 1,649 val, 2,465 test)
Also read: caltech101/ (torchvision), class folders without 101_ObjectCategories/, train/<class>/ and test/<class>/.
How to get it: {fair} data fetch caltech101, or by hand
  - images: https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip
    (137,414,764 bytes, MD5 3138e1922a9193bfa496528edbbc45d0), holds 101_ObjectCategories.tar.gz
  - split: CoOp's file, fetched if it is missing, or with
      gdown 1hyarUivQE36mY6jSomru6Fjd-JzwcCzN -O split_zhou_Caltech101.json
    or in a browser  https://drive.google.com/file/d/1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"""

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        there = class_folders(folder, class_list(cls.dataset_dir))
        return [Copy(f"class folders in {folder.name}/", folder, (("", folder),))] if there else []

    @classmethod
    def all_images(cls, copy: Copy) -> list[tuple[str, str]]:
        return [(key, source) for key, source in super().all_images(copy) if source not in STRAYS]
