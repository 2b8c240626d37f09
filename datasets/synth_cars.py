"""SynthCars: the built-in fine-grained data set, rendered on first use (see fairclip/data/synth)."""

import random

from dassl.data.datasets import DATASET_REGISTRY, Datum
from yacs.config import CfgNode

from fairclip.core.errors import require
from fairclip.core.places import DESCRIPTIONS
from fairclip.data import synth
from fairclip.data.labelled import SplitDataset, by_label
from fairclip.data.settings import data_root

SPLIT = "split_zhou_SynthCars.json"
SENTENCES = DESCRIPTIONS / "synth_cars.json"  # of seed 0


def extend_cfg(cfg: CfgNode) -> None:
    """DATASET.SYNTH_SEED: 0 is the data set of the result tables; another seed gives other cars, names and images.
    DATASET.SYNTH_LIGHT: light or weather of the images, one of `LIGHTS` (fairclip/data/synth/lights.py).
    DATASET.SYNTH_TAIL: how many times as many training images the largest class has as the smallest; 1: all alike."""
    cfg.DATASET.SYNTH_SEED = 0
    cfg.DATASET.SYNTH_LIGHT = synth.BLUE_HOUR
    cfg.DATASET.SYNTH_TAIL = 1.0


@DATASET_REGISTRY.register()
class SynthCars(SplitDataset):
    """Side views of invented car models whose trims differ in small parts.

    `descriptions_file` names the JSON file with the class descriptions.
    """

    dataset_dir = "synth_cars"

    def __init__(self, cfg: CfgNode) -> None:
        # Absent where extend_cfg was not called, as in CoOp's train.py.
        seed, light = cfg.DATASET.get("SYNTH_SEED", 0), cfg.DATASET.get("SYNTH_LIGHT", synth.BLUE_HOUR)
        require(light in synth.LIGHTS, f"DATASET.SYNTH_LIGHT is '{light}'. Choose one of: {' '.join(synth.LIGHTS)}")
        folder = data_root(cfg) / self.folder_name(seed, light)
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            synth.render_dataset(folder, seed, light)
        # The renderer writes the same sentences, for other seeds and for checkouts that lack the file.
        shipped = seed == 0 and SENTENCES.is_file()
        self.descriptions_file = SENTENCES if shipped else folder / "descriptions.json"
        super().__init__(
            cfg, folder / SPLIT, folder / "images", f"Delete {folder} and run again: it is rendered anew in a minute."
        )
        if (tail := cfg.DATASET.get("SYNTH_TAIL", 1.0)) != 1:
            require(tail > 1, f"DATASET.SYNTH_TAIL {tail}: a ratio of sizes, 1 or more")
            self._train_x = long_tail(self.train_x, tail, seed)

    @classmethod
    def folder_name(cls, seed: int, light: str) -> str:
        """ "synth_cars", "synth_cars_s5", "synth_cars_s5_fog"."""
        return cls.dataset_dir + (f"_s{seed}" if seed else "") + (f"_{light}" if light != synth.BLUE_HOUR else "")


def long_tail(items: list[Datum], ratio: float, seed: int) -> list[Datum]:
    """A part of the items whose class sizes fall geometrically to 1/ratio of the largest, in an order that the seed
    draws; within a class the first items stay."""
    groups = by_label(items)
    order = random.Random(f"tail {seed}").sample(list(groups), len(groups))
    shares = {label: ratio ** (-place / max(1, len(groups) - 1)) for place, label in enumerate(order)}
    return [item for label, group in groups.items() for item in group[: max(1, round(shares[label] * len(group)))]]
