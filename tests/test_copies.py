"""Copies of data sets as people really have them: numbered otherwise, spelled otherwise, partial, grown."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from miniatures import cars_zhou, config, picture, stanford_cars
from miniatures_loaders import MINIS, build, tree, zhou
from test_layouts import alone, content  # noqa: F401 (a fixture for all tests)
from test_loaders import check, load, sizes

from datasets.synth_cars import SynthCars
from fairclip.core.errors import UserError
from fairclip.core.rgb import LFS
from fairclip.data import messages, split_store
from fairclip.data.classes import class_list, match_classes
from fairclip.data.doctor import examine
from fairclip.data.known import benchmarks
from fairclip.data.splits import PARTS, load_split, read_split

FLOWERS = [name for name, _ in class_list("oxford_flowers")]


def flowers(root: Path, first: int, form: str = "{}", classes: int = 102) -> Path:
    """A tree whose folders are numbered from `first`; the official numbers of a class's images begin with its own."""
    home = root / "oxford_flowers"
    for number in range(1, classes + 1):
        for i, part in enumerate(("train", "valid", "test")):
            picture(
                home / part / form.format(number - 1 + first) / f"image_{10 * number + i:05}.jpg", f"{number} {part}"
            )
    return home


def flower_list(home: Path) -> None:
    from scipy.io import savemat

    savemat(home / "imagelabels.mat", {"labels": [[max(1, n // 10) for n in range(1, 1025)]]})


def state(root: Path, name: str):
    return examine(name, benchmarks()[name], root)


@pytest.mark.parametrize("first, form", [(0, "{}"), (1, "{:03}")])
def test_numbered_flowers(tmp_path, capsys, first, form):
    home = flowers(tmp_path, first, form)
    for listed in (False, True):
        data = load(tmp_path, "OxfordFlowers")
        assert sizes(data) == (102, 102, 102) and data.classnames == FLOWERS
        for item in data.train_x + data.val + data.test:
            assert item.label == int(Path(item.impath).stem[6:]) // 10 - 1
        assert ("numbered from 0" in capsys.readouterr().out) == (not first and not listed)
        flower_list(home)


def test_a_tree_that_most_of_the_official_list_contradicts_is_refused(tmp_path):
    home = flowers(tmp_path, 2, classes=100)
    flower_list(home)
    with pytest.raises(UserError) as error:
        load(tmp_path, "OxfordFlowers")
    assert "300 of 300 images lie in folders of other classes than the official lists say" in str(error.value)
    assert f"{FLOWERS[1]} by its folder, {FLOWERS[0]} by the list" in str(error.value)


def test_a_tree_that_most_of_a_split_file_contradicts_is_refused(tmp_path):
    home, wrong = stanford_cars(tmp_path, "tree"), cars_zhou()
    labels = sorted({label for _, label, _ in wrong["train"]})
    names = {label: name for _, label, name in wrong["train"]}
    for part in PARTS:
        moved = [labels[(labels.index(label) + 1) % 3] for _, label, _ in wrong[part]]
        wrong[part] = [[row[0], label, names[label]] for row, label in zip(wrong[part], moved, strict=True)]
    (home / "split_zhou_StanfordCars.json").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=r"36 of 36 images .*split_zhou_StanfordCars.json says"):
        load(tmp_path, "StanfordCars")


def test_lists_with_another_spelling_of_handstand_pushups(tmp_path):
    truth = build(tmp_path, "UCF101", "coop")
    for file in (tmp_path / "ucf101/ucfTrainTestlist").glob("*list01.txt"):
        file.write_text(file.read_text().replace("HandstandPushups", "HandStandPushups"))
    check(load(tmp_path, "UCF101"), "UCF101", truth)


@pytest.mark.parametrize("lists", [True, False])
def test_the_number_of_a_bird_decides(tmp_path, lists):
    truth = build(tmp_path, "CUB200", "coop")
    old = next(name for name in MINIS["CUB200"].classes)
    images, new = tmp_path / "cub200/images", f"{old[:4]}Another_Spelling"
    (images / old).rename(images / new)
    if lists:
        file = tmp_path / "cub200/images.txt"
        file.write_text(file.read_text().replace(old, new))
    check(load(tmp_path, "CUB200"), "CUB200", {path.replace(old, new): row for path, row in truth.items()})


def test_numbers_count_only_where_classes_have_them():
    assert match_classes(["141.Arctic_Tern", "007"], [("Artic Tern", "141.Artic_Tern"), ("rose", "7")]) == {
        "141.Arctic_Tern": 0,
        "007": 1,
    }
    assert match_classes(["1.dog"], [("1.cat", "1.cat")], by_number=False) == {}


def test_scenes_in_letter_folders_of_a_tree(tmp_path, capsys):
    truth = tree(tmp_path, "SUN397")
    expected = content(load(tmp_path, "SUN397"))
    sources = {name: source for source, (_, _, name) in MINIS["SUN397"].classes.items()}
    moved = {}
    for path, row in truth.items():
        place = Path(path)
        new = place.parent.parent / sources[place.parent.name].strip("/") / place.name
        new.parent.mkdir(parents=True, exist_ok=True)
        moved[str(place.rename(new))] = row
    for part in ("train", "test"):
        for name in sources:
            shutil.rmtree(tmp_path / "sun397" / part / name, ignore_errors=True)
    (tmp_path / "sun397/split_zhou_SUN397.json").unlink()
    messages.tell_once.cache_clear()
    capsys.readouterr()
    data = load(tmp_path, "SUN397")
    check(data, "SUN397", moved)
    assert content(data) == expected and "left out" not in capsys.readouterr().out


def test_a_split_of_a_partial_copy_is_made_anew_when_the_rest_arrives(tmp_path, capsys):
    truth = build(tmp_path, "DescribableTextures", "coop")
    images, away = tmp_path / "dtd/images", tmp_path / "away"
    away.mkdir()
    late = [path for path in truth if path.endswith(("1.jpg", "2.jpg"))]
    for path in late:
        shutil.move(path, away / Path(path).name)
    few = load(tmp_path, "DescribableTextures")
    for path in late:
        shutil.move(away / Path(path).name, path)
    again = load(tmp_path, "DescribableTextures")
    assert sum(sizes(few)) == len(truth) - len(late) and sum(sizes(again)) == len(truth)
    assert f"made when {len(late)} of the images that are here now were not" in capsys.readouterr().out
    split = load_split(tmp_path / "dtd/split_zhou_DescribableTextures.json")
    assert sum(len(split[part]) for part in PARTS) == len(truth)
    next(images.rglob("*.jpg")).unlink()  # one that goes changes nothing for the others
    assert sum(sizes(load(tmp_path, "DescribableTextures"))) == len(truth) - 1


def test_a_split_file_of_other_images_is_not_called_absent(tmp_path):
    build(tmp_path, "OxfordFlowers", "coop", lists=False)
    zhou(tmp_path, "OxfordFlowers")
    file = tmp_path / "oxford_flowers/split_zhou_OxfordFlowers.json"
    file.write_text(file.read_text().replace("image_", "photo_"))
    with pytest.raises(UserError, match=r"split_zhou_OxfordFlowers.json cannot be used, and a split cannot be made"):
        load(tmp_path, "OxfordFlowers")


GDOWN = """Failed to retrieve file url:

\tToo many users have viewed or downloaded this file recently. Please
\ttry accessing the file again later.

You may still be able to access the file from the browser:

\thttps://drive.google.com/uc?id=1

but Gdown can't. Please check connections and permissions.
"""


def test_the_reason_of_a_failed_download():
    error = subprocess.CalledProcessError(1, "gdown", stderr=GDOWN)
    assert split_store._reason(error).endswith(
        "downloaded this file recently. Please try accessing the file again later."
    )


@pytest.mark.parametrize(
    "home, inner", [("data", "images"), ("dataset", "jpg"), ("pets", "images"), ("aircraft", "images")]
)
def test_a_folder_of_a_common_name_is_no_data_set(tmp_path, home, inner):
    picture(tmp_path / home / inner / "IMG 1.jpg", "a holiday")
    assert all(state(tmp_path, name).state == "missing" for name in benchmarks())
    assert all(state(tmp_path / home, name).state == "missing" for name in benchmarks())


@pytest.mark.parametrize("name, dataset", [("CUB200", "cub200"), ("DescribableTextures", "dtd")])
def test_a_copy_of_a_few_classes_differs_but_can_be_used(tmp_path, name, dataset):
    truth = build(tmp_path, name, "coop")
    kept = next(iter(truth.values()))
    for path, row in truth.items():
        if row != kept:
            Path(path).unlink()
    report = state(tmp_path, dataset)
    assert report.state == "differs", report.problems
    data = load(tmp_path, name)
    assert {item.label for item in data.train_x + data.test} == {kept[0]}


def test_pointers_of_git_lfs_are_seen_by_the_doctor(tmp_path):
    for path in build(tmp_path, "DescribableTextures", "coop"):
        Path(path).write_bytes(LFS + b"spec/v1\n")
    report = state(tmp_path, "dtd")
    assert report.state == "broken" and "git lfs pull" in report.problems[0]


def test_the_built_in_images_are_checked(tmp_path, monkeypatch):
    from fairclip.data import synth

    def render(folder, seed, light):
        for part in PARTS:
            picture(folder / "images" / f"{part}.jpg", part)
        split = {part: [[f"{part}.jpg", 0, "Aster"]] for part in PARTS}
        (folder / "split_zhou_SynthCars.json").write_text(json.dumps(split))

    monkeypatch.setattr(synth, "render_dataset", render)
    SynthCars(config(tmp_path, "SynthCars"))
    (tmp_path / "synth_cars/images/test.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"(?s)test.jpg: empty file.*Delete .*synth_cars and run again"):
        SynthCars(config(tmp_path, "SynthCars"))


# -- Split files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"train": [["a.jpg", 0.9, "x"]], "val": [], "test": []}', "0.9 of a.jpg must be a whole number"),
        ('{"train": [["a.jpg", true, "x"]], "val": [], "test": []}', "whole number"),
        ('{"train": [["a.jpg", "0", "x"]], "val": [], "test": []}', "whole number"),
        ('{"train": [["a.jpg", 100000000, "x"]], "val": [], "test": []}', "up to 100,000"),
        ('{"train": [["a.jpg", 90000, "x"]], "val": [], "test": []}', "label 0 has no training image"),
        ('{"train": [[3, 0, "x"]], "val": [], "test": []}', "must be text"),
        ('{"train": [["a.jpg", 0, null]], "val": [], "test": []}', "must be text"),
        ('{"train": [["a.jpg", 0, "x"]], "val": [], "test": [], "test": []}', "'test' is there twice"),
        ("[" * 100_000, "is not a split file"),
    ],
)
def test_mistakes_in_a_split_file(tmp_path, text, message):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_split(tmp_path / "split.json", tmp_path)
