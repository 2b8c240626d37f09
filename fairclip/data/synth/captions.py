"""Web-like captions for pretraining: partial, varied, and sometimes wrong about the model name.

A caption makes *claims* (this body, that headlight, such a name), and an image has *facts*. Both are rows of integers,
one per attribute of `ATTRIBUTES`; UNKNOWN stands for what a caption does not mention or a view does not show.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairclip.data.synth.catalogue import BODIES, COLOURS, PARTS, CarModel

UNKNOWN = -1
ATTRIBUTES = ("name", "colour", "body", *PARTS)
_VALUES = {"colour": list(COLOURS), "body": list(BODIES)} | {part: list(values) for part, values in PARTS.items()}

_WHOLE = (
    "a photo of a {}.",
    "a picture of a {}.",
    "{} parked by the road.",
    "a {} seen from the side.",
    "the {}.",
    "my {}",
    "for sale: {}",
    "a {} in town.",
)
_CLOSE = ("a close-up of a {}.", "detail of a {}.", "part of a {}.", "a photo of a {}.", "a closer look at the {}.")
_PART = ("a close-up of {}.", "detail: {}.", "{}.", "a photo of {}.")


@dataclass(frozen=True)
class Car:
    """What one pretraining image shows; `model` is its index among the named models, if it is one of them."""

    body: str
    parts: dict[str, str]
    colour: str
    model: int | None = None


def caption(
    rng: random.Random,
    car: Car,
    models: Sequence[CarModel],
    visible: Sequence[str] | None = None,
    wrong: float = 0.4,
    words: random.Random | None = None,
) -> tuple[str, np.ndarray, np.ndarray]:
    """One caption of a view of `car`.

    Args:
        rng: decides what is said.
        car: what the image shows.
        models: all named models; a named car is called by its name in part of its captions, and with probability
            `wrong` by that of another trim of its line: the web mixes trims up.
        visible: the parts that a close-up shows, most central first; None for the whole car.
        wrong: see `models`.
        words: decides how it is said (default: `rng` too).

    Returns:
        The caption, its claims and the view's facts, both int [len(ATTRIBUTES)].
    """
    close = visible is not None
    shown = list(PARTS) if visible is None else list(visible)
    facts = _row(
        {part: car.parts[part] for part in shown} | {"colour": car.colour} | ({} if close else {"body": car.body})
    )

    model = _said_model(rng, car, models, wrong)
    if model is not None:
        facts[0] = model
    named = model is not None and rng.random() < (0.3 if close else 0.7)
    mentioned = _mentioned_parts(rng, shown, close, named)

    said: dict[str, str] = {part: car.parts[part] for part in mentioned}
    noun = models[model].name if named and model is not None else "car"
    if not close and rng.random() < (0.3 if named else 0.6):
        said["body"] = car.body
        noun = f"{noun}, a {car.body}" if named else car.body
    if not named and rng.random() < 0.15:
        said["colour"] = car.colour
        noun = f"{car.colour} {noun}"
    claims = _row(said)
    if named:
        claims[0] = model

    words = words or rng
    phrases = [words.choice(PARTS[part][car.parts[part]]) for part in mentioned]
    if phrases and len(said) == len(phrases) and not named and words.random() < (0.4 if close else 0.1):
        text = words.choice(_PART).format(_joined(phrases))
    else:
        text = words.choice(_CLOSE if close else _WHOLE).format(f"{noun} with {_joined(phrases)}" if phrases else noun)
    return text, claims, facts


def _said_model(rng: random.Random, car: Car, models: Sequence[CarModel], wrong: float) -> int | None:
    """The model that a caption may name: now and then another trim of the line; None for a car without a name."""
    if car.model is None:
        return None
    line = models[car.model].line
    trims = [i for i, other in enumerate(models) if other.line == line and i != car.model]
    return rng.choice(trims) if rng.random() < wrong else car.model


def _mentioned_parts(rng: random.Random, shown: Sequence[str], close: bool, named: bool) -> list[str]:
    """The parts that a caption mentions; a close-up's says at least the most central one, or the name."""
    count = rng.choice((0, 0, 1, 2) if named else (1, 1, 2, 2, 3))
    mentioned = list(shown[:1]) if close and not named else []
    rest = [part for part in shown if part not in mentioned]
    return mentioned + rng.sample(rest, min(len(rest), max(0, count - len(mentioned))))


def agreement(claims: np.ndarray, facts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which captions [U, A] are true and which are false of which views [B, A]: two boolean arrays [B, U].

    Neither holds where a caption speaks of something that the view does not show.
    """
    claimed, known = claims[None] != UNKNOWN, facts[:, None] != UNKNOWN
    same = claims[None] == facts[:, None]
    return (~claimed | (known & same)).all(-1), (claimed & known & ~same).any(-1)


def _row(values: dict[str, str]) -> np.ndarray:
    row = np.full(len(ATTRIBUTES), UNKNOWN)
    for attribute, value in values.items():
        row[ATTRIBUTES.index(attribute)] = _VALUES[attribute].index(value)
    return row


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
