"""How fast FAIR is on this machine and what sets the pace: fair bench [--only PART ...] [--json FILE]

    fair bench --only step --backbone tiny --batch 64 --classes 24

Trains FAIR itself on photos that it makes (500 x 375, JPEG), with random weights of the backbone's shape unless
OpenAI's are on disk: neither decides the speed. Measures, each part by its name for --only:

    step      a step on a given batch, beside the bare encoder doing the same passes (their quotient: overhead_ratio)
              and beside the floor, the passes' operations at the speed of a large matrix product; peak memory
    pipeline  views a second for one core, beside the plain way: each view decoded from disk, transformed by torchvision
              and normalised by itself, float32 to the device (the quotient: pipeline_speedup)
    growth    how the time of a step grows with crops, classes and batch
    stages    what a step with the loader spends its time on
    solvers   ZLaP, StatA and TransCLIP on features of many images at once, 200 classes: seconds and memory

--quick shows in seconds that all parts work, on the smallest backbone; it sets all sizes, so they cannot be given with
it. --device, --prec and --only can.

Figures are medians over repeats, but for the stages: means, because waiting for the loader comes in bursts.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fairclip.backbones.openai import BUNDLED
from fairclip.bench.growth import measure_growth
from fairclip.bench.pipeline import measure_pipeline
from fairclip.bench.report import report
from fairclip.bench.settings import QUICK, Settings, settings_of
from fairclip.bench.solvers import measure_solvers
from fairclip.bench.stages import measure_stages
from fairclip.bench.step import measure_step
from fairclip.bench.trainers import TrainerFactory, cache_in
from fairclip.bench.weights import SHAPES, weights_of
from fairclip.core.files import atomic
from fairclip.core.log import log
from fairclip.core.toolbox import use_dassl
from fairclip.run.provenance import commit, versions
from fairclip.views.loading import cores

PARTS: dict[str, Callable[[TrainerFactory, Settings], dict[str, Any]]] = {
    "step": measure_step,
    "pipeline": measure_pipeline,
    "growth": measure_growth,
    "stages": measure_stages,
    "solvers": measure_solvers,
}


def measure(settings: Settings, parts: list[str]) -> dict[str, Any]:
    """All figures of these parts, and what they were measured on."""
    use_dassl(announce=False)
    torch.backends.cudnn.deterministic = True  # as train.py with a seed
    named = ("backbone", "batch", "crops", "classes", "prec", "repeats", "device", "quick")
    facts = {name: value for name, value in asdict(settings).items() if name in named} | {
        "device_name": torch.cuda.get_device_name() if settings.device == "cuda" else f"{cores()} CPU cores",
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "commit": commit(),
    }
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        backbone, facts["weights"] = weights_of(settings.backbone, Path(folder))
        with cache_in(folder):
            factory = TrainerFactory(Path(folder), backbone, settings.device, settings.prec)
            for part in parts:
                facts |= PARTS[part](factory, settings)
    return facts


def main(args: argparse.Namespace) -> None:
    facts = measure(settings_of(args), [part for part in PARTS if part in args.only])
    if args.json:
        with atomic(args.json) as temporary:
            temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        log.info(f"Wrote {args.json}")
    print(report(facts))


def positive_int(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not above 0")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--backbone", help=f"{', '.join((*SHAPES, *BUNDLED))}, or a checkpoint's file (default: ViT-B/32)")
    add("--batch", type=positive_int, help="training images in a step (default: 16, on a GPU 64)")
    add("--crops", type=int, help="N (default: 4)")
    add("--classes", type=positive_int, help="K (default: 100)")
    add("--prec", default="auto", choices=("auto", "fp32", "amp", "bf16"), help="default: auto")
    add("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    add("--repeats", type=positive_int, help="default: 3, on a GPU 20")
    add("--workers", type=int, help="of the loader in stages, at most one a core (default: 8)")
    add("--only", nargs="+", choices=PARTS, default=tuple(PARTS), metavar="PART", help=", ".join(PARTS))
    add("--json", type=Path, metavar="FILE", help="write all figures to it")
    sizes = ", ".join(f"--{name}" for name in QUICK)
    add("--quick", action="store_true", help=f"show that it works, not how fast; not with {sizes}")
