"""What holds for every method: it reads no label unless it says so, and neither a kill nor a second test matters."""

import json

import pytest
import torch
from commands import train
from short_runs import BY_STEPS, LINES, METHODS, REGISTERED, TRAINERS, UNTRAINED, USUAL_FORMS, few_are_many, short
from toys import arguments, build, check_refused, check_same_end, checkpoint, permute_labels, run, run_killed, same

pytestmark = pytest.mark.usefixtures("console")


@pytest.fixture(autouse=True)
def many_classes(monkeypatch):
    few_are_many(monkeypatch)


def test_every_trainer_is_a_method():
    """One without a line in configs/methods.txt would be in no test here."""
    assert {row.trainer for row in METHODS.values()} == set(REGISTERED)
    assert TRAINERS.keys() <= set(REGISTERED) and LINES.keys() <= METHODS.keys()


@pytest.mark.parametrize("key", BY_STEPS)
def test_something_moves(key, short_run):
    """Else what follows would say little."""
    losses = [record["loss"] for record in json.loads((short_run(key) / "results.json").read_text())["epochs"]]
    assert abs(losses[1] - losses[0]) > 1e-3 * losses[0]


# -- Labels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [key for key in METHODS if key not in UNTRAINED])
def test_permuted_labels_give_identical_weights_unless_they_are_read(key, short_run, few, vit, tmp_path):
    trainer, permuted = METHODS[key].trainer, permute_labels(few, tmp_path / "data", "train", "test")
    results = run(*short(key, permuted, vit, tmp_path / "out"))
    a, b = (checkpoint(out, trainer) for out in (short_run(key), tmp_path / "out"))
    alike = all(same(a[part], b[part]) for part in ("state_dict", "extra"))
    assert alike != results["uses_labels"]


@pytest.mark.parametrize("key", UNTRAINED)
def test_permuted_labels_give_identical_logits(key, few, vit, tmp_path):
    permuted = permute_labels(few, tmp_path / "data", "train", "test")
    built = (build(*short(key, data, vit, tmp_path / "out")) for data in (few, permuted))
    a, b = (trainer.predict(trainer.test_loader, "test") for trainer in built)
    assert torch.equal(a, b)


@pytest.mark.parametrize("key", BY_STEPS)
def test_images_chosen_by_label_are_refused_unless_labels_are_read(key, short_run, few, vit, tmp_path, capsys):
    argv = arguments(*short(key, few, vit, tmp_path), "DATASET.NUM_SHOTS", "4")
    if json.loads((short_run(key) / "results.json").read_text())["uses_labels"]:
        assert train(argv) == 0
    else:
        check_refused(argv, "without labels", capsys)


# -- Once more ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [key for key in USUAL_FORMS if key in BY_STEPS])
def test_a_killed_run_ends_as_if_never_killed(key, short_run, few, vit, tmp_path):
    job = short(key, few, vit, tmp_path / "out")
    run_killed(*job)
    run(*job)
    check_same_end(METHODS[key].trainer, tmp_path / "out", short_run(key))


@pytest.mark.parametrize("key", METHODS)
def test_eval_only_gives_the_reported_predictions(key, short_run, few, vit, tmp_path, capsys):
    whole, argv = short_run(key), arguments(*short(key, few, vit, tmp_path))
    assert train(["--eval-only", "--model-dir", str(whole), *argv]) == 0
    accuracy = json.loads((whole / "results.json").read_text())["accuracy"]
    assert f"Accuracy on the test images: {accuracy:.2f} %" in capsys.readouterr().out
    assert (tmp_path / "predictions.csv").read_text() == (whole / "predictions.csv").read_text()
