"""Finished runs, read from their folders: OUTPUT/<dataset>/<trainer>/<config>[_<variant>]/seed<k>/results.json."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from fairclip.core.errors import UserError
from fairclip.core.places import CONFIGS
from fairclip.run.results import NOT_HASHED, PREDICTIONS, read_results

METHODS_FILE = Path(os.environ.get("METHODS_FILE") or CONFIGS / "methods.txt")
# Groups of methods, in order. Only the first is ranked.
INDUCTIVE, TRANSDUCTIVE, LABELLED = range(3)
ABSENT = "absent"  # stands for a config key that a run does not have

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast


@dataclass(frozen=True)
class Method:
    """A row of the tables: a line of methods.txt, or a trainer that is not there."""

    key: str
    trainer: str
    variant: str  # follows the config in the folder's name, after "_"
    once: bool  # the result does not depend on the seed
    name: str
    zero_shot: bool = False  # nothing is fitted: what gains are measured from


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
        try:
            return dict(flatten(yaml.load((self.folder / "config.yaml").read_text(encoding="utf-8"), Loader)))
        except FileNotFoundError:
            return None
        except (yaml.YAMLError, AttributeError) as error:  # not YAML, or no mapping
            raise UserError(f"{self.folder / 'config.yaml'} cannot be read: {error}") from error

    @property
    def config(self) -> dict[str, Any] | None:
        """The settings that decide the result: not the seed, nor places, nor other trainers' nodes."""
        own = ("NAME", str(self.results.get("trainer", "")).upper())
        return self.settings and {
            key: value
            for key, value in self.settings.items()
            if key not in NOT_HASHED and not (key.startswith("TRAINER.") and key.split(".")[1] not in own)
        }

    @cached_property
    def predictions(self) -> list[tuple[str, str, str]] | None:
        """Image, label and prediction of each test image; None if there is no predictions.csv."""
        try:
            with open(self.folder / PREDICTIONS, encoding="utf-8", newline="") as stream:
                return [(row["image"], row["label"], row["prediction"]) for row in csv.DictReader(stream)]
        except FileNotFoundError:
            return None
        except KeyError as error:
            raise UserError(f"{self.folder / PREDICTIONS} has no column {error}") from error


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
        found = {seed: run.results.get("crop_accuracy") for seed, run in self.runs.items()}
        return {} if self.differences or None in found.values() else found


