"""The console that everything is printed on."""

import os
import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 140


@cache
def get_console() -> "Console":
    """Returns the console of stdout; one for all, so that a live display and what is printed do not cross."""
    from rich.console import Console  # noqa: PLC0415 - a composition that only shows itself needs none

    class PipedConsole(Console):
        def on_broken_pipe(self) -> None:
            # A reader that leaves early (`| head`) must not turn a verdict into another exit code.
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    # Where there is no terminal to ask, lines may be longer than 80 characters.
    return PipedConsole(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
