"""python -m datasets doctor | fetch"""

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: that of the command, 2 after a message for the user, 130 after Ctrl-C."""
    import toolbox
    from trainers.modules.errors import UserError

    toolbox.use_dassl(announce=False)  # before the imports below, which need one
    from datasets import doctor, fetch

    parser = argparse.ArgumentParser(prog="python -m datasets", description="Looks after the data sets.")
    commands = parser.add_subparsers(dest="command", required=True)
    doctor.add_arguments(commands.add_parser("doctor", help="what is there, is it right", description=doctor.ABOUT))
    fetch.add_arguments(commands.add_parser("fetch", help="download data sets that are on the web"))
    args = parser.parse_args(argv)
    try:
        return {"doctor": doctor, "fetch": fetch}[args.command].main(args)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":  # train.py imports whatever lies in this folder
    sys.exit(main())
