"""UPL: its selection by hand, and whole runs through train.py."""

import json
from pathlib import Path

import pytest
import torch
from dassl.data.transforms import build_transform
from PIL import Image
from toys import (
    CLASSES,
    EPOCHS,
    arguments,
    check_refused,
    checkpoint,
    make_data,
    run,
    save_clip,
)

from fairclip.backbones.openai import load_clip
from fairclip.core.errors import UserError
from fairclip.core.plugins import import_plugins
from fairclip.method.selection import select_top_k
from fairclip.run import config as configs
from fairclip.run import launch
from trainers.upl import UPL

# -- Selection ---------------------------------------------------------------------------------------------------------


def select_by_hand(probs: list[list[float]], k: int) -> dict[int, list[int]]:
    """Predicted class -> its k most confident images, the most confident first."""
    images: dict[int, list[tuple[float, int]]] = {}
    for i, row in enumerate(probs):
        best = 0
        for c, p in enumerate(row):
            if p > row[best]:
                best = c
        images.setdefault(best, []).append((-row[best], i))
    return {c: [i for _, i in sorted(found)[:k]] for c, found in images.items()}


def random_probs(n: int, classes: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)).softmax(dim=1)


def never_predicted() -> torch.Tensor:
    probs = random_probs(20, 4)
    probs[:, 2] = 0  # and none for class 2
    return probs / probs.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("k", [1, 3, 100])
@pytest.mark.parametrize(
    "probs",
    [
        random_probs(40, 5),
        random_probs(3, 5),
        never_predicted(),
        torch.ones(6, 1),
        random_probs(5, 3)[[0, 1, 0, 2, 1, 0, 3, 4, 4]],  # the same image more than once
        torch.full((6, 3), 1 / 3),  # ties everywhere
    ],
    ids=["plain", "few", "never predicted", "one class", "duplicates", "ties"],
)
def test_selection(probs, k):
    chosen, labels = select_top_k(probs, k)
    expected = select_by_hand(probs.tolist(), k)
    pairs = [(c, i) for c in sorted(expected) for i in expected[c]]
    assert list(zip(labels.tolist(), chosen.tolist(), strict=True)) == pairs
    assert len(set(chosen.tolist())) == len(chosen)


def test_selection_is_not_the_top_of_each_column():
    probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    chosen, labels = select_top_k(probs, 2)
    assert (chosen.tolist(), labels.tolist()) == ([0, 1], [0, 0])


def test_selecting_nothing_is_refused():
    with pytest.raises(UserError, match="1 or more"):
        select_top_k(random_probs(4, 2), 0)


# -- Whole runs --------------------------------------------------------------------------------------------------------

FEW = ("TRAINER.UPL.TOP_K", "5", "TRAINER.UPL.N_CTX", "16", "TRAINER.UPL.CSC", "False")


