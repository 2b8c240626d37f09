"""Where the project's folders are: beside this package in a checkout, inside it after an installation from a wheel."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
SHARE = PACKAGE / "share"  # only a wheel has it; pyproject.toml says what goes into it
# The folder of trainers/, datasets/, configs/, descriptions/ and toolbox/.
HOME = SHARE if SHARE.is_dir() else PACKAGE.parent
DESCRIPTIONS = HOME / "descriptions"
CONFIGS = HOME / "configs"
DATA = HOME / "data" if HOME != SHARE else Path("data")  # where data sets are looked for by default
CLASSES = HOME / "datasets" / "classes"  # the class lists of the benchmarks


def find_file(path: str) -> str:
    """The path of a file as the user gave it; if there is none, that of the project's own file, where that exists.

    So `configs/trainers/FAIR/tiny.yaml` means the same in every folder, also after an installation.
    """
    own = HOME / path
    return str(own) if own.is_file() and not Path(path).exists() else path
