"""python -m descriptions check | generate | birds"""

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: that of the command, 2 after a message for the user, 130 after Ctrl-C."""
    import toolbox
    from trainers.modules.errors import UserError

    toolbox.use_dassl(announce=False)  # before the imports below, which need one
    from descriptions import birds, check, generate

    parser = argparse.ArgumentParser(prog="python -m descriptions", description="Looks after class descriptions.")
    commands = parser.add_subparsers(dest="command", required=True)
    check.add_arguments(commands.add_parser("check", help="hold description files against the rules"))
    generate.add_arguments(commands.add_parser("generate", help="make a description file for classes of your own"))
    commands.add_parser("birds", help="write cub200.json and birdsnap.json anew from birds.json")
    args = parser.parse_args(argv)
    try:
        if args.command == "birds":
            return birds.write() or 0
        return {"check": check, "generate": generate}[args.command].main(args)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
