"""The README's picture, on a random CLIP and a few images of SynthCars."""

import importlib
import json
import os
import random
import shutil
import sys
from pathlib import Path

import pytest
import torch
from commands import draw_crops, train
from forked import Forked, without
from PIL import Image, ImageColor

from fairclip import Predictor
from fairclip import draw_crops as command
from fairclip.data import synth
from fairclip.predict import draw
from fairclip.predict.examples import choose_images, explain_examples, telling_examples
from fairclip.predict.explanation import Example, Explanation
from fairclip.views.views import crop_boxes, resize_box, to_bytes

pytestmark = pytest.mark.usefixtures("console")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """SynthCars with three classes of two training images and two test images."""
    root = tmp_path_factory.mktemp("data")
    images = root / "synth_cars" / "images"
    images.mkdir(parents=True)
    split = {"train": [], "val": [], "test": []}
    for label, model in enumerate(synth.catalogue(0)[:3]):
        for name in ("train_0", "train_1", "test_0", "test_1"):
            file = f"{label}_{name}.png"
            image, _ = synth.render(model.body, model.values, random.Random(file), clutter=4.0, light="blue_hour")
            image.save(images / file)
            split[name[:-2]].append([file, label, model.name])
    (images.parent / "split_zhou_SynthCars.json").write_text(json.dumps(split))
    return root


def train_fair(data: Path, backbone: Path, out: Path, *opts: str) -> Path:
    argv = [
        "--root",
        str(data),
        "--output-dir",
        str(out),
        "--trainer",
        "FAIR",
        "--backbone",
        str(backbone),
        "--seed",
        "1",
        "--dataset-config-file",
        str(ROOT / "configs/datasets/synth_cars.yaml"),
        "--config-file",
        str(ROOT / "configs/trainers/FAIR/tiny.yaml"),
        "DATALOADER.NUM_WORKERS",
        "0",
        "DATALOADER.TRAIN_X.BATCH_SIZE",
        "4",
        "OPTIM.MAX_EPOCH",
        "1",
        "OPTIM.LR",
        "0.1",
        *opts,
    ]
    assert train(argv) == 0
    return out


