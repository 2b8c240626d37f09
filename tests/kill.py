"""Kills a short run at its file operations and at moments by chance; started again, it must end as if nothing were.

    python tests/kill.py --kills 20 [--seed 1] [--trainer FAIR]

Half of the kills come right before a file operation in the run's folder, its cache or its data, each time another one
(with enough kills: before each of them); the others come at any moment. After each, the same command runs to its end.
A kill fails where that ends in an error, in other weights or other results, or leaves temporary files.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import conftest  # noqa: E402, F401
from commands import train  # noqa: E402
from toys import EPOCHS, arguments, checkpoint, make_data, same, save_clip, untimed  # noqa: E402

from fairclip.run.results import read_results  # noqa: E402

OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
PARTS = ("state_dict", "extra", "optimizer", "scheduler", "anchors")


class Counter:
    """Counts file operations below a folder, and ends the process right before one of them."""

    def __init__(self, folder: Path, last: int) -> None:
        self.folder, self.last, self.count = str(folder), last, 0
        sys.addaudithook(self.see)

    def see(self, event: str, details: tuple[Any, ...]) -> None:
        if event in OPERATIONS and isinstance(details[0], (str, Path)) and str(details[0]).startswith(self.folder):
            if event == "open" and not self.writes(details):
                return
            self.count += 1
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def writes(details: tuple[Any, ...]) -> bool:
        return bool(details[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def in_child(work: Any, wait: float | None = None) -> int:
    """Do something in a forked process, killed after so many seconds. Returns its status."""
    child = os.fork()
    if child == 0:
        try:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, 1)
            os._exit(work())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    timer = threading.Timer(wait or 0, os.kill, (child, signal.SIGKILL))
    if wait is not None:
        timer.start()
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    timer.cancel()  # while the number still belongs to the child
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


class Experiment:
    """A run in a folder of its own, with its own cache and images."""

    def __init__(self, place: Path, trainer: str) -> None:
        self.place, self.trainer = place, trainer
        self.data, self.clip = make_data(place / "data"), save_clip(place / "clip.pt")

    def start(self, name: str, last: int = 0, wait: float | None = None) -> int:
        """Returns the status of the run, killed at its operation ``last`` or after ``wait`` seconds."""
        folder = self.place / name
        os.environ["FAIR_CACHE"] = str(folder / "cache")
        argv = arguments(self.trainer, self.data, self.clip, folder / "out")

        def work() -> int:
            counter = Counter(folder, last)
            status = train(argv)
            (self.place / "count").write_text(str(counter.count))
            return status

        return in_child(work, wait)

    def outcome(self, name: str) -> tuple[Any, Any]:
        out = self.place / name / "out"
        state, results = checkpoint(out, self.trainer, EPOCHS), read_results(out)
        assert results is not None
        figures = {key: value for key, value in results.items() if "seconds" not in key and key != "epochs"}
        lines = (out / "predictions.csv").read_text()
        return {part: state[part] for part in PARTS}, (figures, untimed(results["epochs"]), lines)

    def check(self, name: str, whole: tuple[Any, Any]) -> str:
        """What is wrong after a kill, "" if nothing."""
        status = self.start(name)
        if status:
            return f"the run that goes on ends with status {status}"
        if left := [str(path) for path in (self.place / name).rglob(".*.tmp")]:
            return f"temporary files are left: {left}"
        weights, results = self.outcome(name)
        if not same(weights, whole[0]):
            return "other weights"
        return "" if results == whole[1] else "other results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trainer", default="FAIR")
    args = parser.parse_args()
    rng, failures = random.Random(args.seed), 0
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        experiment, start = Experiment(Path(name), args.trainer), time.monotonic()
        assert experiment.start("whole") == 0
        seconds = time.monotonic() - start
        operations = int((Path(name) / "count").read_text())
        whole = experiment.outcome("whole")
        print(f"{args.trainer}: {seconds:.1f} seconds, {operations} file operations", flush=True)
        places = rng.sample(range(1, operations + 1), min(operations, args.kills - args.kills // 2))
        kills: list[dict[str, Any]] = [{"last": place} for place in places]
        kills += [{"wait": seconds * rng.random()} for _ in range(args.kills - len(kills))]
        for number, kill in enumerate(kills):
            status = experiment.start(f"kill{number}", **kill)
            wrong = experiment.check(f"kill{number}", whole)
            failures += bool(wrong)
            print(f"{kill}, status {status}: {wrong or 'as if nothing were'}", flush=True)
            shutil.rmtree(Path(name) / f"kill{number}", ignore_errors=True)
    print(f"{len(kills)} kills, {failures} failures")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
