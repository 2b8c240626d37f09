"""Methods head to head: trains and tests what is missing, on all data sets with all seeds. Prints the table, and writes
it, with a report, to OUTPUT/comparison.md and OUTPUT/comparison.html.

    fair compare synth_cars                                     all methods, seeds 1 2 3
    fair compare stanford_cars dtd --methods fair,upl --jobs 2
    fair compare fine13 --methods fair,plain,dpa --seeds 1      a suite of thirteen
    fair compare stanford_cars --print > runs.txt               the commands, for a scheduler
    TAG=long fair compare synth_cars -- OPTIM.MAX_EPOCH 16      another experiment, in folders of its own

A run is finished when its results.json is there; an interrupted one goes on. What a run says goes to compare.log in its
folder. Trainers test after each epoch too, for learning curves. A failed run is named at the end, the others go on, and
the exit status is then 1.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from fairclip.compare.calls import command
from fairclip.compare.checks import check_jobs
from fairclip.compare.methods import USUAL, Method, find_method, find_table, read_methods
from fairclip.compare.plan import (
    ENVIRONMENT,
    SEEDS,
    DataSet,
    Experiment,
    Job,
    check_data,
    find_dataset,
    known_datasets,
    known_suites,
    plan,
    read_experiment,
    require_config,
    with_config,
)
from fairclip.compare.runner import describe_failures, do_jobs
from fairclip.compare.runs import Column, default_config
from fairclip.compare.suites import expand
from fairclip.compare.table_command import add_protocols, add_table, show_comparison
from fairclip.core.errors import UserError, require
from fairclip.run.results import lacks_protocols, read_results

CURVES = ("TEST.EVERY_EPOCH", "True")
PROTOCOLS = ("TEST.PROTOCOLS", "True")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "fair compare DATASET... [options] [-- KEY VALUE...]"
    add = parser.add_argument
    add("datasets", nargs="+", metavar="DATASET", help=f"{known_datasets()}; or a suite: {known_suites()}")
    add("--methods", default="", metavar="A,B", help="names of the table (default: all that have the config)")
    add("--seeds", nargs="+", type=whole_number, default=SEEDS, metavar="N", help="default: 1 2 3")
    add("--cfg", default="", help="of configs/trainers/<Trainer>/ (default: tiny for built-in data, vit_b32 otherwise)")
    add("--jobs", type=above_zero, default=1, metavar="N", help="runs at a time (default: 1)")
    add("--print", action="store_true", help="run nothing: print the commands of the missing runs, one a line")
    add("--published", action="store_true", help="published numbers below ours")
    add_protocols(parser)
    add_table(parser)
    parser.epilog = f"methods:\n  {' '.join(method.key for method in read_methods())}\n\n{ENVIRONMENT}"


def whole_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def above_zero(text: str) -> int:
    if not whole_number(text):
        raise argparse.ArgumentTypeError("it takes a whole number above 0, how many runs at a time")
    return int(text)


def main(args: argparse.Namespace) -> int:
    """Returns the exit status: 0, 1 if a run failed, 130 if stopped."""
    table = find_table(args.table)
    known = read_methods(table)
    experiment = read_experiment(args.options)
    columns, methods, jobs = plan_all(args, known, experiment)
    check_jobs(jobs, data=not args.print)
    missing = to_do(jobs, args.protocols)
    if args.print:
        for job in missing:
            print(shlex.join(command(job.arguments)))
        return 0
    outcomes, stopped = do_jobs(missing, args.jobs)
    if stopped:
        return 130
    report = experiment.output / ("comparison" if table == USUAL else table.stem)
    status = 0
    try:
        files = [report.with_name(report.name + ending) for ending in (".md", ".html")]
        show_comparison(
            *(experiment.output, columns, methods, args.seeds, experiment.data, args.published),
            files=files,
            protocols=args.protocols,
        )
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        status = 2
    if failures := describe_failures(outcomes):
        print(f"\n{failures}", file=sys.stderr)
        status = 1
    return status


def to_do(jobs: Sequence[Job], protocols: bool) -> list[Job]:
    """Those that are not finished; with ``protocols`` also those that have yet to be tested so."""
    return [job for job in jobs if not job.finished or (protocols and lacks_protocols(read_results(job.folder)))]


def plan_all(
    args: argparse.Namespace, known: Sequence[Method], experiment: Experiment
) -> tuple[list[Column], list[Method], list[Job]]:
    """The columns and rows of the table, and all runs. Methods that were named must have the config.

    Raises:
        UserError: an unknown method, data set or config.
    """
    names = dict.fromkeys(name for name in args.methods.split(",") if name)
    named = [find_method(name, known) for name in names]
    columns, shown, jobs = [], [], []
    for dataset in map(find_dataset, expand(args.datasets)):
        check_data(experiment, dataset)
        cfg = args.cfg or default_config(dataset.file)
        methods = methods_for(dataset, cfg, named, known)
        columns.append(Column(dataset.name, experiment.tagged(cfg)))
        shown += methods
        jobs += plan(experiment, dataset, cfg, methods, args.seeds, CURVES + PROTOCOLS * args.protocols)
    require(shown, f"No method has the config '{args.cfg}'.")
    return columns, [method for method in known if method in shown], jobs


def methods_for(dataset: DataSet, cfg: str, named: Sequence[Method], known: Sequence[Method]) -> list[Method]:
    if not named:
        return with_config(known, cfg, dataset)
    for method in named:
        require_config(method, cfg)
    return list(named)
