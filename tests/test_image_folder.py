"""A user's own images: folders with and without labels, what they are called, and FAIR on them through train.py."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from commands import train
from dassl.data import DataManager
from dassl.data.datasets import build_dataset
from PIL import Image

from fairclip.core.errors import UserError
from fairclip.core.plugins import import_plugins
from fairclip.run import config as configs
from fairclip.run import launch
from fairclip.text.descriptions import find_descriptions, load_descriptions

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "datasets" / "folder.yaml"


def make(folder: Path, files: Iterable[str], classes: str = "") -> Path:
    """Small images at these paths below `folder`; the same number in two names makes the same colour."""
    rng = np.random.default_rng(0)
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 52, 3), dtype=np.uint8)).save(path, "PNG")
    if classes:
        (folder / "classes.txt").write_text(classes, encoding="utf-8")
    return folder


def tree(*classes: str, train: int = 2, test: int = 1) -> list[str]:
    return [
        f"{part}/{name}/{i}.jpg"
        for part, count in (("train", train), ("test", test))
        for name in classes
        for i in range(count)
    ]


def config(root: Path, *opts: str):
    modules, _ = import_plugins("trainers", "datasets")
    return configs.build_cfg(
        launch.parse_args(["--root", str(root), "--dataset-config-file", str(CONFIG), *opts]), modules
    )


def load(root: Path, *opts: str):
    return build_dataset(config(root, *opts))


def labels(items) -> dict[str, tuple[int, str]]:
    """File name with its folder -> label and class name."""
    return {"/".join(Path(d.impath).parts[-2:]): (d.label, d.classname) for d in items}


# -- Labelled images ---------------------------------------------------------------------------------------------------


def test_classes_are_named_after_their_folders_in_natural_order(tmp_path, capsys):
    make(tmp_path, tree("10", "2", "Fire_truck", "car b", "1"))
    data = load(tmp_path)
    assert data.classnames == ["1", "2", "10", "car b", "Fire truck"]
    assert data.lab2cname == dict(enumerate(data.classnames)) and data.num_classes == 5
    assert labels(data.test) == {
        "1/0.jpg": (0, "1"),
        "2/0.jpg": (1, "2"),
        "10/0.jpg": (2, "10"),
        "car b/0.jpg": (3, "car b"),
        "Fire_truck/0.jpg": (4, "Fire truck"),
    }
    assert [d.label for d in data.train_x] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and data.val == []
    assert find_descriptions("", data) is None
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ImageFolder:")]
    assert said == [
        f"ImageFolder: class folders in {tmp_path}, 5 classes from the folders' names, 10 train, 0 val, 5 test"
    ]


def test_a_class_list_decides_names_and_order(tmp_path):
    make(tmp_path, tree("n02", "n01", "Red_Car"), "# mine\nzebra\tn02\n\nred car\nant\tn01\r\n")
    data = load(tmp_path)
    assert data.classnames == ["zebra", "red car", "ant"]
    assert labels(data.test) == {"n02/0.jpg": (0, "zebra"), "Red_Car/0.jpg": (1, "red car"), "n01/0.jpg": (2, "ant")}


def test_folder_names_in_the_list_count_for_more_than_class_names(tmp_path):
    make(tmp_path, tree("a", "b"), "a\tb\nb\ta\n")
    assert labels(load(tmp_path).test) == {"b/0.jpg": (0, "a"), "a/0.jpg": (1, "b")}


def test_a_class_without_training_images_keeps_its_place(tmp_path, capsys):
    make(tmp_path, ["train/b/1.jpg", "test/a/1.jpg", "test/b/1.jpg"], "a\nb\nc\n")
    data = load(tmp_path)
    assert data.classnames == ["a", "b", "c"] and data.num_classes == 3
    assert labels(data.train_x) == {"b/1.jpg": (1, "b")} and labels(data.test)["a/1.jpg"] == (0, "a")
    assert "2 classes have no training image: a, c" in capsys.readouterr().out


def test_odd_places_and_files(tmp_path):
    """Folders in folders, other endings, dot files, texts, empty folders; parts by other names; a doubled folder."""
    inner = tmp_path / "cats" / "cats"
    make(
        inner,
        [
            "Train/a/x/1.JPG",
            "Train/a/2.png",
            "Train/b/1.webp",
            "Testing/a/1.jpg",
            "Testing/b/1.jpg",
            "valid/b/1.jpeg",
            "Train/.hidden/1.jpg",
            "Train/a/._1.jpg",
        ],
    )
    (inner / "Train" / "a" / "notes.txt").touch()
    (inner / "Train" / "empty").mkdir()
    for opts in [("DATASET.FOLDER", "cats"), ("DATASET.FOLDER", str(inner))]:
        data = load(tmp_path, *opts)
        assert labels(data.train_x) == {"x/1.JPG": (0, "a"), "a/2.png": (0, "a"), "b/1.webp": (1, "b")}
        assert (len(data.val), len(data.test)) == (1, 2)


def test_classes_called_like_parts(tmp_path):
    make(tmp_path, tree("train", "test"))
    data = load(tmp_path)
    assert data.classnames == ["test", "train"] and len(data.train_x) == 4


def test_val_stands_in_for_test(tmp_path, capsys):
    make(tmp_path, ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg"])
    data = load(tmp_path)
    assert labels(data.test) == {"a/1.jpg": (0, "a")} and not data.val
    assert "has no test images, those in val/ are used" in capsys.readouterr().out


def test_few_shots_and_halves(tmp_path):
    make(tmp_path, tree("a", "b", "c", train=5))
    data = load(tmp_path, "DATASET.NUM_SHOTS", "2", "DATASET.SUBSAMPLE_CLASSES", "new")
    assert data.classnames == ["c"] and len(data.train_x) == 2 and len(data.test) == 1


def test_descriptions_beside_the_images(tmp_path):
    make(tmp_path, tree("a_x", "b"))
    (tmp_path / "descriptions.json").write_text('{"b": ["b one."], "A x": ["a one.", "a two."]}')
    data = load(tmp_path)
    assert load_descriptions(find_descriptions("", data), data.classnames) == [["a one.", "a two."], ["b one."]]


# -- Images without labels ---------------------------------------------------------------------------------------------


def test_images_without_labels(tmp_path, capsys):
    make(tmp_path, ["train/1.jpg", "train/2.jpg", "test/ant/1.jpg", "test/Bee_fly/1.jpg"], "bee fly\nant\nwasp\n")
    cfg = config(tmp_path, "DATALOADER.NUM_WORKERS", "0", "DATALOADER.TRAIN_X.BATCH_SIZE", "2")
    manager = DataManager(cfg)
    data = manager.dataset
    assert labels(data.train_x) == {"train/1.jpg": (-1, ""), "train/2.jpg": (-1, "")}
    assert labels(data.test) == {"Bee_fly/1.jpg": (0, "bee fly"), "ant/1.jpg": (1, "ant")}
    assert manager.num_classes == 3 and manager.lab2cname == {0: "bee fly", 1: "ant", 2: "wasp"}
    assert data.classnames == ["bee fly", "ant", "wasp"]
    assert next(iter(manager.train_loader_x))["label"].tolist() == [-1, -1]
    assert "training images without labels" in capsys.readouterr().out


@pytest.mark.parametrize("opts", [("DATASET.NUM_SHOTS", "1"), ("DATASET.SUBSAMPLE_CLASSES", "base")])
def test_what_needs_labels_is_refused(tmp_path, opts):
    make(tmp_path, ["train/1.jpg", "test/a/1.jpg"], "a\n")
    with pytest.raises(UserError, match="by their labels"):
        load(tmp_path, *opts)


# -- Mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files, classes, message",
    [
        ([], "", "no folder train/, only nothing"),
        (["images/1.jpg"], "", "no folder train/, only images"),
        (["train/.keep/1.jpg", "test/a/1.jpg"], "", "train holds no images"),
        (["train/a/1.jpg"], "", "nothing to test on"),
        (["train/a/1.jpg", "val/1.jpg"], "", "nothing to test on"),
        (["train/1.jpg", "test/a/1.jpg"], "", "classes.txt must say what classes there are"),
        (["train/1.jpg", "test/a/1.jpg"], "# none\n", "names no class"),
        (["train/1.jpg", "train/a/1.jpg", "test/a/1.jpg"], "a\n", r"both images and folders with images \(a\)"),
        (tree("a", "b") + ["test/c/1.jpg"], "", "folders of no class: c. The classes are a, b"),
        (tree("a", "b"), "a\n", "train has folders of no class: b"),
        (tree("a", "b"), "a\nb\na\n", "the class 'a' is there twice"),
        (tree("a_b", "a b"), "", "the class 'a b' is there twice"),
        (tree("a"), "x\ta\ny\ta\n", "the folder 'a' is there twice"),
        (tree("a") + ["test/A/1.jpg"], "", "two folders of the class 'a': A and a"),
        (tree("a") + ["training/a/1.jpg"], "", "has train and training: keep one"),
    ],
)
def test_mistakes(tmp_path, files, classes, message):
    with pytest.raises(UserError, match=message) as error:
        load(make(tmp_path, files, classes))
    assert str(tmp_path) in str(error.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="mine does not exist"):
        load(tmp_path, "DATASET.FOLDER", "mine")


@pytest.mark.parametrize("labelled", [True, False])
def test_broken_images_end_the_run_or_are_left_out(tmp_path, labelled):
    files = tree("a", "b") if labelled else ["train/0.jpg", "train/1.jpg", "test/a/0.jpg"]
    make(tmp_path, files, "a\nb\n")
    broken = tmp_path / files[1]
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match="1 of [0-9]+ images cannot be decoded") as error:
        load(tmp_path)
    assert str(broken) in str(error.value)
    data = load(tmp_path, "DATASET.SKIP_CORRUPT", "True")
    assert len(data.train_x) == files.index(next(f for f in files if f.startswith("test"))) - 1
    (tmp_path / files[0]).write_bytes(b"")
    for path in (tmp_path / "train").rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no training or no test image that can be decoded"):
        load(tmp_path, "DATASET.SKIP_CORRUPT", "True")


# -- FAIR --------------------------------------------------------------------------------------------------------------


def run(root: Path, backbone: Path, out: Path, monkeypatch) -> dict:
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # setup_logger replaces it
    assert 0 == train(
        [
            "--root",
            str(root),
            "--output-dir",
            str(out),
            "--trainer",
            "FAIR",
            "--seed",
            "1",
            "--backbone",
            str(backbone),
            "--dataset-config-file",
            str(CONFIG),
            "--config-file",
            str(ROOT / "configs/trainers/FAIR/tiny.yaml"),
            "DATALOADER.NUM_WORKERS",
            "0",
            "DATALOADER.TRAIN_X.BATCH_SIZE",
            "4",
            "DATALOADER.TEST.BATCH_SIZE",
            "4",
            "OPTIM.MAX_EPOCH",
            "2",
        ]
    )
    return json.loads((out / "results.json").read_text())


def test_fair_runs_with_labels_and_without(tmp_path, backbone, monkeypatch, capsys):
    """On the same images, in the same order, so with the same result: only the pseudo-labels' accuracy is missing."""
    names = [f"train/{name}/{name}{i}.jpg" for name in ("ant", "bee") for i in range(4)]
    make(tmp_path / "labelled", names + ["test/ant/1.jpg", "test/bee/1.jpg"], "ant\nbee\n")
    make(tmp_path / "flat", [])
    for path in sorted((tmp_path / "labelled").rglob("*.*")):
        below = path.relative_to(tmp_path / "labelled")
        target = tmp_path / "flat" / (Path("train") / path.name if below.parts[0] == "train" else below)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())

    labelled = run(tmp_path / "labelled", backbone, tmp_path / "out" / "labelled", monkeypatch)
    flat = run(tmp_path / "flat", backbone, tmp_path / "out" / "flat", monkeypatch)
    assert "Traceback" not in capsys.readouterr().out
    assert labelled["dataset"] == flat["dataset"] == "ImageFolder"
    assert flat["accuracy"] == labelled["accuracy"] and len(flat["epochs"]) == 2
    for with_labels, without in zip(labelled["epochs"], flat["epochs"], strict=True):
        assert with_labels.keys() - without.keys() == {"pseudo_accuracy"}
        assert without.keys() < with_labels.keys() and without["loss"] == with_labels["loss"]
