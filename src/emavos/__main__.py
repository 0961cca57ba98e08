"""`emavos` and `python -m emavos`: the command line."""

import sys


def main() -> int:
    """Run the command line and return its exit code.

    Ctrl-C ends with one line also while the modules of the commands are imported, which takes a moment.
    """
    try:
        from emavos.cli import main as run

        return run()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("emavos: error: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
