"""Comparisons: the scripts that run them with a stand-in for Python, tables of made-up results, and the HTML report."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from commands import table
from test_draw_crops import backbone, console, data, train_fair  # noqa: F401 (fixtures)
from test_scripts import ROOT, bash, calls, clone  # noqa: F401 (a fixture)

from fairclip.compare import classes, curves, page, published, runs, stats, tables
from fairclip.compare.runs import Column, UserError
from fairclip.core.plugins import import_plugins
from fairclip.run import launch

METHODS = {m.key: m for m in runs.read_methods()}
FOLDERS = sorted(path.parent.name for path in ROOT.glob("scripts/*/main.sh"))


# ---------------------------------------------------------------------------------------------------------------------
# Made-up results
# ---------------------------------------------------------------------------------------------------------------------
def finish(folder: Path, accuracy: float = 50.0, config: dict | None = None, predictions=(), **more) -> Path:
    """Writes what a finished run leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = folder.parents[1].name
    results = {
        "accuracy": accuracy,
        "macro_f1": accuracy - 1,
        "backbone": "tiny",
        "config_hash": "a",
        "trainer": trainer,
        "trainable_parameters": 5120,
        "seconds": 10.4,
        "views_per_image": 2,
        "epochs": [
            {"epoch": e, "pseudo_accuracy": accuracy - 3 + e, "test_accuracy": accuracy - 2 + e} for e in (1, 2)
        ],
        **more,
    }
    (folder / "results.json").write_text(json.dumps(results))
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if predictions:
        lines = ["image,label,prediction,confidence", *(f"{i}.png,{a},{b},0.5" for i, (a, b) in enumerate(predictions))]
        (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def output(tmp_path) -> Path:
    """One data set, three seeds."""
    folder = tmp_path / "output"
    cars = folder / "synth_cars"
    finish(cars / "ZeroshotCLIP" / "tiny" / "seed1", 40)
    finish(cars / "CuPL" / "tiny" / "seed1", 48)
    for seed, plain, fair in ((1, 50, 60), (2, 52, 63), (10, 54, 63)):
        finish(cars / "FAIR" / "tiny_plain" / f"seed{seed}", plain)
        finish(cars / "FAIR" / "tiny" / f"seed{seed}", fair)
    return folder


@pytest.fixture
def two(output) -> Path:
    """A second data set, and methods of the other groups."""
    cars, own = output / "synth_cars", output / "synth_cars_s2"
    finish(own / "CuPL" / "tiny" / "seed7", 58)
    for seed, plain, fair in ((1, 70, 66), (2, 70, 65), (10, 70, 67)):
        finish(own / "FAIR" / "tiny_plain" / f"seed{seed}", plain)
        finish(own / "FAIR" / "tiny" / f"seed{seed}", fair)
        for folder in (cars, own):
            finish(folder / "LinearProbe" / "tiny" / f"seed{seed}", 88 + seed, uses_labels=True)
            finish(folder / "TransCLIP" / "tiny" / f"seed{seed}", 80, transductive=True)
    return output


def load(folder: Path, *names: str, seeds=(), config="", methods=()) -> runs.Comparison:
    columns = runs.choose_columns(folder, names, config, runs.read_methods())
    return runs.load_comparison(folder, columns, runs.choose_methods(folder, columns, methods), seeds)


def cells(text: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def shown(folder: Path, *arguments: str, capsys) -> str:
    assert table([str(folder), *arguments]) == 0
    return capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------------------------
# methods.txt, and the scripts of single methods
# ---------------------------------------------------------------------------------------------------------------------
def test_every_method_has_its_script():
    asked = "fair zsclip cupl wca upl lafter dpa must transclip coop linear_probe"
    assert set(FOLDERS) == set(asked.split()) <= METHODS.keys()
    folders = [(m.trainer, m.variant) for m in METHODS.values()]
    assert len(set(folders)) == len(folders) and len({m.name for m in METHODS.values()}) == len(METHODS)


def test_bash_and_python_read_methods_alike():
    names = " ".join(METHODS)
    command = (
        f'source scripts/common.sh; for name in {names}; do method $name; once=no; if once "$TRAINER"; then '
        'once=yes; fi; echo "$name,$TRAINER,$VARIANT,$once,${EXTRA[*]-}"; done; method nobody || echo none'
    )
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    *lines, last = done.stdout.splitlines()
    assert done.stderr == "" and last == "none"
    assert [line.rsplit(",", 1)[0] for line in lines] == [
        f"{m.key},{m.trainer},{m.variant},{'yes' if m.once else 'no'}" for m in METHODS.values()
    ]
    extra = {line.split(",")[0]: line.rsplit(",", 1)[1] for line in lines}
    assert extra["plain"].startswith("TRAINER.FAIR.N_CROPS 0 ") and extra["fair"] == ""
    assert extra["transclip_inductive"] == "TRAINER.TRANSCLIP.INDUCTIVE True"


@pytest.mark.parametrize("file", ["methods.txt", "fair/ablation.txt"])
def test_options_of_all_rows_fit_the_config(file):
    modules, _ = import_plugins("trainers", "datasets")
    rows = [line.split("|") for line in (ROOT / "scripts" / file).read_text().splitlines() if line[:1] not in ("", "#")]
    assert len(rows) > 10
    for _, trainer, *_, options in rows:
        config = str(ROOT / f"configs/trainers/{trainer.strip()}/tiny.yaml")
        configs.build_cfg(launch.parse_args(["--config-file", config, *options.split()]), modules)


@pytest.fixture
def full(clone) -> Path:  # noqa: F811
    """A clone in which every trainer has the config `tiny`."""
    for method in METHODS.values():
        folder = clone / "configs" / "trainers" / method.trainer
        folder.mkdir(exist_ok=True)
        (folder / "tiny.yaml").touch()
    return clone


@pytest.mark.parametrize("name", sorted(set(FOLDERS) - {"fair", "zsclip"}))
def test_a_method_runs_its_trainer_and_shows_the_table(full, name):
    status, out, err = bash(full, f"{name}/main.sh", "synth_cars", "tiny", "4", "5", cwd=full / "scripts" / name)
    assert (status, err) == (0, "")
    *trained, last = calls(out)
    folders = [f"{full}/output/synth_cars/{METHODS[name].trainer}/tiny/seed{seed}" for seed in (4, 5)]
    folders = folders[:1] if METHODS[name].once else folders
    assert [call.split("[--output-dir] [")[1].split("]")[0] for call in trained] == folders
    assert last == f"CALL compare.py [{full}/output] [--datasets] [synth_cars/tiny] [--by-seed]"


def test_a_method_without_configs_says_so(clone):  # noqa: F811
    shutil.rmtree(clone / "configs" / "trainers" / "UPL", ignore_errors=True)
    status, out, err = bash(clone, "upl/main.sh", "synth_cars")
    assert status == 2 and "There are no configs of UPL" in err and not calls(out)


# ---------------------------------------------------------------------------------------------------------------------
# compare.sh
# ---------------------------------------------------------------------------------------------------------------------
# Stands in for python3. It knows all config keys but A.TYPO. Training writes results.json, unless the seed is 13 (it
# fails) or 14 (it ends without).
TRAINING_PYTHON = """#!/usr/bin/env bash
if [[ $1 == - ]]; then echo "$0"; exit; fi
if [[ $1 == */check_options.py ]]; then [[ $* != *A.TYPO* ]] || {{ echo "no A.TYPO" >&2; exit 2; }}; exit; fi
echo "$*" >>"{log}"
if [[ $1 != */train.py ]]; then printf 'CALL %s' "$(basename -- "$1")"; shift; printf ' [%s]' "$@"; echo; exit; fi
while [[ $1 != --output-dir ]]; do shift; done
echo "noise of a run"
if [[ $2 == */seed13 ]]; then echo "Error: it broke" >&2; exit 2; fi
if [[ $2 == */seed2[0-9] ]]; then  # two at a time: each waits for the other
    touch "{log}.${{2##*/}}"
    for _ in {{1..300}}; do if [[ -e {log}.seed21 && -e {log}.seed22 ]]; then break; fi; sleep 0.05; done
    [[ -e {log}.seed22 ]] || exit 3
fi
if [[ $2 == */seed99 ]]; then echo $$ >"{log}.pid"; exec sleep 60; fi
if [[ $2 != */seed14 ]]; then mkdir -p -- "$2"; echo '{{}}' >"$2/results.json"; fi
"""


@pytest.fixture
def trained(full) -> Path:
    """Where the stand-in logs how it is called, one line a call."""
    log = full.parent / "calls.txt"
    log.touch()
    (full / "fake python").write_text(TRAINING_PYTHON.format(log=log))
    return log


def test_compare_runs_what_is_missing(full, trained):
    arguments = ["synth_cars", "--methods", "fair,cupl,plain", "--seeds", "1", "2"]
    status, out, err = bash(full, "compare.sh", *arguments)
    assert status == 0, err
    lines = trained.read_text().splitlines()
    folders = [
        re.search(r"--output-dir (.*?) --seed", line)[1].removeprefix(f"{full}/output/synth_cars/")
        for line in lines[:-1]
    ]
    # Methods in the order that was asked for; a zero-shot method once.
    assert folders == [
        "FAIR/tiny/seed1",
        "FAIR/tiny/seed2",
        "CuPL/tiny/seed1",
        "FAIR/tiny_plain/seed1",
        "FAIR/tiny_plain/seed2",
    ]
    assert all(" TEST.EVERY_EPOCH True" in line for line in lines[:-1])
    assert lines[3].endswith("TRAINER.FAIR.N_CROPS 0 TRAINER.FAIR.WEIGHT none TRAINER.FAIR.ALIGN_QUEUE 0")
    # One line of progress for each run and nothing of what it says, which is in its folder.
    assert re.fullmatch(r"\[1/5\] synth_cars, fair, seed 1, 0:\d\d:\d\d", err.splitlines()[0])
    assert len(err.splitlines()) == 5 and "noise" not in out + err
    assert "noise of a run" in (full / "output/synth_cars/FAIR/tiny/seed1/compare.log").read_text()
    assert calls(out) == [
        f"CALL compare.py [{full}/output] [--datasets] [synth_cars/tiny] [--methods] "
        f"[fair,cupl,plain] [--seeds] [1] [2] [--data] [{full}/data] [--output] "
        f"[{full}/output/comparison.md] [{full}/output/comparison.html]"
    ]

    # Again, with one seed more: what is finished does not run again, a zero-shot method for no other seed.
    (full / "output/synth_cars/FAIR/tiny/seed2/results.json").unlink()  # crashed: its folder is there
    trained.write_text("")
    status, _, err = bash(full, "compare.sh", *arguments[:-2], "3", "2")
    assert status == 0 and "[1/3]" in err
    found = re.findall(r"--output-dir \S* clone/output/synth_cars/(\S+)", trained.read_text())
    found = found or re.findall(r"synth_cars/(FAIR/\S+|CuPL/\S+)", trained.read_text())
    assert found == ["FAIR/tiny/seed3", "FAIR/tiny/seed2", "FAIR/tiny_plain/seed3"]


def test_a_failed_run_is_named_and_the_others_go_on(full, trained):
    status, out, err = bash(full, "compare.sh", "synth_cars", "--methods", "fair", "--seeds", "13", "14", "15")
    assert status == 1
    assert (full / "output/synth_cars/FAIR/tiny/seed15/results.json").exists()
    assert len(calls(out)) == 1  # the table comes all the same
    assert "2 of 3 runs failed" in err
    assert "synth_cars, fair, seed 13 (exit status 2): Error: it broke" in err
    assert f"{full}/output/synth_cars/FAIR/tiny/seed13/compare.log" in err
    assert "synth_cars, fair, seed 14 (exit status 0)" in err  # it said it was fine, but left no results


def test_several_runs_at_a_time(full, trained):
    """The first run is alone, since it prepares data and backbone. Of the others, 21 and 22 end only side by side."""
    seeds = ["1", "21", "13", "22", "14", "3"]
    status, out, err = bash(full, "compare.sh", "synth_cars", "--methods", "fair", "--seeds", *seeds, "--jobs", "3")
    assert status == 1 and "2 of 6 runs failed" in err and len(calls(out)) == 1
    assert "seed 13 (exit status 2): Error: it broke" in err and "seed 14 (exit status 0)" in err
    for seed in ("1", "21", "22", "3"):
        assert (full / f"output/synth_cars/FAIR/tiny/seed{seed}/results.json").exists()
    lines = err.splitlines()
    assert re.fullmatch(r"\[1/6\] synth_cars, fair, seed 1, 0:\d\d:\d\d", lines[0])
    assert re.fullmatch(r"\[2/6\] synth_cars, fair, seed 21, 0:\d\d:\d\d", lines[1])
    assert re.fullmatch(r"\[3/6\] synth_cars, fair, seed 13, 0:\d\d:\d\d, 1 more under way", lines[2])


@pytest.mark.parametrize("jobs", ["0", "two", "-1"])
def test_jobs_are_a_whole_number(full, trained, jobs):
    status, _, err = bash(full, "compare.sh", "synth_cars", "--jobs", jobs)
    assert status == 2 and "--jobs" in err and trained.read_text() == ""


def test_print_lists_commands_and_runs_nothing(full, trained):
    (full / "output/synth_cars/FAIR/tiny/seed1").mkdir(parents=True)
    (full / "output/synth_cars/FAIR/tiny/seed1/results.json").write_text("{}")
    status, out, err = bash(
        full,
        "compare.sh",
        "synth_cars",
        "synth_cars_s3",
        "--print",
        "--methods",
        "fair,upl",
        "--seeds",
        "1",
        "2",
        "--",
        "A.KEY",
        "$(x) 'y'",
        TAG="t",
        OUTPUT="my results",
    )
    assert (status, err, trained.read_text()) == (0, "", "")
    commands = [shlex.split(line) for line in out.splitlines()]
    assert len(commands) == 8  # the tag has a folder of its own, so nothing is finished
    for command in commands:
        assert command[:2] == [str(full / "fake python"), str(full / "train.py")]
        assert command[-2:] == ["A.KEY", "$(x) 'y'"]
        assert Path(command[command.index("--output-dir") + 1]).is_absolute()  # runs from anywhere
    assert commands[0][5] == f"{full.parent}/my results/synth_cars/FAIR/tiny_t/seed1"
    assert "DATASET.SYNTH_SEED" in commands[4] and "DATASET.SYNTH_SEED" not in commands[0]


def test_printed_commands_are_independent(full, trained, tmp_path):
    """In any order, at once, from anywhere, and without what compare.sh had set."""
    _, out, _ = bash(
        full, "compare.sh", "synth_cars", "synth_cars_s3", "--print", "--methods", "fair,upl,cupl", "--seeds", "1", "2"
    )
    lines = out.splitlines()
    folders = [command[command.index("--output-dir") + 1] for command in map(shlex.split, lines)]
    assert len(set(folders)) == len(lines) == 10
    backwards = "".join(f"{line}\0" for line in reversed(lines))
    subprocess.run(
        ["xargs", "-0", "-n", "1", "-P", "4", "bash", "-c"],
        input=backwards,
        text=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
    )
    assert all(Path(folder, "results.json").is_file() for folder in folders)


def test_finished_runs_of_other_settings_are_refused(full, trained, tmp_path, capsys):
    """compare.sh hands over the commands of the finished runs alone, and the check refuses what train.py would."""
    (full / "fake python").write_text(
        TRAINING_PYTHON.format(log=trained).replace("then [[ $*", f"then cat >'{tmp_path}/finished'; [[ $*")
    )
    for folder in ("FAIR/tiny/seed2", "CuPL/tiny/seed7"):  # a zero-shot run is finished with any seed
        (full / "output/synth_cars" / folder).mkdir(parents=True)
        (full / "output/synth_cars" / folder / "results.json").write_text("{}")
    assert bash(full, "compare.sh", "synth_cars", "--methods", "cupl,fair", "--seeds", "1", "2", "--print")[0] == 0
    found = list(check_options.commands((tmp_path / "finished").read_text()))
    assert [
        arguments[arguments.index("--output-dir") + 1].removeprefix(f"{full}/output/synth_cars/") for arguments in found
    ] == ["CuPL/tiny/seed7", "FAIR/tiny/seed2"]

    run = finish(tmp_path / "FAIR" / "tiny" / "seed1", config_hash="other", seed=1)
    arguments = ["--output-dir", str(run), "--seed", "1", "--trainer", "FAIR"]
    words = [str(len(arguments) + 2), "python", "train.py", *arguments]
    assert check_options.main([], "".join(f"{word}\0" for word in words)) == 2
    assert f"{run} holds a finished run with config_hash other (now " in capsys.readouterr().err


@pytest.mark.parametrize(
    "task, arguments, status, said",
    [
        ("2", ["my runs.txt"], 7, "two  $HOME"),
        ("3", ["my runs.txt"], 0, "three"),
        ("4", ["my runs.txt"], 2, "has no line 4, it has 3"),
        (None, ["my runs.txt"], 2, "--array=1-3"),
        ("1", ["none.txt"], 2, "Name the list"),
        ("1", [], 2, "Name the list"),
    ],
)
def test_a_slurm_task_runs_its_line(tmp_path, task, arguments, status, said):
    (tmp_path / "my runs.txt").write_text("echo one\nprintf '<%s>' 'two  $HOME'; exit 7\necho three\n")
    env = {"PATH": os.environ["PATH"], **({"SLURM_ARRAY_TASK_ID": task} if task else {})}
    done = subprocess.run(
        ["bash", str(ROOT / "scripts/slurm.sbatch"), *arguments], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == status and said in done.stdout + done.stderr
    if status != 2:  # the command, then what it said, and nothing of other lines
        assert done.stdout.splitlines()[1:] == [f"<{said}>" if task == "2" else said]


def test_methods_without_the_config_are_left_out_or_an_error(full, trained):
    (full / "configs/trainers/UPL/tiny.yaml").unlink()
    status, out, err = bash(full, "compare.sh", "synth_cars", "--print")
    assert status == 0 and "there is no config 'tiny' of upl: left out" in err and "/UPL/" not in out
    status, _, err = bash(full, "compare.sh", "synth_cars", "--print", "--methods", "fair,upl")
    assert status == 2 and "'upl' has no config 'tiny'" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "methods:"),
        (["synth_car"], "Unknown data set 'synth_car'"),
        (["synth_cars", "--methods", "fair,lafte"], "Unknown method 'lafte'. Choose from: zsclip"),
        (["synth_cars", "--methods"], "--methods needs a value"),
        (["synth_cars", "--methods", "--print"], "--methods needs a value"),
        (["synth_cars", "--seeds", "one"], "--seeds needs whole numbers"),
        (["synth_cars", "--cfg", "nope"], "No method has the config 'nope'"),
        (["synth_cars", "--methods", "fair", "--cfg", "nope"], "'fair' has no config 'nope'. It has: rn50 tiny"),
        (["synth_cars", "--sed", "1"], "Unknown option '--sed'"),
        (["synth_cars", "--", "A", "1"], "TAG=name"),
    ],
)
def test_mistakes_end_in_one_message_before_anything_runs(full, trained, arguments, message):
    status, _, err = bash(full, "compare.sh", *arguments)
    assert status == 2 and message in err and ": line " not in err
    assert trained.read_text() == ""


