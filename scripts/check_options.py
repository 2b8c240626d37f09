"""Checks config options as train.py would, before many runs begin: python scripts/check_options.py KEY VALUE..."""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toolbox import use_dassl  # noqa: E402
from train import build_cfg, import_plugins, parse_args  # noqa: E402
from trainers.modules.backbone import share_with_clip  # noqa: E402
from trainers.modules.errors import UserError  # noqa: E402


def main(options: Sequence[str]) -> int:
    """Returns the exit status: 0, or 2 after a message for the user."""
    use_dassl(announce=False)
    share_with_clip()  # as train.py; clip's import is silent this way
    try:
        build_cfg(parse_args(options), import_plugins()[0])
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
