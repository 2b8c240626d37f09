"""What is on disk: a row for each data set, what is wrong with it, and how to get one that is missing.

    fair data doctor [NAME...] [--root FOLDER]

Nothing is written or downloaded, and no image is decoded (train.py does that before it trains).
"""

import argparse
import contextlib
import io
import os
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from fairclip.core.errors import UserError
from fairclip.data.common import PARTS, Benchmark, NotThere, in_figures
from fairclip.data.fetch import SOURCES, add_root, benchmarks, find
from fairclip.text.descriptions import find_descriptions, load_descriptions

ABOUT = """Shows which data sets are there, in which layout, and what is wrong with them, without writing or downloading
anything. Exit status: with names, 1 if one of them cannot be used; without, 1 if none can, or one is there but broken;
2 for an unknown name."""
HEAD = ("data set", "state", "layout", "classes", "train / val / test", "expected", "split", "descriptions", "problems")


@dataclass
class Report:
    """What was found of a data set: a row of the table, and what is to be said below it.

    `state` is "complete", "differs" (it can be used, see `problems`), "broken" or "missing"; `help` is what belongs
    where and how to get it.
    """

    name: str
    state: str
    help: str
    expected: str
    descriptions: str
    layout: str = ""
    classes: str = ""
    counts: str = ""
    source: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return self.state in ("complete", "differs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `fair data doctor`."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="StanfordCars or stanford_cars; none: all data sets")
    add_root(parser)


def main(args: argparse.Namespace) -> int:
    """Prints the table and what there is to say. Returns the exit status, see `ABOUT`.

    Raises:
        UserError: an unknown name.
    """
    root, known = Path(os.path.abspath(os.path.expanduser(args.root))), benchmarks()
    chosen = dict.fromkeys(find(name, known) for name in args.names) or known
    reports = [examine(known[name], root) for name in chosen]
    asked = bool(args.names)
    print(f"Data sets in {root}" + ("" if root.is_dir() else ", which is not a folder"))
    print(tabulate([_row(report, asked) for report in reports], HEAD, tablefmt="github", disable_numparse=True))
    for report in reports:
        for problem in report.problems if asked or report.state != "missing" else ():
            print(f"\n{report.name}: {problem}")
        if asked and not report.usable:
            print(f"\n{report.help}")
            if report.name in SOURCES:
                print(f"Or let it be downloaded:  fair data fetch {report.name}")
    if asked:
        return 0 if all(report.usable for report in reports) else 1
    fine = any(report.usable for report in reports) and all(report.state != "broken" for report in reports)
    return 0 if fine else 1


def examine(cls: type[Benchmark], root: Path) -> Report:
    """Looks at one data set below `root`. Never raises for what is on disk."""
    known = [cls.counts[kind] for kind in ("zhou", "official") if kind in cls.counts]
    file = find_descriptions("", object.__new__(cls))  # goes by the class; one that is made in full would need the data
    report = Report(cls.__name__, "missing", cls.help(root), "", "yes" if file else "no")
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            found = cls.read(root, download=False, keep=False)
    except NotThere as error:
        report.problems = [str(error)]
    except UserError as error:
        report.state, report.problems = "broken", [str(error)]
    except Exception as error:  # a damaged file can lead a loader anywhere; the other data sets are to be shown still
        report.state, report.problems = "broken", [f"it cannot be read ({type(error).__name__}: {error})"]
    else:
        have = tuple(len(found.items[part]) for part in PARTS)
        if found.source == "official" or (found.source == "folders" and have not in known[:1]):
            known = [cls.counts[kind] for kind in ("official", "zhou") if kind in cls.counts]
        report.layout = found.copy.layout
        report.classes, report.counts, report.source = str(len(found.names)), in_figures(have), found.source
        if found.source == "built by the CoOp rule" and not found.split_file:
            fetched = cls.drive_id and found.copy.coop_keys
            report.source = "to be fetched or built" if fetched else "to be built by the CoOp rule"
        report.problems = found.warnings
        if file:
            try:
                with contextlib.redirect_stdout(said):
                    load_descriptions(file, found.names)
            except UserError as error:
                report.descriptions = "broken"
                report.problems.append(str(error))
        report.problems += said.getvalue().splitlines()
        report.state = "differs" if report.problems else "complete"
    report.expected = in_figures(known[0]) if known else ""
    report.problems = [_bare(problem, report) for problem in report.problems]
    return report


def _bare(problem: str, report: Report) -> str:
    """A problem without what is printed around it anyway."""
    problem = problem.removesuffix(f"\n{report.help}").removeprefix("Warning: ")
    return problem.removeprefix(report.name).lstrip(": ")


def _row(report: Report, asked: bool) -> list[str]:
    remark = "see below" if report.problems else ""
    if report.state == "missing" and not asked:
        remark = f"fair data {'fetch' if report.name in SOURCES else 'doctor'} {report.name}"
    return [
        report.name,
        report.state,
        report.layout,
        report.classes,
        report.counts,
        report.expected,
        report.source,
        report.descriptions,
        remark,
    ]
