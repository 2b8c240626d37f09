"""FAIR and the zero-shot trainers as a user runs them: through train.py, on a tiny random CLIP and a toy data set."""

import csv
import hashlib
import json
import math
import os
import runpy
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
import toys
from commands import train
from forked import Forked
from PIL import Image
from toys import CLASSES, EPOCHS, ROOT, check_refused, same, save_clip

import trainers
from fairclip.backbones.openai import load_clip
from fairclip.core.errors import UserError
from fairclip.core.plugins import import_plugins
from fairclip.method.memory import LabelMemory
from fairclip.run import config as configs
from fairclip.run import launch
from trainers.fair import Labels

pytestmark = pytest.mark.usefixtures("console")


def arguments(data: Path, backbone: Path, out: Path, *opts: str, trainer: str = "FAIR", seed: int = 1) -> list[str]:
    return toys.arguments(trainer, data, backbone, out, "OPTIM.LR", "1e-3", *opts, seed=seed)


def run(*args, **kwargs) -> dict:
    argv = arguments(*args, **kwargs)
    assert train(argv) == 0
    return read(Path(argv[3]))


def checkpoint(out: Path) -> dict:
    return toys.checkpoint(out, "FAIR")


def read(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


# -- A whole run -------------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_results(finished, data, backbone):
    results = json.loads((finished / "results.json").read_text())
    assert (results["dataset"], results["trainer"], results["seed"]) == ("Toy", "FAIR", 1)
    assert results["backbone"] == str(backbone)
    assert 0 <= results["accuracy"] <= 100 and 0 <= results["macro_f1"] <= 100
    assert {"seconds", "versions", "commit", "config_hash"} <= results.keys() and "core" in results["hardware"]
    assert results["views_per_image"] == 6
    described = data / "descriptions.json"
    digest = hashlib.sha256(described.read_bytes()).hexdigest()
    assert results["descriptions"] == {"file": str(described), "sha256": digest}
    assert [record["epoch"] for record in results["epochs"]] == [1, 2, 3]
    for record in results["epochs"]:
        # 3: the fairness weight of configs/trainers/FAIR/tiny.yaml
        assert record["loss"] == pytest.approx(record["loss_st"] + 3 * record["loss_fair"])
        assert 0 <= record["pseudo_accuracy"] <= 100 and 0 <= record["agreement"] <= 1
    rates = [record["lr"] for record in results["epochs"]]
    assert rates == pytest.approx([1e-3, 1e-3 - 0.25 * (1e-3 - 2e-6), 1e-3 - 0.75 * (1e-3 - 2e-6)])  # cosine to 2e-6
    assert (finished / "config.yaml").is_file() and "accuracy" in (finished / "log.txt").read_text()
    assert any((finished / "tensorboard").iterdir())
    assert [path.name for path in sorted((finished / "fair").iterdir())] == ["checkpoint", f"model.pth.tar-{EPOCHS}"]


def test_norms_and_anchors_move_and_nothing_else(finished, backbone):
    before = load_clip(str(backbone)).visual.state_dict()
    trained = checkpoint(finished)["state_dict"]
    norms = {f"visual.{name}" for name in before if "ln_" in name}
    assert trained.keys() == norms | {"anchors.weight"}
    assert all((trained[name] != before[name.removeprefix("visual.")]).any() for name in norms)
    results = json.loads((finished / "results.json").read_text())
    assert results["trainable_parameters"] == sum(value.numel() for value in trained.values())


def test_predictions_of_late_and_labels_are_kept(finished):
    kept = checkpoint(finished)["extra"]
    assert len(kept["recent"]["items"]) == EPOCHS * (36 // 8) and kept["memory"]["probs"].any(dim=1).all()


def test_predictions_are_kept(finished, data):
    with open(finished / "predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12 and {row["label"] for row in rows} == set(CLASSES)
    assert (data / rows[0]["image"]).is_file()
    accuracy = 100 * sum(row["label"] == row["prediction"] for row in rows) / len(rows)
    assert accuracy == pytest.approx(json.loads((finished / "results.json").read_text())["accuracy"])
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)
    for row in rows:
        own, sure = float(row["label_probability"]), float(row["probability"])
        assert abs(own - sure) < 1e-4 if row["label"] == row["prediction"] else own <= min(sure, 1 - sure) + 1e-4


def test_testing_every_epoch_changes_nothing_else(finished, data, backbone, tmp_path):
    results, original = run(data, backbone, tmp_path, "TEST.EVERY_EPOCH", "True"), read(finished)
    assert results["epochs"][-1]["test_accuracy"] == pytest.approx(results["accuracy"])
    assert [e["loss"] for e in results["epochs"]] == [e["loss"] for e in original["epochs"]]
    assert (results["accuracy"], results["config_hash"]) == (original["accuracy"], original["config_hash"])


def test_a_finished_run_is_not_run_again(finished, data, backbone, capsys):
    written = (finished / "results.json").stat().st_mtime_ns
    run(data, backbone, finished)
    assert (finished / "results.json").stat().st_mtime_ns == written
    assert "finished already" in capsys.readouterr().out
    assert train(arguments(data, backbone, finished, "TRAINER.FAIR.TOP_K", "2")) == 2
    assert train(arguments(data, backbone, finished, seed=2)) == 2
    assert "another --output-dir" in capsys.readouterr().err


def test_a_finished_run_of_other_descriptions_is_not_taken_for_this_one(finished, data, backbone, tmp_path, capsys):
    out = shutil.copytree(finished, tmp_path / "run")
    results = json.loads((out / "results.json").read_text())
    used = results["descriptions"]
    assert used["file"] == str(data / "descriptions.json")
    used["sha256"] = used["sha256"][::-1]  # as if the file had been edited since
    (out / "results.json").write_text(json.dumps(results))
    assert train(arguments(data, backbone, out)) == 2
    error = capsys.readouterr().err
    assert f"other descriptions (SHA-256 of {data}/descriptions.json" in error and "config_hash" not in error
    used["file"] = str(tmp_path / "gone.json")
    (out / "results.json").write_text(json.dumps(results))
    assert train(arguments(data, backbone, out)) == 0


def test_eval_only_leaves_no_results_and_names_what_is_not_there(finished, data, backbone, tmp_path, capsys):
    argv = ["--eval-only", "--model-dir", str(finished), "--load-epoch", str(EPOCHS)]
    assert train([*argv, *arguments(data, backbone, tmp_path)]) == 0
    assert not (tmp_path / "results.json").exists()
    argv[-1] = "77"
    check_refused([*argv, *arguments(data, backbone, tmp_path)], "model.pth.tar-77", capsys)
    argv[2:] = [str(tmp_path / "absent")]
    check_refused([*argv, *arguments(data, backbone, tmp_path)], "there is no checkpoint in", capsys)


@pytest.mark.parametrize(
    "opts, what_to_do",
    [
        (("DATASET.NUM_SHOTS", "4"), "give DATASET.NUM_SHOTS -1 on the command line"),
        (("DATASET.SUBSAMPLE_CLASSES", "base"), "give DATASET.SUBSAMPLE_CLASSES all on the command line"),
        (("DATALOADER.TRAIN_X.SAMPLER", "RandomDomainSampler"), "takes RandomSampler"),
        (("TEST.FINAL_MODEL", "best_val"), "Set it to last_step"),
    ],
)
def test_settings_that_need_labels_are_refused(data, backbone, tmp_path, opts, what_to_do, capsys):
    assert train(arguments(data, backbone, tmp_path, *opts)) == 2
    error = capsys.readouterr().err
    assert "label" in error and what_to_do in error


# -- What is gone on with, and what is not -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, message",
    [
        (b"no archive", "cannot be read as a checkpoint"),
        (None, "is not a checkpoint of this project's trainers: it lacks backbone"),
    ],
)
def test_a_foreign_checkpoint(finished, data, backbone, tmp_path, capsys, content, message):
    (tmp_path / "fair").mkdir()
    (tmp_path / "fair" / "checkpoint").write_text("model.pth.tar-1\n")
    path = tmp_path / "fair" / "model.pth.tar-1"
    if content is None:
        torch.save({"state_dict": {}, "epoch": 1}, path)
    else:
        path.write_bytes(content)
    argv = ["--eval-only", "--model-dir", str(tmp_path), *arguments(data, backbone, tmp_path / "out")]
    assert train(argv) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_validation_images_are_asked_for_and_missing(data, backbone, tmp_path, capsys):
    assert train(arguments(data, backbone, tmp_path, "TEST.SPLIT", "val", trainer="CuPL")) == 2
    assert "Toy has no validation images" in capsys.readouterr().err


def test_crops_at_inference_look_at_the_split_that_is_tested(backbone, tmp_path):
    data = toys.make_data(tmp_path / "data", train=4, test=2, val=5)
    results = run(
        data,
        backbone,
        tmp_path / "out",
        "TEST.SPLIT",
        "val",
        "TRAINER.FAIR.CROP_INFERENCE",
        "True",
        "OPTIM.MAX_EPOCH",
        "1",
    )
    assert results["split"] == "val"
    for name in ("accuracy", "crop_accuracy"):
        hits = 15 * results[name] / 100  # of 15 validation images, not of 6 test images
        assert hits == pytest.approx(round(hits), abs=1e-4)


def test_the_seed_decides(finished, data, backbone, tmp_path):
    run(data, backbone, tmp_path / "again")
    run(data, backbone, tmp_path / "zero", seed=0)
    assert same(checkpoint(tmp_path / "again")["state_dict"], checkpoint(finished)["state_dict"])
    assert not same(checkpoint(tmp_path / "zero")["state_dict"], checkpoint(finished)["state_dict"])


def test_a_run_that_goes_on_in_another_precision_says_so(data, backbone, tmp_path, monkeypatch, capsys):
    toys.run_killed("FAIR", data, backbone, tmp_path)
    monkeypatch.setattr("fairclip.backbones.precision.bfloat16_speed", lambda device: 2.0)
    assert toys.run("FAIR", data, backbone, tmp_path)["prec"] == "bf16"
    said = capsys.readouterr().out
    assert "Precision: bf16, with 16 bits a number, 2.0 times as fast here as with 32 (PREC auto)" in said
    assert "was trained in fp32, and this machine computes in bf16 (PREC auto)" in said


@pytest.fixture
def edited(data, tmp_path) -> tuple[Path, tuple[str, str]]:
    """A file of descriptions to be edited, and the option that names it."""
    file = tmp_path / "mine.json"
    shutil.copy(data / "descriptions.json", file)
    return file, ("TRAINER.FAIR.DESCRIPTIONS", str(file))


def edit(file: Path) -> None:
    described = json.loads(file.read_text())
    file.write_text(json.dumps({name: [f"something else, number {i}"] for i, name in enumerate(described)}))


def test_an_unfinished_run_of_other_descriptions_is_not_continued(data, backbone, tmp_path, edited, capsys):
    file, opts = edited
    toys.run_killed("FAIR", data, backbone, tmp_path / "run", "OPTIM.LR", "1e-3", *opts)
    edit(file)
    message = f"a run with other class descriptions: {file}, now {file}, which was edited."
    toys.check_refused(arguments(data, backbone, tmp_path / "run", *opts), message, capsys)


def test_frozen_anchors_are_those_of_the_run(data, backbone, tmp_path, edited):
    file, opts = edited
    opts += ("TRAINER.FAIR.LEARN_ANCHORS", "False")
    run(data, backbone, tmp_path / "run", *opts)
    edit(file)
    argv = ["--eval-only", "--model-dir", str(tmp_path / "run"), *arguments(data, backbone, tmp_path / "eval", *opts)]
    assert train(argv) == 0
    first, again = ((tmp_path / folder / "predictions.csv").read_text() for folder in ("run", "eval"))
    assert first == again


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on(data, backbone, tmp_path, stop):
    argv = arguments(data, backbone, tmp_path / "out", "OPTIM.MAX_EPOCH", "1000", "DATALOADER.NUM_WORKERS", "2")

    def work() -> None:
        sys.argv = [str(ROOT / "train.py"), *argv]
        runpy.run_path(sys.argv[0], run_name="__main__")

    run = Forked(work, tmp_path / "said")
    try:
        run.until((tmp_path / "out/fair/checkpoint").exists)
        if stop == signal.SIGINT:
            os.killpg(run.pid, stop)  # a terminal tells the workers too
        else:
            os.kill(run.pid, stop)
        assert run.wait() == 130
    finally:
        run.kill()
    error = run.said()[1]
    assert "Stopped. The same command goes on" in error and "Traceback" not in error


def test_an_unfinished_run_of_another_configuration_is_not_continued(data, backbone, tmp_path, capsys):
    run(data, backbone, tmp_path)
    (tmp_path / "results.json").unlink()
    assert train(arguments(data, backbone, tmp_path, "TRAINER.FAIR.TOP_K", "2")) == 2
    assert "another OUTPUT_DIR" in capsys.readouterr().err


# -- Every ablation is one config value --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "opts",
    [
        {"N_CROPS": 0, "WEIGHT": "none", "ALIGN_QUEUE": 0, "LABEL_MEMORY": 0.0},
        {"ANCHORS": "name"},
        {"ANCHORS": "weighted", "WEIGHT": "agreement"},
        {"LEARN_ANCHORS": False},
        {"LEARN_NORM": False},
        {"TOWER_RATE": 0.25},
        {"PREC": "bf16"},
        {"N_CROPS": 3, "TOP_K": 3, "FAIRNESS": 0.0},
        {"N_CROPS": 2, "TOP_K": 0, "STUDENT_CROPS": 2, "WEIGHT": "none"},
    ],
    ids=str,
)
def test_ablations_run(data, backbone, tmp_path, opts):
    pairs = [text for key, value in opts.items() for text in (f"TRAINER.FAIR.{key}", str(value))]
    results = run(data, backbone, tmp_path, *pairs)
    assert len(results["epochs"]) == EPOCHS
    trained = checkpoint(tmp_path)["state_dict"]
    assert ("anchors.weight" in trained) == opts.get("LEARN_ANCHORS", True)
    assert any("ln_" in name for name in trained) == opts.get("LEARN_NORM", True)
    assert any("conv1" in name for name in trained) == ("TOWER_RATE" in opts)
    assert ("recent" in checkpoint(tmp_path)["extra"]) == (opts.get("ALIGN_QUEUE") != 0)  # tiny.yaml aligns
    if opts.get("N_CROPS") == 0:
        assert all(record["agreement"] == 1 for record in results["epochs"])


