"""A task as a data set of Dassl's: unlabelled images, and nothing to test on. Import it after a Dassl is chosen."""

import json
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from yacs.config import CfgNode

from fairclip.adapting.task import read_task
from fairclip.core.errors import require
from fairclip.core.files import atomic
from fairclip.data.labelled import LabelledDataset, drop_corrupt
from fairclip.data.own_folder import UNLABELLED


@DATASET_REGISTRY.register()
class Unlabelled(LabelledDataset):
    """The task in DATASET.ROOT. The images are a person's own, and so turned upright. They are those to predict, too:
    without labels, so there is no accuracy.

    Raises:
        UserError: not one image can be decoded.
    """

    upright = True  # as predictions see them

    def __init__(self, cfg: CfgNode) -> None:
        root = Path(cfg.DATASET.ROOT)
        task = read_task(root)
        if task.descriptions:
            self.descriptions_file = root / "descriptions.json"
            if not self.descriptions_file.is_file():
                write_descriptions(task.descriptions, self.descriptions_file)
        items = {"train": [(path, UNLABELLED) for path in task.images], "val": [], "test": []}
        kept = drop_corrupt(cfg, "these images", items)["train"]
        require(kept, f"not one of the {len(task.images)} images can be decoded")
        self._all_names = task.classes  # LabelledDataset takes the classes from here
        images = [Datum(impath=path, label=UNLABELLED) for path, _ in kept]
        DatasetBase.__init__(self, train_x=images, val=None, test=images)


def write_descriptions(descriptions: dict[str, list[str]], file: Path) -> None:
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(descriptions, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
