"""adapt(): from unlabelled images and class names to a classifier."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import adapt as fair_adapt
from PIL import Image
from toys import CLASSES, ROOT, make_data

import fairclip
from fairclip.adapting.adapt import below_common
from fairclip.adapting.settings import choose_settings
from fairclip.adapting.summary import Answer, in_words, summarize
from fairclip.adapting.task import find_images, keep_image, shipped_descriptions
from fairclip.core.errors import UserError

FEW = ("TRAINER.FAIR.N_CROPS", "2", "TRAINER.FAIR.TOP_K", "2", "TRAINER.FAIR.PREC", "fp32")
SENTENCES = {name: [f"a {name} on a road."] for name in CLASSES}


@pytest.fixture
def backbone(backbone) -> str:
    return str(backbone)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Nine images, some deeper down, and one that is none."""
    root = tmp_path_factory.mktemp("photos")
    make_data(root / "album", train=3, test=0)
    (root / "album/split.json").unlink()
    (root / "album/descriptions.json").unlink()
    (root / "broken.jpg").write_bytes(b"no image")
    (root / "phone.heic").touch()
    return root


@pytest.fixture
def loaded(monkeypatch) -> list[tuple]:
    """The arguments of each call that loads a backbone."""
    from fairclip.predict import classifier
    from fairclip.run import build

    calls, real = [], classifier.load_backbone
    for module in (classifier, build):
        monkeypatch.setattr(module, "load_backbone", lambda *args: calls.append(args) or real(*args))
    return calls


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_and_names(photos, backbone, tmp_path, capsys, loaded):
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n\n")
    (tmp_path / "said.json").write_text(json.dumps(SENTENCES))
    out = tmp_path / "model"
    argv = [str(photos), "--classes", str(tmp_path / "classes.txt"), "--backbone", backbone, "--out", str(out)]
    argv += ["--descriptions", str(tmp_path / "said.json"), "--epochs", "2", "--", *FEW]
    assert fair_adapt(argv) == 0
    said = capsys.readouterr()
    assert "of 9 images got another class" in said.out + said.err and "broken.jpg" in said.out + said.err
    assert "left out: 1 .heic. To use them, convert HEIC photos to JPEG first" in said.out
    answers, summary = rows(out), json.loads((out / "summary.json").read_text())
    assert len(answers) == 9 == summary["images"] and {answer["prediction"] for answer in answers} <= set(CLASSES)
    assert summary["changed"] == sum(answer["prediction"] != answer["prediction_before"] for answer in answers)
    with Image.open(out / "crops.png") as picture:
        assert picture.height > 6 * 300

    loads = [args[0] for args in loaded]
    assert len(loads) == 2  # by the run, and by what is said afterwards

    # The answers are those of a predictor that is loaded; the same call once more trains nothing and says the same.
    predictor = fairclip.Predictor.load(out)
    assert [predictor.top(answer["image"], 1)[0][0] for answer in answers] == [
        answer["prediction"] for answer in answers
    ]
    before = (out / "fair/model.pth.tar-2").stat().st_mtime_ns
    capsys.readouterr()
    assert fair_adapt(argv) == 0
    assert rows(out) == answers and (out / "fair/model.pth.tar-2").stat().st_mtime_ns == before
    again = capsys.readouterr().out.splitlines()
    told = said.out.splitlines()
    assert again[-len(in_words(summary)) - 2 :] == told[-len(in_words(summary)) - 2 :]
    assert told[-1] == f"To classify other images: fair predict {out} IMAGES"
    assert f"{out} is finished already. To adapt anew, remove it, or choose another --out" in again
    assert not [line for line in again if "Resume" in line or "Trained" in line or line.startswith("epoch")]

    # Stopped between the training and the summary, it makes that alone.
    (out / "summary.json").unlink()
    assert fair_adapt(argv) == 0
    assert "Resume" in (said := capsys.readouterr().out) and "after epoch 2, the last: all are trained" in said
    assert json.loads((out / "summary.json").read_text()) == summary
    assert (out / "fair/model.pth.tar-2").stat().st_mtime_ns == before

    (tmp_path / "classes.txt").write_text("\n".join(CLASSES[:2]))
    assert fair_adapt(argv) == 2
    assert "adapted with other classes" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["pil", "array", "paths", "dataset", "one"])
def test_images_of_any_form(form, photos, backbone, tmp_path):
    paths = sorted((photos / "album").glob("*.png"))[: 1 if form == "one" else 2]  # fewer images than classes
    opened = [Image.open(path).convert("RGB") for path in paths]
    given = {
        "pil": opened,
        "array": [np.array(image) for image in opened],
        "paths": paths,
        "one": paths,
        "dataset": [(torch.from_numpy(np.array(image)).permute(2, 0, 1), 7) for image in opened],
    }[form]
    out = tmp_path / "model"
    predictor = fairclip.adapt(given, CLASSES, SENTENCES, backbone, out=out, epochs=1, settings=FEW)
    assert predictor.classnames == CLASSES and len(rows(out)) == len(paths)
    expected = predictor(paths)
    assert torch.allclose(predictor([answer["image"] for answer in rows(out)]), expected)


