"""Doing runs, with a stand-in for training."""

import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from forked import Forked

from fairclip import cli
from fairclip.compare import calls, compare_command, plan, run_command, runner
from fairclip.compare.methods import USUAL, read_methods
from fairclip.compare.plan import Experiment, Job, find_dataset
from fairclip.compare.progress import Progress, clock_time

METHODS = {m.key: m for m in read_methods(USUAL)}
TESTS = Path(__file__).resolve().parent


@pytest.fixture
def standin(tmp_path, monkeypatch) -> Path:
    """The folder in which the stand-in logs how it is called."""
    monkeypatch.setenv("STANDIN", str(tmp_path))
    monkeypatch.setattr(calls, "command", lambda arguments: [sys.executable, str(TESTS / "standin.py"), *arguments])
    return tmp_path


def jobs(folder: Path, *seeds: int, dataset: str = "synth_cars", key: str = "fair") -> list[Job]:
    return plan.plan(
        Experiment(folder / "data", folder / "output"), find_dataset(dataset), "tiny", [METHODS[key]], seeds
    )


def called(standin: Path) -> list[str]:
    """The folders of the runs that were started, in order."""
    lines = (standin / "calls.jsonl").read_text().splitlines()
    calls = [json.loads(line) for line in lines]
    return [Path(call[call.index("--output-dir") + 1]).name for call in calls]


def test_all_runs_are_done_and_what_they_say_is_kept(standin, capfd):
    outcomes, stopped = runner.do_jobs(jobs(standin, 3, 1, 2))
    assert [outcome.error for outcome in outcomes] == [""] * 3 and not stopped
    assert called(standin) == ["seed3", "seed1", "seed2"]
    assert all(outcome.job.finished for outcome in outcomes)
    assert (outcomes[0].job.folder / "compare.log").read_text() == "noise of a run\n"
    out, err = capfd.readouterr()
    assert out == "" and "noise" not in err and "\r" not in err and "\033" not in err
    lines = err.splitlines()
    assert len(lines) == 6  # a start and an end each
    assert lines[0] == "run 1 of 3: FAIR, synth_cars, tiny, seed 3"
    assert lines[1].startswith("run 1 of 3: FAIR, synth_cars, tiny, seed 3: finished after 0:0")
    assert lines[2] == "run 2 of 3: FAIR, synth_cars, tiny, seed 1"


def test_a_failed_run_is_named_and_the_others_go_on(standin, capfd):
    outcomes, stopped = runner.do_jobs(jobs(standin, 13, 14, 15))
    assert not stopped and [bool(outcome.error) for outcome in outcomes] == [True, True, False]
    text = runner.describe_failures(outcomes)
    assert text.splitlines() == [
        "2 of 3 runs failed:",
        "  Error: it broke (exit status 1)",
        f"    FAIR, synth_cars, tiny, seed 13: {standin}/output/synth_cars/FAIR/tiny/seed13/compare.log",
        "  it wrote no results.json; trainers that derive from fairclip/run/base.py do",
        f"    FAIR, synth_cars, tiny, seed 14: {standin}/output/synth_cars/FAIR/tiny/seed14/compare.log",
    ]
    assert "seed 13: failed after" in capfd.readouterr().err
    assert runner.describe_failures(outcomes[2:]) == ""


def test_unlabelled_tests_are_the_cause_where_they_are(standin):
    job = jobs(standin, 14)[0]
    job.folder.mkdir(parents=True)
    (job.folder / "predictions.csv").write_text("image,label,prediction,probability\na.png,,cat,0.9\n")
    (outcome,), _ = runner.do_jobs([job])
    assert outcome.error.startswith("its test images have no labels: predictions.csv has")


def test_one_cause_is_said_once(standin):
    outcomes, _ = runner.do_jobs([*jobs(standin, 13), *jobs(standin, 13, key="upl"), *jobs(standin, 13, key="must")])
    text = runner.describe_failures(outcomes)
    assert text.count("it broke") == 1
    assert [line.split(": ")[0].strip() for line in text.splitlines()[2:]] == [
        f"{name}, synth_cars, tiny, seed 13" for name in ("FAIR", "UPL", "MUST, without masked images")
    ]


def test_several_runs_at_a_time(standin):
    """The first run is alone, since it prepares data and backbone. Of the others, 21 and 22 end only side by side."""
    outcomes, _ = runner.do_jobs(jobs(standin, 1, 21, 22, 13, 3), at_once=2)
    assert outcomes[0].job.folder.name == "seed1" and called(standin)[0] == "seed1"
    assert sorted(outcome.job.folder.name for outcome in outcomes if outcome.error) == ["seed13"]
    assert len(outcomes) == 5


