"""Draws what FAIR sees in a few test images: fair draw-crops [--root DATA] [--run RUN] [--images 4]

A row for each image: its N local crops with the k selected ones numbered by relevance r_i; those crops as the model
gets them, with their weights w_i; and the likeliest classes by the Learned Alignment Score of the crops and by the
whole image. RUN is the folder of a finished FAIR run; without it, the backbone and the anchors are untrained.

The images are the first test images of evenly spaced classes: what the model makes of them plays no part. The views
are those of training, drawn with the row's number as the seed.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps

from fairclip.backbones.openai import share_with_clip
from fairclip.core.errors import UserError
from fairclip.core.files import atomic
from fairclip.core.places import CONFIGS, DATA
from fairclip.core.plugins import import_plugins
from fairclip.core.toolbox import use_dassl
from fairclip.predict.predictor import Explanation, explanation, look
from fairclip.run import config, launch
from fairclip.views.views import Box, crop_boxes

if TYPE_CHECKING:
    from trainers.fair import FAIR

# Okabe and Ito's colours, which colour-blind readers can tell apart, and the text colour on each. Numbers say the same.
COLOURS = (
    ("#0072B2", "white"),
    ("#E69F00", "black"),
    ("#009E73", "black"),
    ("#CC79A7", "black"),
    ("#D55E00", "black"),
    ("#56B4E9", "black"),
)
INK, FAINT, RULE, TRUE, OTHER = "#202124", "#5F6368", "#DADCE0", "#0072B2", "#9AA0A6"
SIDE, GRID, BARS = 384, 340, 296  # widths of the three columns in pixels; SIDE is a row's height too
PAD, GAP, HEAD = 14, 26, 44
COLUMNS = (PAD, PAD + SIDE + GAP, PAD + SIDE + GAP + GRID + GAP)
WIDTH = COLUMNS[2] + BARS + PAD
TOP = 3  # classes listed


@dataclass
class Example(Explanation):
    """One image, and what the model makes of it."""

    truth: int | None = None  # None: not known
    caption: str = ""  # in place of the true class where that is not known


def load_trainer(root: str, run: str, backbone: str) -> "FAIR":
    """The FAIR trainer of a finished run, or an untrained one on SynthCars (``backbone``, "": the built-in one).

    Raises:
        UserError: ``run`` holds no FAIR run or one without crops, an unknown backbone, or missing data.
    """
    use_dassl(announce=False)
    share_with_clip()
    modules, _ = import_plugins("trainers", "datasets")
    from dassl.engine import build_trainer

    argv = ["--root", root, "--trainer", "FAIR", "--backbone", backbone]
    if run:
        argv += ["--config-file", str(Path(run) / "config.yaml")]
    else:
        argv += ["--config-file", str(CONFIGS / "trainers/FAIR/tiny.yaml")]
        argv += ["--dataset-config-file", str(CONFIGS / "datasets/synth_cars.yaml")]
    cfg = config.build_cfg(launch.parse_args([*argv, "VERBOSE", "False"]), modules)
    if cfg.TRAINER.FAIR.N_CROPS == 0:
        raise UserError(f"{run} is a run without crops (TRAINER.FAIR.N_CROPS 0): there is nothing to draw")
    trainer = build_trainer(cfg)
    if run:
        trainer.load_model(run)
    return trainer


def examine(trainer: "FAIR", path: str, truth: int, seed: int) -> Example:
    """What FAIR does to one image in a training step up to the pseudo-label."""
    opt = trainer.options
    image = Image.open(path).convert("RGB")
    torch.manual_seed(seed)
    views = trainer.train_transform()(image)  # weak, strong, crops
    # The transform draws the boxes first, so that the same seed gives the same ones.
    boxes = crop_boxes(*image.size, opt.N_CROPS, opt.ALPHA, opt.BETA, torch.Generator().manual_seed(seed))
    labelling = torch.cat([views[:1], views[2:]])
    found = look(trainer.model, trainer.pixels, labelling[None], opt.TOP_K, opt.CROP_SCALE)
    told = explanation(image, boxes, {name: rows[0] for name, rows in found.items()}, opt.CROP_SCALE)
    return Example(truth=truth, **vars(told))


# -- Drawing -----------------------------------------------------------------------------------------------------------


def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def draw_boxes(example: Example) -> Image.Image:
    """The image, SIDE wide or high, with its boxes: the selected ones coloured, numbered and with their relevance."""
    picture = ImageOps.contain(example.image, (SIDE, SIDE), Image.Resampling.BICUBIC)
    scale = picture.width / example.image.width
    draw = ImageDraw.Draw(picture, "RGBA")  # blends half-transparent colours
    boxes = [tuple(round(scale * side) for side in box) for box in example.boxes]
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        if i not in example.selected:  # a light and a dark line: one of them shows
            draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=(255, 255, 255, 150))
            draw.rectangle((x0 + 1, y0 + 1, x1 - 2, y1 - 2), outline=(0, 0, 0, 80))
    for rank, i in reversed(list(enumerate(example.selected))):  # the most relevant on top
        x0, y0, x1, y1 = boxes[i]
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline="white", width=5)
        draw.rectangle((x0 + 1, y0 + 1, x1 - 2, y1 - 2), outline=COLOURS[rank % len(COLOURS)][0], width=3)
    taken: list[Box] = []
    for rank, i in enumerate(example.selected):
        text = f"{rank + 1}: r {example.relevance[rank]:.3f}"
        tag = place(boxes[i], (round(draw.textlength(text, font(15))) + 10, 21), taken)
        taken.append(tag)
        colour, ink = COLOURS[rank % len(COLOURS)]
        draw.rectangle(tag, fill=colour)
        draw.text(((tag[0] + tag[2]) / 2, (tag[1] + tag[3]) / 2), text, ink, font(15), anchor="mm")
    return picture


def place(box: Box, size: tuple[int, int], taken: Sequence[Box]) -> Box:
    """A place for a label of this size inside the box, at its upper or lower edge, that covers no other label."""
    (x0, y0, x1, y1), (width, height) = box, size
    places = [
        (x, y, x + width, y + height)
        for y in (y0, y1 - height)
        for x in (x0, x1 - width, *range(int(x0), int(x1) - width, 8))
    ]
    free = [p for p in places if not any(p[0] < t[2] and t[0] < p[2] and p[1] < t[3] and t[1] < p[3] for t in taken)]
    return (free or places)[0]


def draw_crops(page: Image.Image, x: int, y: int, example: Example) -> None:
    """The selected crops in a grid, GRID wide and SIDE high at most, each with its weight below."""
    draw, gap, caption = ImageDraw.Draw(page), 8, 22
    columns = math.ceil(math.sqrt(len(example.crops)))
    rows = math.ceil(len(example.crops) / columns)
    side = min((GRID - gap * (columns - 1)) // columns, (SIDE - gap * (rows - 1)) // rows - caption)
    for rank, (crop, weight) in enumerate(zip(example.crops, example.weights, strict=True)):
        row, column = divmod(rank, columns)
        left, upper = x + column * (side + gap), y + row * (side + caption + gap)
        frame = (left, upper, left + side - 1, upper + side - 1)
        page.paste(crop.resize((side, side), Image.Resampling.NEAREST), frame[:2])
        draw.rectangle(frame, outline=COLOURS[rank % len(COLOURS)][0], width=4)
        draw.text((left + side / 2, upper + side + 2), f"{rank + 1}: w {weight:.2f}", INK, font(15), anchor="ma")


def draw_bars(page: Image.Image, x: int, y: int, example: Example, names: Sequence[str]) -> None:
    """The likeliest classes by the crops and by the whole image; the true class, if known, is blue and says so."""
    draw = ImageDraw.Draw(page)
    title = example.caption if example.truth is None else f"True class: {names[example.truth]}"
    while draw.textlength(title, font(17)) > BARS:  # a long path: its end says more
        title = "…" + title.removeprefix("…")[1:]
    draw.text((x, y - 3), title, INK, font(17), anchor="la")
    for title, probabilities in (("By the selected crops (LAS)", example.local), ("By the whole image", example.whole)):
        y += 36
        draw.text((x, y), title, FAINT, font(15), anchor="la")
        y += 24
        for p, label in zip(*(t.tolist() for t in probabilities.topk(min(TOP, len(names)))), strict=True):
            true = label == example.truth
            draw.text((x, y), names[label] + (" (true)" if true else ""), TRUE if true else INK, font(15), anchor="la")
            draw.text((x + BARS, y), f"{100 * p:.0f} %", INK, font(15), anchor="ra")
            draw.rectangle((x, y + 21, x + BARS, y + 31), fill="#F1F3F4")
            draw.rectangle((x, y + 21, x + max(1, round(p * BARS)), y + 31), fill=TRUE if true else OTHER)
            y += 40


def draw_page(examples: Sequence[Example], names: Sequence[str]) -> Image.Image:
    """The whole picture: column heads, then a row for each example."""
    page = Image.new("RGB", (WIDTH, HEAD + len(examples) * (SIDE + GAP)), "white")
    draw, first = ImageDraw.Draw(page), examples[0]
    kind = "Image" if first.truth is None else "Test image"
    heads = (
        f"{kind}, {len(first.boxes)} crops (r: relevance)",
        f"The {len(first.crops)} most relevant (w: weight)",
        "Class probabilities",
    )
    for x, text in zip(COLUMNS, heads, strict=True):
        draw.text((x, PAD - 2), text, FAINT, font(17), anchor="la")
    for row, example in enumerate(examples):
        y = HEAD + row * (SIDE + GAP)
        if row:
            draw.line((PAD, y - GAP // 2, WIDTH - PAD, y - GAP // 2), fill=RULE)
        page.paste(draw_boxes(example), (COLUMNS[0], y))
        draw_crops(page, COLUMNS[1], y, example)
        draw_bars(page, COLUMNS[2], y, example, names)
    return page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", default=str(DATA), help="folder that holds the data sets (default: data/)")
    parser.add_argument("--run", default="", help="folder of a finished FAIR run; default: none, untrained anchors")
    parser.add_argument("--backbone", default="", help="without --run: the backbone (default: tiny)")
    parser.add_argument("--images", type=int, default=4, help="rows (default: 4)")
    parser.add_argument("--output", type=Path, help="default: crops.png, in the folder of --run or else here")


def main(args: argparse.Namespace) -> None:
    trainer = load_trainer(args.root, args.run, args.backbone)
    names, test = trainer.classnames, trainer.dm.dataset.test
    if not 1 <= args.images <= len(names):
        raise UserError(f"--images {args.images}: give a number from 1 to {len(names)}, the number of classes")
    first = {item.label: item for item in reversed(test)}
    items = [first[i * len(names) // args.images] for i in range(args.images)]
    page = draw_page([examine(trainer, item.impath, item.label, row) for row, item in enumerate(items)], names)
    output = args.output or Path(args.run) / "crops.png"
    with atomic(output) as path:
        page.quantize(256).save(path, format="PNG", optimize=True)  # a third of the size
    print(f"Wrote {output} ({page.width} x {page.height} pixels)")
