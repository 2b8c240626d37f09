"""How a run ends where it cannot go on: signals, another run of the same folder, refusals of the system."""

import os
import signal
import subprocess
import sys
import time

import pytest
from commands import train
from toys import ROOT, arguments, check_refused, make_data, save_clip

from fairclip import cli
from fairclip.core.errors import UserError, in_one_line
from fairclip.core.lock import FILENAME, locked

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def start(code: str, *arguments: object, **more) -> subprocess.Popen:
    """Python code in a process group of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=ENVIRONMENT,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )


# -- Signals -----------------------------------------------------------------------------------------------------------

LOOP = """
import os, sys, time
from fairclip.core.stopping import stop_if_asked, stops_on_signals
class Swallows:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(60)
try:
    with stops_on_signals():
        child = os.fork()
        if child == 0:
            time.sleep(60)
        print(child, flush=True)
        Swallows()
        stop_if_asked()
        print("missed")
except KeyboardInterrupt:
    sys.exit(130)
"""


def is_running(process: int) -> bool:
    try:
        state = open(f"/proc/{process}/stat").read().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="children end with their parent on Linux")
@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda which: which.name)
@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
def test_a_signal_is_not_missed_and_leaves_no_child(which, group):
    """Not even where Python drops what a signal raises, as in a destructor."""
    process = start(LOOP)
    child = int(process.stdout.readline())
    assert process.stdout.readline() == "ready\n"
    (os.killpg if group else os.kill)(process.pid, which)
    assert process.wait(10) == (-which if which == signal.SIGKILL else 130)
    for _ in range(100):
        if not is_running(child):
            break
        time.sleep(0.02)
    assert not is_running(child)
    assert process.stdout.read() == "" and process.stderr.read() == ""


FAILS = """
import os, signal
from fairclip.core.stopping import stops_on_signals
try:
    with stops_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError("DataLoader worker is killed by signal")
except KeyboardInterrupt:
    print("stopped")
os.kill(os.getpid(), signal.SIGTERM)  # once more, while Python ends
"""


def test_what_follows_from_a_signal_is_no_error():
    process = start(FAILS)
    assert process.communicate(timeout=10) == ("stopped\n", "") and process.returncode == 0


WRITES = """
import sys, time
from argparse import Namespace
from fairclip import cli
from fairclip.core.files import atomic
def work(args):
    with atomic(sys.argv[2]) as file:
        file.write_text("half")
        print("ready", flush=True)
        time.sleep(60)
class Parser:
    def parse_args(self, words):
        return Namespace(main=work)
cli.build_parser = lambda words: Parser()
raise SystemExit(cli.main(sys.argv[1:2]))
"""


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT], ids=lambda which: which.name)
@pytest.mark.parametrize("command, more", [("draw-crops", ""), ("adapt", " The same command goes on from the last")])
def test_any_command_ends_in_one_line_and_leaves_nothing_half_written(which, command, more, tmp_path):
    process = start(WRITES, command, tmp_path / "crops.png")
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, which)
    said, error = process.communicate(timeout=10)
    assert (process.returncode, said) == (130, "") and error.startswith(f"\nStopped.{more}") and error.count("\n") == 2
    assert not list(tmp_path.iterdir())


# -- The lock ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_for_one_run_at_a_time(tmp_path):
    folder = tmp_path / "out"
    with locked(folder):
        with pytest.raises(UserError, match=f"another run is at work in {folder} .process {os.getpid()} on "):
            with locked(folder):
                pass
        with locked(tmp_path / "other"):
            pass
    assert not (folder / FILENAME).exists()
    with locked(folder):
        pass


HOLDS = """
import os, sys, time
from fairclip.core.lock import locked
with locked(sys.argv[1]):
    if os.fork() == 0:  # a child that runs has given up the lock
        print("held", flush=True)
    time.sleep(60)
"""


def test_nothing_but_its_holder_keeps_a_lock(tmp_path):
    process = start(HOLDS, tmp_path)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {process.pid} on"), locked(tmp_path):
            pass
        process.kill()
        process.wait(10)
        with locked(tmp_path):  # the child is still there
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_a_run_says_who_is_at_work_in_its_folder(tmp_path, capsys):
    argv = arguments("CuPL", tmp_path, tmp_path / "absent.pt", tmp_path / "out")
    with locked(tmp_path / "out"):
        check_refused(argv, "another run is at work", capsys)


# -- Refusals of the system --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "out, message", [("file/out", "Not a directory"), ("x" * 300, "File name too long"), ("a\nb/\0", "NUL")]
)
def test_an_output_folder_that_cannot_be(tmp_path, capsys, out, message):
    (tmp_path / "file").write_text("")
    check_refused(arguments("CuPL", tmp_path, tmp_path / "absent.pt", tmp_path / out), message, capsys)


def test_a_full_disk_is_one_line(tmp_path, capsys, monkeypatch):
    """Which torch reports by an exception of its own."""
    resource = pytest.importorskip("resource")
    argv = arguments("FAIR", make_data(tmp_path, 3, 1), save_clip(tmp_path / "clip.pt"), tmp_path / "out")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, before[1]))
    try:
        check_refused([*argv, "OPTIM.MAX_EPOCH", "1"], "perhaps as the disk is full", capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "out/results.json").exists()


def test_scores_that_are_not_finite_end_a_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("trainers.cupl.CuPL.predict", lambda self, loader, split: nan(self, len(loader.dataset)))
    argv = arguments("CuPL", make_data(tmp_path, 3, 1), save_clip(tmp_path / "clip.pt"), tmp_path / "out")
    check_refused(argv, "3 of 3 test images have scores that are not finite", capsys)
    assert not (tmp_path / "out/results.json").exists()


def nan(trainer, count):
    import torch

    return torch.full((count, trainer.num_classes), float("nan"))


@pytest.mark.parametrize(
    "error, message",
    [
        (OSError(28, "No space left on device", "a/b"), "No space left on device: a/b"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("Caught OSError in DataLoader worker.\nTraceback\nOSError: broken.png"), "OSError: broken.png"),
        (RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. "), "NUM_WORKERS lower"),
        (RuntimeError("Could not determine home directory."), "no user here"),
        (RuntimeError("a mistake"), None),
        (ValueError("a mistake"), None),
    ],
)
def test_what_is_said_of_an_exception(error, message):
    said = in_one_line(error)
    assert said is None if message is None else message in said and "\n" not in said


SAYS = """
from argparse import Namespace
from fairclip import cli
class Parser:
    def parse_args(self, words):
        return Namespace(main=lambda args: print("caf\\u00e9"))
cli.build_parser = lambda words: Parser()
raise SystemExit(cli.main([]))
"""


@pytest.mark.parametrize(
    "redirection, status, said",
    [
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        (">/dev/full", 2, "Error: No space left on device\n"),
        ("| cat", 0, "caf\\xe9\n"),
    ],
)
def test_streams_that_are_closed_full_or_know_no_accents(redirection, status, said):
    call = f"set -o pipefail; {sys.executable} -c '{SAYS}' {redirection}"
    ascii_only = ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(["bash", "-c", call], env=ascii_only, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (status, said)


def test_other_exceptions_keep_their_traceback(monkeypatch):
    monkeypatch.setattr("fairclip.compare.table_command.main", lambda args: {}["a"])
    with pytest.raises(KeyError):
        cli.main(["table", "x"])
    assert train(["--trainer", "none"]) == 2
