"""Compares finished runs: reads OUTPUT/<dataset>/<trainer>/<config>/seed<k>/results.json and what lies beside it, runs
nothing. Rows are methods, columns data sets; docs/comparing.md says what the figures mean.

    fair table output
    fair table output --datasets synth_cars/tiny --by-seed
    fair table output --published --output table.tex report.html
"""

import argparse
import datetime
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairclip.compare.comparison import load_comparison
from fairclip.compare.forms import as_csv, as_latex, as_markdown, as_text, runs_as_csv
from fairclip.compare.many_sets import comparison_grids
from fairclip.compare.methods import Method, find_table, read_methods
from fairclip.compare.plan import OUTPUT
from fairclip.compare.published import published_grid, read_published, select
from fairclip.compare.runs import Column, choose_columns, choose_methods, find_configs, find_datasets
from fairclip.compare.suites import expand
from fairclip.compare.tables import seed_table
from fairclip.core.errors import UserError
from fairclip.core.files import atomic

FORMATS = {"table": ".txt", "markdown": ".md", "latex": ".tex", "csv": ".csv", "html": ".html"}
IMAGES = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    usual = Path(os.environ.get("OUTPUT") or OUTPUT)
    add("folder", type=Path, nargs="?", default=usual, metavar="OUTPUT", help=f"folder of all results ({usual})")
    add("--datasets", nargs="+", default=[], metavar="NAME[/CFG]", help="data sets or suites (default: all with runs)")
    add("--methods", default="", metavar="A,B", help="names of the table of methods (default: all with runs)")
    add("--seeds", nargs="+", type=int, default=[], metavar="N", help="default: all that there are")
    add("--cfg", default="", help="default: the only one, or tiny for built-in data and vit_b32 otherwise")
    add(
        "--by-seed",
        action="store_true",
        help="a table for each data set and config, with a column for each seed; csv: a line for each run",
    )
    add("--published", action="store_true", help="published numbers below ours, with source and protocol")
    add_protocols(parser)
    add("--format", choices=FORMATS, default="table", help="what to print (default: table)")
    files = f"files to write too, in the format of their ending: {' '.join(FORMATS.values())}"
    add("--output", nargs="+", type=Path, default=[], metavar="FILE", help=files)
    add("--data", type=Path, help="html: the folder with all data sets (default: where the runs found them)")
    add("--images", type=int, default=IMAGES, help=f"html: example images of each data set (default: {IMAGES})")
    add_table(parser)


def add_table(parser: argparse.ArgumentParser) -> None:
    explained = "methods, ablation, or a file in their form (default: what METHODS_FILE names, or methods)"
    parser.add_argument("--table", default="", metavar="NAME", help=f"the table of methods: {explained}")


def add_protocols(parser: argparse.ArgumentParser) -> None:
    explained = "below, a table for each data set: batches with few classes, and streams"
    parser.add_argument("--protocols", action="store_true", help=explained)


def check_args(args: argparse.Namespace) -> None:
    args.methods = [name for name in args.methods.split(",") if name]
    for path in args.output:
        if path.suffix not in FORMATS.values():
            raise UserError(f"--output {path}: the name must end in one of {' '.join(FORMATS.values())}")
    if args.by_seed and (
        args.output or args.published or args.protocols or args.format not in ("table", "markdown", "csv")
    ):
        raise UserError("--by-seed goes with --format table, markdown and csv alone")


def main(args: argparse.Namespace) -> None:
    check_args(args)
    known = read_methods(find_table(args.table))
    if not args.folder.is_dir():
        raise UserError(f"there is no folder {args.folder}")
    if args.by_seed:
        print(by_seed(args, known))
        return
    columns = choose_columns(args.folder, expand(args.datasets), args.cfg, known)
    methods = choose_methods(args.folder, columns, args.methods, known)
    show_comparison(
        *(args.folder, columns, methods, args.seeds, args.data, args.published),
        form=args.format,
        files=args.output,
        images=args.images,
        protocols=args.protocols,
    )


def by_seed(args: argparse.Namespace, known: Sequence[Method]) -> str:
    if args.datasets or args.cfg:
        columns = choose_columns(args.folder, expand(args.datasets), args.cfg, known)
    else:  # everything
        columns = [
            column
            for dataset in find_datasets(args.folder)
            for config in find_configs(args.folder / dataset, known)
            for column in choose_columns(args.folder, [f"{dataset}/{config}"], "", known)
        ]
        if not columns:
            raise UserError(f"no finished run in {args.folder}")
    if args.format == "csv":
        methods = choose_methods(args.folder, columns, args.methods, known)
        return runs_as_csv(load_comparison(args.folder, columns, methods, args.seeds))
    form = as_markdown if args.format == "markdown" else as_text
    grids = [seed_table(args.folder, column, known, args.methods, args.seeds) for column in columns]
    return "\n\n".join(map(form, grids))


def show_comparison(
    output: Path,
    columns: Sequence[Column],
    methods: Sequence[Method],
    seeds: Sequence[int] = (),
    data: Path | None = None,
    published: bool = False,
    form: str = "table",
    files: Sequence[Path] = (),
    images: int = IMAGES,
    protocols: bool = False,
) -> None:
    """Print the comparison in one form, and write it to files in the forms that their endings name.

    Args:
        seeds: those that are expected of each method; none: all that any has.
        data: the folder with all data sets, for example images; None: where the runs found them.
        published: whether published numbers follow.
        form: one of `FORMATS`.
        images: example images of each data set.
        protocols: whether tables over protocols follow.

    Raises:
        UserError: there is no finished run.
    """
    comparison = load_comparison(output, columns, methods, seeds)
    if not comparison.runs():
        names = ", ".join(f"{column.dataset} ({column.config})" for column in columns)
        raise UserError(f"no finished run of {names} in {output}")
    sources = read_published() if published else []
    grids = comparison_grids(comparison)
    more: Sequence[Mapping[str, Any]] = ()
    if protocols:
        from fairclip.compare.protocols import protocol_grids, protocol_rows  # here, as these take numpy

        grids += protocol_grids(comparison, sources)
        more = protocol_rows(comparison)
    grids += [published_grid(comparison, sources)] if published else []

    def html() -> str:
        from fairclip.compare.page import make_page

        return make_page(comparison, grids, data, images, own_command(), datetime.date.today().isoformat())

    forms: dict[str, Callable[[], str]] = {
        "table": lambda: "\n\n".join(map(as_text, grids)),
        "markdown": lambda: "\n\n".join(map(as_markdown, grids)),
        "latex": lambda: "\n\n".join(map(as_latex, grids)),
        "csv": lambda: as_csv(comparison, select(comparison, sources), more=more),
        "html": html,
    }
    print(forms[form]())
    suffixes = {suffix: name for name, suffix in FORMATS.items()}
    for path in files:
        text = forms[suffixes[path.suffix]]()
        with atomic(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        print(f"Wrote {path}", file=sys.stderr)


def own_command() -> str:
    """The command line of this process, as it would be typed."""
    program = Path(sys.argv[0]).name
    return shlex.join(["fair" if program in ("fair", "__main__.py") else program, *sys.argv[1:]])
