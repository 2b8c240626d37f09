"""How hard SynthCars is for a backbone: zero-shot by names and by descriptions, and a linear probe with labels.

    PYTHONPATH=. python scripts/regime.py [--backbone tiny] [--seed 0] [--light bright blue_hour]

A row for each light. Nothing here reaches a trainer; labels serve the probe alone, whose one setting (the L2 penalty)
is fixed.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate
from torch import Tensor
from torch.nn import functional as F

from fairclip.backbones.makers import load_backbone
from fairclip.backbones.pixels import CLIP_PIXELS
from fairclip.data.synth import BLUE_HOUR, LIGHTS, catalogue, class_images, describe
from fairclip.data.synth.lights import BRIGHT
from fairclip.method.anchors import description_anchors
from fairclip.method.linear_probe import regularisation_path
from fairclip.text.embeddings import encode_ragged, name_prompts

PENALTY = 1e-3
MEAN = torch.tensor(CLIP_PIXELS.mean).view(3, 1, 1)
STD = torch.tensor(CLIP_PIXELS.std).view(3, 1, 1)


def draw(seed: int, split: str, light: str, size: int) -> tuple[Tensor, Tensor]:
    """The images of a split as [n, 3, size, size], normalised, and their labels [n]."""
    images, labels = [], []
    for label, model in enumerate(catalogue(seed)):
        for image in class_images(model, split, seed, light):
            images.append(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)))
            labels.append(label)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return (pixels - MEAN) / STD, torch.tensor(labels)


@torch.no_grad()
def encode(model: torch.nn.Module, images: Tensor) -> Tensor:
    """Unit features, [n, d]."""
    return torch.cat([F.normalize(model.encode_image(batch), dim=-1) for batch in images.split(200)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--seed", type=int, default=0, help="SYNTH_SEED")
    known = [BRIGHT, *LIGHTS]
    parser.add_argument(
        "--light", nargs="+", choices=known, default=[BRIGHT, BLUE_HOUR], help="bright: as in pretraining"
    )
    args = parser.parse_args()

    model = load_backbone(args.backbone)
    classes = catalogue(args.seed)
    lines = torch.tensor([sorted({c.line for c in classes}).index(c.line) for c in classes])
    names = name_prompts(model, [c.name for c in classes], ("a photo of a {}.",))
    described = description_anchors(names, *encode_ragged(model, [describe(c) for c in classes]), 1.0, "mean")
    rows = []
    for light in args.light:
        train, labels = draw(args.seed, "train", light, model.size)
        test, truth = draw(args.seed, "test", light, model.size)
        features = encode(model, test)
        by_name, by_text = (features @ names.t()).argmax(1), (features @ described.t()).argmax(1)
        probes = regularisation_path(encode(model, train), labels, len(classes), (PENALTY,), iterations=1000)
        probe = probes[PENALTY](features.double()).argmax(1)
        same = (by_name == truth, lines[by_name] == lines[truth], by_text == truth, lines[by_text] == lines[truth])
        rows.append([light, *(100 * hit.float().mean().item() for hit in (*same, probe == truth))])
    head = ["light", "names", "names, line", "descriptions", "descriptions, line", "linear probe"]
    print(tabulate(rows, head, tablefmt="github", floatfmt=".1f"))


if __name__ == "__main__":
    main()
