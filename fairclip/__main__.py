"""`python -m fairclip` is the command `fair`."""

import sys

from fairclip.cli import main

if __name__ == "__main__":
    sys.exit(main())