def test_options_are_checked_once_before_anything_runs(full, trained, capsys):
    status, out, err = bash(full, "compare.sh", "synth_cars", "--", "A.KEY", "1", "A.TYPO", "2", TAG="t")
    assert (status, out, err, trained.read_text()) == (2, "", "no A.TYPO\n", "")
    assert check_options.main(["TRAINER.FAIR.N_CROPS", "4"]) == 0
    assert check_options.main(["TRAINER.FAIR.N_CROP", "4"]) == 2
    assert "no config key TRAINER.FAIR.N_CROP, did you mean TRAINER.FAIR.N_CROPS?" in capsys.readouterr().err


@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")])
def test_stopped_it_stops_the_run_too(full, trained, jobs):
    env = {**os.environ, "PYTHON": str(full / "fake python")}
    script = subprocess.Popen(
        ["bash", str(full / "scripts/compare.sh"), "synth_cars", "--methods", "fair", "--seeds", "99", *jobs],
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    )
    pid_file = Path(f"{trained}.pid")
    deadline = time.time() + 60
    while not (pid_file.exists() and pid_file.read_text().strip()) and time.time() < deadline:
        time.sleep(0.05)
    script.send_signal(signal.SIGTERM)
    _, err = script.communicate(timeout=30)
    assert script.returncode == 130 and "goes on from here" in err
    pid = int(pid_file.read_text())
    while time.time() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the run goes on")


