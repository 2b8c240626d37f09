"""How far a list of runs has come: "run 3 of 11: FAIR, synth_cars, tiny, seed 1, 0:01:23, about 0:10:00 left"."""

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TextIO

from fairclip.compare.plan import Job


class Progress:
    """Says which runs begin and end: a line that is written over on a terminal, elsewhere a line for each.

    Args:
        shown: what the runs say is shown: each has its line above that, and nothing is written over.
        clock: seconds.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        at_once: int,
        stream: TextIO,
        shown: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.at_once, self.stream, self.shown, self.clock = at_once, stream, shown, clock
        self.one_line = stream.isatty() and not shown
        self.waiting = list(jobs)
        self.begun: dict[Job, tuple[int, float]] = {}  # number and time of the runs under way
        self.total, self.number = len(jobs), 0
        self.first = clock()
        self.seconds: dict[str, list[float]] = {}  # of the runs that ended well, by trainer

    def start(self, job: Job) -> None:
        self.number += 1
        self.waiting.remove(job)
        self.begun[job] = self.number, self.clock()
        if self.shown:
            gap = "\n" if self.number > 1 else ""
            print(f"{gap}run {self.number} of {self.total}: {job.name}{self.left()}", flush=True)
        else:
            self.say(f"run {self.number} of {self.total}: {job.name}")

    def end(self, job: Job, state: str) -> None:
        """`state` is "finished", "failed" or "stopped"."""
        number, begun = self.begun.pop(job)
        took = self.clock() - begun
        if state == "finished":
            self.seconds.setdefault(job.trainer, []).append(took)
        if not self.shown:
            self.say(f"run {number} of {self.total}: {job.name}: {state} after {clock_time(took)}{self.left()}")

    def say(self, line: str) -> None:
        if not self.one_line:
            print(line, file=self.stream, flush=True)

    def refresh(self) -> None:
        """On a terminal, the line anew."""
        if self.one_line and self.begun:
            job, (number, _) = next(reversed(self.begun.items()))
            others = f", {len(self.begun) - 1} more under way" if len(self.begun) > 1 else ""
            elapsed = clock_time(self.clock() - self.first)
            line = f"run {number} of {self.total}: {job.name}{others}, {elapsed}{self.left()}"
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{line[:width]}\033[K", end="", file=self.stream, flush=True)

    def close(self) -> None:
        if self.one_line and self.number:
            print("\r\033[K", end="", file=self.stream, flush=True)

    def left(self) -> str:
        """An estimate by the runs that ended; "" before the first has."""
        if not self.seconds:
            return ""
        mean = statistics.mean(second for seconds in self.seconds.values() for second in seconds)
        means = {trainer: statistics.mean(seconds) for trainer, seconds in self.seconds.items()}
        now = self.clock()
        rest = sum(means.get(job.trainer, mean) for job in self.waiting)
        for job, (_, begun) in self.begun.items():
            rest += max(means.get(job.trainer, mean) - (now - begun), 0)
        return f", about {clock_time(rest / self.at_once)} left" if rest else ""


def clock_time(seconds: float) -> str:
    """Hours, minutes and seconds: "0:01:23"."""
    return str(timedelta(seconds=round(seconds)))
