"""Batches with few classes and streams: what is drawn, what runs make of it, and the tables over protocols."""

import csv
import io

import numpy as np
import pytest
from commands import table
from made_up_runs import cells, finish, shown
from toys import build, make_data, permute_labels, run, save_clip

from fairclip.compare.compare_command import to_do
from fairclip.compare.plan import Job
from fairclip.compare.protocols import TITLES
from fairclip.compare.published import read_published
from fairclip.run import protocol
from fairclip.run.protocol import PROTOCOLS, accuracies, draw
from fairclip.run.results import lacks_protocols

pytestmark = pytest.mark.usefixtures("console")
LABELS = np.repeat(np.arange(30), 20)


@pytest.mark.parametrize("name, size", [("very_low", 64), ("low", 64), ("medium", 64), ("large_medium", 1000)])
def test_batches_have_as_many_images_and_classes_as_they_say(name, size):
    drawn, kind = draw(name, LABELS), PROTOCOLS[name]
    counts = set()
    for (part,) in drawn:
        classes = len(set(LABELS[part]))
        assert len(set(part)) == len(part) <= size and 1 <= classes <= kind.most
        if name != "medium":  # there, 64 images need not meet all classes that were drawn
            assert len(part) == min(size, 20 * classes) and classes >= kind.fewest
        counts.add(classes)
    assert len(drawn) == protocol.N_BATCHES and len(counts) > 2
    assert all(np.array_equal(a, b) for (a,), (b,) in zip(drawn, draw(name, LABELS), strict=True))


def test_streams_have_each_image_once_and_more_alike_neighbours():
    alike = []
    for name in ("stream_low", "stream_medium", "stream_high", "stream_separate"):
        orders = [np.concatenate(parts) for parts in draw(name, LABELS)]
        assert len(orders) == protocol.N_STREAMS and all(sorted(order) == [*range(600)] for order in orders)
        assert [len(part) for part in draw(name, LABELS)[0]] == [128, 128, 128, 128, 88]
        alike.append(np.mean([np.mean(LABELS[order[1:]] == LABELS[order[:-1]]) for order in orders]))
    # 570 of 599 neighbours are alike class by class; the more images are left to each class, the fewer.
    assert 1.5 / 30 < alike[0] < alike[1] < alike[2] <= alike[3] == pytest.approx(570 / 599)


def test_the_mean_is_over_batches_and_streams():
    right = LABELS % 2 == 0
    found = accuracies([f"class {label}" for label in LABELS], lambda parts: right[np.concatenate(parts)])
    assert found["very_low"] == pytest.approx(
        100 * np.mean([right[part].mean() for (part,) in draw("very_low", LABELS)])
    )
    assert found["stream_high"] == pytest.approx(50)
    assert "very_high" not in found and "high" in found  # 30 classes
    # Labels play a part by what is equal, not by their names or numbers.
    assert found == accuracies((29 - LABELS).tolist(), lambda parts: right[np.concatenate(parts)])


# -- Runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), train=2, test=12)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip") / "clip.pt", "vit")


ASKED = ("TEST.PROTOCOLS", "True")


@pytest.mark.parametrize(
    "trainer, options",
    [("TransCLIP", ()), ("StatA", ()), ("StatA", ("TRAINER.STATA.ONLINE", "True")), ("TDA", ())],
)
def test_batches_come_alone_and_streams_in_order(data, vit, tmp_path, trainer, options, monkeypatch):
    monkeypatch.setattr(protocol, "N_BATCHES", 4)
    monkeypatch.setattr(protocol, "STREAM_BATCH", 16)
    made = build(trainer, data, vit, tmp_path, *ASKED, *options)
    features, labels = made.encode_all(made.test_loader.dataset, "test"), np.array(made.test_loader.dataset.labels)
    found = made.by_protocol("test")
    assert set(found) == {name for name in PROTOCOLS if name not in ("medium", "large_medium", "high", "very_high")}
    for name in ("very_low", "stream_high"):
        expected = []
        for parts in draw(name, labels):
            parts = [np.concatenate(parts)] if made.stream else parts
            guesses = np.concatenate([made.scores(features[part]).argmax(dim=1).numpy() for part in parts])
            expected.append(np.mean(guesses == labels[np.concatenate(parts)]))
        assert found[name] == pytest.approx(100 * np.mean(expected))


def test_what_a_run_leaves(data, vit, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "N_BATCHES", 2)
    plain = run("StatA", data, vit, tmp_path / "run")
    assert "protocols" not in plain and lacks_protocols(plain)
    asked = run("StatA", data, vit, tmp_path / "run", *ASKED)  # the same run, tested once more
    assert asked["accuracy"] == plain["accuracy"] and asked["config_hash"] == plain["config_hash"]
    assert not lacks_protocols(asked) and 0 <= asked["protocols"]["very_low"] <= 100
    # Who sees one image at a time has nothing to add: the tables read predictions.csv.
    alone = run("ZeroshotCLIP", data, vit, tmp_path / "alone", *ASKED)
    assert "protocols" not in alone and not lacks_protocols(alone)


