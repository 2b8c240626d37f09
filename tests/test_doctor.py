"""fair data doctor: what it says of every data set, missing, broken or there; and that it only looks."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import miniatures as mini
import pytest
from commands import data
from conftest import ROOT

from fairclip import cli
from fairclip.data import doctor, split_store
from fairclip.data.classes import class_list
from fairclip.data.known import benchmarks
from fairclip.text import descriptions

KNOWN = benchmarks()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("the doctor must not download")

    monkeypatch.setattr(split_store, "_download", refuse)


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the doctor over `tmp_path`. Returns the exit status, the cells of each row by name, all that was printed.

    Cells have the names of their columns; "classes", "layout" and "split" are from the line below the table.
    """

    def call(*names: str) -> tuple[int, dict[str, dict[str, str]], str]:
        status = data(["doctor", *names, "--root", str(tmp_path)])
        out = capsys.readouterr().out
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")]
        rows = {row[0]: dict(zip(doctor.HEAD, row, strict=True)) for row in cells[2:]}
        below = re.findall(r"^(\w+): (\d+) classes, (.+) in (\S+), split: (.+)$", out, re.MULTILINE)
        for name, classes, layout, home, split in below:
            assert home.startswith(str(tmp_path))
            rows[name] |= {"classes": classes, "layout": layout, "split": split}
        return status, rows, out

    return call


def tree(root: Path, name: str, classes: int = 3) -> None:
    """train/<class>/ and test/<class>/ folders of empty files: 5 and 2 of a class."""
    for part, count in (("train", 5), ("test", 2)):
        for title, _ in class_list(KNOWN[name].dataset_dir)[:classes]:
            folder = root / KNOWN[name].dataset_dir / part / title.replace("/", "-")
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{part}_{number}.jpg").touch()