# ---------------------------------------------------------------------------------------------------------------------
# One data set, seed by seed
# ---------------------------------------------------------------------------------------------------------------------
def test_table_by_seed(output, capsys):
    rows = cells(shown(output, "--datasets", "synth_cars/tiny", "--by-seed", capsys=capsys))
    assert rows["Method"] == ["Seed 1", "Seed 2", "Seed 10", "Accuracy", "Gain", "Macro-F1"]
    assert rows["Zero-shot, class names"] == ["", "", "", "40.00", "", "39.00"]
    assert rows["Zero-shot, descriptions"] == ["", "", "", "48.00", "", "47.00"]
    assert rows["Plain self-training"] == ["50.00", "52.00", "54.00", "52.00 ± 2.00", "+4.00", "51.00"]
    assert rows["FAIR"] == ["60.00", "63.00", "63.00", "62.00 ± 1.73", "+14.00", "61.00"]


def test_accuracy_with_crops_is_told_apart(output, capsys):
    fair = output / "synth_cars/FAIR/tiny"
    for seed, accuracy, crops in ((1, 60, 70), (2, 63, 71), (10, 63, 72)):
        finish(fair / f"seed{seed}", accuracy, crop_accuracy=crops)
    rows = cells(shown(output, "--by-seed", capsys=capsys))
    assert rows["FAIR"] == ["60.00", "63.00", "63.00", "62.00 ± 1.73", "+14.00", "61.00"]
    assert rows["FAIR, crops in the test too"] == ["70.00", "71.00", "72.00", "71.00 ± 1.00", "+23.00", ""]
    note = "With crops in the test too, not ranked: FAIR on synth_cars 71.00 ± 1.00."
    text = shown(output, capsys=capsys)
    assert note in text and cells(text)["FAIR"][0] == "62.00 ± 1.73"
    finish(fair / "seed2", 63)  # not of all seeds
    assert "crops in the test" not in shown(output, capsys=capsys) + shown(output, "--by-seed", capsys=capsys)