def test_an_untrained_model_is_drawn_alike_each_time(data, backbone, tmp_path):
    arguments = ["--root", str(data), "--backbone", str(backbone), "--images", "2", "--output"]
    for name in ("a.png", "new/b.png"):
        assert draw_crops([*arguments, str(tmp_path / name)]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "new/b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == draw.page_size(2)


def test_the_crops_shown_are_the_boxes_shown(data, backbone):
    predictor, images = command.untrained(str(data), str(backbone))
    path, name = next((path, name) for path, name in images if path.endswith("1_test_0.png"))
    (example,) = explain_examples(predictor, [(path, name)])
    assert example.truth == 1 and name == predictor.classnames[1]
    image = Image.open(path).convert("RGB")
    assert example.boxes == crop_boxes(*image.size, 4, 0.7, 1.0, torch.Generator().manual_seed(0))  # tiny.yaml
    assert len(set(example.selected)) == len(example.crops) == 4
    assert example.relevance == sorted(example.relevance, reverse=True)
    assert sum(example.weights) == pytest.approx(1) and example.weights == sorted(example.weights, reverse=True)
    for i, crop in zip(example.selected, example.crops, strict=True):
        expected = resize_box(to_bytes(image), example.boxes[i], 32)
        assert torch.equal(to_bytes(crop), expected)
    assert example.local.sum() == pytest.approx(1) and example.whole.sum() == pytest.approx(1)
    assert not torch.equal(example.local, example.whole)


def test_the_first_image_of_evenly_spaced_classes_is_chosen():
    images = [("c1", "c"), ("a1", "a"), ("c2", "c"), ("b1", "b"), ("d1", "d"), ("a2", "a")]
    names = ["a", "b", "c", "d", "without images"]
    assert choose_images(images, names, 1) == [("a1", "a")]
    assert choose_images(images, names, 2) == [("a1", "a"), ("c1", "c")]
    assert choose_images(images, names, 9) == [("a1", "a"), ("b1", "b"), ("c1", "c"), ("d1", "d")]


class Guesses:
    """Answers for images called "<truth><by the whole image><by crops>", of classes 0 to 3."""

    classnames = ["0", "1", "2", "3"]

    def explain(self, paths):
        def certain(label):
            return torch.nn.functional.one_hot(torch.tensor(int(label)), 4).float()

        return [
            Explanation(path, [], [], [], [], [], certain(path[2]), certain(path[2]), certain(path[1]))
            for path in paths
        ]


def test_images_are_shown_where_crops_help_and_where_they_harm():
    def chosen(count, *paths):
        found = telling_examples(Guesses(), [(path, path[0]) for path in paths], count)
        return [example.image for example in found.examples], (found.looked_at, found.helped, found.harmed)

    paths = ["000", "010", "001", "112", "110", "101", "121", "220", "222", "333", "331"]
    shown, counts = chosen(4, *paths)
    assert counts == (11, 3, 5) and shown == ["010", "101", "001", "110"]
    assert chosen(2, *paths)[0] == ["010", "001"]
    # Those that are missing on one side are taken from the other, and then from the rest.
    assert chosen(3, "000", "010", "111", "121", "222")[0] == ["010", "121", "000"]
    assert chosen(2, "001", "112", "000")[0] == ["001", "112"]
    assert telling_examples(Guesses(), [("010", "0")], 1).examples[0].effect == "Crops help: right only with them"
    assert telling_examples(Guesses(), [("001", "0")], 1).examples[0].effect == "Crops harm: right only without them"
    many = telling_examples(Guesses(), [("010", "0")] * 300, 1)
    assert (many.looked_at, many.helped) == (128, 128)


def test_boxes_can_be_told_apart():
    """Four at most, the thicker the more they count, each with its number at another corner."""
    widths = [draw.line_width(weight) for weight in (1.0, 0.5, 0.25, 0.0)]
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == 4 and widths[-1] > 0
    box = (10, 10, 300, 300)
    places = [draw.place_label(box, (80, 21), [], rank) for rank in range(draw.SHOWN)]
    assert len(set(places)) == draw.SHOWN == len(draw.COLOURS)
    crops, whole = [Image.new("RGB", (8, 8))] * 6, torch.ones(4) / 4
    weights = [0.4, 0.3, 0.15, 0.1, 0.03, 0.02]
    example = Example(
        Image.new("RGB", (100, 100), "gray"),
        [(i, i, 80 + i, 80 + i) for i in range(6)],
        list(range(6)),
        *(weights, weights, crops, whole, whole, whole),
        truth=0,
    )
    colours = {colour for _, colour in draw.draw_boxes(example).getcolors(100000)}
    assert all(ImageColor.getrgb(colour) in colours for colour, _ in draw.COLOURS)


@pytest.fixture(scope="module")
def finished(data, backbone, tmp_path_factory) -> Path:
    stdout = sys.stdout
    folder = train_fair(data, backbone, tmp_path_factory.mktemp("finished") / "run", "TRAINER.FAIR.TOP_K", "3")
    sys.stdout = stdout
    return folder


def test_a_run_is_drawn_with_its_trained_model(data, finished, tmp_path):
    predictor, images = command.trained(finished, "", "")
    saved = torch.load(finished / "fair/model.pth.tar-1", weights_only=True)["state_dict"]
    torch.testing.assert_close(predictor.model.anchors(), torch.nn.functional.normalize(saved["anchors.weight"], dim=1))
    assert [Path(path).name for path, _ in images] == [f"{label}_test_{i}.png" for label in range(3) for i in range(2)]
    assert len(explain_examples(predictor, images[:1])[0].crops) == 3
    assert draw_crops(["--run", str(finished), "--images", "3", "--output", str(tmp_path / "run.png")]) == 0
    expected = draw.draw_page(telling_examples(Predictor.load(finished), images, 3).examples, predictor.classnames)
    draw.save_page(expected, tmp_path / "expected.png")
    assert (tmp_path / "run.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_a_run_is_drawn_without_dassl(data, finished, tmp_path):
    """Also where the data have moved; the picture goes into the run's folder."""
    moved = shutil.copytree(data, tmp_path / "moved")
    run = shutil.copytree(finished, tmp_path / "run")
    words = ["draw-crops", "--run", str(run), "--root", str(moved)]

    def draw_it(*more: str) -> Forked:
        def work() -> int:
            os.chdir(tmp_path)
            without("dassl", "datasets", "trainers", "toolbox")
            return importlib.import_module("fairclip.cli").main([*words, *more])

        return Forked(work, tmp_path / "said")

    done = draw_it()
    assert done.wait() == 2 and "--images 4: give a number from 1 to 3" in done.said()[1], done.said()
    done = draw_it("--images", "2")
    assert done.wait() == 0, done.said()
    assert f"Wrote {run}/crops.png (1100 x " in done.said()[0] and (run / "crops.png").exists()


@pytest.mark.parametrize(
    ("gone", "arguments", "message"),
    [
        ("", ["--root", "elsewhere"], "test images are not in elsewhere"),
        ("predictions.csv", [], "no predictions.csv"),
        ("fair/checkpoint", [], "no checkpoint"),
    ],
)
def test_what_a_run_lacks_is_said(finished, tmp_path, capsys, gone, arguments, message):
    run = shutil.copytree(finished, tmp_path / "run")
    if gone:
        (run / gone).unlink()
    assert draw_crops(["--run", str(run), *arguments]) == 2
    assert message in capsys.readouterr().err and not (run / "crops.png").exists()


def test_labels_do_not_cover_each_other():
    taken = []
    for _ in range(6):  # as many as fit along the upper and the lower edge of one box
        left, upper, right, lower = draw.place_label((40, 30, 300, 290), (80, 21), taken)
        assert 40 <= left and right <= 300 and 30 <= upper and lower <= 290
        assert not any(left < t[2] and t[0] < right and upper < t[3] and t[1] < lower for t in taken)
        taken.append((left, upper, right, lower))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--images", "0"], "--images 0"),
        (["--images", "4"], "from 1 to 3"),
        (["--run", "nowhere"], "there is no folder nowhere"),
        (["--backbone", "ViT-B/33"], "Did you mean"),
    ],
)
def test_mistakes_end_in_one_message(data, backbone, tmp_path, capsys, arguments, message):
    output = tmp_path / "crops.png"
    assert draw_crops(["--root", str(data), "--backbone", str(backbone), "--output", str(output), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not output.exists()


def test_a_run_without_crops_has_nothing_to_draw(data, backbone, tmp_path, capsys):
    run = train_fair(data, backbone, tmp_path / "plain", "TRAINER.FAIR.N_CROPS", "0")
    assert draw_crops(["--root", str(data), "--run", str(run)]) == 2
    assert "without crops" in capsys.readouterr().err


def test_what_is_said_below_the_picture_fits_into_it():
    assert all(draw.font(15).getlength(line) <= draw.WIDTH - 2 * draw.PAD for line in draw.LEGEND)