def flatten(node: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_methods(path: Path = METHODS_FILE) -> list[Method]:
    """The methods of methods.txt, in its order."""
    methods = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            key, trainer, variant, runs, name = (text.strip() for text in line.split("|")[:5])
            methods.append(Method(key, trainer, variant, runs != "seeds", name, runs == "zero-shot"))
    return methods


def load_runs(folder: Path) -> dict[int, Run]:
    """The finished runs of one trainer and config, in order of seed."""
    found = {}
    for path in folder.glob("seed*"):
        seed = path.name.removeprefix("seed")
        if seed.isdigit() and (results := read_results(path)) is not None:
            for name in ("accuracy", "macro_f1"):
                if not isinstance(results.get(name), (int, float)):
                    raise UserError(f"{path / 'results.json'} has no number '{name}'. Delete the file to run again.")
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


def choose_methods(output: Path, columns: Sequence[Column], names: Sequence[str]) -> list[Method]:
    """The methods that were named (by key or trainer), or all with a finished run in one of the columns.

    Raises:
        UserError: there is no method of that name.
    """
    known = read_methods()
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


# -- Runs that must not be averaged ------------------------------------------------------------------------------------


def describe_differences(runs: Mapping[int, Run]) -> str:
    """In what the settings of the runs differ besides the seed, as text; "" if in nothing.

    As long as all have one config_hash they agree; otherwise config.yaml says which keys differ.
    """
    texts = []
    if len({run.results.get("config_hash") for run in runs.values()}) > 1:
        if lacking := [seed for seed, run in runs.items() if run.config is None]:
            texts.append(f"settings (no config.yaml of {_seeds(lacking)} to say which)")
        else:
            configs = {seed: run.config or {} for seed, run in runs.items()}
            keys = sorted({key for config in configs.values() for key in config})
            for key in keys:
                values = {seed: config.get(key, ABSENT) for seed, config in configs.items()}
                if len({repr(value) for value in values.values()}) > 1:
                    texts.append(f"{key}: {_by_value(values)}")
            if not texts:
                hashes = {seed: run.results.get("config_hash") for seed, run in runs.items()}
                texts.append(f"config_hash: {_by_value(hashes)}")
    described = {seed: _checksum(run) for seed, run in runs.items()}
    if len(set(described.values())) > 1:
        texts.append(f"class descriptions (SHA-256): {_by_value(described)}")
    return "; ".join(texts)


def _checksum(run: Run) -> str:
    descriptions = run.results.get("descriptions")
    return descriptions.get("sha256", "")[:12] if isinstance(descriptions, Mapping) else "none"


def _seeds(seeds: Sequence[int]) -> str:
    return ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(map(str, seeds))


def _by_value(values: Mapping[int, Any]) -> str:
    """ "8 (seeds 1, 2), 6 (seed 3)"."""
    groups: dict[str, list[int]] = {}
    for seed, value in values.items():
        groups.setdefault(str(value) or "''", []).append(seed)
    return ", ".join(f"{value} ({_seeds(seeds)})" for value, seeds in groups.items())


# -- The comparison ----------------------------------------------------------------------------------------------------


@dataclass
class Comparison:
    """Methods against data sets."""

    columns: list[Column]
    methods: list[Method]  # grouped: inductive, transductive, with labels
    cells: dict[tuple[Method, Column], Cell]

    def cell(self, method: Method, column: Column) -> Cell:
        return self.cells[method, column]

    def group(self, method: Method) -> int:
        """INDUCTIVE, TRANSDUCTIVE or LABELLED, as the results say."""
        results = [run.results for column in self.columns for run in self.cell(method, column).runs.values()]
        if any(r.get("uses_labels") for r in results):
            return LABELLED
        return TRANSDUCTIVE if any(r.get("transductive") for r in results) else INDUCTIVE

    def backbones(self, column: Column) -> list[str]:
        """The backbones of the column's runs; more than one makes them incomparable."""
        found = {
            str(run.results.get("backbone"))
            for method in self.methods
            for run in self.cell(method, column).runs.values()
        }
        return sorted(found)


def load_comparison(
    output: Path, columns: Sequence[Column], methods: Sequence[Method], seeds: Sequence[int] = ()
) -> Comparison:
    """All cells. Without ``seeds``, those that any method has on a data set are expected of the others too."""
    cells = {}
    for column in columns:
        found = {}
        for method in methods:
            runs = load_runs(run_folder(output, column, method))
            if method.once:
                found[method] = dict(list(runs.items())[:1])
            else:
                found[method] = {seed: run for seed, run in runs.items() if not seeds or seed in seeds}
        expected = sorted(set(seeds) or {seed for m, runs in found.items() if not m.once for seed in runs})
        for method, runs in found.items():
            missing = [] if method.once else [seed for seed in expected if seed not in runs]
            cells[method, column] = Cell(runs, missing, describe_differences(runs))
    comparison = Comparison(list(columns), list(methods), cells)
    comparison.methods.sort(key=comparison.group)  # stable
    return comparison


# The settings that all methods in a column must share. Few-shot references have another DATASET.NUM_SHOTS.
SHARED = ("DATASET.", "MODEL.BACKBONE.NAME", "TEST.SPLIT")
NOT_SHARED = ("DATASET.NUM_SHOTS",)


def column_differences(comparison: Comparison, column: Column) -> list[str]:
    """What keeps the methods of a column from being compared like for like: "DATASET.SPLIT: zhou (FAIR), …"."""
    first = {m: next(iter(comparison.cell(m, column).runs.values()), None) for m in comparison.methods}
    configs = {m: run.config for m, run in first.items() if run is not None and run.config is not None}
    texts = []
    for key in sorted({key for config in configs.values() for key in config}):
        if key.startswith(SHARED) and key not in NOT_SHARED:
            texts += _differences(key, {m: config.get(key, ABSENT) for m, config in configs.items()})
    described = {m: _checksum(run) for m, run in first.items() if run is not None}
    used = {m: checksum for m, checksum in described.items() if checksum != "none"}
    return texts + _differences("class descriptions (SHA-256)", used)


def _differences(what: str, values: Mapping[Method, Any]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for method, value in values.items():
        groups.setdefault(str(value) or "''", []).append(method.name)
    if len(groups) < 2:
        return []
    return [f"{what}: " + ", ".join(f"{value} ({', '.join(names)})" for value, names in groups.items())]