def test_table_by_seed_of_part_of_the_runs(output, capsys):
    (output / "synth_cars/FAIR/tiny_plain/seed2/results.json").unlink()
    finish(output / "synth_cars/ZeroshotCLIP/rn50/seed1", 55.5)
    finish(output / "synth_cars/FAIR/rn50_plain/seed1", 55.5)
    text = shown(output, "--by-seed", capsys=capsys)  # every config
    assert text.index("synth_cars, rn50 ") < text.index("synth_cars, tiny ") and "_plain" not in text
    first, second = text.split("synth_cars, tiny ")
    assert cells(first)["Zero-shot, class names"] == ["", "55.50", "", "54.50"]
    assert cells(second)["Plain self-training"][:3] == ["50.00", "", "54.00"]
    assert table([str(output), "--by-seed", "--datasets", "synth_cars/vit_b32"]) == 2
    assert "no finished run of config 'vit_b32'" in capsys.readouterr().err


def test_table_by_seed_says_where_descriptions_are_missing_or_settings_differ(output, capsys):
    arguments = ["--by-seed", "--datasets", "synth_cars"]
    text = shown(output, *arguments, capsys=capsys)
    assert "Note" not in text and "Not averaged" not in text
    finish(output / "synth_cars/CuPL/tiny/seed1", descriptions=None)
    assert "so 'Zero-shot, descriptions' goes by the names too" in shown(output, *arguments, capsys=capsys)
    finish(output / "synth_cars/FAIR/tiny/seed2", 70, descriptions={"sha256": "b" * 64})
    text = shown(output, *arguments, capsys=capsys)
    assert "'FAIR' differ in class descriptions (SHA-256): none (seeds 1, 10), bbbbbbbbbbbb (seed 2)" in text
    assert cells(text)["FAIR"] == ["60.00", "70.00", "63.00", "not averaged", "", ""]


