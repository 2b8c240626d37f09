"""Tables of made-up results: what is averaged, ranked and held against what."""

import csv
import io
import json
from pathlib import Path

import pytest
from commands import table
from made_up_runs import cells, finish, load, shown

from fairclip.compare import runs, stats
from fairclip.compare.grid import column_name
from fairclip.compare.methods import read_methods
from fairclip.compare.runs import Column
from fairclip.compare.suites import expand
from fairclip.core.errors import UserError

# One data set, seed by seed


def test_table_by_seed(one_set, capsys):
    rows = cells(shown(one_set, "--datasets", "synth_cars/tiny", "--by-seed", capsys=capsys))
    assert rows["Method"] == ["Seed 1", "Seed 2", "Seed 10", "Accuracy", "Over zero-shot", "Macro-F1"]
    assert rows["Zero-shot, class names"] == ["", "", "", "40.00", "", "39.00"]
    assert rows["Zero-shot, descriptions"] == ["", "", "", "48.00", "", "47.00"]
    assert rows["Plain self-training"] == ["50.00", "52.00", "54.00", "52.00 ± 2.00", "+4.00", "51.00"]
    assert rows["FAIR"] == ["60.00", "63.00", "63.00", "62.00 ± 1.73", "+14.00", "61.00"]


def test_accuracy_with_crops_is_told_apart(one_set, capsys):
    fair = one_set / "synth_cars/FAIR/tiny"
    for seed, accuracy, crops in ((1, 60, 70), (2, 63, 71), (10, 63, 72)):
        finish(fair / f"seed{seed}", accuracy, crop_accuracy=crops)
    rows = cells(shown(one_set, "--by-seed", capsys=capsys))
    assert rows["FAIR"] == ["60.00", "63.00", "63.00", "62.00 ± 1.73", "+14.00", "61.00"]
    assert rows["FAIR, crops in the test too"] == ["70.00", "71.00", "72.00", "71.00 ± 1.00", "+23.00", ""]
    note = "With crops in the test too, not ranked: FAIR on synth_cars 71.00 ± 1.00."
    text = shown(one_set, capsys=capsys)
    assert note in text and cells(text)["FAIR"][0] == "62.00 ± 1.73"
    finish(fair / "seed2", 63)  # not of all seeds
    assert "crops in the test" not in shown(one_set, capsys=capsys) + shown(one_set, "--by-seed", capsys=capsys)


def test_a_line_for_each_run(two_sets, capsys):
    text = shown(two_sets, "--by-seed", "--format", "csv", "--methods", "fair", capsys=capsys)
    rows = {(row["dataset"], row["config"], int(row["seed"])): row for row in csv.DictReader(text.splitlines())}
    files = sorted(two_sets.glob("*/FAIR/*/seed*/results.json"))
    files = [file for file in files if "plain" not in file.parts[-3]]
    assert len(rows) == len(files) == len(text.splitlines()) - 1
    for file in files:
        results, (dataset, _, config, seed) = json.loads(file.read_text()), file.parts[-5:-1]
        row = rows[dataset, config, int(seed.removeprefix("seed"))]
        assert (row["method"], row["kind"]) == ("FAIR", "inductive")
        assert (float(row["accuracy"]), float(row["macro_f1"])) == (results["accuracy"], results["macro_f1"])


def test_table_by_seed_of_part_of_the_runs(one_set, capsys):
    (one_set / "synth_cars/FAIR/tiny_plain/seed2/results.json").unlink()
    finish(one_set / "synth_cars/ZeroshotCLIP/rn50/seed1", 55.5)
    finish(one_set / "synth_cars/FAIR/rn50_plain/seed1", 55.5)
    text = shown(one_set, "--by-seed", capsys=capsys)  # every config
    assert text.index("synth_cars, rn50 ") < text.index("synth_cars, tiny ") and "_plain" not in text
    first, second = text.split("synth_cars, tiny ")
    assert cells(first)["Zero-shot, class names"] == ["", "55.50", "", "54.50"]
    assert cells(second)["Plain self-training"][:3] == ["50.00", "", "54.00"]
    assert table([str(one_set), "--by-seed", "--datasets", "synth_cars/vit_b32"]) == 2
    assert "no finished run of config 'vit_b32'" in capsys.readouterr().err


