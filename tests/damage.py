"""Damage to every kind of file that is read, by chance but from a seed: each must give one message, or do no harm.

    python tests/damage.py --cases 1000 [--kinds checkpoint,results] [--seed 1]

A case fails where reading raises anything but UserError, gives something else than before although the file has a
digest, writes outside the case's folder, takes too long or too much memory, or ends the process.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    import conftest  # noqa: F401

from damage_kinds import KINDS, Kind

from fairclip.core.errors import UserError
from fairclip.core.log import log
from fairclip.core.tensor_files import digest_of

SECONDS, MEMORY = 20, 2**31  # of a case
ODD = [None, True, False, -5, 0.9, 10**30, 1e300, float("nan"), "", "x", "a\0b", "=1", "../../x", "\x1b[31m"]
ODD += ["\ud800", [], {}, [[]], ["x", 1], {"x": {}}, "é" * 300]
WORDS = [
    b"NaN",
    b"true",
    b"null",
    b"-5",
    b"1e999",
    b"''",
    b"[",
    b"{",
    b"]",
    b"}",
    b"*a",
    b"&a",
    b"\\ud800",
    b"\t",
    b"|",
]
WORDS += [b"9" * 5000, b"\0", b"\xff", b"../", b"\r\n", b"!!python/object:os.system ", b'"', b"<<: ", b"\xed\xa0\x80"]


# -- Mutations ---------------------------------------------------------------------------------------------------------


def somewhere(rng: random.Random, content: bytes) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice((1, 2, 8, 64, 1000)))


def in_bytes(rng: random.Random, content: bytes) -> bytes:
    """Damage as disks, networks and editors do it."""
    start, end = somewhere(rng, content)
    lines = content.splitlines(keepends=True) or [b""]
    line = rng.randrange(len(lines))
    return rng.choice(
        (
            lambda: content[:start],
            lambda: content[:start] + content[end:],
            lambda: content[:start] + rng.randbytes(end - start) + content[end:],
            lambda: content[:start] + bytes(end - start) + content[end:],
            lambda: content[:start] + rng.choice(WORDS) + content[end:],
            lambda: content[:start] + rng.choice(WORDS) + content[start:],
            lambda: content[:start] + content[end - 1 : end] + content[start:],
            lambda: b"".join(lines[:line] + lines[line + 1 :]),
            lambda: b"".join(lines[: line + 1] + lines[line:]),
            lambda: content + content,
            lambda: content + bytes(100),
            lambda: b"",
            lambda: (
                rng.choice(
                    (b"<html><body>404</body></html>", b"\x89PNG\r\n\x1a\n", b"PK\3\4", b"version https://git-lfs")
                )
                + content[:start]
            ),
            lambda: b"[" * 100_000 + content,
            lambda: content.decode("latin-1").encode("utf-16"),
            lambda: content.decode("latin-1").replace("a", "é").encode("latin-1", "ignore"),
        )
    )()


def in_values(rng: random.Random, value: Any) -> Any:
    """The same nested lists and dictionaries, in which one thing is missing, doubled or something else."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        changed, key = dict(value), rng.choice(list(value))
        if rng.random() < 0.15:
            del changed[key]
        elif rng.random() < 0.1:
            changed[rng.choice(("more", "", 5))] = changed[key]
        else:
            changed[key] = in_values(rng, changed[key])
        return changed
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        change = rng.choice(([], [value[place]] * 2, [in_values(rng, value[place])], [in_values(rng, value[place])]))
        return value[:place] + change + value[place + 1 :]
    return rng.choice(ODD)


def damaged(rng: random.Random, kind: Kind, content: bytes) -> bytes:
    if kind.parse and kind.write and rng.random() < 0.6:
        with contextlib.suppress(ValueError, TypeError, RuntimeError):  # what cannot be written that way
            return kind.write(in_values(rng, kind.parse(content)))
    return in_bytes(rng, content)


# -- Cases -------------------------------------------------------------------------------------------------------------


