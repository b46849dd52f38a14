"""`echox` and `python -m echox`: the command line, which Ctrl-C ends without a traceback while it is still being imported, too."""

import sys


def main() -> None:
    """Run the command line and exit as it does, or with 130 where Ctrl-C comes before it can answer to that itself."""
    try:
        from echox.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