def test_table_by_seed_says_where_descriptions_are_missing_or_settings_differ(one_set, capsys):
    arguments = ["--by-seed", "--datasets", "synth_cars"]
    text = shown(one_set, *arguments, capsys=capsys)
    assert "Note" not in text and "Not averaged" not in text
    finish(one_set / "synth_cars/CuPL/tiny/seed1", descriptions=None)
    assert "so 'Zero-shot, descriptions' goes by the names too" in shown(one_set, *arguments, capsys=capsys)
    finish(one_set / "synth_cars/FAIR/tiny/seed2", 70, descriptions={"file": "a.json", "sha256": "b" * 64})
    text = shown(one_set, *arguments, capsys=capsys)
    assert "'FAIR' differ in class descriptions (SHA-256): none (seeds 1, 10), bbbbbbbbbbbb (seed 2)" in text
    assert cells(text)["FAIR"] == ["60.00", "70.00", "63.00", "not averaged", "", ""]


# The comparison


def test_comparison_of_one_data_set(one_set, capsys):
    text = shown(one_set, capsys=capsys)
    rows = cells(text)
    assert rows["Method"] == ["synth_cars", "Parameters", "Seconds", "Views"]
    assert rows["Zero-shot, descriptions"] == ["48.00", "5,120", "10", "2"]
    assert rows["FAIR"][0] == "62.00 ± 1.73"
    # By hand: differences 10, 11, 9; their mean 10 and deviation 1; t(0.975, 2) = 4.30265; 4.30265 / sqrt(3) = 2.4841.
    assert rows["Gain of FAIR"][0] == "+10.00 [+7.52, +12.48] over Plain self-training"
    assert "synth_cars: config tiny (CLIP tiny), seeds 1 2 10." in text and "Average" not in text
    assert "Missing" not in text and "Caution" not in text


def test_groups_averages_and_missing_cells(two_sets, capsys):
    text = shown(two_sets, capsys=capsys)
    rows = cells(text)
    assert rows["Method"][:3] == ["synth_cars", "synth_cars_s2", "Average"]
    assert rows["Zero-shot, class names"][:3] == ["40.00", "missing", "–"]
    assert rows["Zero-shot, descriptions"][2] == "53.00"  # seeds 1 and 7, but the seed does not matter
    # By hand: seed by seed 63, 64, 65 and 60, 61, 62.
    assert rows["FAIR"][:3] == ["62.00 ± 1.73", "66.00 ± 1.00", "64.00 ± 1.00"]
    assert rows["Plain self-training"][2] == "61.00 ± 1.00"
    assert list(rows)[-4:] == ["FAIR", "TransCLIP †", "Linear probe ‡", "Gain of FAIR"]
    # On the second set FAIR is behind, and the transductive and labelled rows play no part.
    assert rows["Gain of FAIR"][1] == "-4.00 [-6.48, -1.52] over Plain self-training"
    assert rows["Gain of FAIR"][2].startswith("+3.00 [+3.00, +3.00]")
    assert "Missing: Zero-shot, class names on synth_cars_s2." in text
    assert "No average where a data set is missing or has other seeds: Zero-shot, class names." in text
    assert "†: transductive" in text and "‡: trained with labels" in text


def test_a_stream_is_a_group_of_its_own(two_sets, capsys):
    for folder in ("synth_cars", "synth_cars_s2"):
        for seed in (1, 2, 10):
            finish(two_sets / folder / "TDA" / "tiny" / f"seed{seed}", 90, stream=True)
    text = shown(two_sets, capsys=capsys)
    assert list(cells(text))[-5:] == ["FAIR", "TransCLIP †", "TDA §", "Linear probe ‡", "Gain of FAIR"]
    assert "§: stream" in text and "over TDA" not in text
    assert r"TDA \S{} &" in shown(two_sets, "--format", "latex", capsys=capsys)


