"""The twelve data sets other than Stanford Cars and Food-101: true labels and names, whatever lies on the disk."""

import json
import shutil
from pathlib import Path

import pytest
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from miniatures import config, picture
from miniatures_loaders import COOP, LAYOUTS, MINIS, build, tree, zhou

from datasets import (  # noqa: F401  (each registers itself)
    aid,
    birdsnap,
    caltech101,
    cub200,
    dtd,
    eurosat,
    fgvc_aircraft,
    oxford_flowers,
    oxford_pets,
    resisc45,
    sun397,
    ucf101,
)
from fairclip.core.errors import UserError
from fairclip.data import messages, split_store
from fairclip.data.classes import class_list

ROOT = Path(__file__).resolve().parents[1]
CLASSES = {
    "FGVCAircraft": 100,
    "OxfordFlowers": 102,
    "OxfordPets": 37,
    "DescribableTextures": 47,
    "EuroSAT": 10,
    "SUN397": 397,
    "UCF101": 101,
    "Caltech101": 100,
    "CUB200": 200,
    "Birdsnap": 500,
    "RESISC45": 45,
    "AID": 30,
}
ALL = [(name, layout) for name, layouts in LAYOUTS.items() for layout in layouts]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No test reaches the network, or is silent because another said the same."""

    def no_network(drive_id, path):
        raise AssertionError("a test must not download")

    monkeypatch.setattr(split_store, "_download", no_network)
    messages.tell_once.cache_clear()


def load(root: Path, name: str, **dataset):
    return build_dataset(config(root, name, DOWNLOAD=False, **dataset))


def parts(data) -> dict[str, list]:
    return {"train": data.train_x, "val": data.val, "test": data.test}


def sizes(data) -> tuple[int, ...]:
    return tuple(len(items) for items in parts(data).values())


def content(data) -> dict[str, list[tuple[str, int]]]:
    """Which images are where, in order, whatever their folders are called."""
    return {part: [(Path(d.impath).name, d.label) for d in items] for part, items in parts(data).items()}


def times(per_class: tuple[int, ...], name: str) -> tuple[int, ...]:
    return tuple(count * len(MINIS[name].classes) for count in per_class)


def check(data, name: str, truth: dict[str, tuple[int, str]]) -> None:
    """Labels and names are true, no image is there twice, all classes count."""
    items = [d for part in parts(data).values() for d in part]
    assert {d.impath: (d.label, d.classname) for d in items} == truth
    assert len(items) == len(truth)
    assert data.num_classes == len(data.classnames) == CLASSES[name]
    assert all(data.classnames[label] == classname == data.lab2cname[label] for label, classname in truth.values())


# -- Layouts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, layout", ALL)
def test_every_layout(tmp_path, name, layout):
    truth = build(tmp_path / "a", name, layout)
    data = load(tmp_path / "a", name)
    check(data, name, truth)
    assert sizes(data) == times(MINIS[name].sizes, name)
    first = next(iter(LAYOUTS[name]))
    build(tmp_path / "b", name, first)
    assert content(data) == content(load(tmp_path / "b", name))  # the draw is the same, too
    assert content(data) == content(load(tmp_path / "a", name))  # from the file that was written


@pytest.mark.parametrize("name, layout", [(n, k) for n, k in ALL if len(MINIS[n].parts) > 1])
def test_the_official_split(tmp_path, name, layout):
    truth = build(tmp_path, name, layout)
    data = load(tmp_path, name, SPLIT="official")
    check(data, name, truth)
    expected = {part: [] for part in ("train", "val", "test")}
    for part, key, source, _ in MINIS[name].rows():
        expected[part].append((Path(key).name, MINIS[name].label(source)[0]))
    assert {part: sorted(rows) for part, rows in content(data).items()} == {p: sorted(r) for p, r in expected.items()}
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("name", ["EuroSAT", "Caltech101", "RESISC45", "AID"])
def test_no_official_split(tmp_path, name):
    build(tmp_path, name, next(iter(LAYOUTS[name])))
    with pytest.raises(UserError, match=f"DATASET.SPLIT is 'official'; {name} has zhou"):
        load(tmp_path, name, SPLIT="official")


@pytest.mark.parametrize("name", ["FGVCAircraft", "CUB200", "Birdsnap"])
def test_no_split_but_the_official_one(tmp_path, name):
    build(tmp_path, name, next(iter(LAYOUTS[name])))
    with pytest.raises(UserError, match=f"DATASET.SPLIT is 'zhou'; {name} has official"):
        load(tmp_path, name, SPLIT="zhou")


@pytest.mark.parametrize("name, layout", [(name, layout) for name, layout in ALL if name in COOP])
def test_coops_split_file_rules(tmp_path, name, layout, capsys):
    truth = build(tmp_path, name, layout, lists=False)
    split = zhou(tmp_path, name, LAYOUTS[name][layout][0].split("/")[0])
    data = load(tmp_path, name)
    check(data, name, truth)
    assert content(data) == {part: [(Path(key).name, y) for key, y, _ in split[part]] for part in split}
    assert "split: zhou file" in capsys.readouterr().out


@pytest.mark.parametrize("name", MINIS)
def test_trees_of_class_folders(tmp_path, name, capsys):
    truth = tree(tmp_path, name)
    data = load(tmp_path, name)
    check(data, name, truth)
    made = name in ("OxfordPets", "SUN397", "UCF101")  # by CoOp's rule, val comes out of the official train
    assert ("split: built by the CoOp rule" if made else "split: folders") in capsys.readouterr().out
    if made:
        assert sizes(data) == times(MINIS[name].sizes, name)
    elif len(MINIS[name].parts) > 1:
        assert sizes(data) == times(tuple(MINIS[name].parts.get(part, 0) for part in parts(data)), name)


@pytest.mark.parametrize("name", COOP)
def test_coops_split_file_fits_a_tree(tmp_path, name, capsys):
    truth = tree(tmp_path, name, "val" if name == "UCF101" else "test")  # as the scripts that make these trees do
    split = zhou(tmp_path, name)
    data = load(tmp_path, name)
    check(data, name, truth)
    assert content(data) == {part: [(Path(key).name, y) for key, y, _ in split[part]] for part in split}
    assert "split: zhou file" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, other",
    [
        ("EuroSAT", "zenodo"),
        ("CUB200", "archive"),
        ("OxfordFlowers", "torchvision"),
        ("Birdsnap", "doubled"),
    ],
)
def test_two_copies_are_both_named(tmp_path, name, other):
    first = next(iter(LAYOUTS[name]))
    for layout in (first, other):
        build(tmp_path, name, layout)
        if layout == first:
            file = next(tmp_path.rglob("*.jpg"))
            picture(file.with_name("another_1.jpg"), "one more")
    with pytest.raises(UserError, match=f"{name} is there 2 times") as error:
        load(tmp_path, name)
    for layout in (first, other):
        assert str(tmp_path / LAYOUTS[name][layout][0]) in str(error.value)


# -- Traps -------------------------------------------------------------------------------------------------------------


def test_birds_whose_links_are_dead_leave_the_labels_of_the_others_alone(tmp_path, capsys):
    truth = build(tmp_path, "Birdsnap", "script")
    shutil.rmtree(tmp_path / "birdsnap/download/images/zone_tailed_hawk")
    data = load(tmp_path, "Birdsnap")
    check(data, "Birdsnap", {path: row for path, row in truth.items() if row[0] != 5})
    assert data.classnames[5] == "Zone tailed Hawk"
    out = capsys.readouterr().out
    assert "8 images of the split are missing" in out and "they keep their labels" in out
    with pytest.raises(UserError, match="(?s)STRICT.*8 images of the split are missing"):
        load(tmp_path, "Birdsnap", STRICT=True)


def test_handstand_pushups_in_either_spelling(tmp_path):
    """The lists spell the videos otherwise than the class; CoOp's split file may, too."""
    truth = build(tmp_path, "UCF101", "coop")
    folder = tmp_path / "ucf101/UCF-101-midframes/Handstand_Pushups"
    for path in folder.iterdir():
        renamed = path.with_name(path.name.replace("HandstandPushups", "HandStandPushups"))
        truth[str(renamed)] = truth.pop(str(path))
        path.rename(renamed)
    check(load(tmp_path, "UCF101"), "UCF101", truth)
    zhou(tmp_path, "UCF101")
    check(load(tmp_path, "UCF101"), "UCF101", truth)