def test_the_rest_of_the_tower_learns_more_slowly_the_lower_it_lies(data, backbone, tmp_path):
    opts = ("OPTIM.LR", "0.01", "TRAINER.FAIR.TOWER_RATE", "0.5", "TRAINER.FAIR.LEARN_NORM", "False")
    trainer = toys.build("FAIR", data, backbone, tmp_path, *opts)
    rates = {id(p): group["lr"] for group in trainer._optims["fair"].param_groups for p in group["params"]}
    of = {name: rates.get(id(p)) for name, p in trainer.model.named_parameters()}
    assert of["anchors.weight"] == 0.01 and of["visual.ln_post.weight"] is None
    assert of["visual.proj"] == 0.005
    blocks = len(trainer.model.visual.transformer.resblocks)
    for i in range(blocks):
        rate = 0.005 * 0.65 ** (blocks - i)
        assert of[f"visual.transformer.resblocks.{i}.mlp.c_fc.weight"] == pytest.approx(rate)
    assert of["visual.conv1.weight"] == pytest.approx(0.005 * 0.65 ** (blocks + 1))


def made_up_features(images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit features of whole images and of eight crops of each."""
    rows = torch.randn(images, 9, 16, generator=torch.Generator().manual_seed(0))
    features = torch.nn.functional.normalize(rows, dim=-1)
    return features[:, 0], features[:, 1:]


def test_aligned_scores_label_by_the_ratio_to_the_mean_prediction_of_late(data, backbone, tmp_path):
    opts = ("TRAINER.FAIR.ALIGN_QUEUE", "2", "TRAINER.FAIR.WEIGHT", "margin", "TRAINER.FAIR.LABEL_MEMORY", "0.0")
    trainer = toys.build("FAIR", data, backbone, tmp_path, *opts)
    batches = zip(*(rows.split(2) for rows in made_up_features(6)), strict=True)
    means, moved = [], False  # three batches, of which the queue holds two
    for z, crops in batches:
        las, _ = trainer.scores(z, crops)
        p = [[math.exp(trainer.model.tau * s) for s in row] for row in las.double().tolist()]
        p = [[value / sum(row) for value in row] for row in p]
        means.append([sum(column) / len(p) for column in zip(*p, strict=True)])
        recent = [sum(column) / len(means[-2:]) for column in zip(*means[-2:], strict=True)]
        aligned = [[value / mean for value, mean in zip(row, recent, strict=True)] for row in p]

        y, w, _, mean, _ = trainer.pseudo_label(z, crops, {})
        trainer.recent.push(mean)
        assert mean.tolist() == pytest.approx(means[-1], abs=1e-5)
        assert y.tolist() == [row.index(max(row)) for row in aligned]
        margins = [1 - sorted(row)[-2] / max(row) for row in aligned]
        assert w.tolist() == pytest.approx([2 * margin / sum(margins) for margin in margins], abs=1e-4)
        moved |= y.tolist() != las.argmax(dim=1).tolist()
    assert moved  # otherwise nothing was tested


def test_labels_are_remembered(data, backbone, tmp_path):
    """An image's probabilities are the mean of earlier ones and these; of an image not seen before, these."""
    trainer = toys.build("FAIR", data, backbone, tmp_path, "TRAINER.FAIR.LABEL_MEMORY", "0.25")
    features = made_up_features(4)
    new = trainer.pseudo_label(*features, {"index": torch.arange(4)}).probs
    before = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.2, 0.7], [0.0, 0.0, 0.0], [0.6, 0.4, 0.0]])
    trainer.memory.write(torch.arange(4), before)
    labels = trainer.pseudo_label(*features, {"index": torch.arange(4)})
    for i in range(4):
        seen = before[i].sum() > 0
        pairs = zip(before[i].tolist(), new[i].tolist(), strict=True)
        expected = [0.25 * old + 0.75 * now if seen else now for old, now in pairs]
        assert labels.probs[i].tolist() == pytest.approx(expected, abs=1e-6)
        assert labels.y[i] == expected.index(max(expected))