def test_images_in_memory_are_those_that_a_predictor_sees(tmp_path):
    grey = Image.fromarray(np.full((4, 6), 40_000, np.uint16))
    clear = Image.new("RGBA", (6, 4))
    for number, (image, colour) in enumerate([(grey, 156), (clear, 255), (torch.full((1, 4, 6), 0.5), 128)]):
        with Image.open(keep_image(image, number, tmp_path)) as kept:
            assert kept.mode == "RGB" and kept.getpixel((0, 0)) == (colour,) * 3
    for image in (torch.randn(3, 4, 6), np.zeros((4, 6), np.uint8)):
        with pytest.raises(UserError, match="image 7: "):
            keep_image(image, 7, tmp_path)


def test_a_folder_with_a_test_of_its_own(tmp_path):
    for place in ("train/a.png", "val/b.png", "testing/deep/c.png", "d.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    trained, apart = ([os.path.relpath(p, tmp_path) for p in part] for part in find_images(tmp_path, tmp_path / "out"))
    assert (trained, apart) == (["d.png", "train/a.png"], ["testing/deep/c.png", "val/b.png"])
    (tmp_path / "train/a.png").unlink()
    assert len(find_images(tmp_path, tmp_path / "out")[0]) == 3


def test_titles_are_relative_to_the_folder():
    assert below_common(["/p/a/1.png"], ["/p/a/1.png", "/p/2.png"]) == ["a/1.png"]
    assert below_common(["/p/a/1.png"], ["/p/a/1.png"]) == ["1.png"]


def test_without_descriptions_and_with_those_of_the_project(photos, backbone, tmp_path, caplog):
    fairclip.adapt(photos / "album", CLASSES, None, backbone, out=tmp_path / "a", epochs=1, settings=FEW)
    assert "Class descriptions: none" in caplog.text and "would help" in caplog.text
    found, source = shipped_descriptions(["annual crop land", "Forest", "River", "nothing known"])
    assert source == "eurosat.json" and set(found) == {"annual crop land", "Forest", "River"}
    assert shipped_descriptions(["Forest", "nothing", "of", "this"]) == ({}, "")


@pytest.mark.parametrize(
    ("images", "classes", "descriptions", "message"),
    [
        ("nowhere", CLASSES, None, "there is no folder nowhere"),
        ([], CLASSES, None, "there are no images"),
        (["nowhere.jpg"], CLASSES, None, "there is no image nowhere.jpg"),
        ([3], CLASSES, None, "image 0: what is of the type int is no image"),
        ("PHOTOS", ["one"], None, "at least two classes"),
        ("PHOTOS", ["one", "two", "one"], None, "named twice: one"),
        ("PHOTOS", ["one", " "], None, "a class name is empty"),
        ("PHOTOS", "nowhere.txt", None, "there is no file nowhere.txt"),
        ("PHOTOS", CLASSES, {"black car": ["x"]}, "black car, which are no classes"),
        ("PHOTOS", CLASSES, "nowhere.json", "there is no file nowhere.json"),
    ],
)
def test_mistakes(images, classes, descriptions, message, photos, backbone, tmp_path):
    with pytest.raises(UserError, match=message):
        fairclip.adapt(
            photos if images == "PHOTOS" else images, classes, descriptions, backbone, out=tmp_path / "model"
        )
    assert not (tmp_path / "model").exists()


def test_the_number_of_epochs_follows_the_images():
    def epochs(*args) -> int:
        words = choose_settings(*args)
        return int(words[words.index("OPTIM.MAX_EPOCH") + 1])

    assert [epochs(n, "cpu", "ViT-B/32") for n in (10, 800, 10**6)] == [30, 10, 4]
    assert epochs(10**4, "cuda", "tiny") == 4 and epochs(10, "cpu", "tiny", 7) == 7


def test_the_summary_counts():
    answers = [Answer("1", "a", 0.5, "b"), Answer("2", "a", 1.0, "b"), Answer("3", "c", 0.9, "c")]
    summary = summarize(answers, 0.75)
    assert (summary["changed"], summary["grew"], summary["shrank"], summary["empty"]) == (2, {"a": 2}, {"b": -2}, 1)
    assert in_words(summary)[:3] == ["2 of 3 images got another class than before (67 %)", "grew: a +2", "shrank: b -2"]


def test_descriptions_have_the_order_of_the_classes():
    """What is kept is compared when the command is given again, and Python's sets have another order each time."""
    names = list(json.loads((ROOT / "descriptions/synth_cars.json").read_text()))
    for given in (names, names[::-1], sorted(names, key=lambda name: name[::-1])):
        found, source = shipped_descriptions(given)
        assert list(found) == given and source == "synth_cars.json"


def test_other_settings_are_named_in_the_caller_s_words(photos, backbone, tmp_path):
    fairclip.adapt(photos / "album", CLASSES, SENTENCES, backbone, out=tmp_path / "a", epochs=1, settings=FEW)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    with pytest.raises(UserError, match=r"adapted with other epochs \(1, now none given\): choose another --out"):
        fairclip.adapt(photos / "album", CLASSES, SENTENCES, backbone, out=tmp_path / "a", settings=FEW)
    with pytest.raises(UserError, match=r"adapted with other epochs \(1, now 2\): choose another --out"):
        fairclip.adapt(photos / "album", CLASSES, SENTENCES, backbone, out=tmp_path / "a", epochs=2, settings=FEW)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
