"""Prints the finished runs of a data set as a table: python scripts/table.py OUTPUT/DATASET [CONFIG ...]

Reads OUTPUT/DATASET/<trainer>/<config>/seed<k>/results.json. Without CONFIG, every config with results gets one.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainers.modules.errors import UserError  # noqa: E402
from trainers.modules.results import read_results  # noqa: E402

DESCRIBED = "Zero-shot, descriptions"
# Row name, trainer, what follows the config in the folder name, whether it is a zero-shot reference.
ROWS = (
    ("Zero-shot, class names", "ZeroshotCLIP", "", True),
    ("Zero-shot, template ensemble", "ZeroshotCLIP2", "", True),
    (DESCRIBED, "CuPL", "", True),
    ("Plain self-training", "FAIR", "_plain", False),
    ("FAIR", "FAIR", "", False),
)

Runs = dict[int, dict[str, Any]]  # seed -> results


def load_runs(folder: Path) -> Runs:
    """The finished runs of one trainer and config, in order of seed."""
    found = {}
    for run in folder.glob("seed*"):
        seed = run.name.removeprefix("seed")
        if seed.isdigit() and (results := read_results(run)) is not None:
            found[int(seed)] = results
    return dict(sorted(found.items()))


def find_configs(dataset: Path) -> list[str]:
    """The configs that have a finished run. A `_plain` folder is a row of its config, not a config."""
    found = {run.parents[1].name for run in dataset.glob("*/*/seed*/results.json")}
    return sorted({config.removesuffix("_plain") for config in found})


def mean_sd(values: list[float]) -> str:
    """Mean ± sample standard deviation; the mean alone for a single value."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def make_table(dataset: Path, config: str) -> str:
    """One row for each method with finished runs, accuracies in percent.

    The gain is the mean accuracy less that of the best zero-shot row. Zero-shot results do not depend on the seed, so
    they fill no seed columns.

    Raises:
        UserError: if there is no finished run.
    """
    rows = [(name, load_runs(dataset / trainer / (config + suffix)), reference)
            for name, trainer, suffix, reference in ROWS]
    rows = [row for row in rows if row[1]]
    if not rows:
        raise UserError(f"No finished run of config '{config}' in {dataset}.")
    seeds = sorted({seed for _, runs, reference in rows if not reference for seed in runs})
    zero_shot = [run["accuracy"] for _, runs, reference in rows if reference for run in runs.values()]

    lines, notes = [], []
    for name, runs, reference in rows:
        accuracy = {seed: run["accuracy"] for seed, run in runs.items()}
        shown = list(accuracy.values())[:1] if reference else list(accuracy.values())
        gain = "" if reference or not zero_shot else f"{statistics.mean(shown) - max(zero_shot):+.2f}"
        by_seed = ["" if reference or seed not in accuracy else f"{accuracy[seed]:.2f}" for seed in seeds]
        f1 = statistics.mean(run["macro_f1"] for run in runs.values())
        lines.append([name, *by_seed, mean_sd(shown), gain, f"{f1:.2f}"])
        if len({run.get("config_hash") for run in runs.values()}) > 1:
            notes.append(f"Caution: the runs of '{name}' differ in their settings (config_hash).")
        if len({str(run.get("descriptions")) for run in runs.values()}) > 1:
            notes.append(f"Caution: the runs of '{name}' differ in their class descriptions.")
        if name == DESCRIBED and any(run.get("descriptions", "") is None for run in runs.values()):
            notes.append(f"Note: there are no class descriptions, so '{name}' goes by the names too.")
    head = ["Method", *(f"Seed {seed}" for seed in seeds), "Accuracy", "Gain", "Macro-F1"]
    backbones = sorted({str(run["backbone"]) for _, runs, _ in rows for run in runs.values()})
    title = f"{dataset.name}, {config} (CLIP {', '.join(backbones)}), test accuracy in %, last epoch"
    align = ["left"] + ["right"] * (len(head) - 1)
    table = tabulate(lines, head, tablefmt="github", colalign=align, disable_numparse=True)
    return "\n".join([title, "", table, *notes])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Prints the finished runs of a data set as a table.")
    parser.add_argument("dataset", type=Path, metavar="OUTPUT/DATASET", help="the results of one data set")
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help="default: all that have results")
    args = parser.parse_args(arguments)
    configs = args.configs or find_configs(args.dataset)
    if not configs:
        raise UserError(f"No finished run in {args.dataset}.")
    for config in configs:
        print(f"\n{make_table(args.dataset, config)}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"{error}")
