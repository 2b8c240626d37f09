"""Birdsnap: 500 North American birds (Berg et al., 2014)."""

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.core.errors import UserError
from fairclip.data.annotations import read_lines
from fairclip.data.benchmark import Benchmark
from fairclip.data.copies import Copy
from fairclip.data.folders import find_folder


@DATASET_REGISTRY.register()
class Birdsnap(Benchmark):
    """CoOp has no such data set. The split is the official one.

    The authors published links, many of which are dead: what is missing is counted, and a class that lost all of its
    images keeps its label.
    """

    dataset_dir = "birdsnap"
    other_names = ("birdsnap-1.1", "birdsnap_1.1", "1.1")
    image_name = r"\d+\.jpg"
    counts = {"official": (47386, 0, 2443)}
    how_to_get = """
Birdsnap is expected as
  {folder}/
    images.txt, species.txt, test_images.txt
    download/images/<species>/<number>.jpg ...   (49,829 are listed)
Also read: images/ for download/images/, train/<class>/ and test/<class>/ folders.
How to get it: thomasberg.org/datasets/birdsnap/1.1/birdsnap.tgz has the lists and a script (Python 2) that downloads
the images from where they were in 2014; about a fifth of them is gone."""

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        images = find_folder(folder, "download/images", "images")
        return [Copy("images and images.txt", folder, (("", images),))] if images else []

    @classmethod
    def official(cls, copy: Copy) -> dict[str, list[tuple[str, str]]]:
        species = {row["id"]: row["dir"] for row in _table(copy.note("species.txt"), "id", "dir")}
        test = {row["path"] for row in _table(copy.note("test_images.txt"), "path")}
        split: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
        for row in _table(copy.note("images.txt"), "path", "species_id"):
            # The folder in the path may be spelled in another case than the species's.
            part = "test" if row["path"] in test else "train"
            split[part].append((row["path"], species.get(row["species_id"], row["path"].split("/")[0])))
        return split


def _table(path: Path, *columns: str) -> list[dict[str, str]]:
    """The rows of a table whose first line names the columns. Raises UserError unless it has these."""
    header, *lines = [line.split("\t") for line in read_lines(path)] or [[]]
    if absent := set(columns) - set(header):
        raise UserError(f"{path} has no column {', '.join(sorted(absent))} in its first line")
    return [row for row in (dict(zip(header, line, strict=False)) for line in lines) if row.keys() >= set(columns)]
