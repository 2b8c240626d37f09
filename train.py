"""Train or evaluate one trainer, by CoOp's command line: what `fair train` does."""

import sys

from fairclip.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