def test_what_is_no_class_of_caltechs_is_no_trouble(tmp_path, capsys):
    truth = build(tmp_path, "Caltech101", "coop")
    for stray in ("BACKGROUND_Google", "Faces_easy"):
        picture(tmp_path / "caltech-101/101_ObjectCategories" / stray / "image_0001.jpg", stray)
    check(load(tmp_path, "Caltech101"), "Caltech101", truth)
    assert "left out" not in capsys.readouterr().out


def test_stray_files_and_folders(tmp_path):
    truth = {name: build(tmp_path, name, "coop") for name in ("OxfordPets", "DescribableTextures", "EuroSAT")}
    (tmp_path / "oxford_pets/images/Abyssinian_100.mat").write_bytes(b"stray")
    (tmp_path / "dtd/images/banded/.directory").write_text("stray")
    picture(tmp_path / "eurosat/EuroSATallBands/AnnualCrop/AnnualCrop_1.tif", "other bands")
    for name in truth:
        check(load(tmp_path, name), name, truth[name])


def test_numeric_folders_are_numbers(tmp_path):
    """Sorted as text 10 and 102 come before 2; here is every number."""
    names = [name for name, _ in class_list("oxford_flowers")]
    for number in range(1, 103):
        for part in ("train", "valid", "test"):
            picture(tmp_path / f"oxford_flowers/dataset/{part}/{number}/image_{part}_{number}.jpg", f"{number}")
    data = load(tmp_path, "OxfordFlowers")
    assert sizes(data) == (102, 102, 102) and data.classnames == names
    assert all(d.label == int(Path(d.impath).parent.name) - 1 for d in data.train_x + data.val + data.test)