# ---------------------------------------------------------------------------------------------------------------------
# The comparison
# ---------------------------------------------------------------------------------------------------------------------
def test_comparison_of_one_data_set(output, capsys):
    text = shown(output, capsys=capsys)
    rows = cells(text)
    assert rows["Method"] == ["synth_cars", "Parameters", "Seconds", "Views"]
    assert rows["Zero-shot, descriptions"] == ["48.00", "5,120", "10", "2"]
    assert rows["FAIR"][0] == "62.00 ± 1.73"
    # By hand: differences 10, 11, 9; their mean 10 and deviation 1; t(0.975, 2) = 4.30265; 4.30265 / sqrt(3) = 2.4841.
    assert rows["Gain of FAIR"][0] == "+10.00 [+7.52, +12.48] over Plain self-training"
    assert "synth_cars: config tiny (CLIP tiny), seeds 1 2 10." in text and "Average" not in text
    assert "Missing" not in text and "Caution" not in text


def test_groups_averages_and_missing_cells(two, capsys):
    text = shown(two, capsys=capsys)
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


def test_ranks_leave_references_and_transductive_methods_out(two):
    comparison = load(two)
    column = Column("synth_cars_s2", "tiny")
    found = {m: stats.scores(comparison, m, column) for m in comparison.methods}
    assert {m.key: r for m, r in stats.rank(comparison, found).items()} == {"plain": 1, "fair": 2}
    finish(two / "synth_cars_s2/CuPL/tiny/seed7", 70)
    comparison = load(two)
    found = {m: stats.scores(comparison, m, column) for m in comparison.methods}
    assert {m.key: r for m, r in stats.rank(comparison, found).items()} == {"plain": 1, "cupl": 1, "fair": 2}


def test_partial_cells_say_so_and_leave_the_average(two, capsys):
    (two / "synth_cars/FAIR/tiny/seed10/results.json").unlink()
    text = shown(two, capsys=capsys)
    assert cells(text)["FAIR"][:3] == ["61.50 ± 2.12 (2 of 3 seeds)", "66.00 ± 1.00", "–"]
    assert "Missing: Zero-shot, class names on synth_cars_s2; FAIR on synth_cars, seed 10." in text
    rows = cells(shown(two, "--seeds", "1", "2", capsys=capsys))
    assert rows["FAIR"][:3] == ["61.50 ± 2.12", "65.50 ± 0.71", "63.50 ± 0.71"]
    rows = cells(shown(two, "--seeds", "1", "2", "3", "--methods", "fair,upl", capsys=capsys))
    assert rows["UPL"][:3] == ["missing", "missing", "–"] and rows["FAIR"][0].endswith("(2 of 3 seeds)")
    assert "Gain of FAIR" not in rows  # there is nothing to be ahead of


def test_runs_of_other_settings_are_not_averaged(output, capsys):
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
    fair = output / "synth_cars/FAIR/tiny"
    finish(fair / "seed1", 60, base)
    finish(fair / "seed2", 63, other, config_hash="b")
    finish(fair / "seed10", 63, base)
    text = shown(output, capsys=capsys)
    assert cells(text)["FAIR"][0] == "not averaged" and "Gain of FAIR" not in cells(text)
    assert (
        "Not averaged: the runs of FAIR on synth_cars differ in OPTIM.MAX_EPOCH: 8 (seeds 1, 10), 6 (seed 2); "
        "TRAINER.FAIR.NEW: absent (seeds 1, 10), '' (seed 2)."
    ) in text  # not seed, places, other trainers
    assert cells(shown(output, "--seeds", "1", "10", capsys=capsys))["FAIR"][0] == "61.50 ± 2.12"
    (fair / "seed10/config.yaml").unlink()
    assert "differ in settings (no config.yaml of seed 10 to say which)" in shown(output, capsys=capsys)


def test_methods_on_other_data_are_pointed_out(output, capsys):
    for path, split, shots in (("FAIR/tiny/seed1", "zhou", -1), ("CuPL/tiny/seed1", "official", 16)):
        finish(output / "synth_cars" / path, 60, {"DATASET": {"SPLIT": split, "NUM_SHOTS": shots, "ROOT": path}})
    text = shown(output, "--seeds", "1", capsys=capsys)
    assert (
        "Caution: synth_cars: the methods differ in DATASET.SPLIT: official (Zero-shot, descriptions), zhou (FAIR)."
        in text
    )
    assert "NUM_SHOTS" not in text and "ROOT" not in text


def test_gains_pair_what_both_have(output):
    fair = stats.Scores({1: 60.0, 2: 63.0, 3: 70.0})
    assert stats.paired_differences(fair, stats.Scores({2: 50.0, 3: 51.0, 4: 90.0})) == [13.0, 19.0]
    assert stats.paired_differences(fair, stats.Scores({9: 50.0}, once=True)) == [10.0, 13.0, 20.0]
    assert stats.paired_differences(stats.Scores({9: 50.0}, once=True), fair) == [-10.0, -13.0, -20.0]
    assert stats.interval([1.0]) is None and stats.interval([2.0, 2.0]) == 0
    assert stats.interval([0.0, 2.0]) == pytest.approx(12.7062, abs=1e-4)  # t(0.975, 1), deviation sqrt(2), n 2


