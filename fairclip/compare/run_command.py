"""One method on one data set, beside what it is measured by, and a table of all. A finished run is not run again, an
interrupted one goes on.

    fair run fair synth_cars                     FAIR, plain self-training and zero-shot CLIP; seeds 1 2 3
    fair run upl stanford_cars vit_b16 1 2
    TAG=short fair run fair synth_cars -- OPTIM.MAX_EPOCH 2
    fair run fair synth_cars --quick             one seed, 3 epochs, in folders of its own: two minutes for a first look
    fair run --trainer FAIR synth_cars tiny 1    the trainer alone, without a table
"""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import replace

from fairclip.compare.calls import fair_command, relative
from fairclip.compare.checks import check_jobs
from fairclip.compare.forms import as_text
from fairclip.compare.methods import Method, find_method, of_trainer, read_methods, rows_beside
from fairclip.compare.plan import (
    ENVIRONMENT,
    SEEDS,
    DataSet,
    Experiment,
    check_data,
    find_dataset,
    known_datasets,
    plan,
    read_experiment,
    require_config,
    with_config,
)
from fairclip.compare.runner import do_jobs
from fairclip.compare.runs import Column, default_config, run_folder
from fairclip.compare.tables import seed_table
from fairclip.core.errors import UserError, require
from fairclip.core.places import CONFIGS
from fairclip.run.results import read_results

QUICK_EPOCHS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "fair run METHOD DATASET [CFG] [SEED...] [-- KEY VALUE...]"
    add = parser.add_argument
    add("method", metavar="METHOD", help=" ".join(method.key for method in read_methods()))
    add("--trainer", action="store_true", help="METHOD is a trainer, a folder of configs/trainers/, and is run alone")
    add("--quick", action="store_true", help=f"one seed and {QUICK_EPOCHS} epochs, for a first look")
    add_dataset(parser)


def add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help=known_datasets())
    parser.add_argument(
        "words",
        nargs="*",
        metavar="CFG SEED",
        help="a file of configs/trainers/<Trainer>/ (default: tiny for built-in data, vit_b32 otherwise), then seeds "
        "(default: 1 2 3)",
    )
    parser.epilog = ENVIRONMENT


def quick(experiment: Experiment, seeds: Sequence[int], words: Sequence[str]) -> tuple[Experiment, list[int]]:
    """A shorter experiment, which has its own name.

    Raises:
        UserError: what --quick chooses was given, too.
    """
    given = [word for word in words if word.isdecimal()]
    require(not given and not experiment.options and not experiment.tag, "--quick chooses seed, TAG and options itself")
    return replace(experiment, tag="quick", options=("OPTIM.MAX_EPOCH", str(QUICK_EPOCHS))), [seeds[0]]


def config_and_seeds(words: Sequence[str], dataset: DataSet) -> tuple[str, list[int]]:
    """What [CFG] [SEED...] say. Raises UserError for what is no seed."""
    named = bool(words) and not words[0].isdecimal()
    for word in words[named:]:
        require(word.isdecimal(), f"'{word}' is not a seed: seeds are whole numbers. Config options go after --")
    cfg = words[0] if named else default_config(dataset.file)
    return cfg, [int(word) for word in words[named:]] or list(SEEDS)


def asked_for(args: argparse.Namespace, known: Sequence[Method]) -> Method:
    """Raises UserError, with the names to choose from, for a method or trainer that is not there."""
    if not args.trainer:
        return find_method(args.method, known)
    trainers = sorted(path.name for path in (CONFIGS / "trainers").iterdir() if path.is_dir())
    if args.method not in trainers:
        raise UserError(
            f"Unknown trainer '{args.method}': there is no configs/trainers/{args.method}/. Choose one of: "
            f"{' '.join(trainers)}"
        )
    return of_trainer(args.method, known)


def with_descriptions(method: Method, options: Sequence[str]) -> Method:
    """The row of descriptions beside FAIR goes by those that FAIR is given."""
    given = dict(zip(options[::2], options[1::2], strict=True)).get("TRAINER.FAIR.DESCRIPTIONS")
    if method.key != "cupl" or given is None:
        return method
    return replace(method, options=("TRAINER.CUPL.DESCRIPTIONS", given))


def main(args: argparse.Namespace) -> int:
    """Returns the exit status: that of a run that failed, 130 if stopped."""
    known = read_methods()
    method = asked_for(args, known)
    dataset = find_dataset(args.dataset)
    cfg, seeds = config_and_seeds(args.words, dataset)
    require_config(method, cfg)
    experiment = read_experiment(args.options, needs_tag=not args.quick)
    if args.quick:
        experiment, seeds = quick(experiment, seeds, args.words)
    check_data(experiment, dataset)
    methods = [method] if args.trainer else with_config(rows_beside(method, known), cfg, dataset)
    if method.key == "fair":
        methods = [with_descriptions(row, experiment.options) for row in methods]
    jobs = plan(experiment, dataset, cfg, methods, seeds)
    check_jobs(jobs)
    finished = [job for job in jobs if job.finished]
    for job in finished:
        print(f"{job.name}: finished already, accuracy {(read_results(job.folder) or {})['accuracy']:.2f}")
    if finished:
        print("To run one of them again, remove its folder.")
    outcomes, stopped = do_jobs([job for job in jobs if job not in finished], shown=True)
    if stopped:
        return 130
    if failed := next((outcome for outcome in outcomes if outcome.error), None):
        print(f"\n{failed.job.name} failed ({failed.error}). The same command goes on from here.")
        return max(failed.status, 1)
    if not any(job.finished for job in jobs):
        print("\nNo table, as there are no accuracies: the test images have no labels, or TEST.NO_TEST is set.")
    elif not args.trainer:
        column = Column(dataset.name, experiment.tagged(cfg))
        print(f"\n{as_text(seed_table(experiment.output, column, known))}")
        print(what_next(experiment, column, cfg, method, args))
        if args.quick:
            print(
                f"\nThis was a first look: one seed, {QUICK_EPOCHS} epochs. For figures to report, leave out --quick."
            )
    return 0


def what_next(experiment: Experiment, column: Column, cfg: str, method: Method, args: argparse.Namespace) -> str:
    """Where the results are, and what can be done with them."""
    output = experiment.output
    fair, prefix = (
        fair_command(),
        "".join(f"{name}={shlex.quote(value)} " for name, value in experiment.prefix().items()),
    )
    own = run_folder(output, column, method)
    options = f" -- {shlex.join(experiment.options)}" if experiment.options else ""
    report = f"{shlex.quote(relative(output))} --datasets {column.dataset}/{column.config}"
    lines = [
        "",
        f"Results: {relative(output / column.dataset)}, those of {method.name} in {relative(own)}",
        "Next:",
        f"  {prefix}{fair} compare {column.dataset} --cfg {cfg}{options}    # beside the other methods",
        f"  {fair} table {report} --output report.html    # a report of what is there",
    ]
    saved = next((path.parents[1] for path in sorted(own.glob("seed*/*/model.pth.tar-*"))), None)
    if saved is not None:
        lines.insert(3, f"  {fair} predict {shlex.quote(relative(saved))} IMAGES...    # classify images of your own")
    return "\n".join(lines)
