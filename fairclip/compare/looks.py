"""How a method looks: one colour and dash for each, in every picture and table of every report."""

import zlib
from collections.abc import Sequence
from html import escape

from fairclip.compare.methods import Method, read_methods
from fairclip.core.places import CONFIGS

COLOURS, DASHES = 12, 5
# Those that are compared most often have a colour that no other of them has.
FIRST = "fair plain plain_aligned plain_crops cupl zsclip oracle linear_probe dpa must lafter upl".split()


def known_keys() -> list[str]:
    """The methods of the usual table, then those of the others; those of ``FIRST`` before all."""
    tables = sorted(CONFIGS.glob("*.txt"), key=lambda path: (path.stem != "methods", path.stem))
    keys = [*FIRST, *(method.key for table in tables for method in read_methods(table))]
    return list(dict.fromkeys(keys))


def looks(methods: Sequence[Method]) -> dict[Method, int]:
    """The number of each method's look. Those of our tables have the same in all reports; others have one by their
    name, or the next that is free."""
    fixed = {key: look for look, key in enumerate(known_keys())}
    found = {m: fixed[m.key] for m in methods if m.key in fixed}
    for m in methods:
        if m not in found:
            look = zlib.crc32(m.key.encode()) % (COLOURS * DASHES)
            taken = {look % (COLOURS * DASHES) for look in found.values()}
            free = (n % (COLOURS * DASHES) for n in range(look, look + COLOURS * DASHES))
            found[m] = next((n for n in free if n not in taken), look)
    return found


def look_classes(look: int) -> str:
    """CSS classes: colours first, then colours with other dashes."""
    return f"c{look % COLOURS} d{(look // COLOURS + look) % DASHES}"


def sample(look: int) -> str:
    """A piece of the method's line, to stand before its name."""
    line = f'<path class="line {look_classes(look)}" d="M0 5H30"/>'
    return f'<svg class="key" viewBox="0 0 30 10" aria-hidden="true">{line}</svg>'


def legend(names: dict[str, int]) -> str:
    """A list that says which line is whose; by name, the looks."""
    return (
        f'<ul class="legend">{"".join(f"<li>{sample(look)}{escape(name)}</li>" for name, look in names.items())}</ul>'
    )
