"""`python -m fgvalidate`, and the command `fgvalidate`."""

import sys


def main() -> int:
    """Runs the application; returns the exit code."""
    try:
        from fgvalidate.app import main as run_application  # noqa: PLC0415 - an interrupt may come while it is imported
    except KeyboardInterrupt:
        return 130
    return run_application()


if __name__ == "__main__":
    sys.exit(main())
