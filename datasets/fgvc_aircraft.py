"""FGVC-Aircraft: 100 aircraft variants (Maji et al., 2013)."""

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.data.annotations import read_lines
from fairclip.data.benchmark import Benchmark
from fairclip.data.copies import Copy
from fairclip.data.folders import find_folder
from fairclip.data.sources import Source


@DATASET_REGISTRY.register()
class FGVCAircraft(Benchmark):
    """CoOp uses the official split, too; labels are the lines of variants.txt, which are not sorted."""

    dataset_dir = "fgvc_aircraft"
    other_names = ("fgvc-aircraft-2013b", "fgvc-aircraft", "fgvcaircraft", "fgvc", "aircrafts", "aircraft", "data")
    vague_names = ("aircrafts", "aircraft", "data")
    image_name = r"\d{7}\.jpg"
    counts = {"official": (3334, 3333, 3333)}
    sources = (
        Source(
            url="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            path="images",
            size=2_753_340_328,
            checksum="d4acdd33327262359767eeaa97a4f732",
            inside="fgvc-aircraft-2013b/data",
        ),
    )
    how_to_get = """
FGVC-Aircraft is expected as
  {folder}/
    images/0034309.jpg ...   (10,000)
    images_variant_train.txt, images_variant_val.txt, images_variant_test.txt
Also read: the archive as it unpacks (fgvc-aircraft-2013b/data/), train/, val/ and test/ class folders.
How to get it: {fair} data fetch fgvc_aircraft, or by hand
  https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz
  (2,753,340,328 bytes, MD5 d4acdd33327262359767eeaa97a4f732), whose inner data/ becomes the folder above"""

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        images = find_folder(folder, "images")
        return [Copy("images/ and images_variant_*.txt", folder, (("", images),))] if images else []

    @classmethod
    def official(cls, copy: Copy) -> dict[str, list[tuple[str, str]]]:
        split: dict[str, list[tuple[str, str]]] = {}
        for part in ("train", "val", "test"):
            # "1025794 Boeing 717": the name may hold spaces itself, and slashes.
            lines = [line.partition(" ") for line in read_lines(copy.note(f"images_variant_{part}.txt"))]
            split[part] = [(f"{number}.jpg", name.strip()) for number, _, name in lines]
        return split

    @classmethod
    def tree_key(cls, part: str, source: str) -> str:
        return ""  # file names are unique
