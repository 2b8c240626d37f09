"""What there is to draw: bodies, parts, model names, and the sentences that describe them.

A *model line* (family) is one body with a fixed set of parts; its four trims differ from one another in one to three
local parts. Everything is a function of `seed`: another seed gives other part combinations and other names.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

BODIES = ("sedan", "hatchback", "wagon", "van", "pickup", "coupe")

# part -> value -> wordings. The first wording is the plain one; all of them occur in captions, so that no single phrase
# carries a part. A part that is absent has words too ("no spoiler"), as a description would say it.
PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "wheels": {
        "star": ("star-shaped spoke wheels", "wheels with five bright spokes"),
        "disc": ("full silver disc wheels", "wheels with solid silver covers"),
        "black": ("plain black wheels", "all-black wheels"),
        "whitewall": ("whitewall tyres", "tyres with a white ring"),
    },
    "headlight": {
        "round": ("round headlights", "a circular headlamp"),
        "slit": ("narrow slit headlights", "a thin flat headlamp"),
        "tall": ("tall vertical headlights", "an upright bar headlamp"),
        "twin": ("twin stacked headlights", "two small headlamps above each other"),
    },
    "roof": {
        "bare": ("a bare roof", "nothing on the roof"),
        "rack": ("a roof rack", "rails on the roof"),
        "box": ("a cargo box on the roof", "a big roof box"),
        "lamps": ("a row of lamps on the roof", "round lights on the roof"),
    },
    "side": {
        "plain": ("plain doors without a stripe", "unmarked doors"),
        "stripe": ("one white side stripe", "a single pale line along the doors"),
        "dots": ("white dots on the side", "a row of pale dots on the doors"),
        "panel": ("a dark lower side panel", "dark cladding along the sills"),
    },
    "spoiler": {
        "none": ("no spoiler", "a clean tail"),
        "wing": ("a high rear wing", "a raised spoiler on posts"),
        "duck": ("a ducktail spoiler", "a solid wedge spoiler"),
    },
    "taillight": {
        "square": ("square tail lights", "a boxy red rear lamp"),
        "column": ("tall column tail lights", "a long vertical red rear lamp"),
        "dot": ("round tail lights", "a circular red rear lamp"),
    },
    "bumper": {
        "body": ("body-coloured bumpers", "painted bumpers"),
        "black": ("black bumpers", "dark plastic bumpers"),
        "chrome": ("chrome bumpers", "shiny metal bumpers"),
    },
    "windows": {
        "clear": ("clear windows", "light see-through glass"),
        "tinted": ("dark tinted windows", "blacked-out glass"),
    },
}

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (200, 40, 40),
    "blue": (50, 90, 200),
    "green": (50, 150, 70),
    "yellow": (225, 195, 50),
    "orange": (230, 125, 40),
    "purple": (130, 70, 170),
    "teal": (40, 160, 165),
    "pink": (225, 130, 165),
    "brown": (135, 90, 55),
    "grey": (140, 145, 150),
}

# Six line names a seed; seeds beyond the list combine a first and a second half, so they never run out.
LINE_NAMES = (
    ("Aster", "Borealis", "Corvid", "Dorado", "Ember", "Fjord"),
    ("Garnet", "Heron", "Ibex", "Juniper", "Kestrel", "Lynx"),
    ("Meridian", "Nimbus", "Onyx", "Pampas", "Quill", "Raven"),
    ("Sierra", "Tundra", "Umbra", "Vortex", "Willow", "Zephyr"),
)
_FIRST, _SECOND = (
    ("Al", "Bri", "Cal", "Der", "El", "Mar", "Nor", "Tal"),
    ("dane", "mont", "vera", "wick", "sol", "tine"),
)
TRIM_NAMES = ("Sport", "Touring", "Classic", "City", "Trail", "Prime", "Royal", "Urban")
TRIMS = 4


@dataclass(frozen=True)
class CarModel:
    """One class: its name, its line (family), its body and the value of every part."""

    name: str
    line: str
    body: str
    parts: tuple[tuple[str, str], ...]

    @property
    def values(self) -> dict[str, str]:
        return dict(self.parts)


def random_parts(rng: random.Random) -> dict[str, str]:
    """An independent value for every part."""
    return {part: rng.choice(list(values)) for part, values in PARTS.items()}


def catalogue(seed: int = 0) -> list[CarModel]:
    """The 24 classes of `seed`: 6 lines of 4 trims, in class order (line by line)."""
    rng = random.Random(f"synth-cars-catalogue-{seed}")
    if seed < len(LINE_NAMES):
        lines = list(LINE_NAMES[seed])
    else:
        lines = rng.sample([a + b for a in _FIRST for b in _SECOND], len(BODIES))
    bodies = rng.sample(BODIES, len(BODIES))
    models = []
    for line, body in zip(lines, bodies, strict=True):
        for trim, parts in zip(rng.sample(TRIM_NAMES, TRIMS), _trims(rng), strict=True):
            models.append(CarModel(f"{line} {trim}", line, body, tuple(parts.items())))
    return models


def _trims(rng: random.Random) -> list[dict[str, str]]:
    """Four part sets over one base: a and b are changed alone, then a (again) together with c."""
    base = random_parts(rng)
    a, b, c = rng.sample(["wheels", "headlight", "roof", "side", "spoiler", "taillight"], 3)

    def other(part: str, *taken: str) -> str:
        return rng.choice([value for value in PARTS[part] if value not in taken])

    first = other(a, base[a])
    return [
        base,
        base | {a: first},
        base | {b: other(b, base[b])},
        base | {a: other(a, base[a], first), c: other(c, base[c])},
    ]


def describe(model: CarModel) -> list[str]:
    """Six sentences about what can be seen of `model`: one of the whole car, five of local parts."""
    word = {part: PARTS[part][value][0] for part, value in model.parts}
    other = {part: PARTS[part][value][1] for part, value in model.parts}
    name, body = model.name, model.body
    return [
        f"a photo of a {name}, a {body} with {word['wheels']}, {word['headlight']} and {word['roof']}.",
        f"the {name} has {other['headlight']} and {word['bumper']}.",
        f"a {body} with {word['side']} and {other['wheels']}.",
        f"a close-up of the {name} with {word['spoiler']} and {word['taillight']}.",
        f"the top of the {name}, with {other['roof']} and {word['windows']}.",
        f"a {body} with {other['taillight']}, {other['spoiler']} and {other['side']}.",
    ]