def test_runs_of_before_are_compared_with_those_that_have_later_keys(one_set, capsys):
    settings = {"DATASET": {"NAME": "SynthCars"}, "TRAINER": {"NAME": "x"}}
    for trainer, more in (("CuPL", {}), ("FAIR", {"SYNTH_LIGHT": "blue_hour"})):
        finish(one_set / f"synth_cars/{trainer}/tiny/seed1", config={**settings, "DATASET": settings["DATASET"] | more})
    assert "Caution" not in shown(one_set, "--seeds", "1", capsys=capsys)
    config = {**settings, "DATASET": {"NAME": "SynthCars", "SYNTH_LIGHT": "fog"}}
    finish(one_set / "synth_cars/FAIR/tiny/seed1", config=config)
    text = shown(one_set, "--seeds", "1", capsys=capsys)
    assert "differ in DATASET.SYNTH_LIGHT: blue_hour (Zero-shot, descriptions), fog (FAIR)." in text


@pytest.fixture
def suite(tmp_path) -> Path:
    """FAIR is 1, 2, … 13 ahead of plain self-training, and 1 behind zero-shot on the last two data sets."""
    folder = tmp_path / "suite"
    for i, bed in enumerate(expand(["fine13"]), start=1):
        finish(folder / bed / "FAIR/tiny/seed1", 70)
        finish(folder / bed / "FAIR/tiny_plain/seed1", 70 - i)
        finish(folder / bed / "CuPL/tiny/seed1", 71 if i > 11 else 60)
    return folder


def test_many_data_sets_have_a_row_each(suite, capsys):
    summary, by_set = shown(suite, "--datasets", "fine13", capsys=capsys).split("Test accuracy in %, by data set")
    rows = cells(summary)
    assert rows["Method"][:3] == ["Average", "FAIR ahead", "FAIR better on"]
    assert rows["FAIR"][:3] == ["70.00", "", ""]
    # By hand: mean 7, deviation 3.894, t 2.179: 2.179 * 3.894 / sqrt(13) = 2.353.
    assert rows["Plain self-training"][:3] == ["63.00", "+7.00 [+4.65, +9.35]", "13 of 13"]
    assert rows["Zero-shot, descriptions"][0] == "61.69" and rows["Zero-shot, descriptions"][2] == "11 of 13"
    assert "with a 95 % interval over data sets" in summary and max(map(len, summary.splitlines())) < 140
    rows = cells(by_set)
    assert rows["Data set"] == ["Zero-shot, descriptions", "Plain self-training", "FAIR"]
    assert rows["synth_cars_s7_fog"] == ["60.00", "67.00", "70.00"]
    assert [name for name in rows if name.startswith("synth_cars")] == expand(["fine13"])
    assert by_set.count("config tiny (CLIP tiny), seed 1.") == 1


def test_many_data_sets_with_some_missing_or_with_more_seeds(suite, capsys):
    finish(suite / "synth_cars_s6_backlight/FAIR/tiny/seed2", 80)  # without a partner
    rows = cells(shown(suite, "--datasets", "fine13", capsys=capsys).split("by data set")[0])
    assert rows["Plain self-training"][1:3] == ["+7.00 [+4.65, +9.35]", "13 of 13"]
    finish(suite / "synth_cars_s6_backlight/FAIR/tiny_plain/seed2", 65)  # 15 behind; its mean with seed 1's 2 is 8.5
    rows = cells(shown(suite, "--datasets", "fine13", capsys=capsys).split("by data set")[0])
    assert rows["Plain self-training"][1].startswith("+7.50 [")  # 7 + (8.5 - 2) / 13
    (suite / "synth_cars_s9_sodium/FAIR/tiny_plain/seed1/results.json").unlink()
    rows = cells(shown(suite, "--datasets", "fine13", capsys=capsys).split("by data set")[0])
    assert rows["Plain self-training"][:3] == ["–", "–", "–"]


