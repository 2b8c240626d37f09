"""The command `fair`: one word for what to do, then its arguments. `fair COMMAND --help` explains each.

fair compare synth_cars --methods fair,upl
"""

import argparse
import difflib
import importlib
import os
import select
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from fairclip.core.errors import UserError, in_one_line
from fairclip.core.invocation import fair_command, launched
from fairclip.core.log import show_messages
from fairclip.core.places import PACKAGE
from fairclip.core.stopping import stops_on_signals
from fairclip.core.toolbox import use_dassl


@dataclass(frozen=True)
class Command:
    """A module that has `add_arguments(parser)` and `main(args) -> exit status or None`; its docstring is the help."""

    module: str
    help: str
    dassl: bool = True  # whether it needs one
    options: bool = False  # whether it takes config keys after "--", as args.options
    goes_on: bool = False  # whether it goes on, called again, from the last epoch that it finished


COMMANDS: dict[str, Command | dict[str, Command]] = {
    "adapt": Command(
        "fairclip.adapting.command", "adapt to classes of your own by a folder of unlabelled images", False, True, True
    ),
    "train": Command(
        "fairclip.run.launch", "train and test one trainer on one data set, by CoOp's flags", False, goes_on=True
    ),
    "run": Command(
        "fairclip.compare.run_command", "a method beside what it is measured by, and the table", False, True
    ),
    "compare": Command(
        "fairclip.compare.compare_command", "methods head to head on data sets, and the table", False, True
    ),
    "eval": Command("fairclip.compare.eval_command", "test saved runs of FAIR again", False, True),
    "table": Command("fairclip.compare.table_command", "tables and a report of finished runs", False),
    "predict": Command("fairclip.predict.command", "classify images with a finished run", False),
    "export": Command("fairclip.export.command", "take an adapted CLIP out of a run, for other software", False),
    "draw-crops": Command("fairclip.draw_crops", "draw the crops that a finished run of FAIR goes by", False),
    "data": {
        "doctor": Command("fairclip.data.doctor", "which data sets are there, and what is wrong with them"),
        "fetch": Command("fairclip.data.fetch", "download data sets that are on the web"),
    },
    "describe": {
        "check": Command("fairclip.describe.check", "hold description files against the rules"),
        "generate": Command("fairclip.describe.generate", "make a description file for classes of your own"),
        "birds": Command("fairclip.describe.birds", "write cub200.json and birdsnap.json anew from birds.json"),
    },
    "config": Command("fairclip.run.config_command", "what can be set: keys, defaults, and what they mean"),
    "bench": Command("fairclip.bench.command", "how fast FAIR is on this machine"),
    "install-into": Command("fairclip.install.command", "put FAIR into a checkout of CoOp, or one made like it", False),
}
GOES_ON = " The same command goes on from the last finished epoch, if there is one."
GROUPS = {"data": "look after data sets", "describe": "look after class descriptions"}


class Parser(argparse.ArgumentParser):
    """Its mistakes are one message, as all others are, and not the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        called = self.prog.replace("fair", fair_command(), 1)
        self.exit(2, f"Error: {self.prog}: {message} ({called} --help lists what it takes)\n")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """What a command does not know ends here, where the command's own options are known."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unknown arguments: {' '.join(rest)}{self.meant(rest[0])}")
        return found, rest

    def meant(self, word: str) -> str:
        """The option that a wrong one may stand for, in words."""
        flag, known = word.partition("=")[0], list(self._option_string_actions)
        close = [name for name in known if name.startswith(flag)] or difflib.get_close_matches(flag, known)
        return f", did you mean {close[0]}?" if word.startswith("--") and close else ""


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; of the commands, only the one that ``argv`` names is imported."""
    parser = Parser("fair", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words, commands, subparsers = list(argv), COMMANDS, parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in commands.items():
        if isinstance(command, Command):
            add_command(subparsers, name, command, words[:1] == [name])
            continue
        group = subparsers.add_parser(name, help=GROUPS[name], description=GROUPS[name])
        members = group.add_subparsers(metavar="COMMAND", required=True)
        for member, what in command.items():
            add_command(members, member, what, words[:2] == [name, member])
    return parser


def add_command(subparsers: argparse._SubParsersAction, name: str, command: Command, named: bool) -> None:
    parser = subparsers.add_parser(
        name, help=command.help, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    if named:
        # `fair install-into` gives a checkout only what it needs there.
        if not (PACKAGE.parent / f"{command.module.replace('.', '/')}.py").is_file():
            raise UserError(
                f"{PACKAGE} has no `{name}`, it is a copy for training and predicting: use FAIR's own `fair`"
            )
        if command.dassl:
            use_dassl(announce=False)
        module = importlib.import_module(command.module)
        parser.description = module.__doc__
        module.add_arguments(parser)
        parser.set_defaults(main=module.main)


def split_options(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """The arguments before "--" and the config keys behind it; None for a command that takes none."""
    command = COMMANDS.get(argv[0]) if argv else None
    if not isinstance(command, Command) or not command.options:
        return list(argv), None
    end = list(argv).index("--") if "--" in argv else len(argv)
    return list(argv[:end]), list(argv[end + 1 :])


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: that of the command, 2 after a message for the user, 130 after Ctrl-C or SIGTERM."""
    make_streams_safe()
    words, options = split_options(sys.argv[1:] if argv is None else argv)
    show_messages()
    try:
        with stops_on_signals():  # so that what is held in memory and what is half written is given back
            args = build_parser(words).parse_args(words)
            if options is not None:
                args.options = options
            status = args.main(args) or 0
            sys.stdout.flush()  # here rather than when Python ends, where nobody could handle the error
            return status
    except Exception as error:
        if isinstance(error, BrokenPipeError) and nobody_reads():
            return 1
        if (message := in_one_line(error)) is None:
            raise
        print(f"Error: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if not launched():  # torchrun says so itself, and stops the others too where one has failed
            command = COMMANDS.get(words[0]) if words else None
            goes_on = isinstance(command, Command) and command.goes_on
            print("\nStopped." + GOES_ON * goes_on, file=sys.stderr)
        return 130


def make_streams_safe() -> None:
    """Of what a console cannot show, it gets the code; a stream that the caller has closed swallows what it gets."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (until the program ends)
        elif getattr(stream, "errors", "") == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def nobody_reads() -> bool:
    """Has the reader of our output gone, as in `fair data doctor | head`? Then output goes nowhere from now on."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left when it ends
    return gone
