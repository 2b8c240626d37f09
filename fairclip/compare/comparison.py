"""Methods against data sets: all their runs, and what keeps some from being averaged or compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairclip.compare.methods import Method
from fairclip.compare.runs import Cell, Column, Run, load_runs, run_folder

# Groups of methods, in order. Each of the label-free ones is ranked by itself.
INDUCTIVE, TRANSDUCTIVE, STREAM, LABELLED = range(4)
RANKED = (INDUCTIVE, TRANSDUCTIVE, STREAM)
ABSENT = "absent"  # stands for a config key that a run does not have


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
    methods: list[Method]  # grouped: inductive, transductive, stream, with labels
    cells: dict[tuple[Method, Column], Cell]

    def cell(self, method: Method, column: Column) -> Cell:
        return self.cells[method, column]

    def group(self, method: Method) -> int:
        """INDUCTIVE, TRANSDUCTIVE, STREAM or LABELLED, as the results say."""
        results = [run.results for column in self.columns for run in self.cell(method, column).runs.values()]
        if any(r.get("uses_labels") for r in results):
            return LABELLED
        if any(r.get("stream") for r in results):
            return STREAM
        return TRANSDUCTIVE if any(r.get("transductive") for r in results) else INDUCTIVE

    def runs(self) -> list[Run]:
        return [run for m in self.methods for c in self.columns for run in self.cell(m, c).runs.values()]

    def several_seeds(self) -> bool:
        """Whether any method has more than one run on a data set, so that there are deviations."""
        return any(len(cell.runs) > 1 for cell in self.cells.values())

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