def test_a_memory_of_other_images_is_refused():
    with pytest.raises(UserError, match="remembers 4 x 3 training images and classes, and this run has 5 x 3"):
        LabelMemory(5, 3).load_state_dict(LabelMemory(4, 3).state_dict())


def test_the_loss_is_the_mean_over_the_students_views(data, backbone, tmp_path):
    """By loops over views, images and classes."""
    trainer = toys.build("FAIR", data, backbone, tmp_path)
    generator = torch.Generator().manual_seed(0)
    logits, w = torch.randn(3, 5, 3, generator=generator), torch.rand(5, generator=generator)
    y = torch.tensor([0, 2, 1, 1, 0])
    learned, fair, mean = trainer.losses(logits, Labels(y, w, y == 0, None, None))
    learned_by_hand, fair_by_hand, mean_by_hand = [], [], [0.0] * 3
    for view in logits.double().tolist():
        p = [[math.exp(x) / sum(map(math.exp, row)) for x in row] for row in view]
        learned_by_hand.append(sum(-w[i].item() * math.log(p[i][y[i]]) for i in range(5)) / 5)
        means = [sum(row[c] for row in p) / 5 for c in range(3)]
        fair_by_hand.append(-sum(map(math.log, means)) / 3)
        mean_by_hand = [a + b / 3 for a, b in zip(mean_by_hand, means, strict=True)]
    assert learned.item() == pytest.approx(sum(learned_by_hand) / 3, rel=1e-6)
    assert fair.item() == pytest.approx(sum(fair_by_hand) / 3, rel=1e-6)
    assert mean.tolist() == pytest.approx(mean_by_hand, rel=1e-6)


