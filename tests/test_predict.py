"""Predictions of finished runs: the Python API, and fair predict."""

import csv
import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import predict, train
from forked import Forked, without
from PIL import Image
from test_fair import CLASSES, arguments, run, save_clip
from toys import check_refused

from fairclip import Predictor
from fairclip.backbones.backbone import UnknownBackbone, fingerprint
from fairclip.backbones.makers import load_backbone
from fairclip.backbones.openai import load_clip
from fairclip.core.errors import UserError
from fairclip.method.crop_alignment import MIN_SPREAD
from fairclip.predict import command as predict_command
from fairclip.predict import draw
from fairclip.predict.images import read_image
from fairclip.views.views import resize_box, to_bytes

pytestmark = pytest.mark.usefixtures("console")

ROOT = Path(__file__).resolve().parents[1]


def predictions(folder: Path) -> list[dict[str, str]]:
    with open(folder / "predictions.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def assert_same_as_the_run(predictor: Predictor, folder: Path, data: Path) -> None:
    rows = predictions(folder)
    best = predictor([data / row["image"] for row in rows], batch=5).max(dim=1)
    assert [predictor.classnames[i] for i in best.indices] == [row["prediction"] for row in rows]
    assert best.values.tolist() == pytest.approx([float(row["probability"]) for row in rows], abs=6e-5)


def copy_of(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def change(path: Path, **new) -> None:
    """Other values in a checkpoint; "gone": without that key."""
    state = torch.load(path, weights_only=True) | {"sha256": "gone"}  # as files from before had none
    torch.save({key: value for key, value in (state | new).items() if value != "gone"}, path)


# -- What comes out ----------------------------------------------------------------------------------------------------


def test_predictions_are_those_of_the_run(finished, data):
    predictor = Predictor.load(finished, device="cpu")
    assert_same_as_the_run(predictor, finished, data)
    p = predictor([data / "test_0_0.png", str(data / "test_1_0.png"), Image.open(data / "test_2_0.png")])
    assert p.shape == (3, 3) and p.dtype == torch.float32
    torch.testing.assert_close(p.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(predictor(data / "test_1_0.png"), p[1:2])
    assert predictor([]).shape == (0, 3)
    top = predictor.top(data / "test_1_0.png", k=9)
    assert [name for name, _ in top] == [CLASSES[i] for i in p[1].argsort(descending=True)]
    assert [value for _, value in top] == pytest.approx(p[1].sort(descending=True).values.tolist(), abs=1e-6)


def test_frozen_anchors_are_in_the_checkpoint_too(data, backbone, tmp_path):
    run(data, backbone, tmp_path, "TRAINER.FAIR.LEARN_ANCHORS", "False", "OPTIM.MAX_EPOCH", "1")
    predictor = Predictor.load(tmp_path)
    assert_same_as_the_run(predictor, tmp_path, data)
    assert_same_as_the_run(Predictor.load(predictor.save(tmp_path / "small.pt")), tmp_path, data)


@pytest.fixture(scope="module")
def resnet(data, tmp_path_factory) -> Path:
    """A finished run of a ResNet tower, tested with crops too."""
    folder = tmp_path_factory.mktemp("resnet")
    path = save_clip(folder / "rn.pt", "resnet")
    stdout = sys.stdout
    run(
        data,
        path,
        folder / "run",
        "TRAINER.FAIR.CROP_INFERENCE",
        "True",
        "OPTIM.MAX_EPOCH",
        "1",
        "TRAINER.FAIR.TOP_K",
        "3",
        "TRAINER.FAIR.ALPHA",
        "0.3",
        "TRAINER.FAIR.BETA",
        "0.9",
    )
    sys.stdout = stdout
    return folder / "run"


def test_crops_give_the_accuracy_of_the_run(resnet, data):
    predictor, rows = Predictor.load(resnet), predictions(resnet)
    assert_same_as_the_run(predictor, resnet, data)
    labels = torch.tensor([CLASSES.index(row["label"]) for row in rows])
    hits = predictor([data / row["image"] for row in rows], crops=True, batch=4).argmax(dim=1) == labels
    accuracy = json.loads((resnet / "results.json").read_text())["crop_accuracy"]
    assert 100 * hits.float().mean().item() == pytest.approx(accuracy)


def test_the_crops_shown_decided(resnet, data):
    predictor = Predictor.load(resnet)
    paths = [data / "test_0_0.png", data / "test_1_1.png"]
    examples = predictor.explain(paths, batch=1)
    both = torch.stack([example.local for example in examples])
    torch.testing.assert_close(both, predictor(paths, crops=True), atol=1e-4, rtol=1e-3)  # alone, and two at once
    again = predictor.explain(paths[1])[0]
    assert again.boxes == examples[1].boxes
    mean, std = torch.tensor(predictor.settings["mean"]).double(), torch.tensor(predictor.settings["std"]).double()

    def feature(pixels: torch.Tensor) -> torch.Tensor:
        numbers = (pixels.permute(1, 2, 0).double() / 255 - mean) / std
        return predictor.model.encode(numbers.permute(2, 0, 1)[None].float())[0].detach().double()

    for path, example in zip(paths, examples, strict=True):
        image = read_image(path)
        assert example.image.tobytes() == image.tobytes() and len(example.boxes) == 4
        cut = [resize_box(to_bytes(image), box, 32) for box in example.boxes]
        for crop, i in zip(example.crops, example.selected, strict=True):
            assert torch.equal(to_bytes(crop), cut[i])
        left = (image.width - image.height) // 2  # 52 x 40
        z = feature(resize_box(to_bytes(image), (left, 0, left + image.height, image.height), 32))
        features = [feature(crop) for crop in cut]
        relevance = [float(f @ z) for f in features]
        order = sorted(range(4), key=lambda i: -relevance[i])[:3]
        # Two crops may be equally relevant to the last digits, and then either comes first.
        assert [relevance[i] for i in example.selected] == pytest.approx([relevance[i] for i in order], abs=1e-5)
        order = example.selected
        assert example.relevance == pytest.approx([relevance[i] for i in order], abs=1e-5)
        kept, sharpness = torch.tensor(example.relevance).double(), predictor.settings["crops"]["sharpness"]
        raw = (sharpness * (kept - kept.mean()) / kept.std(correction=0).clamp_min(MIN_SPREAD)).exp()
        weights = [float(value / sum(raw)) for value in raw]
        assert example.weights == pytest.approx(weights, abs=1e-4)
        u = sum(w * features[i] for w, i in zip(weights, order, strict=True))
        u = u / u.norm()
        for vector, found in ((u, example.local), (z, example.whole)):
            logits = [predictor.model.tau * float(vector @ a.double()) for a in predictor.model.anchors()]
            expected = torch.tensor(logits).softmax(dim=0)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_a_saved_model_is_small_and_the_same(finished, data, tmp_path):
    predictor = Predictor.load(finished)
    path = predictor.save(tmp_path / "new" / "cars.pt")
    again, image = Predictor.load(path), data / "test_0_0.png"
    assert torch.equal(again(image), predictor(image))
    assert torch.equal(again(image, crops=True), predictor(image, crops=True))
    assert again.classnames == CLASSES
    content = torch.load(path, weights_only=True)
    trained = torch.load(finished / "fair/model.pth.tar-3", weights_only=True)["state_dict"]
    assert content["state_dict"].keys() == trained.keys() - {"anchors.weight"}
    assert path.stat().st_size < (finished / "fair/model.pth.tar-3").stat().st_size
    assert os.listdir(path.parent) == ["cars.pt"]


# What the room may import: what lies below it, and the formats of runs.
BELOW = ("core", "backbones", "views", "text", "method", "predict")
FORMATS = {"fairclip.run", "fairclip.run.results", "fairclip.run.checkpoints"}


def test_neither_dassl_nor_data_sets_are_needed(finished, data, tmp_path):
    """In any folder, with nothing but the package on the path."""
    images = [str(data / f"test_{i}_0.png") for i in range(3)]

    def work() -> None:
        os.chdir(tmp_path)
        without("dassl", "datasets", "trainers", "toolbox", "yacs")
        predictor = importlib.import_module("fairclip").Predictor.load(finished)
        print(json.dumps(predictor(images).tolist()))
        print(json.dumps([name for name in sys.modules if name.startswith("fairclip.")]))

    done = Forked(work, tmp_path / "said")
    assert done.wait() == 0, done.said()
    probabilities, modules = map(json.loads, done.said()[0].splitlines())
    torch.testing.assert_close(torch.tensor(probabilities), Predictor.load(finished)(images))
    assert {name for name in modules if name.split(".")[1] not in BELOW} <= FORMATS


# -- What does not belong together is refused --------------------------------------------------------------------------


OLD = {"prediction": "gone", "tower_hash": "gone"}


@pytest.mark.parametrize("anchors", [{}, {"anchors": "gone"}, {"anchors": None}])
def test_runs_from_before_checkpoints_said_what_predictions_need(finished, data, tmp_path, anchors):
    old, now = copy_of(finished, tmp_path / "old"), Predictor.load(finished)
    change(old / "fair/model.pth.tar-3", **OLD, **anchors)
    config = (old / "config.yaml").read_text()
    config = config.replace("SHARPNESS: 1.0", "CROP_SCALE: 10.0").replace("PREC: auto", "PREC: fp32")
    (old / "config.yaml").write_text(config)
    predictor = Predictor.load(old)
    assert_same_as_the_run(predictor, old, data)
    assert predictor.settings | {"crops": None} == now.settings | {"crops": None}
    assert predictor.settings["crops"] == {"n": 4, "k": 4, "alpha": 0.7, "beta": 1.0, "scale": 10.0}
    with pytest.raises(UserError, match="from before crops were weighted in standard deviations"):
        predictor(data / "test_1_1.png", crops=True)


def test_files_saved_before_load(finished, data, tmp_path):
    """As Predictor.save wrote them when it took everything from config.yaml."""
    state = torch.load(finished / "fair/model.pth.tar-3", weights_only=True)
    cfg = yaml.safe_load((finished / "config.yaml").read_text())
    own, images = cfg["TRAINER"]["FAIR"], cfg["INPUT"]
    crops = {"n": "N_CROPS", "k": "TOP_K", "alpha": "ALPHA", "beta": "BETA", "sharpness": "SHARPNESS"}
    settings = {
        "trainer": "FAIR",
        "dataset": "Toy",
        "epoch": 3,
        "seed": 1,
        "prec": "fp32",
        "size": 32,
        "interpolation": images["INTERPOLATION"],
        "normalize": True,
        "mean": images["PIXEL_MEAN"],
        "std": images["PIXEL_STD"],
        "crops": {name: own[key] for name, key in crops.items()},
    }
    content = {
        "format": "fair-predictor-1",
        "state_dict": {name: value for name, value in state["state_dict"].items() if name != "anchors.weight"},
        "anchors": state["anchors"],
        "classnames": CLASSES,
        "backbone": state["backbone"],
        "tower_hash": state["tower_hash"],
        "settings": settings,
    }
    torch.save(content, tmp_path / "old.pt")
    old, now, image = Predictor.load(tmp_path / "old.pt"), Predictor.load(finished), data / "test_0_0.png"
    assert old.settings == now.settings
    torch.testing.assert_close(old(image), now(image))
    torch.testing.assert_close(old(image, crops=True), now(image, crops=True))
    torch.save(content | {"more": 1}, tmp_path / "new.pt")
    with pytest.raises(UserError, match="new.pt has keys that this version does not know: more"):
        Predictor.load(tmp_path / "new.pt")


def test_the_checkpoint_says_what_predictions_need(resnet):
    """Where it says so, the trainer's name and its own settings play no part."""
    state = torch.load(resnet / "fair/model.pth.tar-1", weights_only=True)
    prediction = state["prediction"]
    facts = {"anchors", "crops", "size", "resize", "interpolation", "normalize", "mean", "std", "prec"}
    assert prediction.keys() == facts | {"backbone_options"}
    assert prediction["crops"] == {"n": 4, "k": 3, "alpha": 0.3, "beta": 0.9, "sharpness": 1.0}
    torch.testing.assert_close(prediction["anchors"].norm(dim=1), torch.ones(3))


def test_any_trainer_may_have_crops(finished, data, tmp_path):
    other = copy_of(finished, tmp_path / "other")
    cfg = yaml.safe_load((other / "config.yaml").read_text())
    cfg["TRAINER"] = {"NAME": "SomebodysOwn"}
    (other / "config.yaml").write_text(yaml.safe_dump(cfg))
    predictor, image = Predictor.load(other), data / "test_0_0.png"
    assert torch.equal(predictor(image, crops=True), Predictor.load(finished)(image, crops=True))
    state = torch.load(other / "fair/model.pth.tar-3", weights_only=True)
    change(other / "fair/model.pth.tar-3", prediction=state["prediction"] | {"crops": None})
    with pytest.raises(UserError, match="this model of SomebodysOwn was trained without crops"):
        Predictor.load(other)(image, crops=True)


def test_an_unfinished_run_has_to_be_asked_for(finished, tmp_path):
    part = copy_of(finished, tmp_path / "part")
    (part / "fair/model.pth.tar-3").rename(part / "fair/model.pth.tar-2")
    change(part / "fair/model.pth.tar-2", epoch=2)
    (part / "fair/checkpoint").write_text("model.pth.tar-2\n")
    with pytest.raises(UserError, match="unfinished, 2 of 3 epochs"):
        Predictor.load(part)
    assert Predictor.load(part, epoch=2).settings["epoch"] == 2
    with pytest.raises(UserError, match=r"model.pth.tar-1 \(there: checkpoint, model.pth.tar-2\)"):
        Predictor.load(part, epoch=1)


def test_the_backbone_is_checked(finished, backbone, data, tmp_path):
    moved = tmp_path / "moved.pt"
    shutil.copy(backbone, moved)
    image = data / "test_0_0.png"
    expected = Predictor.load(finished)(image)
    assert torch.equal(Predictor.load(finished, backbone=str(moved))(image), expected)
    state = torch.load(moved, weights_only=True)
    state["visual.conv1.weight"][0, 0, 0, 0] += 0.01
    torch.save(state, moved)
    with pytest.raises(UserError, match="the same shape, but other weights"):
        Predictor.load(finished, backbone=str(moved))
    with pytest.raises(UserError, match="another shape"):
        Predictor.load(finished, backbone="tiny")

    gone = copy_of(finished, tmp_path / "gone")
    cfg = yaml.safe_load((gone / "config.yaml").read_text())
    cfg["MODEL"]["BACKBONE"]["NAME"] = "nowhere.pt"
    (gone / "config.yaml").write_text(yaml.safe_dump(cfg))
    with pytest.raises(UserError, match="belong to different runs"):
        Predictor.load(gone)
    change(gone / "fair/model.pth.tar-3", backbone="nowhere.pt")
    with pytest.raises(UserError, match="say where it is now"):
        Predictor.load(gone)
    with pytest.raises(UnknownBackbone, match="elsewhere.pt"):
        Predictor.load(gone, backbone="elsewhere.pt")
    assert torch.equal(Predictor.load(gone, backbone=str(backbone))(image), expected)


@pytest.mark.parametrize("changed", ["text_projection", "logit_scale"])
def test_another_text_tower_in_the_file_is_noticed(data, backbone, tmp_path, capsys, changed):
    clip = Path(shutil.copy(backbone, tmp_path / "clip.pt"))
    words = arguments(data, clip, tmp_path / "run", "OPTIM.MAX_EPOCH", "1")
    assert train(words) == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    now = load_backbone(str(clip))
    assert (results["tower_hash"], results["text_hash"]) == (now.fingerprint, now.text_hash)
    state = torch.load(clip, weights_only=True)
    state[changed] = state[changed] * 1.5
    capsys.readouterr()
    assert train(words) == 0 and "Warning" not in capsys.readouterr().out
    torch.save(state, clip)
    for _ in range(2):  # the second time from the record of hashes
        assert train(words) == 0
        said = capsys.readouterr().out
        assert f"Warning: {tmp_path / 'run'} was trained with another text tower than {clip} has now" in said
        assert "put the old file of weights back" in said and "finished already" in said
    (tmp_path / "run/results.json").unlink()  # as if it had been stopped
    with pytest.raises(UserError, match="another text tower or temperature"):
        Predictor.load(tmp_path / "run")
    check_refused(words, "was trained with another text tower than", capsys)


def test_the_fingerprint_sees_every_value(backbone):
    tower = load_clip(str(backbone)).visual
    before = fingerprint(tower.state_dict())
    assert before == fingerprint(load_clip(str(backbone)).visual.state_dict())
    with torch.no_grad():
        tower.ln_post.bias[-1] += 1e-3
    assert fingerprint(tower.state_dict()) != before


@pytest.mark.parametrize(
    "new, message",
    [
        ({"classnames": CLASSES[:2]}, "3 anchors for 2 different class names"),
        ({"classnames": ["a", "a", "b"]}, "3 anchors for 2 different class names"),
        ({"config_hash": "0123456789ab"}, "belong to different runs"),
        ({"anchors": None}, None),  # those of the prediction count
        ({"state_dict": {"visual.ln_9.weight": torch.ones(1)}, "optimizer": None}, "lacks: visual.ln_9.weight"),
        ({"state_dict": {"visual.ln_post.weight": torch.ones(1)}, "optimizer": None}, "does not fit"),
        ({"classnames": "gone"}, "lacks classnames"),
        ({"state_dict": {}}, "has 0 of the 13 parameters"),
    ],
)
def test_files_that_do_not_fit(finished, tmp_path, new, message):
    other = copy_of(finished, tmp_path / "other")
    change(other / "fair/model.pth.tar-3", **new)
    if message is None:
        Predictor.load(other)
        return
    with pytest.raises(UserError, match=message):
        Predictor.load(other)


def test_what_is_no_run_says_so(finished, data, backbone, tmp_path):
    with pytest.raises(UserError, match="there is no folder .*absent"):
        Predictor.load(tmp_path / "absent")
    copy_of(finished, tmp_path / "runs" / "seed1")
    with pytest.raises(UserError, match="Runs near it: .*runs/seed1"):
        Predictor.load(tmp_path / "other" / "seed1")
    with pytest.raises(UserError, match="Runs in it: seed1"):
        Predictor.load(tmp_path / "runs")
    with pytest.raises(UserError, match="To load a run, give its folder"):
        Predictor.load(finished / "fair/model.pth.tar-3")
    with pytest.raises(UserError, match="cannot be read as a saved model"):
        Predictor.load(finished / "config.yaml")
    with pytest.raises(UserError, match="in a run's folder only"):
        Predictor.load(Predictor.load(finished).save(tmp_path / "a.pt"), epoch=3)
    run(data, backbone, tmp_path / "zero", trainer="ZeroshotCLIP")
    with pytest.raises(UserError, match="ZeroshotCLIP trains nothing"):
        Predictor.load(tmp_path / "zero")


def test_other_models_are_not_taken_for_anchors(finished, tmp_path):
    other = copy_of(finished, tmp_path / "other")
    cfg = yaml.safe_load((other / "config.yaml").read_text())
    cfg["TRAINER"] |= {"NAME": "MUST", "MUST": {"PREC": "fp32"}}
    (other / "config.yaml").write_text(yaml.safe_dump(cfg))
    state = torch.load(other / "fair/model.pth.tar-3", weights_only=True)
    # What trainers with another model save, now and before.
    for prediction in (state["prediction"] | {"anchors": None}, "gone"):
        change(other / "fair/model.pth.tar-3", anchors=None, prediction=prediction)
        with pytest.raises(UserError, match="run of MUST, whose model is more"):
            Predictor.load(other)


def test_unusual_transforms_are_refused(finished, tmp_path):
    other = copy_of(finished, tmp_path / "other")
    cfg = yaml.safe_load((other / "config.yaml").read_text())
    for change_of_inputs in ({"NO_TRANSFORM": True}, {"TRANSFORMS": ["normalize", "instance_norm"]}):
        (other / "config.yaml").write_text(yaml.safe_dump(cfg | {"INPUT": cfg["INPUT"] | change_of_inputs}))
        with pytest.raises(UserError, match="not supported in prediction"):
            Predictor.load(other)


def test_a_run_without_crops_explains_nothing(data, backbone, tmp_path):
    run(data, backbone, tmp_path, "TRAINER.FAIR.N_CROPS", "0", "TRAINER.FAIR.WEIGHT", "none", "OPTIM.MAX_EPOCH", "1")
    predictor = Predictor.load(tmp_path)
    assert_same_as_the_run(predictor, tmp_path, data)
    for call in (lambda: predictor.explain(data / "test_0_0.png"), lambda: predictor([], crops=True)):
        with pytest.raises(UserError, match="without crops"):
            call()


# -- fair predict ------------------------------------------------------------------------------------------------


@pytest.fixture
def images(data, tmp_path) -> Path:
    """A folder with three whole images, two broken ones, and a file that is no image."""
    folder = tmp_path / "images"
    (folder / "deep" / "er").mkdir(parents=True)
    for i, place in enumerate(("", "deep", "deep/er")):
        shutil.copy(data / f"test_{i}_0.png", folder / place / f"{i}.png")
    (folder / "deep" / "cut.png").write_bytes((data / "test_0_0.png").read_bytes()[:600])
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_a_folder_becomes_a_table(finished, images, tmp_path, capsys):
    output = tmp_path / "out" / "all.csv"
    assert predict([str(finished), str(images), "--top", "2", "--output", str(output), "--batch", "2"]) == 1
    message = capsys.readouterr()
    assert message.out == ""
    assert f"Skipped: {images}/deep/cut.png: " in message.err
    assert f"Skipped: {images}/empty.jpg: empty file" in message.err
    assert "2 of 5 images were skipped" in message.err
    with open(output, newline="") as stream:
        head, *rows = csv.reader(stream)
    assert head == ["image", "prediction", "probability", "prediction_2", "probability_2", "likeness"]
    paths = [str(images / place) for place in ("0.png", "deep/1.png", "deep/er/2.png")]
    assert [row[0] for row in rows] == paths
    predictor = Predictor.load(finished)
    for path, *answers, _ in rows:
        assert answers == [text for name, p in predictor.top(path, 2) for text in (name, f"{p:.4f}")]
    assert os.listdir(output.parent) == ["all.csv"]


def test_crops_boxes_and_the_picture(resnet, images, tmp_path, capsys):
    boxes, show = tmp_path / "boxes.csv", tmp_path / "show.png"
    paths = [str(images / "0.png"), str(images / "deep/1.png")]
    assert predict([str(resnet), *paths, paths[0], "--boxes", str(boxes), "--show", str(show)]) == 0
    predictor = Predictor.load(resnet)
    head, *rows = csv.reader(capsys.readouterr().out.splitlines())
    assert [row[0] for row in rows] == paths and len(head) == 8
    # In one batch here too: random weights see nearly equal crops, and how many images are encoded together decides the
    # last digit and so which of two crops is selected.
    best = predictor(paths, crops=True).max(dim=1)
    for (_, *answers), p, i in zip(rows, best.values, best.indices, strict=True):
        assert answers[:2] == [predictor.classnames[i], f"{p:.4f}"]
    with open(boxes, newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["image"] for line in lines] == [path for path in paths for _ in range(3)]
    example = predictor.explain(paths)[1]
    for line, index, relevance, weight in zip(
        lines[3:], example.selected, example.relevance, example.weights, strict=True
    ):
        assert tuple(float(line[side]) for side in ("left", "upper", "right", "lower")) == example.boxes[index]
        assert float(line["relevance"]) == pytest.approx(relevance, abs=6e-5)
        assert float(line["weight"]) == pytest.approx(weight, abs=6e-5)
    with Image.open(show) as picture:
        assert picture.format == "PNG" and picture.size == draw.page_size(2)


def test_only_so_many_images_are_drawn(resnet, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict_command, "SHOWN", 1)
    assert predict([str(resnet), str(images), "--show", str(tmp_path / "a.png")]) == 1
    message = capsys.readouterr()
    assert "the first 1 of 3 images" in message.err and len(message.out.splitlines()) == 4
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == draw.page_size(1)


def test_nothing_is_written_if_no_image_can_be_read(finished, images, tmp_path, capsys):
    output = tmp_path / "none.csv"
    assert predict([str(finished), str(images / "empty.jpg"), str(images / "notes.txt"), "--output", str(output)]) == 1
    error = capsys.readouterr().err
    assert "notes.txt: not an image" in error and "nothing is written" in error and not output.exists()


def test_saving_needs_no_images(finished, images, tmp_path, capsys):
    saved = tmp_path / "cars.pt"
    assert predict([str(finished), "--save", str(saved)]) == 0
    assert predict([str(saved), str(images / "0.png")]) == 0
    assert f"{images}/0.png," in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["absent.png"], "there is no image or folder absent.png"),
        ([], "name images"),
        (["--show", "a.png", "--save", "a.pt"], "need images"),
        (["EMPTY"], "there are no images in"),
        (["IMAGES", "--top", "0"], "from 1"),
        (["IMAGES", "--epoch", "7"], "model.pth.tar-7"),
        (["IMAGES", "--backbone", "ViT-B/33"], "Did you mean"),
    ],
)
def test_mistakes_end_in_one_message(finished, images, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing").mkdir()
    places = {"IMAGES": str(images), "EMPTY": str(tmp_path / "nothing")}
    before = sorted(os.listdir())
    assert predict([str(finished), *(places.get(word, word) for word in arguments), "--output", "a.csv"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("Error: ") and message in captured.err and captured.out == ""
    assert sorted(os.listdir()) == before


# -- More ways in and out ----------------------------------------------------------------------------------------------


def test_pictures_of_any_form_are_the_same_picture(finished, data):
    predictor, path = Predictor.load(finished), data / "test_0_0.png"
    expected = predictor(path)
    pixels = np.array(read_image(path))  # [H, W, 3], bytes
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    with path.open("rb") as file:
        forms = [str(path), read_image(path), path.read_bytes(), file, pixels, pixels / 255, tensor, tensor / 255]
        for form in forms:
            torch.testing.assert_close(predictor(form), expected)
    several = predictor(tensor[None].expand(2, -1, -1, -1))
    assert several.shape == (2, 3) and torch.equal(several[0], several[1])
    torch.testing.assert_close(predictor([path, pixels, tensor]), expected.expand(3, -1))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"\(4, 4\) is no image: it must be \[H, W, 3\]"),
        (np.zeros((3, 4, 4), np.uint8), r"it must be \[H, W, 3\]"),
        (np.zeros((4, 4, 3), np.int64), "pixels of type int64: give bytes, or numbers from 0 to 1"),
        (np.full((4, 4, 3), 200.0), "must lie within 0 and 1: 0 to 200"),
        (torch.zeros(4, 4, 3), r"it must be \[H, W, 3\]"),
        (b"no image", "8 bytes are no image"),
    ],
)
def test_what_is_no_picture(finished, picture, message):
    with pytest.raises(UserError, match=message):
        Predictor.load(finished)([picture])


