"""AID: 30 kinds of scenes from the air (Xia et al., 2017)."""

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.data.benchmark import Benchmark
from fairclip.data.classes import class_folders, class_list
from fairclip.data.copies import Copy


@DATASET_REGISTRY.register()
class AID(Benchmark):
    """There is no official split, and CoOp has none: ours is made by CoOp's rule, 50 % train, 20 % val, 30 % test."""

    dataset_dir = "aid"
    other_names = ("aid_dataset", "aid-dataset", "aid_full")
    split_file = "split_fair_AID.json"
    rule = "all"
    counts = {"zhou": 10000}  # how many a class is not known for sure, nor then the sizes of the parts
    how_to_get = """
AID is expected as
  {folder}/
    AID/Airport/airport_1.jpg ...   (30 classes, 10,000 images)
Also read: train/<class>/ and test/<class>/ folders. The split is made here.
How to get it: AID.zip, by hand. The Hugging Face data sets isaaccorley/aid and blanchon/AID hold copies."""

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        there = class_folders(folder, class_list(cls.dataset_dir))
        return [Copy(f"class folders in {folder.name}/", folder, (("", folder),))] if there else []
