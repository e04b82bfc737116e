"""`python -m fgvalidate`, and the command `fgvalidate`."""

import contextlib
import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the application, and leaves with its exit code."""
    code = _run()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError):
            stream.flush()
    sweep = sys.modules.get("fgvalidate.sweep")
    if sweep is not None and sweep.exit_codes:
        # A launcher may have workers to send home.
        sys.exit(code)
    # Python would take a second to put a scorer's libraries away; nothing of ours is left to be done.
    os._exit(code)


def _run() -> int:
    try:
        if {"-sc", "--shell-completion"} & set(sys.argv):
            from fgvalidate.tab_completion import main as complete  # noqa: PLC0415 - somebody waits at a prompt

            return complete()
        from fgvalidate.app import main as run_application  # noqa: PLC0415 - an interrupt may come while it is imported

        return run_application()
    except KeyboardInterrupt:
        return 130
    except SystemExit as error:
        # argparse and Hydra leave this way after --help and after a wrong option.
        return error.code if isinstance(error.code, int) else int(error.code is not None)


if __name__ == "__main__":
    main()