def test_probabilities_are_made_of_likeness_and_that_of_features(finished, data):
    predictor, paths = Predictor.load(finished), [data / "test_0_0.png", data / "test_1_1.png"]
    features, likeness = predictor.features(paths), predictor.likeness(paths)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(likeness, features @ predictor.model.anchors().detach().t())
    torch.testing.assert_close((predictor.model.tau * likeness).softmax(dim=1), predictor(paths))
    crops = predictor.likeness(paths, crops=True)
    torch.testing.assert_close(predictor.to_probabilities(crops), predictor(paths, crops=True))
    assert predictor.features([]).shape == (0, features.shape[1]) and predictor.likeness([]).shape == (0, 3)


def test_other_classes(finished, data, tmp_path):
    """A run that does not train its anchors has those that names and descriptions give."""
    opts = ("TRAINER.FAIR.LEARN_ANCHORS", "False", "OPTIM.MAX_EPOCH", "1")
    run(data, Path(Predictor.load(finished).backbone), tmp_path, *opts)
    predictor, image = Predictor.load(tmp_path), data / "test_1_1.png"
    described = json.loads((data / "descriptions.json").read_text())
    order = [2, 0, 1]
    other = predictor.with_classes([CLASSES[i] for i in order], described)
    torch.testing.assert_close(other(image), predictor(image)[:, order], rtol=1e-3, atol=1e-4)
    by_name = predictor.with_classes(["bike", "red car"])
    assert by_name(image).shape == (1, 2) and by_name.top(image)[0][0] in ("bike", "red car")
    by_name.save(tmp_path / "other.pt")
    torch.testing.assert_close(Predictor.load(tmp_path / "other.pt")(image), by_name(image))
    with pytest.raises(UserError, match="each of them once"):
        predictor.with_classes(["bike", "bike"])
    with pytest.raises(UserError, match="descriptions of bike, which are no classes"):
        predictor.with_classes(["car"], {"bike": ["two wheels"]})


def test_none_of_these_and_features_on_the_command_line(finished, data, tmp_path, capsys):
    paths = [str(data / "test_0_0.png"), str(data / "test_1_1.png")]
    likeness = Predictor.load(finished).likeness(paths).amax(dim=1)
    least = str(float(likeness.mean()))
    assert (
        predict([str(finished), *paths, "--top", "1", "--min-score", least, "--features", str(tmp_path / "f.npz")]) == 0
    )
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    for row, cosine in zip(rows, likeness.tolist(), strict=True):
        assert float(row["likeness"]) == pytest.approx(cosine, abs=1e-4)
        assert (row["prediction"] == "none of these") == (cosine < float(least))
    stored = np.load(tmp_path / "f.npz", allow_pickle=False)
    assert stored["images"].tolist() == paths
    np.testing.assert_allclose(stored["features"], Predictor.load(finished).features(paths).numpy(), atol=1e-6)
    assert predict([str(finished), *paths, "--min-score", "2"]) == 2
