"""NWPU-RESISC45: 45 kinds of scenes from the air (Cheng et al., 2017)."""

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.data.benchmark import Benchmark
from fairclip.data.classes import class_folders, class_list, match_classes
from fairclip.data.copies import Copy
from fairclip.data.folders import holds_images


@DATASET_REGISTRY.register()
class RESISC45(Benchmark):
    """There is no official split, and CoOp has none: ours is made by CoOp's rule, 50 % train, 20 % val, 30 % test."""

    dataset_dir = "resisc45"
    other_names = ("nwpu-resisc45", "nwpu_resisc45", "nwpuresisc45", "resisc", "resisc45_full")
    split_file = "split_fair_RESISC45.json"
    rule = "all"
    counts = {"zhou": (15750, 6300, 9450)}
    how_to_get = """
NWPU-RESISC45 is expected as
  {folder}/
    NWPU-RESISC45/airplane/airplane_001.jpg ...   (45 classes of 700)
Also read: all images in one folder, train/<class>/ and test/<class>/ folders. The split is made here.
How to get it: by hand. The original is NWPU-RESISC45.rar on OneDrive. The Hugging Face data set torchgeo/resisc45
has a zip of the same content (MD5 75206b2e16446591afa88e2628744886)."""

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        classes = class_list(cls.dataset_dir)
        if class_folders(folder, classes):
            return [Copy(f"class folders in {folder.name}/", folder, (("", folder),))]
        stems = {_stem(file.name) for file in folder.iterdir()} if holds_images(folder) else set()
        if len(match_classes(stems, classes)) > len(stems) / 2:
            return [Copy(f"all images in {folder.name}/", folder, (("", folder),))]
        return []

    @classmethod
    def all_images(cls, copy: Copy) -> list[tuple[str, str]]:
        # A folder names the class, or where there is none the file does: dense_residential_012.jpg
        return [(key, source or _stem(key)) for key, source in super().all_images(copy)]


def _stem(name: str) -> str:
    return name.rpartition("_")[0]
