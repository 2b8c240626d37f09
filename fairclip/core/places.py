"""Where the project's folders are: beside this package in a checkout, inside it after an installation from a wheel."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
SHARE = PACKAGE / "share"  # only a wheel has it
# The folder of trainers/, datasets/, configs/, descriptions/ and toolbox/.
HOME = SHARE if SHARE.is_dir() else PACKAGE.parent
DESCRIPTIONS = HOME / "descriptions"
CONFIGS = HOME / "configs"
DATA = HOME / "data" if HOME != SHARE else Path("data")  # where data sets are looked for by default
CLASSES = HOME / "datasets" / "classes"  # the class lists of the benchmarks