def test_crops_of_the_student_change_what_is_learned(finished, data, backbone, tmp_path):
    run(data, backbone, tmp_path, "TRAINER.FAIR.STUDENT_CROPS", "1")
    assert not same(checkpoint(tmp_path)["state_dict"], checkpoint(finished)["state_dict"])


def test_without_selected_crops_the_whole_image_labels(data, backbone, tmp_path):
    """Crops that only the student sees are no matter to labels and predictions."""
    opts = ("TRAINER.FAIR.TOP_K", "0", "TRAINER.FAIR.STUDENT_CROPS", "4")
    trainer = toys.build("FAIR", data, backbone, tmp_path, *opts)
    las, whole = trainer.scores(*made_up_features(2))
    assert torch.equal(las, whole) and trainer.prediction()["crops"] is None


def test_the_oracle_reads_labels_and_says_so(data, backbone, tmp_path):
    oracle = ("TRAINER.FAIR.ORACLE", "True")
    results = run(data, backbone, tmp_path / "a", *oracle)
    assert results["uses_labels"] and all(record["pseudo_accuracy"] == 100 for record in results["epochs"])
    run(toys.permute_labels(data, tmp_path / "data"), backbone, tmp_path / "b", *oracle)
    assert not same(checkpoint(tmp_path / "a")["state_dict"], checkpoint(tmp_path / "b")["state_dict"])


