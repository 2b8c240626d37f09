"""The keys of DATASET that data sets share, and the folder of all data."""

import os
from pathlib import Path

from yacs.config import CfgNode

from fairclip.core.errors import UserError


def extend_cfg(cfg: CfgNode) -> None:
    """The keys that the benchmark data sets share. CoOp's train.py does not call this, so none may be relied on."""
    cfg.DATASET.SPLIT = ""  # zhou (CoOp's protocol) | official; "": zhou where there is one
    cfg.DATASET.STRICT = False  # missing images, and other counts than the known ones, are errors
    cfg.DATASET.SKIP_CORRUPT = False  # go on without the images that cannot be decoded
    cfg.DATASET.DOWNLOAD = True  # fetch CoOp's split file where it is missing (--no-download)
    cfg.DATASET.CHECK_IMAGES = False  # decode all images again, though that is on record (--check-images)


def data_root(cfg: CfgNode) -> Path:
    """DATASET.ROOT as an absolute path; an empty one is a UserError rather than the current folder."""
    if not cfg.DATASET.ROOT:
        raise UserError("no data folder given: pass --root FOLDER (or set DATASET.ROOT), the parent of all data sets")
    return Path(os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT)))
