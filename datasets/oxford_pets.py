"""Oxford-IIIT Pets: 37 breeds of cats and dogs (Parkhi et al., 2012)."""

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.data.annotations import read_lines
from fairclip.data.benchmark import Benchmark
from fairclip.data.copies import Copy
from fairclip.data.folders import find_folder
from fairclip.data.sources import Source


@DATASET_REGISTRY.register()
class OxfordPets(Benchmark):
    """Labels are the official class ids, which go by the alphabet in any case: american_bulldog follows Abyssinian."""

    dataset_dir = "oxford_pets"
    other_names = (
        "oxford-iiit-pet",
        "oxford_iiit_pet",
        "oxford-iiit-pets",
        "the-oxfordiiit-pet-dataset",
        "oxford-pets",
        "oxfordpets",
        "pets",
    )
    vague_names = ("pets",)
    image_name = r"[a-z_]+_\d+\.jpg"
    split_file = "split_zhou_OxfordPets.json"
    drive_id = "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"
    rule = "trainval"
    counts = {"zhou": (2944, 736, 3669), "official": (3680, 0, 3669)}
    sources = (
        Source(
            url="https://www.robots.ox.ac.uk/~vgg/data/pets/data/annotations.tar.gz",
            path="annotations",
            size=19_173_078,
            checksum="95a8c909bbe2e81eed6a22bccdf3f68f",
            inside=".",
        ),
        Source(
            url="https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
            path="images",
            size=791_918_971,
            checksum="5c4f3ee8e5d25df40f4fd59a7f44e54c",
            inside=".",
        ),
    )
    how_to_get = """
Oxford-IIIT Pets is expected as
  {folder}/
    images/Abyssinian_1.jpg ...              (7,349 that are annotated)
    annotations/trainval.txt, test.txt       (not needed with the split file)
    split_zhou_OxfordPets.json               (2,944 train, 736 val, 3,669 test)
Also read: images/images/ and annotations/annotations/ (Kaggle), train/<class>/ and test/<class>/ folders.
How to get it: {fair} data fetch oxford_pets, or by hand
  - images: https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz
    (791,918,971 bytes, MD5 5c4f3ee8e5d25df40f4fd59a7f44e54c)
  - annotations: annotations.tar.gz in the same place (19,173,078 bytes, MD5 95a8c909bbe2e81eed6a22bccdf3f68f)
  - split: CoOp's file, fetched if it is missing, or with
      gdown 1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs -O split_zhou_OxfordPets.json
    or in a browser  https://drive.google.com/file/d/1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"""

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        images, notes = find_folder(folder, "images"), find_folder(folder, "annotations")
        if not images:
            return []
        layout = "nested folders images/images" if images.parent.name.lower() == "images" else "images/"
        return [Copy(layout, folder, (("", images),), (notes,) if notes else ())]

    @classmethod
    def official(cls, copy: Copy) -> dict[str, list[tuple[str, str]]]:
        split: dict[str, list[tuple[str, str]]] = {}
        for part, file in (("train", "trainval.txt"), ("test", "test.txt")):
            # "Abyssinian_100 1 1 1": image, class, species, breed
            images = [line.split()[0] for line in read_lines(copy.note(file)) if not line.startswith("#")]
            split[part] = [(f"{image}.jpg", image.rpartition("_")[0]) for image in images]
        return split

    @classmethod
    def tree_key(cls, part: str, source: str) -> str:
        return ""  # file names carry the breed
