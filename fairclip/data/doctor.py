"""Which data sets are there, in which layout, and what is wrong with them.

    fair data doctor                                      all of them
    fair data doctor stanford_cars --root /path/to/data   one, with what is expected where and how to get it

Nothing is written or downloaded, and no image is decoded (training does that before it starts). Exit status: with
names, 1 if one of them cannot be used; without, 1 if one is there but broken; 2 for an unknown name.
"""

import argparse
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from fairclip.core.errors import UserError
from fairclip.core.invocation import fair_command
from fairclip.core.log import log
from fairclip.core.places import DATA
from fairclip.data.benchmark import Benchmark
from fairclip.data.choose_split import MADE, Found
from fairclip.data.completeness import in_figures
from fairclip.data.known import add_root, benchmarks, find
from fairclip.data.locate import NotThere
from fairclip.data.splits import PARTS
from fairclip.text.descriptions import find_descriptions, load_descriptions

WITHOUT_DOWNLOAD = {
    "synth_cars": "built in, drawn on first use (synth_cars_s<N>: other cars)",
    "folder": "your own images, in {root}/NAME/train/<class>/ and test/<class>/ (docs/real_data.md)",
}
HEAD = ("data set", "state", "train/val/test", "expected", "texts")  # narrow: a terminal has 80 columns


@dataclass
class Report:
    """What was found of a data set: a row of the table, and what is to be said below it.

    Args:
        name: as one types it.
        state: "complete", "differs" (it can be used, see `problems`), "broken" or "missing".
        expected: the known numbers of images.
        descriptions: "yes", "no" or "broken".
        counts: the numbers of images that are there.
        summary: classes, layout and split, if it can be used.
        problems: what is wrong.
    """

    name: str
    state: str
    expected: str
    descriptions: str
    counts: str = ""
    summary: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return self.state in ("complete", "differs")

    @property
    def row(self) -> tuple[str, ...]:
        figures = (text.replace(" / ", "/").replace(",", "") for text in (self.counts, self.expected))
        return self.name, self.state, *figures, self.descriptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `fair data doctor`."""
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="data sets, such as stanford_cars or dtd; default: all of them"
    )
    add_root(parser)


def main(args: argparse.Namespace) -> int:
    """Print the table and what there is to say below it. Returns the exit status.

    Raises:
        UserError: an unknown name.
    """
    root, known = Path(os.path.abspath(os.path.expanduser(args.root))), benchmarks()
    ready = [name for name in args.names if name in WITHOUT_DOWNLOAD]
    for name in ready:
        print(f"{name}: {WITHOUT_DOWNLOAD[name].format(root=root)}")
    if ready and len(ready) == len(args.names):
        return 0
    asked = list(dict.fromkeys(find(name, known) for name in args.names if name not in ready))
    reports = [examine(name, known[name], root) for name in asked or known]
    usual = root == DATA.absolute()  # it is made when it is needed; another one may be a typo
    state = "" if root.is_dir() else " (not there yet)" if usual else ", which is not a folder"
    print(f"Data sets in {root}{state}")
    print(tabulate([report.row for report in reports], HEAD, tablefmt="github", disable_numparse=True))
    for report in reports:
        if asked or report.state != "missing":
            _print_below(report)
        if asked and not report.usable:
            print(f"\n{known[report.name].help(root)}")
    if asked:
        return 0 if all(report.usable for report in reports) else 1
    print("\nThese need no download:")
    for name, text in WITHOUT_DOWNLOAD.items():
        print(f"  {name:<10} {text.format(root=root)}")
    _print_how_to_get([report.name for report in reports if report.state == "missing"], known)
    return 1 if any(report.state == "broken" for report in reports) or not (usual or root.is_dir()) else 0


def _print_below(report: Report) -> None:
    print()
    if report.summary:
        print(f"{report.name}: {report.summary}")
    for problem in report.problems:
        print(f"{report.name}: {problem}")


def _print_how_to_get(missing: Sequence[str], known: dict[str, type[Benchmark]]) -> None:
    """The commands that help with data sets that are not there."""
    on_the_web = [name for name in missing if known[name].sources]
    others = [name for name in missing if not known[name].sources]
    if missing:
        print("\nTo get those that are missing:")
    if on_the_web:
        print(f"  {fair_command()} data fetch {' '.join(on_the_web)}")
    if others:
        print(f"  {fair_command()} data doctor {' '.join(others)}   (explains how)")


# -- One data set ------------------------------------------------------------------------------------------------------


def examine(name: str, cls: type[Benchmark], root: Path) -> Report:
    """Look at one data set below `root`. Never raises for what is on disk."""
    # Descriptions go by the class; an object that is made in full would need the data.
    file = find_descriptions("", object.__new__(cls))
    report = Report(name, "missing", _expected(cls), "yes" if file else "no")
    with _messages_kept() as said:
        try:
            found = cls.read(root, download=False, keep=False)
        except NotThere as error:
            report.problems = [str(error)]
        except UserError as error:
            report.state, report.problems = "broken", [str(error)]
        except Exception as error:  # a damaged file can lead a loader anywhere; the others are to be shown still
            report.state, report.problems = "broken", [f"it cannot be read ({type(error).__name__}: {error})"]
        else:
            _describe(report, cls, found, file)
            report.problems += said
            report.state = "differs" if report.problems else "complete"
    # A problem is printed behind the name, and help on its own, for those that were asked for.
    problems = [problem.removesuffix(f"\n{cls.advice(root)}") for problem in report.problems]
    report.problems = [problem.removeprefix(cls.__name__).lstrip(": ") for problem in problems]
    return report


def _describe(report: Report, cls: type[Benchmark], found: Found, descriptions: Path | None) -> None:
    """Fill in what was found."""
    have = tuple(len(found.items[part]) for part in PARTS)
    report.counts, report.expected = in_figures(have), _expected(cls, found.source, have)
    split = found.source
    if split == MADE and not found.split_file:
        fetched = cls.drive_id and found.copy.coop_keys
        split = "to be fetched or built" if fetched else "to be built by the CoOp rule"
    report.summary = f"{len(found.names)} classes, {found.copy.layout} in {found.copy.home}, split: {split}"
    report.problems = list(found.warnings)
    if descriptions:
        try:
            load_descriptions(descriptions, found.names)
        except UserError as error:
            report.descriptions = "broken"
            report.problems.append(str(error))


def _expected(cls: type[Benchmark], source: str = "", have: tuple[int, ...] = ()) -> str:
    """The known numbers of images: of CoOp's split, or of the official one where that is what is there."""
    zhou, official = cls.counts.get("zhou"), cls.counts.get("official")
    if source == "official" or (source == "folders" and have != zhou):
        zhou, official = official, zhou
    count = zhou or official
    return in_figures(count) if count else ""


@contextmanager
def _messages_kept() -> Iterator[list[str]]:
    """Inside, messages go into a list and are not shown."""
    said: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        said.append(record.getMessage())
        return False

    level = log.level
    log.addFilter(keep)
    log.setLevel(logging.INFO)
    try:
        yield said
    finally:
        log.removeFilter(keep)
        log.setLevel(level)
