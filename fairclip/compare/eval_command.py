"""Tests saved runs of FAIR again, without training. The log goes to the run's folder, under eval/.

    fair eval synth_cars
    fair eval stanford_cars vit_b16 1 2 -- TRAINER.FAIR.CROP_INFERENCE True
    TAG=plain fair eval synth_cars

The settings are those saved with the run, changed by any options after --. TAG=plain and TAG=aligned name the runs of
plain self-training that `fair run fair` trains beside FAIR (TAG=mine_plain those of TAG=mine).
"""

import argparse

from fairclip.compare.calls import fair_command
from fairclip.compare.methods import find_method, read_methods, variants
from fairclip.compare.plan import (
    Experiment,
    Job,
    check_data,
    find_dataset,
    read_experiment,
    require_config,
)
from fairclip.compare.run_command import add_dataset, config_and_seeds
from fairclip.compare.runner import do_jobs
from fairclip.compare.runs import Column, run_folder
from fairclip.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "fair eval DATASET [CFG] [SEED...] [-- KEY VALUE...]"
    add_dataset(parser)


def main(args: argparse.Namespace) -> int:
    """Returns the exit status: that of a test that failed, 130 if stopped.

    Raises:
        UserError: a run that is not there.
    """
    method, dataset = find_method("fair", read_methods()), find_dataset(args.dataset)
    cfg, seeds = config_and_seeds(args.words, dataset)
    require_config(method, cfg)
    experiment = read_experiment(args.options, needs_tag=False)  # a test changes nothing in the run
    check_data(experiment, dataset)
    parent = run_folder(experiment.output, Column(dataset.name, experiment.tagged(cfg)), method)
    jobs = []
    for seed in dict.fromkeys(seeds):
        saved = parent / f"seed{seed}"
        if not (saved / "config.yaml").is_file():
            prefix = f"TAG={tag} " if (tag := trained_as(experiment)) else ""
            raise UserError(
                f"No run in {saved}. Train it first: {prefix}{fair_command()} run fair {dataset.name} {cfg} {seed}"
            )
        arguments = (
            *("--eval-only", "--model-dir", str(saved), "--output-dir", str(saved / "eval")),
            *("--root", str(experiment.data), "--seed", str(seed), "--trainer", method.trainer),
            *("--config-file", str(saved / "config.yaml"), *experiment.options),
        )
        jobs.append(Job(f"test of {saved}", dataset.name, method.trainer, saved / "eval", arguments))
    outcomes, stopped = do_jobs(jobs, shown=True)
    return 130 if stopped else max((max(outcome.status, 1) for outcome in outcomes if outcome.error), default=0)


def trained_as(experiment: Experiment) -> str:
    """The TAG of the call that trained the runs: what `fair run` itself appends is not part of it."""
    tag = f"_{experiment.tag}"
    for variant in variants():
        tag = tag.removesuffix(f"_{variant}")
    return tag.removeprefix("_")