def test_methods_do_not_see_the_labels(data, vit, tmp_path):
    """Other labels draw other batches; for one and the same batch they change nothing."""
    permuted = permute_labels(data, tmp_path / "data", "test")
    a, b = (build("StatA", folder, vit, tmp_path) for folder in (data, permuted))
    part = [3, 1, 20, 7, 30]
    assert a.test_loader.dataset.labels != b.test_loader.dataset.labels
    x, y = (made.scores(made.encode_all(made.test_loader.dataset, "test")[part]) for made in (a, b))
    assert (x == y).all()


# -- Tables ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(one_set):
    cars = one_set / "synth_cars"
    pairs = [(f"class {i % 3}", f"class {i % 3 if i % 4 else (i + 1) % 3}") for i in range(60)]
    finish(cars / "ZeroshotCLIP/tiny/seed1", 75, predictions=pairs)
    own = {"very_low": 70.0, "stream_low": 71.0}
    finish(cars / "StatA/tiny/seed1", 72, transductive=True, protocols=own)
    finish(cars / "TransCLIP/tiny/seed1", 80, transductive=True, protocols=own | {"very_low": 30.0})
    finish(cars / "TDA/tiny/seed1", 73, stream=True)
    return one_set


def test_the_table_over_protocols(finished, capsys):
    text = shown(finished, "--protocols", "--format", "markdown", capsys=capsys)
    usual, over = text.split("synth_cars, tiny: test accuracy in % by")
    assert "Very low" not in usual and cells(usual)["TransCLIP †"][0] == "**80.00**"
    rows = cells(over)
    head, stata = rows["Method"], dict(zip(rows["Method"], rows["StatA †"], strict=True))
    assert head[:2] == ["All", "Very low, 1–4 classes in 64"] and "High, 25–50 in 1,000" not in head
    assert (stata["All"], stata[head[1]]) == ("<u>72.00</u>", "**70.00**")
    zero_shot = dict(zip(head, rows["Zero-shot, class names"], strict=True))
    assert zero_shot["Stream, class by class"] == "75.00" and zero_shot[head[1]] not in ("", "–")
    assert rows["FAIR"][1:] == ["–"] * (len(head) - 1)  # these made-up runs left no predictions
    assert (
        rows["TDA §"][1] == "–" and "The usual test alone: Zero-shot, descriptions, " in over and "FAIR, TDA." in over
    )
    assert "Each column is ranked by itself" in over and "methods do not see them" in over


def test_forms_of_it(finished, capsys):
    lines = list(csv.DictReader(io.StringIO(shown(finished, "--protocols", "--format", "csv", capsys=capsys))))
    usual = {line["method"]: line for line in lines if not line["protocol"]}
    low = {line["method"]: line for line in lines if line["protocol"] == "very_low"}
    assert usual["StatA"]["mean"] == "72" and usual["StatA"]["rank"] == "2"
    assert low["StatA"]["mean"] == "70.0" and low["StatA"]["rank"] == "1" and "TDA" not in low
    assert r"\textbf{70.00}" in shown(finished, "--protocols", "--format", "latex", capsys=capsys)
    page = shown(finished, "--protocols", "--format", "html", "--images", "0", capsys=capsys)
    assert '<td class="best number" data-number data-sort="70.0">70.00' in page and "1–4 classes in 64" in page


def test_published_averages_by_protocol(finished, capsys):
    assert "MaxZanella" not in shown(finished, "--protocols", "--published", capsys=capsys)  # of another backbone
    finish(finished / "synth_cars/StatA/tiny/seed1", 72, transductive=True, backbone="ViT-B/16")
    text = shown(finished, "--protocols", "--published", capsys=capsys).split("averages over data sets")[1]
    rows = cells(text)
    assert dict(zip(rows["Method"], rows["TransCLIP"], strict=True))["All"] == "70.30"
    assert rows["StatA"][:3] == ["69.90", "70.40", "69.30"] and "StatA (MaxZanella/StatA), README" in text
    assert "averages" not in shown(finished, "--published", capsys=capsys)
    told = [row for source in read_published() for row in source.get("by_protocol", {}).values()]
    assert told and all(row.keys() <= TITLES.keys() for row in told)


def test_finished_runs_that_were_not_tested_so_are_done_once_more(finished):
    folders = [
        finished / "synth_cars" / name for name in ("ZeroshotCLIP/tiny/seed1", "StatA/tiny/seed1", "TDA/tiny/seed1")
    ]
    jobs = [Job("", "synth_cars", "", folder, ()) for folder in [*folders, finished / "synth_cars/CuPL/tiny/seed9"]]
    assert to_do(jobs, protocols=False) == jobs[3:] and to_do(jobs, protocols=True) == jobs[2:]


def test_damaged_figures_are_refused(finished, capsys):
    finish(finished / "synth_cars/StatA/tiny/seed1", 72, protocols={"very_low": "many"})
    assert table([str(finished), "--protocols"]) == 2
    assert "protocols is {'very_low': 'many'}: it has to be names with numbers" in capsys.readouterr().err
