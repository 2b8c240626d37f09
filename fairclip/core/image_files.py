"""Finding image files below a folder."""

import os
from pathlib import Path

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})


def is_image(name: str) -> bool:
    """Is this the name of an image file? By its ending alone; dot files are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGES


def images_below(folder: str | Path) -> dict[str, str]:
    """All image files at any depth: path below `folder`, with forward slashes -> path; sorted, links followed."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(place, folder).replace(os.sep, "/")
        start = "" if below == "." else f"{below}/"
        found.update((start + name, os.path.join(place, name)) for name in files if is_image(name))
    return dict(sorted(found.items()))
