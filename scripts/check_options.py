"""Checks what train.py would refuse, before many runs begin: python scripts/check_options.py KEY VALUE... <FINISHED

KEY VALUE are config options. FINISHED has the commands of runs that have results already, for each the number of its
words and the words, each ended by a zero byte: results of other settings or descriptions are refused.
"""

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from toolbox import use_dassl  # noqa: E402
from train import already_finished, build_cfg, import_plugins, parse_args  # noqa: E402
from trainers.modules.backbone import share_with_clip  # noqa: E402
from trainers.modules.errors import UserError  # noqa: E402


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of train.py in each command."""
    words = iter(text.split("\0"))
    while count := next(words):
        yield [next(words) for _ in range(int(count))][2:]  # without python and train.py


def main(options: Sequence[str], finished: str = "") -> int:
    """Returns the exit status: 0, or 2 after a message for the user."""
    use_dassl(announce=False)
    share_with_clip()  # as train.py; clip's import is silent this way
    try:
        with redirect_stdout(io.StringIO()):
            modules, _ = import_plugins()
            build_cfg(parse_args(options), modules)
            for arguments in commands(finished):
                already_finished(build_cfg(parse_args(arguments), modules))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin.read()))
