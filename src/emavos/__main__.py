"""`python -m emavos`: the command line."""

import sys

from emavos.cli import main

if __name__ == "__main__":
    sys.exit(main())
