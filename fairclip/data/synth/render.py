"""Draws one side-view image with Pillow: a car, and the nuisances around it (background, pose, light, noise)."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fairclip.data.synth.car import SILHOUETTES, draw_car
from fairclip.data.synth.catalogue import COLOURS
from fairclip.data.synth.lights import BRIGHT, LIGHTS
from fairclip.data.synth.pen import Box, Pen

SIZE = 128  # pixels on disk; close-ups then hold detail that a 64-pixel view of the whole image has lost
_SUPERSAMPLE = 2


def render(
    body: str,
    parts: Mapping[str, str],
    rng: random.Random,
    *,
    clutter: float,
    light: str,
    colour: str | None = None,
) -> tuple[Image.Image, dict[str, list[Box]]]:
    """One image and where its parts are.

    Args:
        body: one of `BODIES`.
        parts: a value for every part of `PARTS`.
        rng: source of every nuisance (colour, pose, background, light, blur, noise, flip).
        clutter: mean density of background objects.
        light: a name of `LIGHTS`, the target's systematic shift, or BRIGHT, the style of pretraining.
        colour: a name of `COLOURS`, or None for a random one.

    Returns:
        An RGB image of SIZE x SIZE pixels, and for each part its boxes (x0, y0, x1, y1) in units of the image side.
    """
    side = SIZE * _SUPERSAMPLE
    image = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(image)
    ground = rng.uniform(0.68, 0.80)
    _background(draw, side, ground, rng, clutter)

    scale = rng.uniform(0.80, 0.92)
    length = scale * SILHOUETTES[body].length * 0.94
    x0 = 0.5 - length / 2 + rng.uniform(-0.5, 0.5) * max(0.0, 0.99 - length)
    wheel_y = ground + rng.uniform(0.02, 0.06)
    pen = Pen(draw, side, x0, wheel_y, length, scale)
    base = COLOURS[colour or rng.choice(list(COLOURS))]
    paint = tuple(int(min(255, max(0, c * rng.uniform(0.9, 1.1)))) for c in base)
    draw_car(pen, body, parts, paint)

    image = image.reduce(_SUPERSAMPLE)
    boxes = pen.boxes
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        boxes = {part: [(1 - x1, y0, 1 - x0, y1) for x0, y0, x1, y1 in found] for part, found in boxes.items()}
    return _expose(image, rng, light), boxes


def _background(draw: ImageDraw.ImageDraw, side: int, ground: float, rng: random.Random, clutter: float) -> None:
    sky = tuple(rng.randint(150, 235) for _ in range(3))
    road = (rng.randint(95, 150),) * 3
    draw.rectangle((0, 0, side, side), fill=sky)
    for _ in range(_poisson(rng, clutter)):  # buildings, trees and poles behind the car
        x, w, h = rng.random(), rng.uniform(0.04, 0.22), rng.uniform(0.08, 0.5)
        shade = tuple(rng.randint(70, 210) for _ in range(3))
        box = ((x - w / 2) * side, (ground - h) * side, (x + w / 2) * side, ground * side)
        (draw.ellipse if rng.random() < 0.35 else draw.rectangle)(box, fill=shade)
    draw.rectangle((0, ground * side, side, side), fill=road)
    for _ in range(_poisson(rng, clutter / 2)):  # marks on the road
        x, y = rng.random() * side, rng.uniform(ground + 0.02, 1) * side
        grey = rng.randint(80, 215)
        draw.rectangle((x, y, x + rng.uniform(0.05, 0.2) * side, y + 0.012 * side), fill=(grey,) * 3)


def _poisson(rng: random.Random, mean: float) -> int:
    """A Poisson draw from the standard library's generator (Knuth)."""
    limit, product, count = np.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


def _expose(image: Image.Image, rng: random.Random, light: str) -> Image.Image:
    """Focus, light and sensor: mild for the web style, a systematic shift for the target."""
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.6)))
    x = np.asarray(image, dtype=np.float32) / 255
    slope = rng.uniform(-0.12, 0.12)
    x = x * (1 + slope * np.linspace(-1, 1, x.shape[1], dtype=np.float32)[None, :, None])
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 1, x.shape).astype(np.float32)
    if light == BRIGHT:
        x = x * rng.uniform(0.88, 1.12)
    else:
        x = LIGHTS[light](np.clip(x, 0, 1)) * rng.uniform(0.92, 1.08)
    x = x + 0.012 * noise
    return Image.fromarray((np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8))
