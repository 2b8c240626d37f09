"""ImageFolder: a user's own images, in train/ and test/ folders.

<DATASET.ROOT>/<DATASET.FOLDER>/
    train/<class>/*.jpg   or, without labels, train/*.jpg
    test/<class>/*.jpg    what the result is measured on; without it, val/<class>/;
                          with TEST.NO_TEST True it may be absent;
                          test/*.jpg, without labels, get predictions and no accuracy
    classes.txt           needed without labels: one class a line, in the order of the labels; where its folder has
                          another name, that follows behind a tab
    labels.csv            instead of class folders: a line for each image, in the columns path,label[,split]
    descriptions.json     optional: class name -> list of sentences
"""

import os

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from yacs.config import CfgNode

from fairclip.core.errors import UserError, few
from fairclip.data.folders import find_below
from fairclip.data.labelled import LabelledDataset, datum, drop_corrupt
from fairclip.data.messages import tell_once, warn_once
from fairclip.data.own_folder import UNLABELLED, read_own_folder
from fairclip.data.settings import data_root
from fairclip.data.splits import Items


def extend_cfg(cfg: CfgNode) -> None:
    """DATASET.FOLDER: the folder of the images below DATASET.ROOT; "" for DATASET.ROOT itself.
    DATASET.LABELS: the file of labels in that folder; "" for labels.csv, if it is there.
    DATASET.UPRIGHT: whether these images are turned as the camera noted (EXIF), and transparent parts shown on white.
    The benchmark data sets are always read as they are stored, which is their protocol."""
    cfg.DATASET.FOLDER = ""
    cfg.DATASET.LABELS = ""
    cfg.DATASET.UPRIGHT = True


@DATASET_REGISTRY.register()
class ImageFolder(LabelledDataset):
    """Classes are named after their folders (underscores become spaces, numbers that only count are left out, 2
    comes before 10) or by `classes.txt`.

    Training images without labels have label -1 and no class name; `num_classes`, `classnames` and `lab2cname` come
    from the class list all the same. `descriptions_file` is there if the folder has a `descriptions.json`,
    and `upright` says how the images are to be read.

    Raises:
        UserError: no images, no test images, folders that are no classes, images that cannot be decoded.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.upright = cfg.DATASET.get("UPRIGHT", True)
        folder, tested = os.path.expanduser(cfg.DATASET.get("FOLDER", "")), not cfg.TEST.NO_TEST
        root = data_root(cfg)
        place = root / folder
        if not place.is_dir():  # it may be written in another Unicode form than on disk
            place = find_below(root, folder) or place
        own = read_own_folder(place, cfg.DATASET.get("LABELS", ""), tested)
        if own.descriptions:
            self.descriptions_file = own.descriptions
        tell_once(f"ImageFolder: {own.summary()}")
        items = drop_corrupt(cfg, "ImageFolder", own.items)
        if not items["train"] or (tested and not items["test"]):
            raise UserError(f"{own.home} has no training or no test image that can be decoded")
        if not own.labelled:
            self._init_unlabelled(cfg, items, own.names)
            return
        trained = {label for _, label in items["train"]}
        if empty := [name for label, name in enumerate(own.names) if label not in trained]:
            warn_once(f"ImageFolder: {len(empty)} classes have no training image: {few(empty)}")
        super().__init__(cfg, items, own.names)

    def _init_unlabelled(self, cfg: CfgNode, items: Items, names: list[str]) -> None:
        if cfg.DATASET.NUM_SHOTS >= 1 or cfg.DATASET.get("SUBSAMPLE_CLASSES", "all") != "all":
            raise UserError(
                "DATASET.NUM_SHOTS and DATASET.SUBSAMPLE_CLASSES pick training images by their labels, and these have "
                "none"
            )
        self._all_names = names  # LabelledDataset takes the classes from here
        val, test = ([datum(path, label, names) for path, label in items[part]] for part in ("val", "test"))
        train = [Datum(impath=path, label=UNLABELLED) for path, _ in items["train"]]
        DatasetBase.__init__(self, train_x=train, val=val, test=test)
