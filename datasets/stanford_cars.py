"""Stanford Cars: 196 models by make and year (Krause et al., 2013)."""

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.data.annotations import mat_rows, name_of_number, read_mat
from fairclip.data.benchmark import Benchmark
from fairclip.data.copies import Copy
from fairclip.data.folders import find_folder

TEST_LABELS = "cars_test_annos_withlabels.mat"
FLAT = "car_ims/"  # all images in one folder, numbered otherwise


@DATASET_REGISTRY.register()
class StanfordCars(Benchmark):
    """Class names carry the year first ("2012 Audi TTS Coupe"), as in CoOp's split."""

    dataset_dir = "stanford_cars"
    other_names = (
        "stanford-cars",
        "stanfordcars",
        "stanford_car",
        "cars",
        "cars196",
        "car_data",
        "stanford-car-dataset-by-classes-folder",
        "stanford-cars-by-classes-folder",
        "stanford-cars-dataset",
        "torchvision-stanford-cars",
    )
    split_file = "split_zhou_StanfordCars.json"
    drive_id = "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"
    rule = "trainval"
    counts = {"zhou": (6509, 1635, 8041), "official": (8144, 0, 8041)}
    how_to_get = """
Stanford Cars is expected as
  {folder}/
    cars_train/00001.jpg ... 08144.jpg
    cars_test/00001.jpg ... 08041.jpg
    split_zhou_StanfordCars.json   (6,509 train, 1,635 val, 8,041 test)
or with devkit/*.mat and cars_test_annos_withlabels.mat instead of the split file. Also read: cars_train/cars_train/
(Kaggle), train/<class>/ and test/<class>/ folders, car_ims/ with cars_annos.mat.
How to get it:
  - images: the original site is gone. The Kaggle data set rickyyyyyyy/torchvision-stanford-cars has this layout.
    Originals: cars_train.tgz 979,269,282 bytes, MD5 065e5b463ae28d29e77c1b4b166cfe61;
    cars_test.tgz 977,350,468 bytes, MD5 4ce7ebf6a94d07f1952d94dd34c4d501.
  - split: CoOp's file, fetched if it is missing, or with
      gdown 1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT -O split_zhou_StanfordCars.json
    or in a browser  https://drive.google.com/file/d/1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT
  - devkit/: https://github.com/pytorch/vision/files/11644847/car_devkit.tgz
    (330,960 bytes, MD5 c3b158d763b6e2245038c8ad08e45376)
  - cars_test_annos_withlabels.mat (185,758 bytes, MD5 b0a2b23655a3edd16d84508592a98d10): linked in
    https://github.com/pytorch/vision/issues/7545#issuecomment-1631441616"""

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        notes = tuple(
            filter(
                None,
                (
                    find_folder(folder, "devkit"),
                    find_folder(folder, "car_devkit/devkit"),
                    find_folder(folder, "car_devkit"),
                ),
            )
        )
        copies = []
        parts = {name: find_folder(folder, name) for name in ("cars_train", "cars_test")}
        if any(parts.values()):
            nested = any(place and place.parent.name.lower() == name for name, place in parts.items())
            layout = "nested folders cars_train/cars_train" if nested else "cars_train/ and cars_test/"
            images = tuple((f"{name}/", place or folder / name) for name, place in parts.items())
            copies.append(Copy(layout, folder, images, notes))
        if flat := find_folder(folder, "car_ims"):
            copies.append(Copy(FLAT, folder, (("car_ims/", flat),), notes, coop_keys=False))
        return copies

    @classmethod
    def official(cls, copy: Copy) -> dict[str, list[tuple[str, str]]]:
        split: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
        if copy.layout == FLAT:
            file = copy.note("cars_annos.mat")
            names = read_mat(file, "class_names")
            for path, number, test in mat_rows(file, "annotations", "relative_im_path", "class", "test"):
                split["test" if test else "train"].append((str(path), name_of_number(names, number, file)))
            return split
        names = read_mat(copy.note("cars_meta.mat"), "class_names")
        for part, file in (("train", copy.note("cars_train_annos.mat")), ("test", copy.note(TEST_LABELS))):
            for name, number in mat_rows(file, "annotations", "fname", "class"):
                split[part].append((f"cars_{part}/{name}", name_of_number(names, number, file)))
        return split

    @classmethod
    def tree_key(cls, part: str, source: str) -> str:
        return f"cars_{part}/"  # the trees that people have keep the official file names
