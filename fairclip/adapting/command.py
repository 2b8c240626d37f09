"""Adapts a backbone to your own classes by unlabelled images: fair adapt FOLDER --classes classes.txt

    fair adapt photos --classes classes.txt                        # ViT-B/32, into adapted/
    fair adapt photos --classes classes.txt --backbone tiny --out model
    fair predict adapted more-photos --output predictions.csv

Images are found at any depth of FOLDER; they need no labels. classes.txt has a class name a line. Descriptions of the
classes, a JSON file {"name": ["sentence", ...]}, help; without a file, those that come with the project are used where
they know the names. The same command goes on after an interruption.
"""

import argparse
from pathlib import Path

from fairclip.adapting.adapt import adapt


def main(args: argparse.Namespace) -> None:
    adapt(
        args.folder,
        args.classes,
        args.descriptions,
        args.backbone,
        out=args.out,
        epochs=args.epochs,
        device=args.device,
        seed=args.seed,
        settings=args.options,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="folder of images, at any depth")
    parser.add_argument("--classes", required=True, metavar="FILE", help="text file, a class name a line")
    parser.add_argument("--descriptions", metavar="FILE", help="JSON file, class name -> list of sentences")
    parser.add_argument("--backbone", default="ViT-B/32", metavar="NAME", help="default: ViT-B/32 (docs/backbones.md)")
    parser.add_argument("--out", type=Path, default=Path("adapted"), metavar="FOLDER", help="default: adapted")
    parser.add_argument("--epochs", type=int, default=0, help="default: chosen from the number of images")
    parser.add_argument("--device", default="", help="cpu, cuda, mps (default: a CUDA GPU if there is one)")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
