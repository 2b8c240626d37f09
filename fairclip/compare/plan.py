"""Which runs belong to a comparison: data sets x methods x seeds, each with its folder and its arguments."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairclip.compare.methods import Method, variants
from fairclip.compare.runs import Column, run_folder
from fairclip.compare.suites import read_suites
from fairclip.core.errors import UserError, require
from fairclip.core.invocation import fair_command
from fairclip.core.places import CONFIGS, DATA
from fairclip.data.synth.lights import BLUE_HOUR, LIGHTS

OUTPUT = DATA.with_name("output")  # where results go by default
SEEDS = (1, 2, 3)
OTHER_LIGHTS = [light for light in LIGHTS if light != BLUE_HOUR]
ANOTHER_RENDER = re.compile(rf"(synth_cars)_s([1-9][0-9]*)(?:_({'|'.join(OTHER_LIGHTS)}))?")
ENVIRONMENT = f"""environment variables:
  DATA      the folder with all data sets  (default: {DATA})
  OUTPUT    the folder for the results     (default: {OUTPUT})
  TAG       results go to <CFG>_<TAG> instead of <CFG>; needed with KEY VALUE
"""


def names_in(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def known_datasets() -> str:
    """For people."""
    files = " ".join(names_in(CONFIGS / "datasets"))
    return f"{files} synth_cars_s<N> synth_cars_s<N>_<{'|'.join(OTHER_LIGHTS)}>"


def known_suites() -> str:
    """For people."""
    return ", ".join(f"{name} ({len(beds)} data sets)" for name, beds in read_suites().items())


def configs_of(trainer: str) -> list[str]:
    """Without those of variants, which ``config_file`` finds."""
    ends = tuple(f"_{variant}" for variant in variants())
    return [name for name in names_in(CONFIGS / "trainers" / trainer) if not name.endswith(ends)]


def config_file(method: Method, cfg: str) -> Path:
    """The variant's own file, where there is one: settings of one backbone do not belong into the row of all."""
    folder = CONFIGS / "trainers" / method.trainer
    own = folder / f"{cfg}_{method.variant}.yaml"
    return own if own.is_file() else folder / f"{cfg}.yaml"


@dataclass(frozen=True)
class DataSet:
    """A file of configs/datasets/, or the built-in set rendered with another seed, perhaps in another light."""

    name: str  # of the folder of its results
    file: str  # of configs/datasets/, without its ending
    options: tuple[str, ...] = ()  # KEY, VALUE

    @property
    def built_in(self) -> bool:
        """It is made on demand."""
        return self.file.startswith("synth_")


def find_dataset(name: str) -> DataSet:
    """Raises UserError, with the names to choose from, for one that is not there."""
    if match := ANOTHER_RENDER.fullmatch(name):
        file, seed, light = match.groups()
        return DataSet(name, file, ("DATASET.SYNTH_SEED", seed, *(("DATASET.SYNTH_LIGHT", light) if light else ())))
    if name not in names_in(CONFIGS / "datasets"):
        raise UserError(
            f"Unknown data set '{name}'. Choose one of: {known_datasets()}. {fair_command()} compare also takes "
            f"{known_suites()}"
        )
    return DataSet(name, name)


@dataclass(frozen=True)
class Experiment:
    """What all runs of a call share: places, and what makes them different from the usual ones."""

    data: Path
    output: Path
    tag: str = ""
    options: tuple[str, ...] = ()  # KEY, VALUE, ...

    def tagged(self, cfg: str) -> str:
        """The config's name in the folders of the results."""
        return f"{cfg}_{self.tag}" if self.tag else cfg

    def prefix(self) -> dict[str, str]:
        """The environment variables that name this experiment in another command."""
        own = {"DATA": str(self.data), "OUTPUT": str(self.output), "TAG": self.tag}
        usual = {"DATA": str(DATA.absolute()), "OUTPUT": str(OUTPUT.absolute()), "TAG": ""}
        return {name: value for name, value in own.items() if value != usual[name]}


def read_experiment(
    options: Sequence[str], environment: Mapping[str, str] = os.environ, needs_tag: bool = True
) -> Experiment:
    """DATA, OUTPUT and TAG of the environment, and the config keys that the user gave after "--".

    Args:
        needs_tag: whether results are written, so that other settings need a folder of their own.

    Raises:
        UserError: keys without values or without TAG, or a TAG that is taken.
    """
    tag = environment.get("TAG", "")
    require(len(options) % 2 == 0, f"The options after -- come in pairs, KEY VALUE. Got: {' '.join(options)}")
    require(
        re.fullmatch(r"[A-Za-z0-9._-]*", tag), f"TAG is '{tag}'. Use letters, digits, dots, dashes and underscores."
    )
    if needs_tag:
        require(
            tag or not options,
            "Options after -- make another experiment, which needs a folder of its own: put TAG=name before the call",
        )
        for variant in variants():
            require(
                not f"_{tag}".endswith(f"_{variant}"),
                f"TAG={tag} ends in '{variant}', as a variant's folders do (configs/methods.txt). Choose another name.",
            )
    # Absolute, so that a command that is shown can be run from anywhere.
    data, output = (
        Path(environment.get(name) or default).absolute() for name, default in (("DATA", DATA), ("OUTPUT", OUTPUT))
    )
    return Experiment(data, output, tag, tuple(options))


