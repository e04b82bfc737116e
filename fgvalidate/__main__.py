"""`python -m fgvalidate`, and the command `fgvalidate`."""

import contextlib
import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the application, and leaves with its exit code."""
    try:
        from fgvalidate.app import main as run_application  # noqa: PLC0415 - an interrupt may come while it is imported

        code = run_application()
    except KeyboardInterrupt:
        code = 130
    except SystemExit as error:
        # argparse and Hydra leave this way after --help and after a wrong option.
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError):
            stream.flush()
    # Python would take a second to put a scorer's libraries away; nothing of ours is left to be done.
    os._exit(code)


if __name__ == "__main__":
    main()
