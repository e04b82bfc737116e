"""What goes wrong on our side of the fence, as one readable line each.

What the subject does wrong (a crash, a timeout, NaN) is never an exception: it is a fact, and checks judge it.

    FgvalidateError              exit code 2: the spec could not be validated
    +-- SpecError                the spec, a config file or an override is wrong
    +-- LaunchError              a program cannot be started (missing, not executable)
    +-- RunDirError              the run's folder is in use or cannot be written
    +-- LeaseError               GPUs cannot be leased on this machine
    +-- ScorerError              the reference model cannot be found or loaded
        +-- HubError             because the hub cannot be reached
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class FgvalidateError(Exception):
    """A run could not be validated; `str(error)` is one line for the user, with what to do next."""


class SpecError(FgvalidateError):
    """The composed spec is wrong: an unknown key, a bad value, a broken cross-field rule."""


class LaunchError(FgvalidateError):
    """A program that the spec needs cannot be started."""


class RunDirError(FgvalidateError):
    """The run's folder already holds a run, or cannot be created or written."""


class LeaseError(FgvalidateError):
    """The folder of GPU leases cannot be used, or more GPUs are asked for than there can ever be."""


class ScorerError(FgvalidateError):
    """The model that scores generated text is nowhere to be had, not complete, or cannot be loaded."""


class HubError(ScorerError):
    """The model that scores is not here, and the hub cannot be reached or does not answer as it should."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" with the nearest known name, or an empty string when none is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def show_path(path: Path) -> str:
    """Returns the path as a user in the current folder would type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
