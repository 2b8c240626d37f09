"""Where what can be made again is kept."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """$FAIR_CACHE or ~/.cache/fair, and `kind` in it. It need not exist, and may not be writable."""
    return Path(os.environ.get("FAIR_CACHE") or "~/.cache/fair").expanduser() / kind