def snapshot(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


# -- Missing -----------------------------------------------------------------------------------------------------------


def test_an_empty_folder_gives_a_helpful_row_each(run, tmp_path):
    status, rows, out = run()
    assert status == 0 and list(rows) == list(KNOWN) and {"stanford_cars", "food101", "dtd"} <= rows.keys()
    assert all(row["state"] == "missing" and row["expected"] for row in rows.values())
    assert rows["stanford_cars"]["expected"] == "6509/1635/8041"
    fetch, doctor = re.findall(r"^  fair data (fetch|doctor) ([a-z0-9_ ]+?)(?: {3}.*)?$", out, re.MULTILINE)
    assert fetch == ("fetch", " ".join(name for name, cls in KNOWN.items() if cls.sources))
    assert doctor == ("doctor", " ".join(name for name, cls in KNOWN.items() if not cls.sources))
    assert re.search("^  synth_cars +built in", out, re.MULTILINE)
    assert f"  folder     your own images, in {tmp_path}/NAME/train/<class>/" in out
    assert len(out.splitlines()) == len(KNOWN) + 11  # fourteen texts below the table would be a flood


def test_a_full_table_fits_a_terminal(tmp_path, run, monkeypatch):
    for name in KNOWN:
        tree(tmp_path, name)
    real = doctor.examine

    def examine(name, cls, root):
        report = real(name, cls, root)
        report.state, report.counts = "complete", report.expected  # as if all of the images were there
        return report

    monkeypatch.setattr(doctor, "examine", examine)
    table = [line for line in run()[2].splitlines() if line.startswith("|")]
    assert len(table) == len(KNOWN) + 2 and max(map(len, table)) <= 80


@pytest.mark.parametrize("name", KNOWN)
def test_a_missing_one_asked_for_by_name_is_explained(tmp_path, run, name):
    status, rows, out = run(name)
    assert status == 1 and list(rows) == [name] and rows[name]["state"] == "missing"
    assert out.count(KNOWN[name].help(tmp_path)) == 1 and str(tmp_path / KNOWN[name].dataset_dir) in out
    assert (f"fair data fetch {name}" in out) == bool(KNOWN[name].sources)


def test_what_needs_no_download_is_said_by_its_name_too(run):
    status, rows, out = run("synth_cars", "folder")
    assert (status, rows) == (0, {}) and out.startswith("synth_cars: built in") and "\nfolder: your own" in out
    status, rows, out = run("synth_cars", "dtd")
    assert (status, list(rows)) == (1, ["dtd"]) and "synth_cars: built in" in out


@pytest.mark.parametrize("spelling", ["StanfordCars", "stanford_cars", "stanford-cars", "STANFORDCARS"])
def test_spellings(run, spelling):
    assert list(run(spelling, "stanford_cars")[1]) == ["stanford_cars"]


@pytest.mark.parametrize("config", sorted((ROOT / "configs" / "datasets").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_names_of_the_config_files_are_known(run, config):
    named = [name for name, cls in KNOWN.items() if f'NAME: "{cls.__name__}"' in config.read_text()]
    if named:  # others are no benchmark data sets
        assert named == [config.stem] and list(run(config.stem)[1]) == named


def test_an_unknown_name_is_one_message(capsys):
    assert data(["doctor", "stanford_carz"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("Error: there is no data set 'stanford_carz', did you mean stanford_cars?")


def test_a_root_that_is_not_there(tmp_path, capsys):
    assert data(["doctor", "--root", str(tmp_path / "nowhere")]) == 1
    assert f"{tmp_path / 'nowhere'}, which is not a folder" in capsys.readouterr().out


def test_a_fresh_clone_has_no_data_and_that_is_no_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "DATA", tmp_path / "data")
    assert data(["doctor", "--root", str(tmp_path / "data")]) == 0
    assert f"Data sets in {tmp_path / 'data'} (not there yet)" in capsys.readouterr().out


def test_the_data_set_itself_given_as_root(tmp_path, capsys):
    home = mini.stanford_cars(tmp_path)
    assert data(["doctor", "--root", str(home)]) == 1
    assert "itself looks like it: give its parent" in capsys.readouterr().out


def test_default_root(monkeypatch):
    def root() -> str:
        parser = argparse.ArgumentParser()
        doctor.add_arguments(parser)
        return parser.parse_args([]).root

    monkeypatch.setenv("DATA", "/some/where")
    assert root() == "/some/where"
    monkeypatch.delenv("DATA")
    assert root() == str(ROOT / "data")


# -- There -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KNOWN)
def test_every_data_set_is_seen_and_nothing_is_written(tmp_path, cache, run, name):
    tree(tmp_path, name)
    before = snapshot(tmp_path, cache)
    status, rows, out = run(name)
    row = rows[name]
    assert status == 0 and row["state"] == "differs" and row["layout"] == "train/ and test/ class folders", out
    assert row["classes"] == str(len(class_list(KNOWN[name].dataset_dir)))
    if row["split"] == "folders":
        assert row["train/val/test"] == "15/0/6"
    else:
        assert row["split"].startswith("to be ") and row["train/val/test"] == "12/3/6"
    assert f"{name}: the split has {row['train/val/test'].replace('/', ' / ')} train / val / test images" in out
    assert snapshot(tmp_path, cache) == before


@pytest.mark.parametrize("layout", mini.CARS_LAYOUTS)
def test_layouts_of_cars(tmp_path, cache, run, layout):
    mini.stanford_cars(tmp_path, layout)
    before = snapshot(tmp_path, cache)
    status, rows, out = run("stanford_cars")
    row = rows["stanford_cars"]
    assert status == 0 and row["layout"] and row["classes"] == "196" and row["train/val/test"] == "18/6/12", out
    assert row["split"] == ("to be built by the CoOp rule" if layout == "flat" else "to be fetched or built")
    assert snapshot(tmp_path, cache) == before


def test_a_split_file_is_named_as_the_source(tmp_path, run):
    mini.stanford_cars(tmp_path, zhou=True)
    assert run("stanford_cars")[1]["stanford_cars"]["split"] == "zhou file"


def test_a_split_that_was_made_is_named_as_the_source(tmp_path, run):
    mini.stanford_cars(tmp_path)
    KNOWN["stanford_cars"].read(tmp_path, download=False)
    assert run("stanford_cars")[1]["stanford_cars"]["split"] == "built by the CoOp rule"


def test_complete(tmp_path, run, monkeypatch):
    food = KNOWN["food101"]
    tree(tmp_path, "food101", classes=101)
    monkeypatch.setattr(food, "counts", {"zhou": (1, 2, 3), "official": (505, 0, 202)})
    status, rows, out = run("food101")
    row = rows["food101"]
    assert (status, row["state"], row["expected"]) == (0, "complete", "505/0/202")
    assert out.count("food101: ") == 1  # no problem
    monkeypatch.setattr(food, "counts", {"zhou": (505, 0, 202), "official": (1, 2, 3)})  # folders that hold the other
    assert run("food101")[1]["food101"] == row


def test_missing_images_are_counted(tmp_path, run):
    home = mini.stanford_cars(tmp_path, zhou=True)
    (home / "cars_test" / "00002.jpg").unlink()
    status, rows, out = run("stanford_cars")
    assert status == 0 and rows["stanford_cars"]["train/val/test"] == "18/6/11"
    assert f"1 images of the split are missing, the first is {home / 'cars_test' / '00002.jpg'}" in out


def test_what_the_loader_says_is_shown(tmp_path, run):
    home = mini.food101(tmp_path)
    (home / "images" / "stew").mkdir()
    (home / "images" / "stew" / "1.jpg").touch()
    status, rows, out = run()
    assert status == 0 and "\nfood101: has no class of the name of stew: left out\n" in out


def test_one_of_two_that_were_asked_for(tmp_path, run):
    mini.stanford_cars(tmp_path)
    assert run("stanford_cars", "food101")[0] == 1
    assert run()[0] == 0  # not asked for, so no fault


# -- Broken ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KNOWN)
def test_a_folder_with_nothing_of_use(tmp_path, run, name):
    home = tmp_path / KNOWN[name].dataset_dir
    home.mkdir()
    (home / "archive.zip").touch()
    for names in ((name,), ()):
        status, rows, out = run(*names)
        assert status == 1 and rows[name]["state"] == "broken"
        assert f"\n{name}: was not found: nothing that is known lies in {home}." in out
        assert out.count(KNOWN[name].help(tmp_path)) == len(names)  # how to get it, only if asked


def test_broken_annotations(tmp_path, run):
    home = mini.stanford_cars(tmp_path)
    mini.food101(tmp_path)
    (home / "devkit" / "cars_meta.mat").write_bytes(b"not MATLAB")
    status, rows, out = run()
    assert status == 1 and rows["stanford_cars"]["state"] == "broken" and rows["food101"]["state"] == "differs"
    assert f"{home / 'devkit' / 'cars_meta.mat'} cannot be read as a MATLAB file" in out


def test_a_broken_split_file(tmp_path, run):
    home = mini.food101(tmp_path)
    (home / "split_zhou_Food101.json").write_text('{"train": [')
    status, rows, out = run("food101")
    assert status == 1 and rows["food101"]["state"] == "broken" and "split_zhou_Food101.json is not a split file" in out


def test_two_copies(tmp_path, run):
    mini.stanford_cars(tmp_path)
    mini.stanford_cars(tmp_path, "tree")
    status, rows, out = run("stanford_cars")
    assert status == 1 and rows["stanford_cars"]["state"] == "broken" and "stanford_cars: is there 2 times" in out


def test_a_loader_that_stumbles_does_not_hide_the_others(tmp_path, run, monkeypatch):
    def stumble(copy):
        raise KeyError("fname")

    mini.stanford_cars(tmp_path)
    mini.food101(tmp_path)
    monkeypatch.setattr(KNOWN["stanford_cars"], "official", stumble)
    status, rows, out = run()
    assert status == 1 and "stanford_cars: it cannot be read (KeyError: 'fname')" in out
    assert rows["stanford_cars"]["state"] == "broken" and rows["food101"]["state"] == "differs"


# -- Descriptions ------------------------------------------------------------------------------------------------------


def test_descriptions(tmp_path, run, monkeypatch):
    folder = tmp_path / "descriptions"
    folder.mkdir()
    monkeypatch.setattr(descriptions, "DESCRIPTIONS", folder)
    mini.stanford_cars(tmp_path)
    assert run("stanford_cars")[1]["stanford_cars"]["texts"] == "no"
    (folder / "stanford_cars.json").write_text("{")
    status, rows, out = run("stanford_cars")
    assert status == 0 and rows["stanford_cars"]["texts"] == "broken" and "stanford_cars.json" in out
    assert {row["texts"] for name, row in run()[1].items() if name != "stanford_cars"} == {"no"}
    (folder / "food101.json").touch()
    assert run("food101")[1]["food101"]["texts"] == "yes"


# -- The command -------------------------------------------------------------------------------------------------------


def test_the_command_itself(tmp_path):
    call = [sys.executable, "-m", "fairclip", "data", "doctor", "--root", str(tmp_path)]
    done = subprocess.run(call, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0 and "| stanford_cars" in done.stdout and "Traceback" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough(unbuffered):
    """`fair data doctor | head`: no traceback, no message. A stand-in says what the doctor would: torch takes seconds
    to import."""
    code = """
import sys
from argparse import Namespace
from fairclip import cli
class Parser:
    def parse_args(self, words):
        return Namespace(main=lambda args: print("| row |\\n" * 20_000) or 1)
cli.build_parser = lambda words: Parser()
sys.exit(cli.main([]))
"""
    call = [sys.executable, "-c", code]
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(call, cwd=ROOT, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 1 and done.stderr == ""


@pytest.mark.parametrize(
    "words",
    [("data", "doctor"), ("data", "fetch"), ("describe", "check"), ("describe", "generate"), ("describe", "birds")],
)
def test_help_has_an_example(capsys, words):
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and f"\n    fair {' '.join(words)}" in text and "python -m" not in text


def test_fetch_is_a_subcommand(capsys):
    assert data(["fetch", "carz"]) == 2
    assert "there is no data set 'carz'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        data([])
    assert end.value.code == 2
