"""Light and weather: each moves the features of all images the same way and destroys little of what they show.

A light is a function of an image, [H, W, 3] floats in [0, 1], to one of the same form. How strong each is was chosen by
the zero-shot figures of the backbone `tiny` on the cars of SYNTH_SEED 1 and 2 (docs/synth_cars.md, "The lights").
"""

from collections.abc import Callable

import numpy as np

BRIGHT = "bright"  # as in pretraining: no shift, and so not among LIGHTS
BLUE_HOUR = "blue_hour"  # the usual one

_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


def _gains(red: float, green: float, blue: float) -> np.ndarray:
    return np.array([red, green, blue], dtype=np.float32)


def _ramp(start: float, end: float, n: int) -> np.ndarray:
    return np.linspace(start, end, n, dtype=np.float32)


def backlight(x: np.ndarray) -> np.ndarray:
    """The sun stands behind the car: a warm glare, six tenths at the top and one at the ground."""
    clear = _ramp(0.4, 0.9, x.shape[0])[:, None, None]
    return x**1.1 * clear + _gains(1.0, 0.95, 0.8) * (1 - clear)


def blue_hour(x: np.ndarray) -> np.ndarray:
    """After sunset: dark and blue."""
    return x**1.4 * _gains(0.45, 0.62, 0.85)


def fog(x: np.ndarray) -> np.ndarray:
    """Bright grey over everything: a quarter of it at the ground, half at the top."""
    clear = _ramp(0.5, 0.75, x.shape[0])[:, None, None]
    return x * clear + 0.75 * (1 - clear)


def low_sun(x: np.ndarray) -> np.ndarray:
    """Warm light from the left, less of it on the right."""
    return x**1.3 * _ramp(1.0, 0.75, x.shape[1])[None, :, None] * _gains(1.0, 0.72, 0.42)


def sodium(x: np.ndarray) -> np.ndarray:
    """Orange street lamps, which leave little of the colours."""
    grey = (x * _LUMINANCE).sum(axis=2, keepdims=True)
    return (0.3 * x + 0.7 * grey) ** 1.1 * _gains(0.9, 0.65, 0.36)


LIGHTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    light.__name__: light for light in (backlight, blue_hour, fog, low_sun, sodium)
}