def test_nothing_starts_beside_the_first_run_of_a_data_set(standin):
    work = [*jobs(standin, 1, 2), *jobs(standin, 1, 2, dataset="synth_cars_s2")]
    busy = runner.Runner(work, Progress(work, 4, io.StringIO()), at_once=4)
    assert busy.may_start()
    busy.running = {0: (work[0], None)}
    assert not busy.may_start()
    busy.prepared = {"synth_cars"}
    assert busy.may_start()
    busy.running[1] = (work[2], None)
    assert not busy.may_start()
    busy.running = dict.fromkeys(range(4), (work[1], None))
    assert not busy.may_start()


def test_shown_runs_speak_for_themselves_and_end_with_the_first_that_fails(standin, capfd):
    outcomes, stopped = runner.do_jobs(jobs(standin, 14, 13, 1), shown=True)
    assert not stopped and [outcome.status for outcome in outcomes] == [0, 1]
    assert outcomes[1].error == "exit status 1" and called(standin) == ["seed14", "seed13"]
    out, err = capfd.readouterr()
    assert out.count("noise of a run") == 2 and "Error: it broke" in err
    assert not (outcomes[0].job.folder / "compare.log").exists()


def test_error_line(tmp_path):
    log = tmp_path / "compare.log"
    for text, line in (("a\nError: b\nError: c\nd\n", "Error: b"), ("a\nb\n\n", "b"), ("", "it said nothing")):
        log.write_text(text)
        assert runner.error_line(log) == line
    log.write_bytes(b"\xff\xfe broken\n")
    assert runner.error_line(log).endswith("broken")


# Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_on_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    work, now, screen = jobs(tmp_path, 1, 2, 3, 4), [0.0], Terminal()
    progress = Progress(work, 2, screen, clock=lambda: now[0])

    def line() -> str:
        screen.seek(0)
        screen.truncate()
        progress.refresh()
        return screen.getvalue()

    progress.start(work[0])
    now[0] = 5
    assert line() == "\rrun 1 of 4: FAIR, synth_cars, tiny, seed 1, 0:00:05\033[K"
    now[0] = 60
    progress.end(work[0], "finished")
    progress.start(work[1])
    progress.start(work[2])
    now[0] = 70
    # One that took a minute has ended: two have 50 seconds to go and one has not begun, two at a time.
    assert line() == "\rrun 3 of 4: FAIR, synth_cars, tiny, seed 3, 1 more under way, 0:01:10, about 0:01:20 left\033[K"
    monkeypatch.setenv("COLUMNS", "20")
    assert line() == "\rrun 3 of 4: FAIR, s\033[K"
    screen.truncate(0)
    progress.close()
    assert screen.getvalue().endswith("\r\033[K") and "\n" not in screen.getvalue()


def test_estimates_go_by_the_trainer(tmp_path):
    quick, slow = jobs(tmp_path, 1, 2, key="must"), jobs(tmp_path, 1, 2)
    now = [0.0]
    progress = Progress([*quick, *slow], 1, io.StringIO(), clock=lambda: now[0])
    for job, seconds in ((quick[0], 10), (slow[0], 100)):
        assert progress.left() in ("", ", about 0:00:30 left")
        progress.start(job)
        now[0] += seconds
        progress.end(job, "finished")
    assert progress.left() == ", about 0:01:50 left"
    progress.start(quick[1])
    now[0] += 1000  # longer than expected
    progress.end(quick[1], "failed")  # what failed says nothing of how long a run takes
    assert progress.left() == ", about 0:01:40 left"
    assert clock_time(3661.4) == "1:01:01"


# Signals


@pytest.mark.parametrize(
    "which, arguments",
    [
        (signal.SIGTERM, ["compare", "synth_cars", "--methods", "fair", "--seeds", "99"]),
        (signal.SIGINT, ["compare", "synth_cars", "--methods", "fair", "--seeds", "98", "1", "--jobs", "2"]),
        (signal.SIGHUP, ["run", "upl", "synth_cars", "tiny", "99", "1"]),
    ],
)
def test_stopped_it_stops_the_runs_too(standin, which, arguments, monkeypatch):
    monkeypatch.setenv("OUTPUT", str(standin / "output"))

    def work() -> int:
        compare_command.check_jobs = run_command.check_jobs = lambda *arguments, **more: None
        runner.GRACE = 0.1
        return cli.main(arguments)

    process = Forked(work, standin / "said")
    process.until((standin / "pid").exists)
    os.kill(process.pid, which)
    assert process.wait() == 130
    said = "".join(process.said())
    assert said.count("The same command goes on from here.") == 1 and "Traceback" not in said
    assert "failed" not in said and ("stopped after" in said) == (arguments[0] == "compare")
    assert called(standin) in (["seed98"], ["seed99"])  # nothing else was begun
    with pytest.raises(ProcessLookupError):
        os.kill(int((standin / "pid").read_text()), 0)