def test_ranks_leave_references_and_transductive_methods_out(two_sets):
    comparison = load(two_sets)
    column = Column("synth_cars_s2", "tiny")
    found = {m: stats.scores(comparison, m, column) for m in comparison.methods}
    assert {m.key: r for m, r in stats.rank(comparison, found).items()} == {"plain": 1, "fair": 2}
    finish(two_sets / "synth_cars_s2/CuPL/tiny/seed7", 70)
    comparison = load(two_sets)
    found = {m: stats.scores(comparison, m, column) for m in comparison.methods}
    assert {m.key: r for m, r in stats.rank(comparison, found).items()} == {"plain": 1, "cupl": 1, "fair": 2}


def test_each_group_is_ranked_by_itself(two_sets, capsys):
    cars = two_sets / "synth_cars"
    finish(cars / "StatA/tiny/seed1", 90, transductive=True)
    finish(cars / "TDA/tiny/seed1", 99, stream=True)
    found = cells(shown(two_sets, "--datasets", "synth_cars", "--format", "markdown", capsys=capsys))
    assert (found["StatA †"][0], found["TransCLIP †"][0]) == ("**90.00**", "<u>80.00</u>")
    assert found["FAIR"][0] == "**62.00 ± 1.73**" and found["Plain self-training"][0] == "<u>52.00 ± 2.00</u>"
    assert "*" not in found["TDA §"][0] + found["Linear probe ‡"][0]  # alone in its group; with labels
    latex = shown(two_sets, "--datasets", "synth_cars", "--format", "latex", capsys=capsys)
    assert r"\textbf{90.00}" in latex and r"\underline{80.00}" in latex and r"\textbf{62.00" in latex
    lines = list(csv.DictReader(io.StringIO(shown(cars.parent, "--format", "csv", capsys=capsys))))
    ranks = {line["method"]: line["rank"] for line in lines if line["dataset"] == "synth_cars"}
    assert [ranks[name] for name in ("StatA", "TransCLIP", "FAIR", "TDA", "Linear probe")] == ["1", "2", "1", "", ""]


def test_partial_cells_say_so_and_leave_the_average(two_sets, capsys):
    (two_sets / "synth_cars/FAIR/tiny/seed10/results.json").unlink()
    text = shown(two_sets, capsys=capsys)
    assert cells(text)["FAIR"][:3] == ["61.50 ± 2.12 (2 of 3 seeds)", "66.00 ± 1.00", "–"]
    assert "Missing: Zero-shot, class names on synth_cars_s2; FAIR on synth_cars, seed 10." in text
    rows = cells(shown(two_sets, "--seeds", "1", "2", capsys=capsys))
    assert rows["FAIR"][:3] == ["61.50 ± 2.12", "65.50 ± 0.71", "63.50 ± 0.71"]
    rows = cells(shown(two_sets, "--seeds", "1", "2", "3", "--methods", "fair,upl", capsys=capsys))
    assert rows["UPL"][:3] == ["missing", "missing", "–"] and rows["FAIR"][0].endswith("(2 of 3 seeds)")
    assert "Gain of FAIR" not in rows  # there is nothing to be ahead of


