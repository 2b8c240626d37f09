"""Miniatures of the data sets other than those in `miniatures.py`: the real names and formats, a few images a class.

What is true about an image is stated here, from the facts, and never asked of a loader.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from miniatures import picture, write_lines, write_mat

from fairclip.data.classes import class_list


@dataclass(frozen=True)
class Mini:
    """A data set of few classes.

    Args:
        dataset_dir: CoOp's folder.
        images: where the images belong below it.
        parts: images of a class in each official part.
        classes: source name -> (label, class name, what its folder is called in trees that people have).
        key: CoOp's key of an image, from the source name, its number among all images and its number in the class.
        sizes: train, val, test of a class where no split is asked for.
    """

    dataset_dir: str
    images: str
    parts: dict[str, int]
    classes: dict[str, tuple[int, str, str]]
    key: str
    sizes: tuple[int, int, int]

    def rows(self) -> Iterator[tuple[str, str, str, int]]:
        """(official part, CoOp's key, source name, number among all from 1) of every image; the classes alternate."""
        number = 0
        start = 0
        for part, count in self.parts.items():
            for index in range(start, start + count):
                for source in self.classes:
                    number += 1
                    folder = self.classes[source][1] if self.dataset_dir == "ucf101" else source.strip("/")
                    key = self.key.format(source=source, folder=folder, bare=source[4:], number=number, index=index + 1)
                    yield part, key, source, number
            start += count

    def label(self, source: str) -> tuple[int, str]:
        return self.classes[source][:2]


MINIS = {
    "FGVCAircraft": Mini(
        "fgvc_aircraft",
        "images",
        {"train": 4, "val": 2, "test": 3},
        {
            "707-320": (0, "707-320", "707-320"),
            "BAE 146-200": (37, "BAE 146-200", "BAE-146-200"),
            "BAE-125": (39, "BAE-125", "BAE-125"),
            "F-16A/B": (72, "F-16A/B", "F-16A-B"),
        },
        "{number:07}.jpg",
        (4, 2, 3),
    ),
    "OxfordFlowers": Mini(
        "oxford_flowers",
        "jpg",
        {"train": 3, "val": 3, "test": 4},
        {
            "1": (0, "pink primrose", "1"),
            "2": (1, "hard-leaved pocket orchid", "2"),
            "10": (9, "globe thistle", "10"),
            "77": (76, "passion flower", "77"),
            "102": (101, "blackberry lily", "102"),
        },
        "image_{number:05}.jpg",
        (5, 2, 3),
    ),
    "OxfordPets": Mini(
        "oxford_pets",
        "images",
        {"train": 10, "test": 4},
        {
            "Abyssinian": (0, "abyssinian", "Abyssinian"),
            "Bengal": (5, "bengal", "Bengal"),
            "american_bulldog": (1, "american_bulldog", "american_bulldog"),
            "yorkshire_terrier": (36, "yorkshire_terrier", "yorkshire terrier"),
        },
        "{source}_{index}.jpg",
        (8, 2, 4),
    ),
    "DescribableTextures": Mini(
        "dtd",
        "images",
        {"train": 3, "val": 3, "test": 4},
        {
            "zigzagged": (46, "zigzagged", "zigzagged"),
            "banded": (0, "banded", "banded"),
            "polka-dotted": (30, "polka-dotted", "polka-dotted"),
        },
        "{source}/{source}_{index:04}.jpg",
        (5, 2, 3),
    ),
    "EuroSAT": Mini(
        "eurosat",
        "2750",
        {"train": 10},
        {
            "SeaLake": (9, "Sea or Lake", "SeaLake"),
            "AnnualCrop": (0, "Annual Crop Land", "AnnualCrop"),
            "Highway": (3, "Highway or Road", "Highway"),
        },
        "{source}/{source}_{index}.jpg",
        (5, 2, 3),
    ),
    "SUN397": Mini(
        "sun397",
        "SUN397",
        {"train": 10, "test": 4},
        {
            "/a/abbey": (0, "abbey", "abbey"),
            "/a/apartment_building/outdoor": (8, "outdoor apartment_building", "apartment_building_outdoor"),
            "/b/bakery/shop": (27, "shop bakery", "bakery_shop"),
            "/y/youth_hostel": (396, "youth_hostel", "youth_hostel"),
        },
        "{folder}/sun_{number:016}.jpg",
        (8, 2, 4),
    ),
    "UCF101": Mini(
        "ucf101",
        "UCF-101-midframes",
        {"train": 10, "test": 4},
        {
            "Hammering": (34, "Hammering", "Hammering"),
            "HammerThrow": (35, "Hammer_Throw", "HammerThrow"),
            "HandstandPushups": (36, "Handstand_Pushups", "HandstandPushups"),
            "YoYo": (100, "Yo_Yo", "YoYo"),
        },
        "{folder}/v_{source}_g{index:02}_c01.jpg",
        (8, 2, 4),
    ),
    "Caltech101": Mini(
        "caltech-101",
        "101_ObjectCategories",
        {"train": 10},
        {
            "accordion": (3, "accordion", "accordion"),
            "Faces": (0, "face", "face"),
            "airplanes": (4, "airplane", "airplane"),
            "yin_yang": (99, "yin_yang", "yin yang"),
        },
        "{source}/image_{index:04}.jpg",
        (5, 2, 3),
    ),
    "CUB200": Mini(
        "cub200",
        "images",
        {"train": 5, "test": 3},
        {
            "001.Black_footed_Albatross": (0, "Black footed Albatross", "001.Black_footed_Albatross"),
            "140.Summer_Tanager": (139, "Summer Tanager", "Summer Tanager"),
            "200.Common_Yellowthroat": (199, "Common Yellowthroat", "200.Common_Yellowthroat"),
        },
        "{source}/{bare}_{index:04}_{number}.jpg",
        (5, 0, 3),
    ),
    "Birdsnap": Mini(
        "birdsnap",
        "download/images",
        {"train": 6, "test": 2},
        {
            "Coopers_Hawk": (0, "Coopers Hawk", "Cooper's Hawk"),
            "Zone_tailed_Hawk": (5, "Zone tailed Hawk", "Zone_tailed_Hawk"),
            "Acadian_Flycatcher": (473, "Acadian Flycatcher", "Acadian_Flycatcher"),
        },
        "{source}/{number}.jpg",
        (6, 0, 2),
    ),
    "RESISC45": Mini(
        "resisc45",
        "NWPU-RESISC45",
        {"train": 10},
        {
            "wetland": (44, "wetland", "wetland"),
            "airplane": (0, "airplane", "airplane"),
            "dense_residential": (11, "dense residential", "dense_residential"),
        },
        "{source}/{source}_{index:03}.jpg",
        (5, 2, 3),
    ),
    "AID": Mini(
        "aid",
        "AID",
        {"train": 10},
        {
            "Viaduct": (29, "Viaduct", "Viaduct"),
            "BareLand": (1, "Bare Land", "BareLand"),
            "Airport": (0, "Airport", "Airport"),
        },
        "{source}/{source}_{index}.jpg",
        (5, 2, 3),
    ),
}
COOP = [name for name in MINIS if name not in ("FGVCAircraft", "CUB200", "Birdsnap", "RESISC45", "AID")]

# The arrangements without train/test trees: data set -> name -> (folder of the images, of the annotations), below ROOT.
LAYOUTS = {
    "FGVCAircraft": {
        "coop": ("fgvc_aircraft/images", "fgvc_aircraft"),
        "archive": ("fgvc_aircraft/fgvc-aircraft-2013b/data/images", "fgvc_aircraft/fgvc-aircraft-2013b/data"),
        "torchvision": ("fgvc-aircraft-2013b/data/images", "fgvc-aircraft-2013b/data"),
        "kaggle": (
            "fgvc_aircraft/fgvc-aircraft-2013b/fgvc-aircraft-2013b/data/images",
            "fgvc_aircraft/fgvc-aircraft-2013b/fgvc-aircraft-2013b/data",
        ),
    },
    "OxfordFlowers": {
        "coop": ("oxford_flowers/jpg", "oxford_flowers"),
        "torchvision": ("flowers-102/jpg", "flowers-102"),
        "nested": ("oxford_flowers/102flowers/jpg/jpg", "oxford_flowers"),
    },
    "OxfordPets": {
        "coop": ("oxford_pets/images", "oxford_pets/annotations"),
        "torchvision": ("oxford-iiit-pet/images", "oxford-iiit-pet/annotations"),
        "kaggle": ("oxford_pets/images/images", "oxford_pets/annotations/annotations"),
    },
    "DescribableTextures": {
        "coop": ("dtd/images", "dtd/labels"),
        "torchvision": ("dtd/dtd/images", "dtd/dtd/labels"),
        "archive": ("dtd/dtd-r1.0.1/dtd/images", "dtd/dtd-r1.0.1/dtd/labels"),
    },
    "EuroSAT": {
        "coop": ("eurosat/2750", ""),
        "zenodo": ("eurosat/EuroSAT_RGB", ""),
        "kaggle": ("eurosat/EuroSAT", ""),
        "bare": ("EuroSAT", ""),
        "bare zenodo": ("EuroSAT_RGB", ""),
    },
    "SUN397": {
        "coop": ("sun397/SUN397", "sun397"),
        "lists inside": ("sun397/SUN397", "sun397/SUN397"),
        "unpacked partitions": ("sun397/SUN397", "sun397/Partitions"),
        "torchvision": ("SUN397", "SUN397"),
    },
    "UCF101": {
        "coop": ("ucf101/UCF-101-midframes", "ucf101/ucfTrainTestlist"),
        "doubled": ("ucf101/UCF-101-midframes/UCF-101-midframes", "ucf101/ucfTrainTestlist"),
        "CamelCase": ("UCF-101/UCF-101-midframes", "UCF-101"),
    },
    "Caltech101": {
        "coop": ("caltech-101/101_ObjectCategories", ""),
        "torchvision": ("caltech101/101_ObjectCategories", ""),
        "doubled": ("caltech-101/101_ObjectCategories/101_ObjectCategories", ""),
        "zip": ("caltech-101/caltech-101/101_ObjectCategories", ""),
        "kaggle": ("caltech101", ""),
    },
    "CUB200": {
        "coop": ("cub200/images", "cub200"),
        "archive": ("cub200/CUB_200_2011/images", "cub200/CUB_200_2011"),
        "doubled": ("CUB_200_2011/CUB_200_2011/images", "CUB_200_2011/CUB_200_2011"),
        "cub": ("cub/CUB_200_2011/images", "cub/CUB_200_2011"),
    },
    "Birdsnap": {
        "script": ("birdsnap/download/images", "birdsnap"),
        "images": ("birdsnap/images", "birdsnap"),
        "doubled": ("birdsnap/birdsnap/download/images", "birdsnap/birdsnap"),
    },
    "RESISC45": {
        "archive": ("resisc45/NWPU-RESISC45", ""),
        "bare": ("NWPU-RESISC45", ""),
        "doubled": ("resisc45/NWPU-RESISC45/NWPU-RESISC45", ""),
        "flat": ("resisc45/NWPU-RESISC45", ""),
    },
    "AID": {"archive": ("aid/AID", ""), "bare": ("aid", ""), "doubled": ("aid/AID_dataset/AID", "")},
}


def on_disk(name: str, layout: str, key: str, source: str) -> str:
    """Where the image of this key is below the folder of the images."""
    if layout == "flat":
        return key.rpartition("/")[2]
    if layout == "CamelCase":
        return f"{source}/{key.rpartition('/')[2]}"
    if name == "Birdsnap":  # the script makes other folders than the lists name
        return key.lower()
    return key


def build(root: Path, name: str, layout: str, lists: bool = True) -> dict[str, tuple[int, str]]:
    """Writes the miniature, with the annotations if `lists`. Returns the path of every image -> (label, class name)."""
    mini = MINIS[name]
    images, notes = (root / place for place in LAYOUTS[name][layout])
    truth = {}
    for _, key, source, _ in mini.rows():
        path = images / on_disk(name, layout, key, source)
        picture(path, key)
        truth[str(path)] = mini.label(source)
    if lists and name in ANNOTATE:
        ANNOTATE[name](mini, notes)
    return truth


def tree(root: Path, name: str, test: str = "test") -> dict[str, tuple[int, str]]:
    """Writes the miniature as train/<class>/, val/<class>/ and test/<class>/ folders; `test` is what the last one is
    called. Returns what `build` does."""
    mini = MINIS[name]
    truth = {}
    for part, key, source, number in mini.rows():
        if len(mini.parts) == 1:  # no official split
            part = "train" if number % 3 else "test"
        folder = root / mini.dataset_dir / (test if part == "test" else part) / mini.classes[source][2]
        picture(folder / key.rpartition("/")[2], key)
        truth[str(folder / key.rpartition("/")[2])] = mini.label(source)
    return truth


def zhou(root: Path, name: str, folder: str = "") -> dict[str, list]:
    """Writes the split that stands for CoOp's: one whose parts are no rule's. Returns it."""
    mini = MINIS[name]
    split: dict[str, list] = {"train": [], "val": [], "test": []}
    for part, key, source, number in mini.rows():
        place = ("train", "val", "test")[number % 3]
        if "test" in mini.parts and len(mini.parts) == 2:  # CoOp keeps the official test set
            place = "test" if part == "test" else ("train", "val")[number % 5 == 0]
        split[place].append([key, *mini.label(source)])
    file = root / (folder or mini.dataset_dir) / f"split_zhou_{name}.json"
    file.write_text(json.dumps(split), encoding="utf-8")
    return split


# -- Annotation files --------------------------------------------------------------------------------------------------


def _aircraft(mini: Mini, notes: Path) -> None:
    write_lines(notes / "variants.txt", [name for name, _ in class_list("fgvc_aircraft")])
    for part in mini.parts:
        lines = [f"{key.removesuffix('.jpg')} {source}" for p, key, source, _ in mini.rows() if p == part]
        write_lines(notes / f"images_variant_{part}.txt", lines)


def _flowers(mini: Mini, notes: Path) -> None:
    rows = list(mini.rows())
    write_mat(notes / "imagelabels.mat", labels=np.array([[int(source) for _, _, source, _ in rows]], np.uint8))
    names = {"train": "trnid", "val": "valid", "test": "tstid"}
    ids = {names[part]: np.array([[n for p, _, _, n in rows if p == part]], np.uint16) for part in mini.parts}
    write_mat(notes / "setid.mat", **ids)


def _pets(mini: Mini, notes: Path) -> None:
    for part, file in (("train", "trainval.txt"), ("test", "test.txt")):
        lines = [
            f"{key.removesuffix('.jpg')} {mini.label(source)[0] + 1} 1 1"
            for p, key, source, _ in mini.rows()
            if p == part
        ]
        write_lines(notes / file, lines)
        (notes / f"._{file}").write_bytes(b"\x00\x05\x16\x07stray")


def _textures(mini: Mini, notes: Path) -> None:
    for part in mini.parts:
        write_lines(notes / f"{part}1.txt", [key for p, key, _, _ in mini.rows() if p == part])
    write_lines(notes / "train2.txt", [])


def _scenes(mini: Mini, notes: Path) -> None:
    write_lines(notes / "ClassName.txt", [source for _, source in class_list("sun397")])
    for part, file in (("train", "Training_01.txt"), ("test", "Testing_01.txt")):
        write_lines(notes / file, [f"/{key}" for p, key, _, _ in mini.rows() if p == part])


def _actions(mini: Mini, notes: Path) -> None:
    write_lines(notes / "classInd.txt", [f"{i} {name}" for i, (_, name) in enumerate(class_list("ucf101"), 1)])
    for part in mini.parts:
        lines = []
        for p, key, source, _ in mini.rows():
            if p == part:
                video = key.rpartition("/")[2].replace("HandstandPushups", "HandStandPushups").replace(".jpg", ".avi")
                lines.append(f"{source}/{video}" + (f" {mini.label(source)[0] + 1}" if part == "train" else ""))
        write_lines(notes / f"{part}list01.txt", lines)


def _cub(mini: Mini, notes: Path) -> None:
    rows = list(mini.rows())
    write_lines(notes / "classes.txt", [f"{i} {name}" for i, (_, name) in enumerate(class_list("cub200"), 1)])
    write_lines(notes / "images.txt", [f"{n} {key}" for _, key, _, n in rows])
    write_lines(notes / "image_class_labels.txt", [f"{n} {mini.label(source)[0] + 1}" for _, _, source, n in rows])
    write_lines(notes / "train_test_split.txt", [f"{n} {int(part == 'train')}" for part, _, _, n in rows])


def _birds(mini: Mini, notes: Path) -> None:
    species = [f"{i}\t{name}\tLatin name\t{source}" for i, (name, source) in enumerate(class_list("birdsnap"), 1)]
    write_lines(notes / "species.txt", ["id\tcommon\tscientific\tdir", *species])
    images = [
        f"http://example.org/{n}.jpg\tmd5\t{key}\t{mini.label(source)[0] + 1}\t1\t2\t3\t4"
        for _, key, source, n in mini.rows()
    ]
    write_lines(notes / "images.txt", ["url\tmd5\tpath\tspecies_id\tbb_x1\tbb_y1\tbb_x2\tbb_y2", *images])
    write_lines(notes / "test_images.txt", ["path", *(key for part, key, _, _ in mini.rows() if part == "test")])


ANNOTATE = {
    "FGVCAircraft": _aircraft,
    "OxfordFlowers": _flowers,
    "OxfordPets": _pets,
    "DescribableTextures": _textures,
    "SUN397": _scenes,
    "UCF101": _actions,
    "CUB200": _cub,
    "Birdsnap": _birds,
}
