"""Data sets: split files, few shots, class halves, and the two loaders on generated miniatures."""

import json
from pathlib import Path

import pytest
from dassl.data.datasets import Datum, build_dataset
from miniatures import config
from PIL import Image

from datasets import synth_cars
from datasets.stanford_cars import StanfordCars
from fairclip.core.errors import UserError
from fairclip.data.labelled import few_shot, subsample_classes
from fairclip.data.splits import read_split, save_split

SPLIT = StanfordCars.split_file


def image(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), "teal").save(path)
    return str(path)


def write_split(folder: Path, name: str, classes: int = 3, train: int = 4, image_root: str = "") -> Path:
    """A miniature: `train` training, one validation and two test images a class."""
    split = {"train": [], "val": [], "test": []}
    for label in range(classes):
        for part, count in (("train", train), ("val", 1), ("test", 2)):
            for index in range(count):
                # CoOp takes the validation images out of the training ones.
                path = f"cars_{'test' if part == 'test' else 'train'}/{part}_{label}_{index}.jpg"
                image(folder / image_root / path)
                split[part].append([path, label, f"Model {label}"])
    (folder / name).write_text(json.dumps(split))
    return folder / name


def content(items):
    return [(Path(d.impath).name, d.label, d.classname) for d in items]


@pytest.fixture
def items(tmp_path):
    path = image(tmp_path / "a.jpg")
    return [Datum(impath=path, label=label, classname=f"c{label}") for label in range(5) for _ in range(6)]


# Split files


def test_split_survives_writing_and_reading(tmp_path):
    parts = read_split(write_split(tmp_path, "split.json"), tmp_path)
    assert [len(part) for part in parts] == [12, 3, 6]
    save_split(*parts, tmp_path / "again.json", tmp_path)
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads((tmp_path / "split.json").read_text())
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["again.json", "split.json"]


def test_interrupted_writing_leaves_the_old_split(tmp_path):
    train, val, _ = read_split(write_split(tmp_path, "split.json"), tmp_path)
    before = (tmp_path / "split.json").read_text()
    with pytest.raises(TypeError):
        save_split(train, val, [Datum(impath=train[0].impath, classname=object())], tmp_path / "split.json", tmp_path)
    assert (tmp_path / "split.json").read_text() == before


def test_missing_split_file_is_named_with_the_layout(tmp_path):
    with pytest.raises(UserError, match=r"(?s)split\.json.*put it there"):
        read_split(tmp_path / "split.json", tmp_path, layout="put it there")


def test_missing_images_are_counted_and_one_is_named(tmp_path):
    split = write_split(tmp_path, "split.json")
    (tmp_path / "cars_train" / "train_1_0.jpg").unlink()
    (tmp_path / "cars_test" / "test_2_1.jpg").unlink()
    with pytest.raises(UserError, match=r"(?s)2 of the 21 images.*train_1_0\.jpg.*layout"):
        read_split(split, tmp_path, layout="the layout")


NO_NAME = '{"train": [["a.jpg", 0]], "val": [], "test": []}'


@pytest.mark.parametrize("text", ["", "[]", "null", '{"train": []}', NO_NAME])
def test_malformed_split_file(tmp_path, text):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(UserError, match="is not a split file"):
        read_split(tmp_path / "split.json", tmp_path)


@pytest.mark.parametrize(
    "train, test, message",
    [
        ([("a.jpg", 0, "x")], [("a.jpg", 0, "y")], "both 'x' and 'y'"),
        ([("a.jpg", 1, "x")], [], "label 0 has no training image"),
        ([("a.jpg", 0, "x")], [("a.jpg", 1, "y")], "label 1 has no training image"),
        ([("a.jpg", -1, "x"), ("a.jpg", 0, "y")], [], "negative"),
    ],
)
def test_labels_that_dassl_would_misread(tmp_path, train, test, message):
    image(tmp_path / "a.jpg")
    (tmp_path / "split.json").write_text(json.dumps({"train": train, "val": [], "test": test}))
    with pytest.raises(UserError, match=message):
        read_split(tmp_path / "split.json", tmp_path)


# Few shots and class halves


def test_few_shots_are_nested_and_follow_the_seed(tmp_path):
    path = image(tmp_path / "a.jpg")
    items = [Datum(impath=path, label=label, classname=str(index)) for label in (1, 0) for index in range(20)]
    two, five = few_shot(items, 2, seed=1), few_shot(items, 5, seed=1)
    assert [d.label for d in five] == [0] * 5 + [1] * 5
    assert content(two) == content(five[:2] + five[5:7])
    assert len({d.classname for d in five[:5]}) == 5
    assert content(five) == content(few_shot(items, 5, seed=1)) != content(few_shot(items, 5, seed=2))
    # The draw of a class does not depend on which other classes there are.
    assert content(few_shot(items[:20], 5, seed=1)) == content(five[5:])


def test_few_shots_take_all_of_a_small_class(items):
    assert len(few_shot(items, 100, seed=1)) == len(items)


def test_halves_share_no_class_and_start_at_zero(items):
    (base,), (new,) = subsample_classes(items, subsample="base"), subsample_classes(items, subsample="new")
    assert {(d.label, d.classname) for d in base} == {(0, "c0"), (1, "c1"), (2, "c2")}
    assert {(d.label, d.classname) for d in new} == {(0, "c3"), (1, "c4")}
    assert subsample_classes(items, items) == (items, items)
    with pytest.raises(UserError, match="all, base or new"):
        subsample_classes(items, subsample="half")


