"""How large classes are, where that is known: a JSON file that gives each class name a share or a number of images."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fairclip.core.errors import few, require
from fairclip.core.reading import read_json


def read_prior(path: str, classnames: Sequence[str]) -> Tensor:
    """The prior over K classes, [K], float32, positive, of sum 1.

    Raises:
        UserError: no such file, or not a JSON object of one positive number for each class.
    """
    file = Path(path).expanduser()
    shares = read_json(file, "a class prior, {class name: share or number of images}")
    missing, unknown = [n for n in classnames if n not in shares], sorted(shares.keys() - set(classnames))
    require(not missing, f"{file} has no share of {few(missing)}")
    require(not unknown, f"{file} names classes that the data set does not have: {few(unknown)}")
    wrong = [name for name, share in shares.items() if not _positive(share)]
    require(not wrong, f"{file}: the shares of {few(wrong)} are no positive numbers")
    prior = torch.tensor([float(shares[name]) for name in classnames], dtype=torch.float64)
    return (prior / prior.sum()).float()


def _positive(share: object) -> bool:
    if not isinstance(share, int | float) or isinstance(share, bool):
        return False
    return math.isfinite(share) and share > 0
