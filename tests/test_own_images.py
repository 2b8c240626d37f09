"""Pictures as people have them: sideways, of 16 bits, transparent, oddly named, labelled in a table."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import train
from dassl.data.datasets import Datum
from PIL import Image
from test_image_folder import CONFIG, ROOT, config, labels, load, make, tree

from fairclip.core.errors import UserError
from fairclip.core.image_files import images_below, printable
from fairclip.core.rgb import as_rgb
from fairclip.data import messages
from fairclip.data.images import check_images
from fairclip.data.own_classes import without_numbers
from fairclip.predict.images import read_image, to_rgb
from fairclip.run.loaders import Loaders
from fairclip.run.results import write_predictions
from fairclip.text.descriptions import match_names
from fairclip.views import loading
from fairclip.views.features import encode_images
from fairclip.views.image_cache import ImageCache

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
BROKEN_NAME = os.fsdecode(b"caf\xe9")


@pytest.fixture(autouse=True)
def alone():
    messages.tell_once.cache_clear()


# -- Pixels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pixels, mode, ending",
    [
        (RAMP.astype(np.uint16) * 257, "I;16", "png"),
        (RAMP.astype(np.uint16) * 257, "I;16", "tif"),
        (RAMP.astype(np.int32) * 257, "I", "tif"),
        (RAMP.astype(np.int32), "I", "tif"),
        (RAMP.astype(np.float32) / 255, "F", "tif"),
        (RAMP.astype(np.float32), "F", "tif"),
        (RAMP.astype(np.float32) * 1e6 - 5e7, "F", "tif"),
    ],
)
@pytest.mark.parametrize("upright", [True, False])
def test_greys_of_many_bits_are_scaled(tmp_path, pixels, mode, ending, upright):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(path)
    with Image.open(path) as image:
        assert image.mode.startswith(mode)
    assert check_images([str(path)], "Greys") == []
    found = np.asarray(loading.read_image(path, upright=upright))
    assert found.shape == (16, 16, 3) and (found == RAMP[..., None]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
def test_a_persons_images_are_turned_and_those_of_benchmarks_are_not(tmp_path, orientation, kind):
    wide = Image.fromarray(np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, np.ones((8, 8), np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    wide.convert("RGB").save(tmp_path / f"a.{kind}", exif=exif, **({"lossless": True} if kind == "webp" else {}))
    stored, seen = (np.asarray(loading.read_image(tmp_path / f"a.{kind}", upright=flag)) for flag in (False, True))
    turned = {1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud}
    turned |= {5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x, -1)}
    turned |= {7: lambda x: np.rot90(np.fliplr(x), -1), 8: np.rot90}
    plain = np.asarray(wide.convert("RGB"))
    assert np.abs(seen.astype(int) - turned[orientation](plain)).max() < 20  # JPEG
    if kind != "tiff":  # which Pillow turns by itself
        assert np.abs(stored.astype(int) - plain).max() < 20


def test_every_way_of_reading_knows_the_setting(tmp_path):
    path, exif = tmp_path / "a.png", Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    content = path.read_bytes()
    for picture in (path, content, io.BytesIO(content), Image.open(path)):
        assert to_rgb(picture).size == (20, 30)
    assert to_rgb(path, upright=False).size == (30, 20)
    cache = {flag: ImageCache("disk", 1, flag) for flag in (False, True)}
    for _ in range(2):
        assert cache[True].read(path).size == (20, 30) and cache[False].read(path).size == (30, 20)
    tower = torch.nn.Linear(1, 1)

    sides_of = {
        flag: encode_images(tower, [path], SIDES, lambda x: x, upright=flag)[0].tolist() for flag in (False, True)
    }
    assert sides_of == {False: [[30, 20]], True: [[20, 30]]}


class Sides:
    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.tensor(image.size).float()

    def __repr__(self) -> str:
        return "Sides"


SIDES = Sides()


def test_the_data_set_says_how_its_images_are_read(tmp_path):
    make(tmp_path, tree("a"))
    assert load(tmp_path).upright and not load(tmp_path, "DATASET.UPRIGHT", "False").upright
    loaders = [Loaders(config(tmp_path), torch.device("cpu"), [], flag) for flag in (True, False)]
    path, exif = tmp_path / "a.png", Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    read = [each.make([Datum(impath=str(path), label=0)], SIDES).dataset[0]["img"].tolist() for each in loaders]
    assert read == [[20, 30], [30, 20]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white_in_a_persons_images(tmp_path, mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
    image.save(tmp_path / "a.png", **({"transparency": image.getpixel((0, 0))} if mode == "P" else {}))
    assert np.asarray(read_image(tmp_path / "a.png")).min() == 255
    assert np.asarray(loading.read_image(tmp_path / "a.png")).max() == 0


def test_damaged_notes_of_a_camera_are_no_reason_to_refuse(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert as_rgb(Image.open(tmp_path / "a.jpg"), upright=True).size == (30, 20)


def test_what_is_said_of_files_without_an_image(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "lfs.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    Image.new("RGB", (40, 40)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    said = dict(check_images([str(path) for path in tmp_path.iterdir()], "Odd"))
    reasons = {Path(path).name: reason for path, reason in said.items()}
    assert "pipe" in reasons["pipe.jpg"] and "git lfs pull" in reasons["lfs.jpg"]
    assert "too large" in reasons["large.png"] and "FAIR_MAX_PIXELS" in reasons["large.png"]
    for name, reason in reasons.items():
        with pytest.raises(UserError) as error:
            read_image(tmp_path / name)
        assert reason in str(error.value)


# -- Names -------------------------------------------------------------------------------------------------------------


def test_endings_and_folders_that_nobody_means(tmp_path, capsys):
    files = [f"{part}/{name}/{i}.{kind}" for part in ("train", "test") for name in "ab" for i, kind in enumerate(KINDS)]
    make(tmp_path, [*files, "train/@eaDir/1.jpg", "train/__MACOSX/1.jpg", "train/a/.ipynb_checkpoints/1.jpg"])
    make(tmp_path, ["train/a/@eaDir/1.jpg", "train/$RECYCLE.BIN/1.jpg"])
    (tmp_path / "train/a/1.heic").touch()
    (tmp_path / "train/empty").mkdir()
    data = load(tmp_path)
    assert data.classnames == ["a", "b"] and len(data.train_x) == len(data.test) == 2 * len(KINDS)
    out = capsys.readouterr().out
    assert "left out: 1 .heic. To use them, convert HEIC photos to JPEG first" in out
    assert "folders without images: empty" in out


KINDS = ("jfif", "tif", "TIFF", "jpe", "bmp", "pgm", "avif", "jp2")


def test_an_empty_folder_is_named(tmp_path):
    make(tmp_path, ["train/a/1.jpg", "test/a/1.jpg", "test/b/1.jpg"])
    (tmp_path / "train/b").mkdir()
    with pytest.raises(UserError, match=r"folders of no class: b.*\(b in .*train holds no images\)"):
        load(tmp_path)


def test_unicode_forms_are_one(tmp_path):
    composed, apart = "Café_noir", "Cafe\u0301_noir"
    make(tmp_path / composed, [f"train/{composed}/1.jpg", "train/b/1.jpg", f"test/{apart}/1.jpg", "test/b/1.jpg"])
    data = load(tmp_path, "DATASET.FOLDER", apart.replace("Cafe", "Cafe"))
    assert data.classnames == ["b", "Café noir"] and [item.label for item in data.test] == [0, 1]
    make(tmp_path / "list", ["train/Cafe\u0301/1.jpg", "test/Café/1.jpg"], "Café\n")
    assert load(tmp_path / "list").test[0].classname == "Café"
    make(tmp_path / "plain", ["train/Škoda Octavia/1.jpg", "test/Skoda Octavia/1.jpg"])
    assert load(tmp_path / "plain").classnames == ["Škoda Octavia"]
    make(tmp_path / "two", ["train/Pâté/1.jpg", "train/Pate/1.jpg", "test/Paté/1.jpg"])
    with pytest.raises(UserError, match="no class: Paté"):
        load(tmp_path / "two")


def test_descriptions_are_found_whatever_the_accents_and_slashes():
    pairs = {"Škoda Octavia": "Skoda Octavia", "Café": "Cafe\u0301", "2012 Ram C/V Cargo Van": "Ram CV Cargo Van 2012"}
    assert match_names(pairs, pairs.values()) == pairs
    assert match_names(["Pâté"], ["Pate", "Paté"]) == {}


def test_numbers_that_only_count_are_no_part_of_a_name():
    assert without_numbers(["001.Black_Bird", "002.Crow"]) == ["Black_Bird", "Crow"]
    assert without_numbers(["017.Crow", "150.Wren"]) == ["Crow", "Wren"]
    assert without_numbers(["0-cat", "1-dog"]) == ["cat", "dog"]
    for names in (["2_door", "4_door"], ["3 series", "5 series"], ["10", "2"], ["1.a", "b"], ["707-320", "727-200"]):
        assert without_numbers(names) == names


def test_comments_and_classes_with_a_hash(tmp_path):
    make(tmp_path, tree("#1 pony", "b"), "# mine\n#\n#1 pony\nb\n")
    assert load(tmp_path).classnames == ["#1 pony", "b"]


def test_names_that_are_not_utf8_lose_nothing(tmp_path, backbone, monkeypatch):  # noqa: F811
    from fairclip.core.csv_files import as_csv
    from fairclip.predict.classify import find_images

    make(tmp_path, [f"{part}/{name}/{BROKEN_NAME}{i}.png" for part in ("train", "test") for name in (BROKEN_NAME, "b")
                    for i in range(2)])  # fmt: skip
    arguments = ["--root", str(tmp_path), "--output-dir", str(tmp_path / "out"), "--trainer", "FAIR", "--seed", "1"]
    arguments += ["--backbone", str(backbone), "--dataset-config-file", str(CONFIG)]
    arguments += ["--config-file", str(ROOT / "configs/trainers/FAIR/tiny.yaml")]
    settings = ["DATALOADER.NUM_WORKERS", "0", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "OPTIM.MAX_EPOCH", "1"]
    assert train([*arguments, *settings]) == 0
    assert json.loads((tmp_path / "out/results.json").read_text())["accuracy"] >= 0
    rows = list(csv.DictReader(open(tmp_path / "out/predictions.csv", encoding="utf-8")))
    assert [row["image"] for row in rows][2:] == [f"test/caf\\xe9/caf\\xe9{i}.png" for i in range(2)]
    assert {row["label"] for row in rows} == {"b", "caf\\xe9"}
    as_csv(["image"], [[path] for path in find_images([str(tmp_path / "test")])]).encode()


def test_half_a_sign_is_escaped(tmp_path):
    assert printable("a\ud800b") == "a\\ud800b" and printable("é") == "é"
    file = write_predictions(tmp_path, str(tmp_path), ["a\ud800"], [(f"{tmp_path}/x.jpg", 0, 0, 0.5)])
    assert file.read_text(encoding="utf-8").splitlines()[1] == "x.jpg,a\\ud800,a\\ud800,0.5000"


# -- Labels in a table -------------------------------------------------------------------------------------------------


def write_table(folder: Path, *lines: str, name: str = "labels.csv", files: int = 10) -> Path:
    make(folder, [f"images/{i}.jpg" for i in range(files)])
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8-sig")
    return folder


def test_labels_from_a_table(tmp_path):
    write_table(
        tmp_path, "Path,Label,Split", "images/1.jpg,dog,train", "images/2.jpg,cat,train", "images/3.jpg,dog,test"
    )
    data = load(tmp_path)
    assert data.classnames == ["cat", "dog"]
    assert labels(data.train_x) == {"images/2.jpg": (0, "cat"), "images/1.jpg": (1, "dog")}
    assert labels(data.test) == {"images/3.jpg": (1, "dog")}
    write_table(tmp_path / "b", "split;filename;class", "val;images/1.jpg;x", "train;images/2.jpg;x", name="my.tsv")
    assert labels(load(tmp_path / "b", "DATASET.LABELS", "my.tsv").test) == {"images/1.jpg": (0, "x")}


def test_a_table_without_splits_goes_by_folders_or_draws(tmp_path, capsys):
    make(tmp_path / "a", ["train/1.jpg", "test/1.jpg"])
    (tmp_path / "a/labels.csv").write_text("path,label\ntrain/1.jpg,x\ntest/1.jpg,x\n")
    assert labels(load(tmp_path / "a").test) == {"test/1.jpg": (0, "x")}
    write_table(tmp_path / "b", "path,label", *(f"images/{i}.jpg,{'xy'[i % 2]}" for i in range(10)))
    data = load(tmp_path / "b")
    assert (len(data.train_x), sorted(item.label for item in data.test)) == (8, [0, 1])
    assert "20 % are drawn" in capsys.readouterr().out
    assert [item.impath for item in load(tmp_path / "b").test] == [item.impath for item in data.test]


def test_a_table_may_leave_training_images_without_labels(tmp_path):
    write_table(tmp_path, "path,label,split", "images/1.jpg,,train", "images/2.jpg,b,test", "images/3.jpg,a,test")
    data = load(tmp_path)
    assert [item.label for item in data.train_x] == [-1] and data.classnames == ["a", "b"]


@pytest.mark.parametrize(
    "lines, message",
    [
        (["name,kind", "images/1.jpg,a"], "needs the columns path and label"),
        (["path,label", "images/1.jpg,a", "gone.jpg,a"], "1 of the 2 images .* gone.jpg"),
        (["path,label", "images/1.jpg,a", "images/1.jpg,b"], "images/1.jpg twice"),
        (["path,label,split", "images/1.jpg,a,foo"], "split 'foo' of row 2"),
        (["path,label,split", "images/1.jpg,a,train", "images/2.jpg,,train"], "1 of 2 training images have no label"),
        (["path,label,split", "images/1.jpg,a,train", "images/2.jpg,,val"], "val images need labels"),
        (["path,label,split", "images/1.jpg,a,train"], "nothing to test on"),
        ([], "needs the columns"),
    ],
)
def test_mistakes_in_a_table(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        load(write_table(tmp_path, *lines))


# -- Doubles, and no test ----------------------------------------------------------------------------------------------


def test_images_of_train_in_test_are_counted(tmp_path, capsys):
    make(tmp_path, tree("a", "b"))
    (tmp_path / "test/a/0.jpg").write_bytes((tmp_path / "train/a/1.jpg").read_bytes())
    for _ in range(2):  # the second time from the record
        messages.tell_once.cache_clear()
        load(tmp_path)
        assert "1 of the 2 test images of ImageFolder are training images too" in capsys.readouterr().out


def test_ten_broken_images_are_named_and_the_others_counted(tmp_path):
    make(tmp_path, tree("a", train=14))
    for path in (tmp_path / "train/a").iterdir():
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError) as error:
        load(tmp_path)
    assert str(error.value).count("git lfs pull") == 10 and "and 4 more" in str(error.value)


def test_images_alone_are_adapted_to_and_saved(tmp_path, backbone, capsys):  # noqa: F811
    make(tmp_path, [*(f"train/{i}.jpg" for i in range(4)), "test/1.jpg"], "a\nb\n")
    arguments = ["--root", str(tmp_path), "--output-dir", str(tmp_path / "out"), "--trainer", "FAIR", "--seed", "1"]
    arguments += ["--backbone", str(backbone), "--dataset-config-file", str(CONFIG)]
    arguments += ["--config-file", str(ROOT / "configs/trainers/FAIR/tiny.yaml")]
    settings = ["DATALOADER.NUM_WORKERS", "0", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "OPTIM.MAX_EPOCH", "1"]
    (tmp_path / "test").rename(tmp_path / "elsewhere")
    assert train([*arguments, *settings]) == 2
    assert "TEST.NO_TEST True" in capsys.readouterr().err
    (tmp_path / "elsewhere").rename(tmp_path / "test")
    assert train([*arguments, *settings, "TEST.NO_TEST", "True"]) == 0
    out = capsys.readouterr().out
    assert "fair predict RUN" in out and "Trained: the model is in" in out
    from fairclip import Predictor

    assert Predictor.load(tmp_path / "out")(sorted(images_below(tmp_path / "train").values())).shape == (4, 2)

    # With a test of images that have no labels there are predictions, and no accuracy.
    messages.tell_once.cache_clear()
    arguments[arguments.index("--output-dir") + 1] = str(tmp_path / "predicted")
    assert train([*arguments, *settings, "TEST.EVERY_EPOCH", "True"]) == 0
    out = capsys.readouterr().out
    assert "they get predictions, and there is no accuracy" in out and "No accuracy, as the test images" in out
    assert not (tmp_path / "predicted/results.json").exists() and "test accuracy" not in out
    (row,) = csv.DictReader(open(tmp_path / "predicted/predictions.csv", encoding="utf-8"))
    assert (row["image"], row["label"]) == ("test/1.jpg", "") and row["prediction"] in ("a", "b")
    evaluation = ["--eval-only", "--model-dir", str(tmp_path / "predicted"), *settings]
    assert train([*arguments, *evaluation]) == 0 and "No accuracy" in capsys.readouterr().out


def test_a_table_may_have_a_test_without_labels(tmp_path):
    lines = ["images/1.jpg,a,train", "images/2.jpg,b,train", "images/3.jpg,,test"]
    assert [item.label for item in load(write_table(tmp_path, "path,label,split", *lines)).test] == [-1]