def test_columns_and_their_configs(output, capsys):
    methods = runs.read_methods()
    assert runs.choose_columns(output, [], "", methods) == [Column("synth_cars", "tiny")]
    finish(output / "synth_cars/FAIR/tiny_margin/seed1")
    finish(output / "stanford_cars/FAIR/rn50/seed1")
    every = [Column("stanford_cars", "rn50"), Column("synth_cars", "tiny")]
    assert runs.choose_columns(output, [], "", methods) == every
    assert runs.choose_columns(output, [], "tiny_margin", methods) == [Column("synth_cars", "tiny_margin")]
    names = ["synth_cars/tiny", "synth_cars/tiny_margin"]
    both = runs.choose_columns(output, names, "", methods)
    assert [tables.column_name(c, both) for c in both] == ["synth_cars, tiny", "synth_cars, tiny_margin"]
    finish(output / "stanford_cars/FAIR/vit_b16/seed1")
    with pytest.raises(UserError, match="several configs: rn50, vit_b16"):
        runs.choose_columns(output, [], "", methods)
    finish(output / "synth_cars/TheirTrainer/tiny/seed1", 65)
    assert cells(shown(output, "--datasets", "synth_cars", capsys=capsys))["TheirTrainer"][0].startswith("65.00")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "there is no folder nowhere"),
        (["output", "--methods", "lafte"], "unknown method 'lafte'"),
        (["output", "--cfg", "rn50"], "no finished run of config 'rn50'"),
        (["output", "--datasets", "dtd"], "no finished run of dtd (vit_b32)"),
    ],
)
def test_mistakes_end_in_one_message(output, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(output.parent)
    assert table(arguments) == 2
    assert message in capsys.readouterr().err
    (output / "synth_cars/FAIR/tiny/seed1/results.json").write_text('{"accuracy": "high"}')
    assert table(["output"]) == 2
    assert "seed1/results.json has no number 'accuracy'" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------
# Forms
# ---------------------------------------------------------------------------------------------------------------------
def test_markdown_and_latex_mark_best_and_second(two, capsys):
    text = shown(two, "--format", "markdown", capsys=capsys)
    assert cells(text)["FAIR"][:2] == ["**62.00 ± 1.73**", "<u>66.00 ± 1.00</u>"]
    assert cells(text)["Plain self-training"][:2] == ["<u>52.00 ± 2.00</u>", "**70.00 ± 0.00**"]
    assert cells(text)["Linear probe ‡"][0] == "89.00"  # its seed does not matter: one run
    text = shown(two, "--format", "latex", capsys=capsys)
    assert r"FAIR & \textbf{62.00 $\pm$ 1.73} & \underline{66.00 $\pm$ 1.00} &" in text
    assert r"synth\_cars\_s2" in text and "$-$4.00 [$-$6.48" in text and "without" not in text
    assert text.count(r"\midrule") == 4 and r"TransCLIP $\dagger$" in text


def test_markdown_and_latex_escape():
    grid = tables.Grid("a|b", ["Method", "x_y"], [("", [[tables.Entry("<b>|&%"), tables.Entry("5*", "best")]])])
    assert r"&lt;b>\|&%" in tables.as_markdown(grid) and r"**5\***" in tables.as_markdown(grid)
    assert r"<b>|\&\% & \textbf{5*} \\" in tables.as_latex(grid)


def test_csv_in_full_precision(two, capsys):
    value = 200 / 3
    finish(two / "synth_cars/FAIR/tiny/seed1", value)
    lines = list(csv.DictReader(io.StringIO(shown(two, "--format", "csv", capsys=capsys))))
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
        for values in source["accuracy"].values():
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


def test_files_are_written_by_their_ending(output, tmp_path, capsys):
    files = [tmp_path / name for name in ("a.md", "b.tex", "c.csv", "d.html", "e.txt")]
    assert table([str(output), "--output", *map(str, files)]) == 0
    printed = capsys.readouterr()
    assert all(f"Wrote {path}" in printed.err for path in files)
    assert files[4].read_text() == printed.out and files[3].read_text().startswith("<!DOCTYPE html>")
    assert "**62.00" in files[0].read_text() and r"\toprule" in files[1].read_text()
    with pytest.raises(SystemExit):
        table([str(output), "--output", "x.pdf"])
    assert "must end in one of .txt" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------
# Classes and curves
# ---------------------------------------------------------------------------------------------------------------------
def test_siblings_and_accuracies_by_class(tmp_path):
    rows = [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b"), ("b", "b"), ("b", "c"), ("c", "c"), ("c", "c")]
    folder = finish(tmp_path / "FAIR/tiny/seed1", predictions=rows)
    more = finish(tmp_path / "FAIR/tiny/seed2", predictions=[(label, label) for label, _ in rows])
    cell = runs.Cell({1: runs.Run(folder, 1, {}), 2: runs.Run(more, 2, {})})
    found = classes.confusions(cell)
    assert (found.accuracy("a"), found.accuracy("b"), found.accuracy("c")) == (75, 75, 100)
    assert found.mixed_up("a", "b") == pytest.approx(100 * 2 / 12)
    assert classes.siblings([found]) == [("a", "b"), ("b", "c")] and classes.siblings([found], 1) == [("a", "b")]
    (more / "predictions.csv").unlink()
    assert classes.confusions(runs.Cell({1: runs.Run(folder, 1, {}), 2: runs.Run(more, 2, {})})) is None


def test_curves():
    curve = curves.Curve("<A>", 3, [{1: 10.0, 2: 20.0, 3: 30.0}, {1: 20.0, 2: 40.0}])
    assert curve.mean == {1: 15.0, 2: 30.0}
    svg = curves.draw("a < b", [curve, curves.Curve("none", 0, [])], {"zero": (25.0, 1)}, "id")
    assert svg.count('class="seed') == 2 and svg.count('class="line') == 1 and svg.count('class="level') == 1
    assert "a &lt; b" in svg and "&lt;A&gt; ends at 30.0" in svg
    # Values and epochs on the picture: the lowest value at the bottom tick, the last epoch at the right edge.
    points = re.search(r'class="line[^"]*" d="M([^"]*)"', svg)[1]
    (x1, y1), (x2, y2) = (map(float, point.split()) for point in points.split("L"))
    assert curves.LEFT == x1 < x2 < curves.WIDTH and y1 > y2
    assert curves.ticks(15, 41) == [10, 20, 30, 40, 50] and len(curves.ticks(70.02, 70.03)) >= 2
    assert curves.ticks(50, 50)[0] <= 50 <= curves.ticks(50, 50)[-1]
    assert "h8" in curves.draw("one epoch", [curves.Curve("A", 0, [{1: 5.0}])], {}, "id")
    looks = [curves.look_classes(i) for i in range(len(METHODS))]
    assert len(set(looks)) == len(looks)


# ---------------------------------------------------------------------------------------------------------------------
# The page
# ---------------------------------------------------------------------------------------------------------------------
VOID = {"meta", "img", "br", "link"}
EVIL = '<script>alert("x")</script>&"\''


class Page(HTMLParser):
    """Checks the nesting, and keeps tags, attributes, texts and tables."""

    def __init__(self, text: str):
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), attrs
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert "svg" in self.stack, tag

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag, (self.stack, tag)

    def handle_data(self, text):
        if self.stack and self.stack[-1] not in ("script", "style"):
            self.text.append(text)

    def all(self, *names: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture
def rich(two) -> Path:
    """With predictions, and names that must be escaped."""
    rows = [(EVIL.replace('"', "'").replace(",", ""), "b"), ("b", "b"), ("b", EVIL.replace('"', "'")), ("c", "c")]
    for path in two.glob("synth_cars/*/*/seed*"):
        own = [(a, a) for a, _ in rows] if "FAIR" in path.parts else rows
        finish(
            path,
            json.loads((path / "results.json").read_text())["accuracy"],
            predictions=own,
            backbone=EVIL,
            **{
                k: v
                for k, v in json.loads((path / "results.json").read_text()).items()
                if k in ("uses_labels", "transductive")
            },
        )
    finish(two / "synth_cars" / "Their<i>Trainer" / "tiny" / "seed1", 30)
    return two


def build(folder: Path, **more) -> str:
    comparison = load(folder)
    grids = [tables.comparison_grid(comparison), published.published_grid(comparison, published.read_published())]
    return page.make_page(comparison, grids, **more)


def test_page_is_whole_self_contained_and_escaped(rich):
    text = build(rich)
    found = Page(text)
    scripts = re.findall(r"<script", text)
    assert len(scripts) == 1 and "<i>" not in text and "&lt;script&gt;" in text  # ours alone
    for attributes in (attributes for _, attributes in found.tags):
        for name in ("src", "href", "action", "data", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/")), attributes
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"(?m)^\s*//.*$", "", text))
    assert "default-src 'none'" in text
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in found.tags:
        assert set(attributes.get("aria-labelledby", "").split()) <= set(ids)
        if attributes.get("href", "#") != "#":
            assert attributes["href"].removeprefix("#") in ids
    assert text == build(rich)  # the same results make the same page


def test_page_can_be_read_by_all(rich):
    text = build(rich)
    found = Page(text)
    assert ("html", {"lang": "en"}) in found.tags and 'name="viewport" content="width=device-width' in text
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    assert len(found.all("caption")) == len(found.all("table")) == 4
    assert all(attributes.get("scope") in ("col", "row", "rowgroup") for attributes in found.all("th"))
    assert all(attributes.get("alt") for attributes in found.all("img"))
    assert all(a.get("role") == "img" or a.get("aria-hidden") for a in found.all("svg"))
    assert "prefers-color-scheme: dark" in text and "color-scheme: light dark" in text
    # Wide tables scroll by themselves, with the keyboard too, and not the page.
    regions = [a for a in found.all("div") if a.get("role") == "region" and a.get("tabindex") == "0"]
    assert len(regions) == len(found.all("table")) and all(a["aria-label"] for a in regions)


def luminance(colour: str) -> float:
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_colours_can_be_told_from_the_paper():
    """WCAG: contrast of 4.5 for text and of 3 for graphics, in both modes."""
    css = (ROOT / "scripts/report/page.css").read_text()
    light, dark = (dict(re.findall(r"--([\w]+): (#\w{6})", block)) for block in css.split("@media", 2)[:2])
    for colours in (light, dark):
        texts = [(name, 4.5, on) for name in ("ink", "faint", "link", "up", "down") for on in ("paper", "band")]
        for name, least, on in [*texts, *((f"c{i}", 3, "paper") for i in range(curves.COLOURS))]:
            a, b = sorted((luminance(colours[name]), luminance(colours[on])))
            assert (b + 0.05) / (a + 0.05) >= least, (name, on)


def test_page_shows_the_results(rich):
    found = Page(build(rich))
    text = " ".join(found.text)
    assert "synth_cars: FAIR 62.00 ± 1.73 %; +10.00 [+7.52, +12.48] over Plain self-training" in text
    assert "62.00 ± 1.73  (best)" in text and "Transductive: sees all test images at once" in text
    assert "FAIR is ahead of Zero-shot, descriptions on 2 of 3 classes and behind on 0" in text
    assert "pairs that zero-shot CLIP mixes up most" in text
    assert "No example images: " in text and "The methods have no predictions.csv" in text  # the second data set
    svgs = [attributes for attributes in found.all("svg") if attributes.get("role") == "img"]
    assert len(svgs) == 4  # two measures on two data sets


def test_page_without_curves_or_classes(tmp_path):
    finish(tmp_path / "synth_cars/CuPL/tiny/seed1", epochs=[])
    text = " ".join(Page(build(tmp_path)).text)
    assert "None of the runs trains in epochs" in text and "There is no finished run of FAIR" in text


def test_example_images_of_a_real_run(data, backbone, tmp_path):  # noqa: F811
    run = train_fair(data, backbone, tmp_path / "output/synth_cars/FAIR/tiny/seed1", "TRAINER.FAIR.TOP_K", "3")
    text = build(tmp_path / "output", images=2)
    found = Page(text)
    images = found.all("img")
    assert len(images) == 2 * (1 + 3) and all(i["src"].startswith("data:image/") for i in images)
    assert "1: w 0." in " ".join(found.text) and "True class: " in " ".join(found.text)
    assert [i["alt"] for i in images[1:4]] == ["Crop 1", "Crop 2", "Crop 3"]
    missing = " ".join(Page(build(tmp_path / "output", data=tmp_path / "elsewhere")).text)
    assert f"No example images: the images are not in {tmp_path}/elsewhere" in missing
    assert not (tmp_path / "elsewhere").exists()  # nothing is drawn for a report
    (run / "fair/checkpoint").unlink()
    assert f"No example images: {run} has no checkpoint" in " ".join(Page(build(tmp_path / "output")).text)
    assert "No example images were asked for" in " ".join(Page(build(tmp_path / "output", images=0)).text)


# ---------------------------------------------------------------------------------------------------------------------
# The script of the page
# ---------------------------------------------------------------------------------------------------------------------
# A page of two tables' worth of objects that answer as the browser's would.
NODE_TEST = r"""
const assert = require("assert");
const { compareCells, sortedIndices, nextDirection, enhance } = require(process.argv[2]);
const number = (n) => ({ number: n, text: "" }), text = (t) => ({ number: null, text: t });

assert(compareCells(number(9), number(10), false) < 0 && compareCells(number(9), number(10), true) > 0);
assert(compareCells(number(-1), number(null), false) < 0 && compareCells(number(-1), number(null), true) < 0);
assert(compareCells(text("b"), text("a"), false) > 0 && compareCells(text("seed 9"), text("seed 10"), false) < 0);
assert(compareCells(text(""), text("a"), false) > 0 && compareCells(text(""), text("a"), true) > 0);
assert.deepEqual(sortedIndices([[number(1)], [number(3)], [number(null)], [number(3)]], 0, true), [1, 3, 0, 2]);
assert.deepEqual(["descending", "ascending"], [nextDirection(null, true), nextDirection(null, false)]);

class Element {
  constructor(textContent, attributes = {}) { Object.assign(this, { textContent, attributes, classes: [] }); }
  getAttribute(name) { return name in this.attributes ? this.attributes[name] : null; }
  hasAttribute(name) { return name in this.attributes; }
  setAttribute(name, value) { this.attributes[name] = value; }
  removeAttribute(name) { delete this.attributes[name]; }
  addEventListener(kind, action) { this["on" + kind] = action; }
  replaceChildren(child) { this.child = child; }
  get classList() { return { contains: (name) => this.classes.includes(name) }; }
}
const cell = (n) => new Element(String(n), { "data-number": "", "data-sort": n === null ? "" : String(n) });
const row = (name, n) => Object.assign(new Element(""), { cells: [new Element(name), cell(n)] });
const body = (rows) => ({ rows, appendChild(r) { this.rows.splice(this.rows.indexOf(r), 1); this.rows.push(r); } });
const group = Object.assign(new Element("group"), { cells: [], classes: ["group"] });
const first = body([group, row("b", 60.5), row("a", null), row("c", 71)]), second = body([row("z", 99), row("y", 5)]);
const heads = [new Element("Method"), new Element("Accuracy")];
const table = { tHead: { rows: [{ cells: heads }] }, tBodies: [first, second] };
const status = new Element("");
enhance({ getElementById: () => status, querySelectorAll: () => [table], createElement: () => new Element("") });

const names = (b) => b.rows.filter((r) => r !== group).map((r) => r.cells[0].textContent).join("");
heads[1].child.onclick();
assert.equal(names(first) + names(second), "cbazy");
assert.equal(first.rows[0], group);
assert.equal(heads[1].getAttribute("aria-sort"), "descending");
assert.equal(status.textContent, "Sorted by Accuracy, descending.");
heads[1].child.onclick();
assert.equal(names(first) + names(second), "bcayz");
heads[0].child.onclick();
assert.equal(names(first) + names(second), "abcyz");
assert.equal(heads[1].getAttribute("aria-sort"), null);
console.log("fine");
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_sorting_in_node(tmp_path):
    (tmp_path / "test.js").write_text(NODE_TEST)
    done = subprocess.run(
        ["node", str(tmp_path / "test.js"), str(ROOT / "scripts/report/page.js")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
# Runs in the page: sorts as a reader would, and leaves what came of it in an attribute.
PROBE = """<script>
addEventListener("load", () => {
  const buttons = [...document.querySelectorAll("#table th button")];
  buttons[1].click();
  const rows = [...document.querySelectorAll("#table tbody tr:not(.group)")];
  document.body.setAttribute("data-probe", JSON.stringify({
    order: rows.map((row) => row.cells[0].textContent), said: document.getElementById("status").textContent,
    wide: document.documentElement.scrollWidth > innerWidth + 1,
    dark: matchMedia("(prefers-color-scheme: dark)").matches, paper: getComputedStyle(document.body).backgroundColor,
    images: [...document.images].every((image) => image.complete && image.naturalWidth > 0),
  }));
});
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
@pytest.mark.parametrize("size, dark", [("1280,900", False), ("390,844", True)])
def test_page_in_a_browser(rich, tmp_path, size, dark):
    file = tmp_path / "page.html"
    file.write_text(build(rich).replace("</body>", PROBE), encoding="utf-8")
    command = [
        BROWSER,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={size}",
        "--virtual-time-budget=5000",
        *(["--force-dark-mode"] if dark else []),
        "--dump-dom",
        file.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    seen = json.loads(next(attributes for tag, attributes in tags(done.stdout) if tag == "body")["data-probe"])
    assert seen["order"][0] == "FAIR" and seen["said"].startswith("Sorted by synth_cars, descending")
    assert not seen["wide"] and seen["images"] and seen["dark"] == dark
    assert seen["paper"] == ("rgb(24, 25, 27)" if dark else "rgb(255, 255, 255)")


def tags(text: str) -> list[tuple[str, dict]]:
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.append((tag, dict(attrs)))
    parser.feed(text)
    return found


def test_imports_stay_where_they_are():
    """compare.py runs from any folder."""
    command = [sys.executable, str(ROOT / "scripts/compare.py"), "/nowhere"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "Error: there is no folder /nowhere\n")