def test_runs_of_other_settings_are_not_averaged(one_set, capsys):
    base = {
        "SEED": 1,
        "OUTPUT_DIR": "a",
        "OPTIM": {"MAX_EPOCH": 8, "LR": 0.1},
        "DATASET": {"NAME": "S", "ROOT": "x"},
        "TRAINER": {"NAME": "FAIR", "FAIR": {"TOP_K": 4}, "UPL": {"N": 1}},
    }
    other = {
        "SEED": 2,
        "OUTPUT_DIR": "b",
        "OPTIM": {"MAX_EPOCH": 6, "LR": 0.1},
        "DATASET": {"NAME": "S", "ROOT": "y"},
        "TRAINER": {"NAME": "FAIR", "FAIR": {"TOP_K": 4, "NEW": ""}, "UPL": {"N": 2}},
    }
    fair = one_set / "synth_cars/FAIR/tiny"
    finish(fair / "seed1", 60, base)
    finish(fair / "seed2", 63, other, config_hash="b")
    finish(fair / "seed10", 63, base)
    text = shown(one_set, capsys=capsys)
    assert cells(text)["FAIR"][0] == "not averaged" and "Gain of FAIR" not in cells(text)
    assert (
        "Not averaged: the runs of FAIR on synth_cars differ in OPTIM.MAX_EPOCH: 8 (seeds 1, 10), 6 (seed 2); "
        "TRAINER.FAIR.NEW: absent (seeds 1, 10), '' (seed 2)."
    ) in text  # not seed, places, other trainers
    assert cells(shown(one_set, "--seeds", "1", "10", capsys=capsys))["FAIR"][0] == "61.50 ± 2.12"
    (fair / "seed10/config.yaml").unlink()
    assert "differ in settings (no config.yaml of seed 10 to say which)" in shown(one_set, capsys=capsys)


def test_methods_on_other_data_are_pointed_out(one_set, capsys):
    for path, split, shots in (("FAIR/tiny/seed1", "zhou", -1), ("CuPL/tiny/seed1", "official", 16)):
        finish(one_set / "synth_cars" / path, 60, {"DATASET": {"SPLIT": split, "NUM_SHOTS": shots, "ROOT": path}})
    text = shown(one_set, "--seeds", "1", capsys=capsys)
    assert (
        "Caution: synth_cars: the methods differ in DATASET.SPLIT: official (Zero-shot, descriptions), zhou (FAIR)."
        in text
    )
    assert "NUM_SHOTS" not in text and "ROOT" not in text


def test_gains_pair_what_both_have(one_set):
    fair = stats.Scores({1: 60.0, 2: 63.0, 3: 70.0})
    assert stats.paired_differences(fair, stats.Scores({2: 50.0, 3: 51.0, 4: 90.0})) == [13.0, 19.0]
    assert stats.paired_differences(fair, stats.Scores({9: 50.0}, once=True)) == [10.0, 13.0, 20.0]
    assert stats.paired_differences(stats.Scores({9: 50.0}, once=True), fair) == [-10.0, -13.0, -20.0]
    assert stats.interval([1.0]) is None and stats.interval([2.0, 2.0]) == 0
    assert stats.interval([0.0, 2.0]) == pytest.approx(12.7062, abs=1e-4)  # t(0.975, 1), deviation sqrt(2), n 2


def test_gains_are_over_methods_with_all_the_seeds(one_set, capsys):
    plain = one_set / "synth_cars/FAIR/tiny_plain"
    for seed in (1, 10):
        (plain / f"seed{seed}/results.json").unlink()
    finish(plain / "seed2", 90)  # one seed that happens to be the best
    rows = cells(shown(one_set, capsys=capsys))
    assert rows["Gain of FAIR"][0] == "+14.00 [+9.70, +18.30] over Zero-shot, descriptions"


def test_intervals_take_three_seeds(one_set, capsys):
    rows = cells(shown(one_set, "--seeds", "1", "2", capsys=capsys))
    assert rows["Gain of FAIR"][0] == "+10.50 over Plain self-training"
    assert stats.interval([0.0, 2.0], stats.SEEDS) is None and stats.interval([0.0, 1.0, 2.0], stats.SEEDS) is not None
    assert stats.interval([1.0, 2.0, 3.0, 4.0], stats.SETS) is None


