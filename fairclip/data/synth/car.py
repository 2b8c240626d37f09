"""Draws a car: the silhouette of its body, then its parts."""

from collections.abc import Mapping
from typing import NamedTuple

from fairclip.data.synth.pen import Colour, Pen


class Silhouette(NamedTuple):
    """A body in car units: x from nose (0) to tail (1), y upwards from the ground.

    Args:
        length: the car's length relative to a sedan's.
        belt: height of the waist.
        nose: height of the front end.
        tail: height of the rear end.
        cabin: x of its base at the front, its roof at the front, its roof at the rear, its base at the rear.
        top: height of the roof.
    """

    length: float
    belt: float
    nose: float
    tail: float
    cabin: tuple[float, float, float, float]
    top: float


SILHOUETTES = {
    "sedan": Silhouette(length=1.0, belt=0.26, nose=0.23, tail=0.26, cabin=(0.27, 0.38, 0.66, 0.79), top=0.40),
    "hatchback": Silhouette(length=0.84, belt=0.29, nose=0.25, tail=0.30, cabin=(0.22, 0.36, 0.80, 0.98), top=0.47),
    "wagon": Silhouette(length=1.04, belt=0.25, nose=0.22, tail=0.26, cabin=(0.27, 0.37, 0.93, 0.98), top=0.39),
    "van": Silhouette(length=1.0, belt=0.30, nose=0.24, tail=0.32, cabin=(0.05, 0.18, 0.95, 0.98), top=0.54),
    "pickup": Silhouette(length=1.06, belt=0.27, nose=0.25, tail=0.27, cabin=(0.26, 0.33, 0.53, 0.56), top=0.43),
    "coupe": Silhouette(length=0.98, belt=0.23, nose=0.17, tail=0.25, cabin=(0.33, 0.47, 0.62, 0.93), top=0.345),
}

_BLACK, _RUBBER, _SILVER, _WHITE = (18, 18, 20), (32, 32, 34), (205, 208, 212), (245, 245, 240)
_LAMP, _RED = (255, 250, 205), (225, 25, 25)


def draw_car(pen: Pen, body: str, parts: Mapping[str, str], paint: Colour) -> None:
    """Draw a car of this body, with a value for every part, and mark where the parts are."""
    shape = SILHOUETTES[body]
    belt, top, cabin = shape.belt, shape.top, shape.cabin
    nose, tail = shape.nose, shape.tail
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


def _windows(pen: Pen, cabin: tuple[float, ...], belt: float, top: float, kind: str) -> None:
    glass = {"clear": (190, 220, 235), "tinted": (30, 34, 42)}[kind]
    low, high = belt + 0.008, top - 0.028
    pen.polygon(
        [(cabin[0] + 0.045, low), (cabin[1] + 0.022, high), (cabin[2] - 0.015, high), (cabin[3] - 0.045, low)], glass
    )


def _roof_middle(cabin: tuple[float, ...]) -> tuple[float, float]:
    """The middle of the roof and its length."""
    return (cabin[1] + cabin[2]) / 2, cabin[2] - cabin[1]


def _side(pen: Pen, belt: float, kind: str) -> None:
    y = (0.09 + belt) / 2 + 0.015
    if kind == "stripe":
        pen.box(0.495, y, 0.38, 0.024, _WHITE)
    elif kind == "dots":
        for x in (0.36, 0.45, 0.54, 0.63):
            pen.disc(x, y, 0.020, _WHITE)
    elif kind == "panel":
        pen.box(0.495, 0.122, 0.40, 0.062, (40, 40, 44))


def _bumper(pen: Pen, kind: str, paint: Colour) -> None:
    fill = {"body": tuple(int(c * 0.88) for c in paint), "black": (30, 30, 32), "chrome": (228, 232, 236)}[kind]
    for x, edge in ((0.03, 0.0), (0.97, 1.0)):
        pen.box(x, 0.115, 0.085, 0.052, fill)
        pen.mark("bumper", min(x, edge) - 0.04, 0.07, max(x, edge) + 0.04, 0.15)


def _headlight(pen: Pen, nose: float, kind: str) -> None:
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


def _taillight(pen: Pen, tail: float, kind: str) -> None:
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


def _roof(pen: Pen, cabin: tuple[float, ...], top: float, kind: str) -> None:
    x, width = _roof_middle(cabin)
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


def _spoiler(pen: Pen, body: str, shape: Silhouette, kind: str, paint: Colour) -> None:
    # On bodies whose cabin reaches the tail the spoiler sits on the roof's rear edge, else on the boot.
    on_roof = body in ("hatchback", "wagon", "van")
    x, y = (shape.cabin[2] + 0.01, shape.top) if on_roof else (0.93, shape.tail)
    if kind == "wing":
        pen.box(x - 0.01, y + 0.030, 0.018, 0.060, _BLACK)
        pen.box(x + 0.005, y + 0.066, 0.135, 0.024, _BLACK)
    elif kind == "duck":
        pen.polygon(
            [(x - 0.09, y - 0.004), (x + 0.065, y + 0.060), (x + 0.065, y - 0.004)], tuple(int(c * 0.6) for c in paint)
        )
    pen.mark("spoiler", x - 0.09, y - 0.01, x + 0.08, y + 0.08)


def _wheel(pen: Pen, x: float, kind: str) -> None:
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
