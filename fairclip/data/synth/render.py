"""Draws one side-view car with Pillow: a body, its parts, and the nuisances around them."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fairclip.data.synth.catalogue import COLOURS

SIZE = 128  # pixels on disk; close-ups then hold detail that a 64-pixel view of the whole image has lost
_SUPERSAMPLE = 2

# Silhouettes in car units: x from nose (0) to tail (1), y upwards from the ground.
# length: the car's length relative to a sedan's; belt: height of the waist; nose/tail: heights of the two ends;
# cabin: base front, roof front, roof rear, base rear; top: roof height.
_BODY = {
    "sedan": dict(length=1.0, belt=0.26, nose=0.23, tail=0.26, cabin=(0.27, 0.38, 0.66, 0.79), top=0.40),
    "hatchback": dict(length=0.84, belt=0.29, nose=0.25, tail=0.30, cabin=(0.22, 0.36, 0.80, 0.98), top=0.47),
    "wagon": dict(length=1.04, belt=0.25, nose=0.22, tail=0.26, cabin=(0.27, 0.37, 0.93, 0.98), top=0.39),
    "van": dict(length=1.0, belt=0.30, nose=0.24, tail=0.32, cabin=(0.05, 0.18, 0.95, 0.98), top=0.54),
    "pickup": dict(length=1.06, belt=0.27, nose=0.25, tail=0.27, cabin=(0.26, 0.33, 0.53, 0.56), top=0.43),
    "coupe": dict(length=0.98, belt=0.23, nose=0.17, tail=0.25, cabin=(0.33, 0.47, 0.62, 0.93), top=0.345),
}
Box = tuple[float, float, float, float]


def render(
    body: str,
    parts: Mapping[str, str],
    rng: random.Random,
    *,
    clutter: float,
    low_light: bool,
    colour: str | None = None,
) -> tuple[Image.Image, dict[str, list[Box]]]:
    """One image and where its parts are.

    Args:
        body: one of ``BODIES``. parts: a value for every part of ``PARTS``.
        rng: source of every nuisance (colour, pose, background, light, blur, noise, flip).
        clutter: mean density of background objects. low_light: the target's systematic shift, see ``_blue_hour``.
        colour: a name of ``COLOURS``, or None for a random one.

    Returns:
        An RGB image of SIZE x SIZE pixels, and for each part its boxes (x0, y0, x1, y1) in units of the image side.
    """
    side = SIZE * _SUPERSAMPLE
    image = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(image)
    ground = rng.uniform(0.68, 0.80)
    _background(draw, side, ground, rng, clutter)

    shape = _BODY[body]
    scale = rng.uniform(0.80, 0.92)
    length = scale * shape["length"] * 0.94
    x0 = 0.5 - length / 2 + rng.uniform(-0.5, 0.5) * max(0.0, 0.99 - length)
    wheel_y = ground + rng.uniform(0.02, 0.06)
    pen = _Pen(draw, side, x0, wheel_y, length, scale)
    base = COLOURS[colour or rng.choice(list(COLOURS))]
    paint = tuple(int(min(255, max(0, c * rng.uniform(0.9, 1.1)))) for c in base)
    _draw_car(pen, shape, body, parts, paint)

    image = image.reduce(_SUPERSAMPLE)
    boxes = pen.boxes
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        boxes = {part: [(1 - x1, y0, 1 - x0, y1) for x0, y0, x1, y1 in found] for part, found in boxes.items()}
    return _expose(image, rng, low_light), boxes


class _Pen:
    """Draws in car units and remembers the box of each part."""

    def __init__(self, draw: ImageDraw.ImageDraw, side: int, x0: float, ground: float, length: float, scale: float):
        self._draw, self._side = draw, side
        self._x0, self._ground, self._length, self._scale = x0, ground, length, scale
        self.boxes: dict[str, list[Box]] = {}

    def at(self, x: float, y: float) -> tuple[float, float]:
        return (self._x0 + x * self._length) * self._side, (self._ground - y * self._scale) * self._side

    def polygon(self, points: list[tuple[float, float]], fill: tuple[int, ...]) -> None:
        self._draw.polygon([self.at(*p) for p in points], fill=fill)

    def box(self, x: float, y: float, w: float, h: float, fill: tuple[int, ...]) -> None:
        """Axis-aligned box around (x, y): w in lengths, h in heights."""
        (a, b), (c, d) = self.at(x - w / 2, y + h / 2), self.at(x + w / 2, y - h / 2)
        self._draw.rectangle((a, b, c, d), fill=fill)

    def disc(self, x: float, y: float, r: float, fill: tuple[int, ...]) -> None:
        cx, cy = self.at(x, y)
        r *= self._scale * self._side
        self._draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=fill)

    def spokes(self, x: float, y: float, r: float, n: int, fill: tuple[int, ...]) -> None:
        cx, cy = self.at(x, y)
        r *= self._scale * self._side
        for angle in np.arange(n) * 2 * np.pi / n - np.pi / 2:
            end = (cx + r * np.cos(angle), cy + r * np.sin(angle))
            self._draw.line(((cx, cy), end), fill=fill, width=max(2, round(r * 0.34)))

    def mark(self, part: str, x0: float, y0: float, x1: float, y1: float) -> None:
        (a, b), (c, d) = self.at(x0, y1), self.at(x1, y0)
        self.boxes.setdefault(part, []).append((a / self._side, b / self._side, c / self._side, d / self._side))


_BLACK, _RUBBER, _SILVER, _WHITE = (18, 18, 20), (32, 32, 34), (205, 208, 212), (245, 245, 240)
_LAMP, _RED = (255, 250, 205), (225, 25, 25)


def _draw_car(pen: _Pen, shape: dict, body: str, parts: Mapping[str, str], paint: tuple[int, ...]) -> None:
    belt, top, cabin = shape["belt"], shape["top"], shape["cabin"]
    nose, tail = shape["nose"], shape["tail"]
    dark = tuple(int(c * 0.72) for c in paint)

    # The body: lower shell, then the cabin with its glass.
    pen.polygon(
        [
            (0.0, 0.09),
            (0.0, nose - 0.04),
            (0.03, nose),
            (cabin[0], belt),
            (0.97, tail),
            (1.0, tail - 0.03),
            (1.0, 0.09),
        ],
        paint,
    )
    if body == "pickup":  # an open bed behind the cabin
        pen.polygon(
            [(cabin[3] + 0.02, belt), (0.96, belt), (0.96, belt - 0.025), (cabin[3] + 0.02, belt - 0.025)], _BLACK
        )
    pen.polygon([(cabin[0], belt - 0.01), (cabin[1], top), (cabin[2], top), (cabin[3], belt - 0.01)], paint)
    _windows(pen, cabin, belt, top, parts["windows"])
    pen.mark("windows", cabin[0], belt, cabin[3], top)
    for x in (0.345, 0.60 if body != "pickup" else 0.54):  # door seams
        pen.box(x, (belt + 0.11) / 2, 0.006, belt - 0.12, dark)

    _side(pen, belt, parts["side"])
    pen.mark("side", 0.30, 0.10, 0.70, belt - 0.02)
    _bumper(pen, parts["bumper"], paint)
    _headlight(pen, nose, parts["headlight"])
    _taillight(pen, tail, parts["taillight"])
    _roof(pen, cabin, top, parts["roof"])
    pen.mark("roof", cabin[1], top - 0.01, cabin[2], top + 0.08)
    _spoiler(pen, body, shape, parts["spoiler"], paint)
    for x in (0.19, 0.80):
        _wheel(pen, x, parts["wheels"])
        pen.mark("wheels", x - 0.11, -0.01, x + 0.11, 0.20)


def _windows(pen: _Pen, cabin: tuple[float, ...], belt: float, top: float, kind: str) -> None:
    glass = {"clear": (190, 220, 235), "tinted": (30, 34, 42)}[kind]
    low, high = belt + 0.008, top - 0.028
    pen.polygon(
        [(cabin[0] + 0.045, low), (cabin[1] + 0.022, high), (cabin[2] - 0.015, high), (cabin[3] - 0.045, low)], glass
    )


def _pillar_free_middle(cabin: tuple[float, ...]) -> tuple[float, float]:
    return (cabin[1] + cabin[2]) / 2, cabin[2] - cabin[1]


def _side(pen: _Pen, belt: float, kind: str) -> None:
    y = (0.09 + belt) / 2 + 0.015
    if kind == "stripe":
        pen.box(0.495, y, 0.38, 0.024, _WHITE)
    elif kind == "dots":
        for x in (0.36, 0.45, 0.54, 0.63):
            pen.disc(x, y, 0.020, _WHITE)
    elif kind == "panel":
        pen.box(0.495, 0.122, 0.40, 0.062, (40, 40, 44))


def _bumper(pen: _Pen, kind: str, paint: tuple[int, ...]) -> None:
    fill = {"body": tuple(int(c * 0.88) for c in paint), "black": (30, 30, 32), "chrome": (228, 232, 236)}[kind]
    for x, edge in ((0.03, 0.0), (0.97, 1.0)):
        pen.box(x, 0.115, 0.085, 0.052, fill)
        pen.mark("bumper", min(x, edge) - 0.04, 0.07, max(x, edge) + 0.04, 0.15)


def _headlight(pen: _Pen, nose: float, kind: str) -> None:
    y = nose - 0.060
    if kind == "round":
        pen.disc(0.062, y, 0.050, _BLACK)
        pen.disc(0.062, y, 0.036, _LAMP)
    elif kind == "slit":
        pen.box(0.085, y + 0.012, 0.170, 0.050, _BLACK)
        pen.box(0.085, y + 0.012, 0.150, 0.026, _LAMP)
    elif kind == "tall":
        pen.box(0.036, y - 0.005, 0.068, 0.125, _BLACK)
        pen.box(0.036, y - 0.005, 0.042, 0.098, _LAMP)
    elif kind == "twin":
        for dy in (0.030, -0.032):
            pen.disc(0.052, y + dy, 0.031, _BLACK)
            pen.disc(0.052, y + dy, 0.020, _LAMP)
    pen.mark("headlight", -0.01, y - 0.07, 0.17, y + 0.06)


def _taillight(pen: _Pen, tail: float, kind: str) -> None:
    y = tail - 0.070
    if kind == "square":  # a light frame: the lamp shows on a red car too
        pen.box(0.950, y, 0.100, 0.088, _WHITE)
        pen.box(0.950, y, 0.072, 0.062, _RED)
    elif kind == "column":
        pen.box(0.976, y - 0.005, 0.056, 0.150, _BLACK)
        pen.box(0.976, y - 0.005, 0.034, 0.126, _RED)
    elif kind == "dot":
        pen.disc(0.945, y, 0.050, _BLACK)
        pen.disc(0.945, y, 0.034, _RED)
    pen.mark("taillight", 0.88, y - 0.08, 1.01, y + 0.07)


def _roof(pen: _Pen, cabin: tuple[float, ...], top: float, kind: str) -> None:
    x, width = _pillar_free_middle(cabin)
    if kind == "rack":
        pen.box(x, top + 0.040, width * 0.9, 0.014, _BLACK)
        for offset in (-0.4, 0.0, 0.4):
            pen.box(x + offset * width, top + 0.018, 0.014, 0.036, _BLACK)
    elif kind == "box":
        half = min(width * 0.42, 0.17)
        pen.polygon(
            [(x - half, top + 0.008), (x - half * 0.75, top + 0.072), (x + half, top + 0.072), (x + half, top + 0.008)],
            (60, 62, 68),
        )
    elif kind == "lamps":
        for k in range(3):
            pen.disc(cabin[1] + width * (0.18 + 0.26 * k), top + 0.026, 0.024, _LAMP)


def _spoiler(pen: _Pen, body: str, shape: dict, kind: str, paint: tuple[int, ...]) -> None:
    # On bodies whose cabin reaches the tail the spoiler sits on the roof's rear edge, else on the boot.
    on_roof = body in ("hatchback", "wagon", "van")
    x, y = (shape["cabin"][2] + 0.01, shape["top"]) if on_roof else (0.93, shape["tail"])
    if kind == "wing":
        pen.box(x - 0.01, y + 0.030, 0.018, 0.060, _BLACK)
        pen.box(x + 0.005, y + 0.066, 0.135, 0.024, _BLACK)
    elif kind == "duck":
        pen.polygon(
            [(x - 0.09, y - 0.004), (x + 0.065, y + 0.060), (x + 0.065, y - 0.004)], tuple(int(c * 0.6) for c in paint)
        )
    pen.mark("spoiler", x - 0.09, y - 0.01, x + 0.08, y + 0.08)


def _wheel(pen: _Pen, x: float, kind: str) -> None:
    y, r = 0.092, 0.096
    pen.disc(x, y, r + 0.014, (22, 22, 24))  # the arch
    pen.disc(x, y, r, _RUBBER)
    if kind == "star":
        pen.disc(x, y, r * 0.74, (70, 72, 76))
        pen.spokes(x, y, r * 0.74, 5, _WHITE)
    elif kind == "disc":
        pen.disc(x, y, r * 0.72, _SILVER)
    elif kind == "black":
        pen.disc(x, y, r * 0.66, _BLACK)
    elif kind == "whitewall":
        pen.disc(x, y, r * 0.88, _WHITE)
        pen.disc(x, y, r * 0.62, (60, 60, 64))


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


def _expose(image: Image.Image, rng: random.Random, low_light: bool) -> Image.Image:
    """Focus, light and sensor: mild for the web style, a systematic blue hour for the target."""
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.6)))
    x = np.asarray(image, dtype=np.float32) / 255
    slope = rng.uniform(-0.12, 0.12)
    x = x * (1 + slope * np.linspace(-1, 1, x.shape[1], dtype=np.float32)[None, :, None])
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 1, x.shape).astype(np.float32)
    if low_light:
        x = _blue_hour(np.clip(x, 0, 1)) * rng.uniform(0.92, 1.08)
    else:
        x = x * rng.uniform(0.88, 1.12)
    x = x + 0.012 * noise
    return Image.fromarray((np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8))


def _blue_hour(x: np.ndarray) -> np.ndarray:
    """The blue hour (gamma 1.4, gains below): moves the features of every image the same way and destroys little."""
    return x**1.4 * np.array([0.45, 0.62, 0.85], dtype=np.float32)
