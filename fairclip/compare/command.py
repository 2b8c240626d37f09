"""Compares finished runs: fair table OUTPUT [--format table|markdown|latex|csv|html]

Reads OUTPUT/<dataset>/<trainer>/<config>/seed<k>/results.json and what lies beside it, runs nothing. Rows are methods,
columns data sets; docs/comparing.md says what the figures mean.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from fairclip.compare.published import published_grid, read_published, select
from fairclip.compare.runs import (
    choose_columns,
    choose_methods,
    find_configs,
    find_datasets,
    load_comparison,
    read_methods,
)
from fairclip.compare.tables import as_csv, as_latex, as_markdown, as_text, comparison_grid, seed_table
from fairclip.core.errors import UserError
from fairclip.core.files import atomic

FORMATS = {"table": ".txt", "markdown": ".md", "latex": ".tex", "csv": ".csv", "html": ".html"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, metavar="OUTPUT", help="the folder of all results")
    add("--datasets", nargs="+", default=[], metavar="NAME[/CFG]", help="default: all with runs")
    add("--methods", default="", metavar="A,B", help="names of scripts/methods.txt (default: all with runs)")
    add("--seeds", nargs="+", type=int, default=[], metavar="N", help="default: all that there are")
    add("--cfg", default="", help="default: the only one, or tiny for built-in data and vit_b32 otherwise")
    add("--by-seed", action="store_true", help="a table for each data set and config, with a column for each seed")
    add("--published", action="store_true", help="published numbers below ours, with source and protocol")
    add("--format", choices=FORMATS, default="table", help="what to print (default: table)")
    add(
        "--output",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help=f"files to write too, in the format of their ending: {' '.join(FORMATS.values())}",
    )
    add("--data", type=Path, help="html: the folder with all data sets (default: where the runs found them)")
    add("--images", type=int, default=4, help="html: example images of each data set (default: 4)")


def check_args(args: argparse.Namespace) -> None:
    args.methods = [name for name in args.methods.split(",") if name]
    for path in args.output:
        if path.suffix not in FORMATS.values():
            raise UserError(f"--output {path}: the name must end in one of {' '.join(FORMATS.values())}")
    if args.by_seed and (args.output or args.published or args.format not in ("table", "markdown")):
        raise UserError("--by-seed goes with --format table and markdown alone")


def by_seed(args: argparse.Namespace) -> str:
    if args.datasets or args.cfg:
        columns = choose_columns(args.folder, args.datasets, args.cfg, read_methods())
    else:  # everything
        columns = [
            column
            for dataset in find_datasets(args.folder)
            for config in find_configs(args.folder / dataset, read_methods())
            for column in choose_columns(args.folder, [f"{dataset}/{config}"], "", read_methods())
        ]
        if not columns:
            raise UserError(f"no finished run in {args.folder}")
    form = as_markdown if args.format == "markdown" else as_text
    return "\n\n".join(form(seed_table(args.folder, column, args.methods, args.seeds)) for column in columns)


def compare(args: argparse.Namespace) -> None:
    columns = choose_columns(args.folder, args.datasets, args.cfg, read_methods())
    methods = choose_methods(args.folder, columns, args.methods)
    comparison = load_comparison(args.folder, columns, methods, args.seeds)
    if not any(cell.runs for cell in comparison.cells.values()):
        names = ", ".join(f"{column.dataset} ({column.config})" for column in columns)
        raise UserError(f"no finished run of {names} in {args.folder}")
    sources = read_published() if args.published else []
    grids = [comparison_grid(comparison), *([published_grid(comparison, sources)] if args.published else [])]

    def html() -> str:
        from fairclip.compare.page import make_page

        return make_page(comparison, grids, args.data, args.images)

    forms: dict[str, Callable[[], str]] = {
        "table": lambda: "\n\n".join(map(as_text, grids)),
        "markdown": lambda: "\n\n".join(map(as_markdown, grids)),
        "latex": lambda: "\n\n".join(map(as_latex, grids)),
        "csv": lambda: as_csv(comparison, select(comparison, sources)),
        "html": html,
    }
    print(forms[args.format]())
    suffixes = {suffix: name for name, suffix in FORMATS.items()}
    for path in args.output:
        text = forms[suffixes[path.suffix]]()
        with atomic(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        print(f"Wrote {path}", file=sys.stderr)


def main(args: argparse.Namespace) -> None:
    check_args(args)
    if not args.folder.is_dir():
        raise UserError(f"there is no folder {args.folder}")
    if args.by_seed:
        print(f"\n{by_seed(args)}")
    else:
        compare(args)