def test_many_classes_turn_on_the_running_average(finished, data, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.fair.MANY_CLASSES", 3)
    run(data, backbone, tmp_path)
    assert not same(checkpoint(tmp_path)["state_dict"], checkpoint(finished)["state_dict"])


def test_resnet_tower_and_inference_with_crops(data, tmp_path):
    path = save_clip(tmp_path / "rn.pt", "resnet")
    before = load_clip(str(path)).visual
    results = run(data, path, tmp_path / "out", "TRAINER.FAIR.CROP_INFERENCE", "True")
    assert 0 <= results["crop_accuracy"] <= 100
    without = run(
        data,
        path,
        tmp_path / "none",
        "TRAINER.FAIR.CROP_INFERENCE",
        "True",
        "TRAINER.FAIR.N_CROPS",
        "0",
        "OPTIM.MAX_EPOCH",
        "1",
    )
    assert "crop_accuracy" not in without
    trained = checkpoint(tmp_path / "out")["state_dict"]
    norms = {
        f"visual.{name}.{kind}"
        for name, module in before.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for kind in ("weight", "bias")
    }
    assert trained.keys() == norms | {"anchors.weight"}


# -- Zero-shot ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "ZeroshotCLIP2", "CuPL"])
def test_zero_shot_equals_the_plain_computation(data, backbone, tmp_path, trainer):
    from clip import clip
    from dassl.data.transforms import build_transform
    from dassl.engine import build_trainer

    from fairclip.text.templates import ENSEMBLE

    results = run(data, backbone, tmp_path, trainer=trainer)
    assert results["epochs"] == [] and results["trainable_parameters"] == 0

    modules, _ = import_plugins("trainers", "datasets")
    args = launch.parse_args(arguments(data, backbone, tmp_path, trainer=trainer))
    built = build_trainer(configs.build_cfg(args, modules))
    model = load_clip(str(backbone))
    if trainer == "CuPL":
        described = json.loads((data / "descriptions.json").read_text())
        texts = [described[name] for name in CLASSES]
    else:
        own = "a photo of a {}."
        templates = [*ENSEMBLE, own] if trainer == "ZeroshotCLIP2" else [own]
        texts = [[template.format(name) for template in templates] for name in CLASSES]
    transform = build_transform(built.cfg, is_train=False)
    images = torch.stack([transform(Image.open(data / f"test_{c}_0.png")) for c in range(3)])
    with torch.no_grad():
        f = model.encode_image(images)
        f = f / f.norm(dim=1, keepdim=True)
        rows = []
        for some in texts:
            g = model.encode_text(clip.tokenize(some))
            g = (g / g.norm(dim=1, keepdim=True)).mean(dim=0)
            rows.append(g / g.norm())
        expected = model.logit_scale.exp() * f @ torch.stack(rows).t()
        torch.testing.assert_close(built.model_inference(images), expected, rtol=1e-4, atol=1e-4)


# -- Files that somebody drops in --------------------------------------------------------------------------------------


def test_a_dropped_in_trainer_is_found_and_a_broken_one_is_named(data, backbone, tmp_path, monkeypatch, capsys, caplog):
    (tmp_path / "dropped.py").write_text(
        "from dassl.engine import TRAINER_REGISTRY\n"
        "from trainers.zsclip import ZeroshotCLIP\n"
        "def extend_cfg(cfg):\n    cfg.TRAINER.DROPPED = cfg.TRAINER.ZEROSHOTCLIP.clone()\n"
        "@TRAINER_REGISTRY.register()\nclass Dropped(ZeroshotCLIP):\n    pass\n"
    )
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    monkeypatch.setattr(trainers, "__path__", [*trainers.__path__, str(tmp_path)])
    run(data, backbone, tmp_path / "out", "TRAINER.NAME", "Dropped", trainer="ZeroshotCLIP")
    assert "trainers/broken.py is left out" in caplog.text
    assert train(arguments(data, backbone, tmp_path / "none", "TRAINER.NAME", "Broken")) == 2
    assert "trainers.broken failed to import" in capsys.readouterr().err


# -- Mistakes end in one message ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.FAIR.N_CROP", "4"), "did you mean TRAINER.FAIR.N_CROPS?"),
        (("TRAINER.FAIR.N_CROPS", "many"), "TRAINER.FAIR.N_CROPS"),
        (("TRAINER.FAIR.TOP_K", "9"), "TOP_K must lie between 0 and N_CROPS"),
        (("TRAINER.FAIR.STUDENT_CROPS", "9"), "STUDENT_CROPS 9: with TOP_K 4 of N_CROPS 4 it must lie between 0 and 4"),
        (("TRAINER.FAIR.LABEL_MEMORY", "1.0"), "a share lies in [0, 1)"),
        (("TRAINER.FAIR.ALPHA", "1.5"), "ALPHA 1.5, BETA 1.0: need 0 < ALPHA <= BETA <= 1"),
        (("TRAINER.FAIR.SHARPNESS", "-1.0"), "SHARPNESS -1.0: a number from 0 on"),
        (("TRAINER.FAIR.FAIRNESS", "-1.0"), "FAIRNESS -1.0: a number from 0 on"),
        (("TRAINER.FAIR.PRIOR", "absent.json"), "PRIOR: there is no file absent.json"),
        (("TRAINER.FAIR.WEIGHT", "entropy"), "none, agreement, margin"),
        (("TRAINER.FAIR.ANCHORS", "median"), "weighted"),
        (("TRAINER.FAIR.ALIGN_QUEUE", "-1"), "0: no alignment"),
        (("TRAINER.FAIR.ALPHA", "0.95", "TRAINER.FAIR.BETA", "0.9"), "ALPHA <= BETA"),
        (("TRAINER.FAIR.PREC", "fp8"), "PREC"),
        (("INPUT.SIZE", "(48, 48)"), "it follows the backbone"),
        (("TRAINER.NAME", "FAIRR"), "did you mean 'FAIR'?"),
        (("DATASET.NAME", "Toyy"), "did you mean 'Toy'?"),
        (("TRAINER.FAIR.DESCRIPTIONS", "absent.json"), "absent.json"),
        (("OPTIM.LR", "1e-7"), "LR_MIN"),
        (("OPTIM.WARMUP_EPOCH", "1"), "without warm-up"),
    ],
)
def test_mistakes(data, backbone, tmp_path, capsys, opts, message):
    check_refused(arguments(data, backbone, tmp_path, *opts), message, capsys)


def test_a_missing_config_file_and_a_bad_one(tmp_path, capsys):
    assert train(["--config-file", str(tmp_path / "absent.yaml")]) == 2
    (tmp_path / "bad.yaml").write_text("TRAINER:\n  FAIR:\n    TOPK: 3\n")
    assert train(["--config-file", str(tmp_path / "bad.yaml")]) == 2
    error = capsys.readouterr().err
    assert "absent.yaml" in error and "TRAINER.FAIR.TOP_K" in error
