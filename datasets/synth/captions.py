"""Web-like captions for pretraining: partial, varied, and sometimes wrong about the model name."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping

from .catalogue import PARTS, CarModel

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


def caption(
    rng: random.Random,
    body: str,
    parts: Mapping[str, str],
    colour: str,
    visible: Collection[str] | None = None,
    model: CarModel | None = None,
    siblings: Collection[CarModel] = (),
    wrong: float = 0.4,
) -> str:
    """One caption of a car.

    Args:
        visible: the parts that a close-up shows; None for the whole car. Only visible parts are mentioned.
        model, siblings: the model and the trims of its line, when the car is one that has a name; the caption then
            names it half of the time, with probability ``wrong`` by a sibling's name, as web captions mix trims up.
    """
    close = visible is not None
    names = list(PARTS if visible is None else visible)
    mentioned = rng.sample(
        names, min(len(names), rng.choice((0, 1, 2, 2, 3) if model and not close else (1, 1, 2, 2, 3)))
    )
    noun = body if rng.random() < 0.7 else "car"
    if model is not None and rng.random() < (0.3 if close else 0.75):
        named = rng.choice([s for s in siblings if s != model]) if rng.random() < wrong else model
        noun = named.name if rng.random() < 0.6 or close else f"{named.name}, a {body}"
    elif rng.random() < 0.4:
        noun = f"{colour} {noun}"
    words = [rng.choice(PARTS[part][parts[part]]) for part in mentioned]
    if close and words and rng.random() < 0.4:  # the part alone: "detail of round headlights."
        return rng.choice(("a close-up of {}.", "detail: {}.", "{}.", "a photo of {}.")).format(_and(words))
    if words:
        noun = f"{noun} with {_and(words)}"
    return rng.choice(_CLOSE if close else _WHOLE).format(noun)


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
