"""Drawing in the units of a car, and remembering where its parts are."""

import numpy as np
from PIL import ImageDraw

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in units of the image side
Colour = tuple[int, ...]


class Pen:
    """Draws in car units and remembers the box of each part.

    x runs from the nose (0) to the tail (1), y upwards from the ground, 1 being the height of the silhouettes' units.

    Args:
        draw: the image to draw on.
        side: its width and height, pixels.
        x0: where the nose is, in units of the image side.
        ground: where the wheels stand, likewise.
        length: the length of the car, likewise.
        scale: one unit of height, likewise.
    """

    def __init__(self, draw: ImageDraw.ImageDraw, side: int, x0: float, ground: float, length: float, scale: float):
        self._draw, self._side = draw, side
        self._x0, self._ground, self._length, self._scale = x0, ground, length, scale
        self.boxes: dict[str, list[Box]] = {}

    def at(self, x: float, y: float) -> tuple[float, float]:
        return (self._x0 + x * self._length) * self._side, (self._ground - y * self._scale) * self._side

    def polygon(self, points: list[tuple[float, float]], fill: Colour) -> None:
        self._draw.polygon([self.at(*p) for p in points], fill=fill)

    def box(self, x: float, y: float, w: float, h: float, fill: Colour) -> None:
        """Axis-aligned box around (x, y): w in lengths, h in heights."""
        (a, b), (c, d) = self.at(x - w / 2, y + h / 2), self.at(x + w / 2, y - h / 2)
        self._draw.rectangle((a, b, c, d), fill=fill)

    def disc(self, x: float, y: float, r: float, fill: Colour) -> None:
        cx, cy = self.at(x, y)
        r *= self._scale * self._side
        self._draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=fill)

    def spokes(self, x: float, y: float, r: float, n: int, fill: Colour) -> None:
        cx, cy = self.at(x, y)
        r *= self._scale * self._side
        for angle in np.arange(n) * 2 * np.pi / n - np.pi / 2:
            end = (cx + r * np.cos(angle), cy + r * np.sin(angle))
            self._draw.line(((cx, cy), end), fill=fill, width=max(2, round(r * 0.34)))

    def mark(self, part: str, x0: float, y0: float, x1: float, y1: float) -> None:
        (a, b), (c, d) = self.at(x0, y1), self.at(x1, y0)
        self.boxes.setdefault(part, []).append((a / self._side, b / self._side, c / self._side, d / self._side))
