"""What is measured, and on what: settings that depend on the device are filled in."""

import argparse
from dataclasses import dataclass
from typing import Any

import torch

from fairclip.core.errors import require

QUICK = {"backbone": "tiny", "batch": 4, "crops": 2, "classes": 5, "repeats": 1, "workers": 0}  # what --quick sets


@dataclass(frozen=True)
class Settings:
    backbone: str
    batch: int  # training images in a step
    crops: int  # N
    classes: int  # K
    prec: str
    device: str  # "cpu" or "cuda"
    repeats: int
    workers: int  # of the loader in stages
    quick: bool
    growth: dict[str, tuple[int, ...]]  # values of crops, classes and batch whose times are compared
    solver_images: tuple[int, ...]  # that are classified at once
    matmul: int  # side of the matrices whose product tells the device's speed


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings that the command line asks for.

    Raises:
        UserError: they cannot be met, or --quick sets what was given.
    """
    given = {name: getattr(args, name) for name in QUICK if getattr(args, name) is not None}
    if args.quick:
        options = ", ".join(f"--{name}" for name in given)
        require(not given, f"--quick sets the backbone and all sizes itself: leave out {options}")
    require(args.device != "cuda" or torch.cuda.is_available(), "--device cuda: torch sees no GPU here")
    gpu = args.device != "cpu" and torch.cuda.is_available()
    usual = {"backbone": "ViT-B/32", "batch": 64 if gpu else 16, "crops": 4, "classes": 100, "workers": 8}
    usual["repeats"] = 20 if gpu else 3
    chosen: dict[str, Any] = QUICK if args.quick else usual | given
    require(chosen["crops"] >= 0 and chosen["workers"] >= 0, "--crops and --workers are at least 0")
    quarter = max(1, chosen["batch"] // 4)
    return Settings(
        **chosen,
        prec=args.prec,
        device="cuda" if gpu else "cpu",
        quick=args.quick,
        growth={
            "crops": (0, 2) if args.quick else (0, 4, 8, 16),
            "classes": (2, 5) if args.quick else (10, 100, 1000),
            "batch": (quarter, 2 * quarter, 4 * quarter),
        },
        solver_images=(200, 400) if args.quick else (5000, 10000),
        matmul=256 if args.quick else 8192 if gpu else 1536,
    )
