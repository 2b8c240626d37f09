"""Draws explained images: the crops as boxes, the crops that counted, and the likeliest classes."""

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from fairclip.core.files import atomic
from fairclip.predict.explanation import Example
from fairclip.views.views import Box

# Okabe and Ito's colours, which colour-blind readers can tell apart, and the text colour on each. Numbers say the same.
COLOURS = (("#0072B2", "white"), ("#E69F00", "black"), ("#009E73", "black"), ("#CC79A7", "black"))
INK, FAINT, RULE, TRUE, OTHER = "#202124", "#5F6368", "#DADCE0", "#0072B2", "#9AA0A6"
SIDE, GRID, BARS = 384, 340, 296  # widths of the three columns in pixels; SIDE is a row's height too
PAD, GAP, HEAD, LINE = 14, 26, 44, 22
COLUMNS = (PAD, PAD + SIDE + GAP, PAD + SIDE + GAP + GRID + GAP)
WIDTH = COLUMNS[2] + BARS + PAD
TOP = 3  # classes listed
SHOWN = 4  # boxes at most, those of most weight: more could not be told apart
LEGEND = (
    "r, relevance: how like the whole image a crop is (cosine of features). w, weight: its share, more for a larger r.",
    "Alignment score of a class: how like its vector (anchor) the crops are, each counted by its weight (cosine).",
)
EFFECT = {"Crops help": "#00664F", "Crops harm": "#A84300"}  # by how the line begins


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def draw_boxes(example: Example) -> Image.Image:
    """The image, SIDE wide or high, with the boxes of most weight: each in a colour of its own, numbered, with its
    relevance, and with a line that is the thicker the more it counts."""
    picture = ImageOps.contain(example.image, (SIDE, SIDE), Image.Resampling.BICUBIC)
    scale = picture.width / example.image.width
    draw = ImageDraw.Draw(picture)
    boxes = [scaled(example.boxes[i], scale) for i in example.selected[:SHOWN]]
    for rank, (x0, y0, x1, y1) in reversed(list(enumerate(boxes))):  # the most relevant on top
        width = line_width(example.weights[rank])
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline="white", width=width + 2)
        draw.rectangle((x0 + 1, y0 + 1, x1 - 2, y1 - 2), outline=COLOURS[rank][0], width=width)
    taken: list[Box] = []
    for rank, box in enumerate(boxes):
        text = f"{rank + 1}: r {example.relevance[rank]:.3f}"
        tag = place_label(box, (round(draw.textlength(text, font(15))) + 10, 21), taken, rank)
        taken.append(tag)
        colour, ink = COLOURS[rank]
        draw.rectangle(tag, fill=colour)
        draw.text(((tag[0] + tag[2]) / 2, (tag[1] + tag[3]) / 2), text, ink, font(15), anchor="mm")
    return picture


def line_width(weight: float) -> int:
    """Of the box of a crop with this share of the weight, in pixels."""
    return 2 + round(8 * weight)


def scaled(box: Box, factor: float) -> Box:
    left, upper, right, lower = (round(factor * side) for side in box)
    return left, upper, right, lower


def place_label(box: Box, size: tuple[int, int], taken: Sequence[Box], corner: int = 0) -> Box:
    """A place for a label of this size inside the box, at its upper or lower edge, that covers no other label.

    Args:
        corner: the first choice, from 0: labels of boxes that nearly coincide are told apart by theirs.
    """
    (x0, y0, x1, y1), (width, height) = box, size
    corners = [(x, y) for y in (y0, y1 - height) for x in (x0, x1 - width)]
    along = [(x, y) for y in (y0, y1 - height) for x in range(int(x0), int(x1) - width, 8)]
    first = corner % len(corners)
    places = [(x, y, x + width, y + height) for x, y in (*corners[first:], *corners[:first], *along)]
    free = [p for p in places if not any(p[0] < t[2] and t[0] < p[2] and p[1] < t[3] and t[1] < p[3] for t in taken)]
    return (free or places)[0]


def draw_crops(page: Image.Image, x: int, y: int, example: Example) -> None:
    """The crops of most weight in a grid, GRID wide and SIDE high at most, each with its weight below."""
    draw, gap, caption = ImageDraw.Draw(page), 8, 22
    crops = example.crops[:SHOWN]
    columns = math.ceil(math.sqrt(len(crops)))
    rows = math.ceil(len(crops) / columns)
    side = min((GRID - gap * (columns - 1)) // columns, (SIDE - gap * (rows - 1)) // rows - caption)
    for rank, (crop, weight) in enumerate(zip(crops, example.weights[:SHOWN], strict=True)):
        row, column = divmod(rank, columns)
        left, upper = x + column * (side + gap), y + row * (side + caption + gap)
        frame = (left, upper, left + side - 1, upper + side - 1)
        page.paste(crop.resize((side, side), Image.Resampling.NEAREST), frame[:2])
        draw.rectangle(frame, outline=COLOURS[rank][0], width=4)
        draw.text((left + side / 2, upper + side + 2), f"{rank + 1}: w {weight:.2f}", INK, font(15), anchor="ma")


def draw_bars(page: Image.Image, x: int, y: int, example: Example, names: Sequence[str]) -> None:
    """The likeliest classes by the crops and by the whole image; the true class, if known, is blue and says so."""
    draw = ImageDraw.Draw(page)
    title = example.caption if example.truth is None else f"True class: {names[example.truth]}"
    while draw.textlength(title, font(17)) > BARS:  # a long path: its end says more
        title = "…" + title.removeprefix("…")[1:]
    draw.text((x, y - 3), title, INK, font(17), anchor="la")
    if example.effect:
        y += 22
        colour = next((c for begin, c in EFFECT.items() if example.effect.startswith(begin)), FAINT)
        draw.text((x, y), example.effect, colour, font(15), anchor="la")
    for title, probabilities in (
        ("By the crops (alignment score)", example.local),
        ("By the whole image", example.whole),
    ):
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


def page_size(rows: int) -> tuple[int, int]:
    return WIDTH, HEAD + rows * (SIDE + GAP) + len(LEGEND) * LINE


def draw_page(examples: Sequence[Example], names: Sequence[str]) -> Image.Image:
    """The whole picture: column heads, a row for each example, and what the letters and the score are."""
    page = Image.new("RGB", page_size(len(examples)), "white")
    draw, first = ImageDraw.Draw(page), examples[0]
    kind = "Image" if first.truth is None else "Test image"
    shown = min(SHOWN, len(first.crops))
    crops = f"{shown} crops" if shown == len(first.boxes) else f"{shown} of {len(first.boxes)} crops"
    heads = (
        f"{kind}, {crops} (r: relevance)",
        f"As the model gets {'them' if shown > 1 else 'it'} (w: weight)",
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
    for line, text in enumerate(reversed(LEGEND), 1):
        draw.text((PAD, page.height - line * LINE), text, FAINT, font(15), anchor="la")
    return page


def save_page(page: Image.Image, path: Path) -> None:
    """Write the picture as a PNG with a palette, a third of the size."""
    with atomic(path) as temporary:
        page.quantize(256).save(temporary, format="PNG", optimize=True)