def test_the_average_is_ranked_among_those_that_have_all_seeds(two_sets, capsys):
    for name in ("synth_cars", "synth_cars_s2"):
        for seed in (1, 2):
            (two_sets / name / f"FAIR/tiny_plain/seed{seed}/results.json").unlink()
        finish(two_sets / name / "FAIR/tiny_plain/seed10", 99)
    text = shown(two_sets, "--format", "markdown", capsys=capsys)
    rows = cells(text)
    assert rows["Plain self-training"][2] == "99.00" and rows["FAIR"][2] == "**64.00 ± 1.00**"


def test_columns_and_their_configs(one_set, capsys):
    methods = read_methods()
    assert runs.choose_columns(one_set, [], "", methods) == [Column("synth_cars", "tiny")]
    finish(one_set / "synth_cars/FAIR/tiny_margin/seed1")
    finish(one_set / "stanford_cars/FAIR/rn50/seed1")
    every = [Column("stanford_cars", "rn50"), Column("synth_cars", "tiny")]
    assert runs.choose_columns(one_set, [], "", methods) == every
    assert runs.choose_columns(one_set, [], "tiny_margin", methods) == [Column("synth_cars", "tiny_margin")]
    names = ["synth_cars/tiny", "synth_cars/tiny_margin"]
    both = runs.choose_columns(one_set, names, "", methods)
    assert [column_name(c, both) for c in both] == ["synth_cars, tiny", "synth_cars, tiny_margin"]
    finish(one_set / "stanford_cars/FAIR/vit_b16/seed1")
    with pytest.raises(UserError, match="several configs: rn50, vit_b16"):
        runs.choose_columns(one_set, [], "", methods)
    finish(one_set / "synth_cars/TheirTrainer/tiny/seed1", 65)
    assert cells(shown(one_set, "--datasets", "synth_cars", capsys=capsys))["TheirTrainer"][0].startswith("65.00")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "there is no folder nowhere"),
        (["output", "--methods", "lafte"], "unknown method 'lafte'"),
        (["output", "--cfg", "rn50"], "no finished run of config 'rn50'"),
        (["output", "--datasets", "dtd"], "no finished run of dtd (vit_b32)"),
    ],
)
def test_mistakes_end_in_one_message(one_set, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(one_set.parent)
    assert table(arguments) == 2
    assert message in capsys.readouterr().err
    (one_set / "synth_cars/FAIR/tiny/seed1/results.json").write_text('{"accuracy": "high"}')
    assert table(["output"]) == 2
    assert "seed1/results.json: accuracy is 'high': it has to be a number" in capsys.readouterr().err


def test_with_one_seed_there_is_no_deviation(one_set, capsys):
    text = shown(one_set, "--seeds", "2", capsys=capsys)
    assert text.startswith("Test accuracy in %, last epoch\n")
    assert "±" not in text and "deviation" not in text and "over seeds" not in text and "interval" not in text
    assert cells(text)["FAIR"][0] == "63.00" and cells(text)["Gain of FAIR"][0] == "+11.00 over Plain self-training"
    assert "mean ± standard deviation over seeds" in shown(one_set, capsys=capsys)


def test_a_method_that_lacks_seeds_is_not_ranked(one_set, capsys):
    for seed in (1, 10):
        (one_set / f"synth_cars/FAIR/tiny_plain/seed{seed}/results.json").unlink()
    finish(one_set / "synth_cars/FAIR/tiny_plain/seed2", 90)
    text = shown(one_set, "--format", "markdown", capsys=capsys)
    assert cells(text)["Plain self-training"][0] == "90.00 (1 of 3 seeds)"
    assert cells(text)["FAIR"][0] == "**62.00 ± 1.73**" and "a method is not ranked" in text


@pytest.mark.parametrize("name", ["..", "../x/tiny", "synth_cars/tiny/../../x", "/tiny"])
def test_names_stay_inside_the_folder(one_set, capsys, name):
    assert table([str(one_set), "--datasets", name]) == 2
    assert f"'{name}' is no data set" in capsys.readouterr().err