def check_data(experiment: Experiment, dataset: DataSet) -> None:
    """A folder that was named must be there: it may be a typo. The built-in data set is made on demand.

    Raises:
        UserError: there is no such folder.
    """
    data = experiment.data
    if not (data.is_dir() or data == DATA.absolute() or dataset.built_in):
        raise UserError(f"DATA={data} does not exist. It should be the folder that holds all data sets.")


# -- Runs --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A run to do: `fair train` with these arguments."""

    name: str  # for people: "FAIR, synth_cars, tiny, seed 1"
    dataset: str
    trainer: str
    folder: Path
    arguments: tuple[str, ...]

    @property
    def finished(self) -> bool:
        return (self.folder / "results.json").is_file()


def has_config(method: Method, cfg: str) -> bool:
    return cfg in configs_of(method.trainer)


def require_config(method: Method, cfg: str) -> None:
    """Raises UserError, with the configs to choose from, if the method's trainer does not have this one."""
    have = configs_of(method.trainer)
    require(have, f"There are no configs of {method.trainer} in {CONFIGS / 'trainers'}.")
    if cfg not in have:
        raise UserError(f"There is no config '{cfg}' of '{method.key}'. Choose one of: {' '.join(have)}")


def with_config(methods: Sequence[Method], cfg: str, dataset: DataSet) -> list[Method]:
    """Those of the methods that have the config; says which do not."""
    without = [method.key for method in methods if not has_config(method, cfg)]
    if without:
        print(f"{dataset.name}: there is no config '{cfg}' of {' '.join(without)}: left out.", file=sys.stderr)
    return [method for method in methods if method.key not in without]


def plan(
    experiment: Experiment,
    dataset: DataSet,
    cfg: str,
    methods: Sequence[Method],
    seeds: Sequence[int],
    options: Sequence[str] = (),
) -> list[Job]:
    """All runs of some methods on a data set, finished or not, method by method.

    Args:
        options: config keys of all these runs, besides those of the data set, the experiment and the methods.
    """
    jobs = []
    for method in methods:
        parent = run_folder(experiment.output, Column(dataset.name, experiment.tagged(cfg)), method)
        for seed in seeds_of(method, parent, seeds):
            folder = parent / f"seed{seed}"
            jobs.append(
                Job(
                    f"{method.name}, {dataset.name}, {experiment.tagged(cfg)}, seed {seed}",
                    dataset.name,
                    method.trainer,
                    folder,
                    (
                        *("--root", str(experiment.data), "--output-dir", str(folder), "--seed", str(seed)),
                        *("--trainer", method.trainer),
                        *("--dataset-config-file", str(CONFIGS / "datasets" / f"{dataset.file}.yaml")),
                        *("--config-file", str(config_file(method, cfg))),
                        # The last of a key counts.
                        *for_trainer(method.trainer, (*dataset.options, *options, *experiment.options)),
                        *method.options,
                    ),
                )
            )
    return jobs


def for_trainer(trainer: str, options: Sequence[str]) -> list[str]:
    """The KEY VALUE pairs without those of other trainers' nodes: what a call says of FAIR is not said to CuPL."""
    folders = [folder.name for folder in (CONFIGS / "trainers").iterdir() if folder.is_dir()]
    others = {f"TRAINER.{name.upper()}" for name in folders} - {f"TRAINER.{trainer.upper()}"}
    pairs = zip(options[::2], options[1::2], strict=True)
    return [word for pair in pairs if pair[0].rpartition(".")[0] not in others for word in pair]


def seeds_of(method: Method, parent: Path, seeds: Sequence[int]) -> list[int]:
    """The seeds that a method runs with. Where the seed does not matter, one run is enough, whichever is there."""
    if not method.once:
        return list(dict.fromkeys(seeds))
    names = (path.parent.name.removeprefix("seed") for path in parent.glob("seed*/results.json"))
    finished = sorted(int(name) for name in names if name.isdecimal())
    return [seed for seed in seeds if seed in finished][:1] or finished[:1] or list(seeds[:1])
