"""Doing runs: each is a process of its own, some at a time."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from fairclip.compare import calls
from fairclip.compare.plan import Job
from fairclip.compare.progress import Progress
from fairclip.run.results import PREDICTIONS

LOG = "compare.log"  # what a run said, in its folder
TICK = 1.0  # seconds between two looks at the clock
GRACE = 15.0  # seconds that a run has to end by itself after it was asked to
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    job: Job
    status: int  # of its process; negative: the signal that ended it
    error: str = ""  # in a line; "" if all is well


class Runner:
    """Does runs, and says which are under way.

    The first run of a data set has no others beside it that were started later: it draws or checks the images and
    fetches the backbone for them. SIGINT, SIGTERM and SIGHUP end all runs; the next call goes on with them.

    Args:
        at_once: runs at a time.
        shown: what the runs say is shown, and the first that fails is the last; otherwise it goes to `LOG` in the
            folder of each, and the others go on.
    """

    def __init__(self, jobs: Sequence[Job], progress: Progress, at_once: int = 1, shown: bool = False) -> None:
        self.waiting = deque(jobs)
        self.progress, self.at_once, self.shown = progress, at_once, shown
        self.running: dict[Future[int], tuple[Job, subprocess.Popen[bytes]]] = {}
        self.prepared: set[str] = set()  # data sets whose first run has ended
        self.outcomes: list[Outcome] = []
        self.stopped_at: float | None = None

    def run(self) -> list[Outcome]:
        """Do all runs. Returns how they ended, in that order; `stopped` says whether all were begun."""
        with signals_to(self.stop), ThreadPoolExecutor(self.at_once) as pool:
            try:
                while self.running or (self.waiting and not self.stopped):
                    self.step(pool)
            finally:  # an error here, such as a full disk, leaves no run behind
                self.kill()
        self.progress.close()
        return self.outcomes

    def step(self, pool: ThreadPoolExecutor) -> None:
        """Start what may start, and wait for a run to end, for a second at most."""
        while self.may_start():
            self.start(self.waiting.popleft(), pool)
        self.progress.refresh()
        ended, _ = wait(self.running, timeout=TICK, return_when=FIRST_COMPLETED)
        for future in ended:
            self.end(future)
        if self.stopped_at is not None and time.monotonic() > self.stopped_at + GRACE:
            self.kill()

    @property
    def stopped(self) -> bool:
        """Whether a signal came."""
        return self.stopped_at is not None

    def may_start(self) -> bool:
        preparing = any(job.dataset not in self.prepared for job, _ in self.running.values())
        return bool(self.waiting) and not self.stopped and not preparing and len(self.running) < self.at_once

    def start(self, job: Job, pool: ThreadPoolExecutor) -> None:
        """In a session of its own, so that Ctrl-C reaches it through `stop` alone, and what it starts ends with it."""
        self.progress.start(job)
        job.folder.mkdir(parents=True, exist_ok=True)
        with nullcontext() if self.shown else open(job.folder / LOG, "wb") as log:
            process = subprocess.Popen(
                calls.command(job.arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=None if self.shown else subprocess.STDOUT,
                env=calls.child_environment(),
                start_new_session=True,
            )
        self.running[pool.submit(process.wait)] = job, process
        if self.stopped:  # while it was started
            process.terminate()

    def end(self, future: Future[int]) -> None:
        job, process = self.running.pop(future)
        if self.stopped:
            kill_group(process)
        self.prepared.add(job.dataset)
        error = self.error(job, process.returncode)
        self.outcomes.append(Outcome(job, process.returncode, error))
        self.progress.end(job, "stopped" if error and self.stopped else "failed" if error else "finished")
        if error and self.shown:
            self.waiting.clear()

    def error(self, job: Job, status: int) -> str:
        """What went wrong, in a line."""
        if status == 0 and (self.shown or job.finished):
            return ""
        if status == 0:
            if (job.folder / PREDICTIONS).exists():
                return f"its test images have no labels: {PREDICTIONS} has its predictions, but there is no accuracy"
            return "it wrote no results.json; trainers that derive from fairclip/run/base.py do"
        ending = f"exit status {status}" if status > 0 else f"ended by {signal.Signals(-status).name}"
        said = "" if self.shown else error_line(job.folder / LOG)
        return f"{said} ({ending})" if said else ending

    def stop(self, signum: int, frame: FrameType | None) -> None:
        """Ask all runs to end."""
        if self.stopped_at is None:
            self.stopped_at = time.monotonic()
            for _, process in list(self.running.values()):
                process.terminate()

    def kill(self) -> None:
        for _, process in list(self.running.values()):
            kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a run at once, with what it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def signals_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Inside, signals that would end this program call the handler."""
    before = {which: signal.signal(which, handler) for which in SIGNALS}
    try:
        yield
    finally:
        for which, old in before.items():
            signal.signal(which, old)


def error_line(log: Path) -> str:
    """The message that a run ended with: its first line that begins with "Error: ", or the last that is not empty."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("Error: ")), lines[-1] if lines else "it said nothing")


def describe_failures(outcomes: Sequence[Outcome]) -> str:
    """The runs that failed, "" if none did. What several failed of is said once."""
    failed = [outcome for outcome in outcomes if outcome.error]
    causes: dict[str, list[Outcome]] = {}
    for outcome in failed:
        causes.setdefault(outcome.error.replace(str(outcome.job.folder), "its folder"), []).append(outcome)
    lines = [f"{len(failed)} of {len(outcomes)} runs failed:"]
    for same in causes.values():
        lines.append(f"  {same[0].error}")
        lines += [f"    {outcome.job.name}: {outcome.job.folder / LOG}" for outcome in same]
    return "\n".join(lines) if failed else ""


def do_jobs(jobs: Sequence[Job], at_once: int = 1, shown: bool = False) -> tuple[list[Outcome], bool]:
    """Do the runs of a plan, see `Runner`. Returns how they ended, and whether a signal stopped them."""
    runner = Runner(jobs, Progress(jobs, at_once, sys.stderr, shown), at_once, shown)
    outcomes = runner.run()
    # A run whose output is shown says so itself.
    if runner.stopped and not (shown and any(outcome.status == 130 for outcome in outcomes)):
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
    return outcomes, runner.stopped