@dataclass
class Failure:
    """What a case did that it must not do."""

    kind: str
    case: int
    what: str

    def __str__(self) -> str:
        return f"{self.kind}, case {self.case}: {self.what}"


def campaign(kind: Kind, cases: int, seed: int = 0, first: int = 0) -> list[Failure]:
    """Damage one kind of file so many times. Children do it, a new one wherever one ends before its time."""
    failures: list[Failure] = []
    with tempfile.TemporaryDirectory(prefix="damage-") as name:
        whole = Path(name) / "whole"
        whole.mkdir()
        os.environ["FAIR_CACHE"] = str(whole / "cache")
        file = kind.make(whole)
        expected = digest_of(kind.read(whole)) if kind.exact else ""
        case = first
        while case < first + cases:
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reader)
                work(kind, Path(name), file, expected, range(case, first + cases), seed, writer)
            os.close(writer)
            case = watch(kind, child, reader, case, failures)
            os.close(reader)
    return failures


def watch(kind: Kind, child: int, reader: int, case: int, failures: list[Failure]) -> int:
    """Collect what a child says of its cases. Returns the case to go on with."""
    said = b""
    while True:
        ready, _, _ = select.select([reader], [], [], SECONDS)
        part = os.read(reader, 1 << 16) if ready else b""
        said += part
        *lines, said = said.split(b"\n")
        for line in lines:
            what = json.loads(line)
            if what:
                failures.append(Failure(kind.name, case, what))
            case += 1
        if part:
            continue
        if not ready:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not ready or status:
            why = f"no end in {SECONDS} seconds" if not ready else f"the process ended with status {status}"
            failures.append(Failure(kind.name, case, why))
            case += 1
        return case


def work(kind: Kind, base: Path, file: Path, expected: str, cases: range, seed: int, writer: int) -> None:
    """In a child: do the cases and say, a line each, what was wrong (nothing: "")."""
    status = 1
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        log.disabled = True
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        os.chdir(base)
        for case in cases:
            os.write(
                writer, json.dumps(one_case(kind, base, file, expected, f"{kind.name} {case} {seed}")).encode() + b"\n"
            )
        status = 0
    finally:
        os._exit(status)


def one_case(kind: Kind, base: Path, file: Path, expected: str, seed: str) -> str:
    """What was wrong with a case, "" if nothing."""
    rng, place = random.Random(seed), base / "case"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(base / "whole", place)
    os.environ["FAIR_CACHE"] = str(place / "cache")
    target = place / file.relative_to(base / "whole")
    target.write_bytes(damaged(rng, kind, target.read_bytes()))
    try:
        result = kind.read(place)
        if kind.exact and digest_of(result) != expected:
            return "another result, and no message"
    except UserError as error:
        if not str(error).strip():
            return "a UserError that says nothing"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = next((frame for frame in reversed(where) if "/fairclip/" in frame.filename), where[-1])
        text = repr(error)[:200]
        return f"{text} at {ours.filename}:{ours.lineno}"
    strangers = {path.name for path in base.iterdir()} - {"whole", "case"}
    return f"files outside the folder: {strangers}" if strangers else ""


# -- The command -------------------------------------------------------------------------------------------------------


def chosen(names: str) -> Iterator[Kind]:
    for kind in KINDS:
        if not names or kind.name in names.split(","):
            yield kind


def main(report: Callable[..., None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100, help="of each kind (default: 100)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: 0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="", help=f"default: all, {','.join(kind.name for kind in KINDS)}")
    args = parser.parse_args()
    total = 0
    for kind in chosen(args.kinds):
        failures = campaign(kind, args.cases, args.seed, args.first)
        total += len(failures)
        report(f"{kind.name}: {args.cases} cases, {len(failures)} failures", flush=True)
        for what in dict.fromkeys(failure.what for failure in failures):
            same = [failure.case for failure in failures if failure.what == what]
            report(f"  {len(same)} x {what} (case {same[0]})")
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())
