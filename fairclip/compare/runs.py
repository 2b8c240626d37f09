"""Finished runs, read from their folders: OUTPUT/<dataset>/<trainer>/<config>[_<variant>]/seed<k>/results.json."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fairclip.compare.methods import Method
from fairclip.core.errors import UserError, require
from fairclip.core.reading import read_yaml
from fairclip.run.finished import flatten
from fairclip.run.results import LATER_KEYS, NOT_HASHED, read_predictions, read_results


@dataclass(frozen=True)
class Column:
    """A data set, and the config whose runs are compared on it."""

    dataset: str
    config: str


@dataclass
class Run:
    """A finished run."""

    folder: Path
    seed: int
    results: dict[str, Any]

    @cached_property
    def settings(self) -> dict[str, Any] | None:
        """The content of config.yaml, flat: "OPTIM.LR" -> 0.001. None if there is no such file."""
        path = self.folder / "config.yaml"
        if not path.exists():
            return None
        return dict(flatten(read_yaml(path, "the config of a run", "Remove the run's folder to run it again")))

    @property
    def config(self) -> dict[str, Any] | None:
        """The settings that decide the result: not the seed, nor places, nor other trainers' nodes."""
        own = ("NAME", str(self.results.get("trainer", "")).upper())
        return self.settings and {
            key: value
            for key, value in (LATER_KEYS | self.settings).items()
            if key not in NOT_HASHED and not (key.startswith("TRAINER.") and key.split(".")[1] not in own)
        }

    @cached_property
    def predictions(self) -> list[tuple[str, str, str]] | None:
        """Image, label and prediction of each test image; None if there is no predictions.csv."""
        return read_predictions(self.folder)


@dataclass
class Cell:
    """The runs of one method on one data set."""

    runs: dict[int, Run] = field(default_factory=dict)  # by seed, in order
    missing: list[int] = field(default_factory=list)  # seeds that others have
    differences: str = ""  # in what the runs differ besides the seed; such are not averaged

    @property
    def accuracies(self) -> dict[int, float]:
        """Test accuracy in percent, by seed; empty if the runs must not be averaged."""
        return {} if self.differences else {seed: run.results["accuracy"] for seed, run in self.runs.items()}

    @property
    def crop_accuracies(self) -> dict[int, float]:
        """The same with crops in the test too (FAIR's CROP_INFERENCE); empty unless all runs report it."""
        found = {s: run.results["crop_accuracy"] for s, run in self.runs.items() if "crop_accuracy" in run.results}
        whole = len(found) == len(self.runs) and None not in found.values()
        return found if whole and not self.differences else {}


def load_runs(folder: Path) -> dict[int, Run]:
    """The finished runs of one trainer and config, in order of seed."""
    found = {}
    for path in folder.glob("seed*"):
        seed = path.name.removeprefix("seed")
        if seed.isdecimal() and (results := read_results(path)) is not None:
            found[int(seed)] = Run(path, int(seed), results)
    return dict(sorted(found.items()))


# -- What is there -----------------------------------------------------------------------------------------------------


def find_datasets(output: Path) -> list[str]:
    return sorted({path.parents[3].name for path in output.glob("*/*/*/seed*/results.json")})


def find_configs(dataset: Path, methods: Sequence[Method]) -> list[str]:
    """The configs that have a finished run. The folder of a variant is a row of its config, not a config."""
    found = set()
    for path in dataset.glob("*/*/seed*/results.json"):
        config, trainer = path.parents[1].name, path.parents[2].name
        for method in methods:
            if method.variant and method.trainer == trainer:
                config = config.removesuffix(f"_{method.variant}")
        found.add(config)
    return sorted(found)


def default_config(dataset: str) -> str:
    return "tiny" if dataset.startswith("synth_") else "vit_b32"


def choose_columns(output: Path, names: Sequence[str], config: str, methods: Sequence[Method]) -> list[Column]:
    """A column for each data set.

    Args:
        names: data sets, with "/<config>" or without; empty: all that have runs.
        config: the config of those that are named without; "": the usual one if it has runs, else the only one.

    Raises:
        UserError: there are no runs, or several configs and none is the usual one.
    """
    columns = []
    for name in names or find_datasets(output):
        dataset, _, own = name.partition("/")
        own = own or config
        require("/" not in own and dataset not in ("", ".", ".."), f"'{name}' is no data set, nor data set/config")
        if not own:
            found = find_configs(output / dataset, methods)
            usual = default_config(dataset)
            if len(found) > 1 and usual not in found:
                raise UserError(
                    f"{dataset} has runs of several configs: {', '.join(found)}. Choose with --cfg, or by "
                    f"--datasets {dataset}/{found[0]}"
                )
            own = found[0] if len(found) == 1 else usual
        elif not names and own not in find_configs(output / dataset, methods):
            continue  # of all data sets, those that have this config
        columns.append(Column(dataset, own))
    if not columns:
        raise UserError(f"there is no finished run{f' of config {config!r}' if config else ''} in {output}")
    return list(dict.fromkeys(columns))


def choose_methods(
    output: Path, columns: Sequence[Column], names: Sequence[str], table: Sequence[Method]
) -> list[Method]:
    """The methods that were named (by key or trainer), or all with a finished run in one of the columns.

    Args:
        table: the methods that are known; trainers with runs that it lacks follow under their own names.

    Raises:
        UserError: there is no method of that name.
    """
    known = list(table)
    others = {
        path.parents[2].name
        for column in columns
        for path in (output / column.dataset).glob(f"*/{column.config}/seed*/results.json")
    }
    known += [Method(name, name, "", False, name) for name in sorted(others - {m.trainer for m in known})]
    if not names:
        return [m for m in known if any(load_runs(run_folder(output, column, m)) for column in columns)]
    chosen = []
    for name in names:
        found = [m for m in known if name == m.key] or [m for m in known if name == m.trainer and not m.variant]
        if not found:
            raise UserError(f"unknown method '{name}'. Choose from: {', '.join(m.key for m in known)}")
        chosen += found
    return [m for m in known if m in chosen]  # in the usual order


def run_folder(output: Path, column: Column, method: Method) -> Path:
    """The folder that holds the seed<k> folders."""
    return output / column.dataset / method.trainer / (column.config + (f"_{method.variant}" if method.variant else ""))