# Stanford Cars


def test_stanford_cars(tmp_path):
    write_split(tmp_path / "stanford_cars", SPLIT)
    dataset = build_dataset(config(tmp_path, "StanfordCars"))
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (12, 3, 6)
    assert dataset.classnames == ["Model 0", "Model 1", "Model 2"]
    assert Path(dataset.test[0].impath) == tmp_path / "stanford_cars" / "cars_test" / "test_0_0.jpg"


def test_stanford_cars_few_shots_of_the_new_classes(tmp_path):
    write_split(tmp_path / "stanford_cars", SPLIT)
    dataset = build_dataset(config(tmp_path, "StanfordCars", NUM_SHOTS=2, SUBSAMPLE_CLASSES="new"))
    assert dataset.classnames == ["Model 2"]
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (2, 1, 2)


def test_stanford_cars_works_without_coops_config_key(tmp_path):
    write_split(tmp_path / "stanford_cars", SPLIT)
    cfg = config(tmp_path, "StanfordCars")
    del cfg.DATASET["SUBSAMPLE_CLASSES"]
    assert len(build_dataset(cfg).train_x) == 12


def test_stanford_cars_missing_says_what_goes_where(tmp_path):
    with pytest.raises(UserError) as error:
        build_dataset(config(tmp_path, "StanfordCars"))
    # What is expected is said by the doctor, whose tests see to that.
    for part in (f"not in {tmp_path}", "fair data doctor stanford_cars", "stanford_cars/", "--root"):
        assert part in str(error.value)


def test_no_data_folder(tmp_path):
    with pytest.raises(UserError, match="--root"):
        build_dataset(config("", "StanfordCars"))


# SynthCars


@pytest.fixture
def renders(monkeypatch):
    """Stands in for the renderer; lists its calls."""
    calls = []

    def render_dataset(folder: Path, seed: int, light: str) -> None:
        calls.append((folder.name, seed, light))
        write_split(folder, synth_cars.SPLIT, image_root="images")

    monkeypatch.setattr(synth_cars.synth, "render_dataset", render_dataset, raising=False)
    return calls


def test_synth_cars_is_rendered_once_for_each_seed(tmp_path, renders):
    root = tmp_path / "not made yet"
    dataset = build_dataset(config(root, "SynthCars"))
    build_dataset(config(root, "SynthCars"))
    other = build_dataset(config(root, "SynthCars", SYNTH_SEED=7))
    assert renders == [("synth_cars", 0, "blue_hour"), ("synth_cars_s7", 7, "blue_hour")]
    assert dataset.classnames == ["Model 0", "Model 1", "Model 2"]
    assert Path(other.test[0].impath).is_relative_to(root / "synth_cars_s7" / "images")


def test_synth_cars_have_a_folder_for_each_light(tmp_path, renders):
    for seed, light in ((0, "blue_hour"), (7, "blue_hour"), (7, "fog"), (0, "sodium")):
        dataset = build_dataset(config(tmp_path, "SynthCars", SYNTH_SEED=seed, SYNTH_LIGHT=light))
        folder, *_ = renders[-1]
        assert Path(dataset.test[0].impath).is_relative_to(tmp_path / folder / "images")
        if seed:
            assert dataset.descriptions_file == tmp_path / folder / "descriptions.json"
    assert renders == [
        *(("synth_cars", 0, "blue_hour"), ("synth_cars_s7", 7, "blue_hour")),
        *(("synth_cars_s7_fog", 7, "fog"), ("synth_cars_sodium", 0, "sodium")),
    ]


@pytest.mark.parametrize("light", ["bright", "dusk", "", "../fog"])
def test_synth_cars_in_an_unknown_light(tmp_path, renders, light):
    with pytest.raises(UserError, match=rf"SYNTH_LIGHT is '{light}'. Choose one of: backlight blue_hour fog"):
        build_dataset(config(tmp_path, "SynthCars", SYNTH_LIGHT=light))
    assert renders == []


def test_synth_cars_descriptions(tmp_path, renders, monkeypatch):
    def file(seed: int) -> Path:
        return build_dataset(config(tmp_path, "SynthCars", SYNTH_SEED=seed)).descriptions_file

    shipped = tmp_path / "shipped.json"
    monkeypatch.setattr(synth_cars, "SENTENCES", shipped)
    assert file(0) == tmp_path / "synth_cars" / "descriptions.json"
    shipped.touch()
    assert file(0) == shipped
    assert file(7) == tmp_path / "synth_cars_s7" / "descriptions.json"


def test_synth_cars_works_without_its_config_keys(tmp_path, renders):
    cfg = config(tmp_path, "SynthCars")
    del cfg.DATASET["SYNTH_SEED"], cfg.DATASET["SYNTH_LIGHT"]
    build_dataset(cfg)
    assert renders == [("synth_cars", 0, "blue_hour")]


def test_damaged_synth_cars_says_how_to_render_again(tmp_path, renders):
    build_dataset(config(tmp_path, "SynthCars"))
    next((tmp_path / "synth_cars" / "images").rglob("*.jpg")).unlink()
    with pytest.raises(UserError, match=r"Delete .*synth_cars and run again"):
        build_dataset(config(tmp_path, "SynthCars"))