def test_a_label_outside_of_the_classes(tmp_path):
    from scipy.io import savemat

    build(tmp_path, "OxfordFlowers", "coop")
    savemat(tmp_path / "oxford_flowers/setid.mat", {"trnid": [[1, 999]], "valid": [[2]], "tstid": [[3]]})
    with pytest.raises(UserError, match=r"setid\.mat names image_00999\.jpg"):
        load(tmp_path, "OxfordFlowers", SPLIT="official")


@pytest.mark.parametrize(
    "name, layout, file, message",
    [
        ("FGVCAircraft", "coop", "images_variant_val.txt", r"images_variant_val\.txt is missing"),
        ("OxfordFlowers", "coop", "imagelabels.mat", r"no split_zhou_OxfordFlowers\.json.*imagelabels\.mat is missing"),
        ("OxfordPets", "kaggle", "annotations/annotations/test.txt", r"test\.txt is missing"),
        ("SUN397", "coop", "Testing_01.txt", r"no split_zhou_SUN397\.json.*Testing_01\.txt.* is missing"),
        ("UCF101", "coop", "ucfTrainTestlist/trainlist01.txt", r"trainlist01\.txt is missing"),
        ("CUB200", "coop", "train_test_split.txt", r"train_test_split\.txt is missing"),
        ("Birdsnap", "script", "species.txt", r"species\.txt is missing"),
    ],
)
def test_a_missing_annotation_file_is_named(tmp_path, name, layout, file, message):
    build(tmp_path, name, layout)
    (tmp_path / MINIS[name].dataset_dir / file).unlink()
    with pytest.raises(UserError, match=f"(?s){message}.*fair data doctor"):
        load(tmp_path, name)


def test_lists_of_another_kind(tmp_path):
    build(tmp_path, "Birdsnap", "script")
    (tmp_path / "birdsnap/images.txt").write_text("1.jpg Coopers_Hawk\n")
    with pytest.raises(UserError, match="no column path, species_id in its first line"):
        load(tmp_path, "Birdsnap")


# -- For all -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MINIS)
def test_what_is_not_there_is_explained(tmp_path, name):
    with pytest.raises(UserError, match=f"{name} was not found: not in") as error:
        load(tmp_path, name)
    said = str(error.value)
    for text in (f"fair data doctor {MINIS[name].dataset_dir} --root {tmp_path}", "DATA=/path"):
        assert text in said
    assert "{" not in said and len(said.splitlines()) == 3
    assert "How to get it" in DATASET_REGISTRY.get(name).help(tmp_path)


@pytest.mark.parametrize("name", MINIS)
def test_the_facts_agree_with_the_text(name):
    loader = DATASET_REGISTRY.get(name)
    if loader.drive_id:
        train, val, test = loader.counts["zhou"]
        assert f"{train:,} train, {val:,} val, {test:,} test" in loader.how_to_get
        assert loader.how_to_get.count(loader.drive_id) == 2 and loader.split_file in loader.how_to_get
    assert (name in COOP) == bool(loader.drive_id)


def test_the_configs_name_them():
    found = {}
    for file in (ROOT / "configs/datasets").glob("*.yaml"):
        cfg = get_cfg_default()
        cfg.DATASET.FOLDER = ""
        cfg.merge_from_file(str(file))
        found[cfg.DATASET.NAME] = file.stem
    for name in MINIS:
        module = DATASET_REGISTRY.get(name).__module__
        assert module == f"datasets.{found[name]}"


def test_shots_and_halves(tmp_path):
    build(tmp_path, "UCF101", "coop")
    shots = load(tmp_path, "UCF101", NUM_SHOTS=2, SUBSAMPLE_CLASSES="base")
    assert sizes(shots) == (6, 6, 12) and shots.num_classes == 51
    new = load(tmp_path, "UCF101", SUBSAMPLE_CLASSES="new")
    assert {(d.label, d.classname) for d in new.test} == {(100 - 51, "Yo_Yo")} and new.classnames[49] == "Yo_Yo"


def test_the_made_split_is_kept_in_coops_form(tmp_path):
    build(tmp_path, "SUN397", "coop")
    load(tmp_path, "SUN397")
    split = json.loads((tmp_path / "sun397/split_zhou_SUN397.json").read_text())
    assert ["a/apartment_building/outdoor/sun_0000000000000042.jpg", 8, "outdoor apartment_building"] in split["test"]
