"""SUN397: 397 scenes (Xiao et al., 2010); 50 training and 50 test images of each are in its first partition."""

from collections.abc import Mapping
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.data.annotations import read_lines
from fairclip.data.benchmark import Benchmark
from fairclip.data.classes import class_list, folders_of_classes
from fairclip.data.copies import Copy
from fairclip.data.folders import folders_in


@DATASET_REGISTRY.register()
class SUN397(Benchmark):
    """Labels are the lines of ClassName.txt. The class in a/apartment_building/outdoor/ has CoOp's name "outdoor
    apartment_building" and the source name "/a/apartment_building/outdoor"."""

    dataset_dir = "sun397"
    other_names = ("sun-397", "sun_397", "sun397-50-50")
    split_file = "split_zhou_SUN397.json"
    drive_id = "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"
    rule = "trainval"
    counts = {"zhou": (15880, 3970, 19850), "official": (19850, 0, 19850)}
    how_to_get = """
SUN397 is expected as
  {folder}/
    SUN397/a/abbey/sun_aaalbzqrimafwbiv.jpg ...
    Training_01.txt, Testing_01.txt      (from Partitions.zip; not needed with the split file)
    split_zhou_SUN397.json               (15,880 train, 3,970 val, 19,850 test)
Also read: the lists inside SUN397/ or Partitions/, train/<class>/ and test/<class>/ folders, also train/a/<class>/.
How to get it:
  - images: the original site is gone since 2025. SUN397.tar.gz has 39,077,296,924 bytes and the MD5
    8ca2778205c41d23104230ba66911c7a. The Kaggle data set lash45/sun397-50-50 has train/ and test/ folders, and
    OpenDataLab has SUN397 as it was.
  - split: CoOp's file, fetched if it is missing, or with
      gdown 1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq -O split_zhou_SUN397.json
    or in a browser  https://drive.google.com/file/d/1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"""

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        letters = [inner for inner in folders_in(folder) if len(inner.name) == 1 and inner.name.isalpha()]
        return [Copy("letter folders a/ to z/", folder, (("", folder),))] if letters else []

    @classmethod
    def official(cls, copy: Copy) -> dict[str, list[tuple[str, str]]]:
        split: dict[str, list[tuple[str, str]]] = {}
        for part, name in (("train", "Training_01.txt"), ("test", "Testing_01.txt")):
            keys = [line.lstrip("/") for line in read_lines(copy.note(name, f"Partitions/{name}"))]
            split[part] = [(key, f"/{key.rpartition('/')[0]}") for key in keys]
        return split

    @classmethod
    def tree_key(cls, part: str, source: str) -> str:
        return f"{source.strip('/')}/"

    @classmethod
    def tree_folders(cls, parts: Mapping[str, Path]) -> list[tuple[str, Path, int]]:
        classes = class_list(cls.dataset_dir)
        inner = [
            (part, place / source.strip("/"), y)
            for part, place in parts.items()
            for y, (_, source) in enumerate(classes)
        ]
        found = [row for row in inner if row[1].is_dir()]  # train/a/apartment_building/outdoor/
        # A third spelling, "apartment_building_outdoor": class folders are called as the path below the letter.
        return found or folders_of_classes(parts, [(name, source[len("/a/") :]) for name, source in classes])