@pytest.fixture(scope="module")
def finished(data, backbone, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    run("UPL", data, backbone, out, *FEW)
    return out


def read(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def probabilities(data: Path, backbone: Path, pixels: int = 32) -> torch.Tensor:
    """Zero-shot probabilities of the training images, one at a time."""
    from clip import clip

    modules, _ = import_plugins("trainers", "datasets")
    cfg = configs.build_cfg(launch.parse_args(arguments("UPL", data, backbone, data)), modules)
    cfg.defrost()
    cfg.INPUT.SIZE = (pixels, pixels)
    transform, model, rows = build_transform(cfg, is_train=False), load_clip(str(backbone)), []
    with torch.no_grad():
        t = model.encode_text(clip.tokenize([f"a photo of a {name}." for name in CLASSES]))
        t = t / t.norm(dim=1, keepdim=True)
        for name, _ in json.loads((data / "split.json").read_text())["train"]:
            f = model.encode_image(transform(Image.open(data / name).convert("RGB"))[None])[0]
            rows.append((model.logit_scale.exp() * t @ (f / f.norm())).softmax(dim=0))
    return torch.stack(rows)


def as_dict(extra: dict) -> dict[int, list[int]]:
    chosen: dict[int, list[int]] = {}
    for i, label in zip(extra["selected"].tolist(), extra["pseudo_labels"].tolist(), strict=True):
        chosen.setdefault(label, []).append(i)
    return chosen


def test_a_run(finished, data, backbone):
    results, state = read(finished), checkpoint(finished, "upl")
    assert [record["epoch"] for record in results["epochs"]] == [1, 2, 3]
    rates = [1e-5, 2e-3, 2e-3 * (1 + 0.5) / 2]  # tiny.yaml
    assert [record["lr"] for record in results["epochs"]] == pytest.approx(rates)
    assert all(0 <= record["pseudo_accuracy"] <= 100 for record in results["epochs"])
    assert {name: value.shape for name, value in state["state_dict"].items()} == {"contexts": (1, 16, 64)}
    assert results["trainable_parameters"] == 16 * 64
    assert as_dict(state["extra"]) == select_by_hand(probabilities(data, backbone).tolist(), 5)


def test_a_resnet_tower_and_a_context_for_each_class(data, tmp_path):
    clip = save_clip(tmp_path / "rn.pt", "resnet")
    opts = (*FEW, "TRAINER.UPL.CSC", "True", "TRAINER.UPL.N_CTX", "2")
    results = run("UPL", data, clip, tmp_path / "out", *opts)
    assert checkpoint(tmp_path / "out", "upl")["state_dict"]["contexts"].shape == (1, 3, 2, 64)
    assert len(results["epochs"]) == EPOCHS


def test_images_without_labels(backbone, tmp_path):
    source, root = make_data(tmp_path, train=4, test=1), tmp_path / "mine"
    (root / "train").mkdir(parents=True)
    for name, label in (item for part in json.loads((source / "split.json").read_text()).values() for item in part):
        part = root / "train" if name.startswith("train") else root / "test" / CLASSES[label]
        part.mkdir(parents=True, exist_ok=True)
        (part / name).symlink_to(source / name)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    results = run("UPL", root, backbone, tmp_path / "out", "DATASET.NAME", "ImageFolder")
    assert len(results["epochs"]) == EPOCHS
    assert not any("pseudo_accuracy" in record for record in results["epochs"])


def test_a_resumed_run_does_not_label_again(finished, data, backbone, tmp_path, monkeypatch, capsys):
    # Another selection than the one it would make now: the checkpoint's counts.
    run("UPL", data, backbone, tmp_path, *FEW)
    path = tmp_path / "upl" / f"model.pth.tar-{EPOCHS}"
    state = torch.load(path, weights_only=True)
    state["extra"] |= {"selected": torch.tensor([0, 1]), "pseudo_labels": torch.tensor([1, 1])}
    del state["sha256"]
    torch.save(state, path)
    (tmp_path / "results.json").unlink()
    monkeypatch.setattr(UPL, "zero_shot_probabilities", lambda self: pytest.fail("labelled again"))
    capsys.readouterr()
    run("UPL", data, backbone, tmp_path, *FEW)
    assert "Selected 2 of 36 training images" in capsys.readouterr().out


def test_a_class_that_is_never_predicted(data, backbone, tmp_path, monkeypatch, capsys):
    probs = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]).repeat(18, 1)
    monkeypatch.setattr(UPL, "zero_shot_probabilities", lambda self: probs)
    run("UPL", data, backbone, tmp_path, *FEW)
    message = "Selected 10 of 36 training images, at most 5 of each predicted class; 1 classes were never predicted: "
    assert message + CLASSES[2] in capsys.readouterr().out
    assert as_dict(checkpoint(tmp_path, "upl")["extra"]) == {0: [0, 2, 4, 6, 8], 1: [1, 3, 5, 7, 9]}


def test_members_of_an_ensemble_do_not_disturb_each_other(finished, data, backbone, tmp_path):
    run("UPL", data, backbone, tmp_path, *FEW, "TRAINER.UPL.ENSEMBLE", "3")
    alone = checkpoint(finished, "upl")["state_dict"]["contexts"]
    members = checkpoint(tmp_path, "upl")["state_dict"]["contexts"]
    assert len(members) == 3 and torch.equal(members[:1], alone)
    assert not torch.allclose(members[1], members[0]) and not torch.allclose(members[2], members[1])


def test_several_models_label_together(data, backbone, tmp_path):
    other = save_clip(tmp_path / "other.pt", seed=1, pixels=48)
    both = str((str(backbone), str(other)))
    run("UPL", data, backbone, tmp_path / "out", *FEW, "TRAINER.UPL.LABELLERS", both)
    mean = (probabilities(data, backbone).double() + probabilities(data, other, 48).double()) / 2
    chosen = as_dict(checkpoint(tmp_path / "out", "upl")["extra"])
    assert chosen == select_by_hand(mean.tolist(), 5) != select_by_hand(probabilities(data, backbone).tolist(), 5)


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.UPL.TOPK", "4"), "did you mean TRAINER.UPL.TOP_K?"),
        (("TRAINER.UPL.TOP_K", "0"), "TRAINER.UPL.TOP_K 0"),
        (("TRAINER.UPL.ENSEMBLE", "0"), "TRAINER.UPL.ENSEMBLE 0"),
        (("TRAINER.UPL.N_CTX", "0"), "TRAINER.UPL.N_CTX 0"),
        (("TRAINER.UPL.N_CTX", "75"), "N_CTX 72 or less"),
        (("TRAINER.UPL.LABELLERS", "('RN5O',)"), "Did you mean 'RN50'?"),
        (("TRAINER.UPL.TEMPLATES", "('a photo',)"), "no {} for the class name"),
        (("DATALOADER.TRAIN_X.SAMPLER", "RandomClassSampler"), "label"),
    ],
)
def test_mistakes(data, backbone, tmp_path, capsys, opts, message):
    check_refused(arguments("UPL", data, backbone, tmp_path, *opts), message, capsys)
