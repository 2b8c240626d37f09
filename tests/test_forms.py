"""The forms of the tables, and published numbers."""

import csv
import io
from pathlib import Path

import pytest
from commands import table
from made_up_runs import cells, finish, shown

from fairclip.compare import forms, grid, published

ROOT = Path(__file__).resolve().parents[1]


def test_markdown_and_latex_mark_best_and_second(two_sets, capsys):
    text = shown(two_sets, "--format", "markdown", capsys=capsys)
    assert cells(text)["FAIR"][:2] == ["**62.00 ± 1.73**", "<u>66.00 ± 1.00</u>"]
    assert cells(text)["Plain self-training"][:2] == ["<u>52.00 ± 2.00</u>", "**70.00 ± 0.00**"]
    assert cells(text)["Linear probe ‡"][0] == "89.00"  # its seed does not matter: one run
    text = shown(two_sets, "--format", "latex", capsys=capsys)
    assert r"FAIR & \textbf{62.00 $\pm$ 1.73} & \underline{66.00 $\pm$ 1.00} &" in text
    assert r"synth\_cars\_s2" in text and "$-$4.00 [$-$6.48" in text and "without" not in text
    assert text.count(r"\midrule") == 4 and r"TransCLIP $\dagger$" in text


def test_markdown_and_latex_escape():
    made = grid.Grid("a|b", ["Method", "x_y"], [("", [[grid.Entry("<b>|&%"), grid.Entry("5*", "best")]])])
    assert r"&lt;b>\|&%" in forms.as_markdown(made) and r"**5\***" in forms.as_markdown(made)
    assert r"<b>|\&\% & \textbf{5*} \\" in forms.as_latex(made)


def test_csv_in_full_precision(two_sets, capsys):
    value = 200 / 3
    finish(two_sets / "synth_cars/FAIR/tiny/seed1", value)
    lines = list(csv.DictReader(io.StringIO(shown(two_sets, "--format", "csv", capsys=capsys))))
    fair = {line["dataset"]: line for line in lines if line["method"] == "FAIR"}
    assert float(fair["synth_cars"]["mean"]) == pytest.approx((value + 63 + 63) / 3, abs=1e-12)
    assert fair["synth_cars"]["seeds"] == "1 2 10" and fair["synth_cars"]["rank"] == "1"
    assert fair["average"]["gain_over"] == "Plain self-training" and float(fair["average"]["gain_low"]) < 5
    status = {(line["method"], line["dataset"]): (line["kind"], line["status"]) for line in lines}
    assert status["Zero-shot, class names", "synth_cars_s2"] == ("inductive", "missing")
    assert status["Linear probe", "synth_cars"] == ("labels", "complete")
    assert status["TransCLIP", "average"] == ("transductive", "complete")


def test_published_numbers(tmp_path, capsys):
    sets = {path.stem for path in ROOT.glob("configs/datasets/*.yaml")}
    for source in published.read_published():
        assert source["source"] and source["protocol"]
        for values in source.get("accuracy", {}).values():
            assert values.keys() <= sets
            assert all(0 < float(str(value).rstrip("*")) < 100 for value in values.values())

    for seed in (1, 2):
        finish(tmp_path / f"oxford_flowers/FAIR/vit_b32/seed{seed}", 71.0, backbone="ViT-B/32")
        finish(tmp_path / f"dtd/FAIR/vit_b32/seed{seed}", 50.0, backbone="ViT-B/32")
    plain, both = (shown(tmp_path, *more, capsys=capsys) for more in ([], ["--published"]))
    assert both.startswith(plain.rstrip("\n"))  # ours is what it was
    ours, theirs = both.split("Published by others")
    assert cells(theirs)["LaFTer [a]"] == ["46.10", "71.00"]
    assert cells(theirs)["CLIP, ensemble [c]"] == ["44.36", "66.70*"]
    assert cells(theirs)["microCLIP [e]"] == ["", "76.17"]
    assert "best test epoch" in theirs and "LaFTer" not in ours
    for seed in (1, 2):  # another backbone: only the source that does not state its own
        for name in ("dtd", "oxford_flowers"):
            finish(tmp_path / f"{name}/FAIR/vit_b32/seed{seed}", 71.0, backbone="ViT-B/16")
    theirs = shown(tmp_path, "--published", capsys=capsys).split("Published by others")[1]
    assert "LaFTer [a]" not in theirs and "CLIP [f]" in theirs and "not stated" in theirs
    assert "GTA-CLIP 73.81" in theirs and "GTA-CLIP 69.55" not in theirs  # averages, of this backbone alone
    assert cells(theirs)["GTA-CLIP [h]"] == ["58.51", "82.05"] and cells(theirs)["MUST [j]"] == ["54.10", ""]


def test_files_are_written_by_their_ending(one_set, tmp_path, capsys):
    files = [tmp_path / name for name in ("a.md", "b.tex", "c.csv", "d.html", "e.txt")]
    assert table([str(one_set), "--output", *map(str, files)]) == 0
    printed = capsys.readouterr()
    assert all(f"Wrote {path}" in printed.err for path in files)
    assert files[4].read_text() == printed.out and files[3].read_text().startswith("<!DOCTYPE html>")
    assert "**62.00" in files[0].read_text() and r"\toprule" in files[1].read_text()
    assert table([str(one_set), "--output", "x.pdf"]) == 2
    assert "must end in one of .txt" in capsys.readouterr().err
