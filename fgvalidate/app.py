"""The Hydra application: the command line comes in, runs go out, and one exit code at the end.

| exit code | meaning |
|---|---|
| 130, 143 | interrupted, terminated (after cleaning up) |
| 1 | a check failed |
| 2 | something could not be validated: a bad spec or override, a missing program, a lost job |
| 0 | at least one spec was validated and passed |
| 3 | nothing was validated: everything was skipped, or the selection is empty |
"""

import os
import sys
import traceback

import hydra
from omegaconf import DictConfig

from fgvalidate import sweep
from fgvalidate.command_line import expand_short_keys, sort_arguments
from fgvalidate.composition import find_config_dir, register_schema
from fgvalidate.diagnosis import diagnose, read_command_line
from fgvalidate.interruption import Terminated, raise_on_signals
from fgvalidate.recall import recall_arguments
from fgvalidate.report import Outcome, choose_exit_code
from fgvalidate.search_path import name_folders, parse_arguments
from fgvalidate.task import run_task

_outcomes: list[Outcome] = []


class TaskError(Exception):
    """What the task raised, which never raises for what others did wrong."""


def run(cfg: DictConfig) -> Outcome:
    """The task that Hydra calls; a module-level function, because launchers pickle it."""
    try:
        _outcomes.append(run_task(cfg))
    except Exception as error:
        raise TaskError(f"{type(error).__name__}: {error}") from error
    return _outcomes[-1]


def main() -> int:
    """Runs what the command line asks for; returns the exit code."""
    # Hydra then raises what went wrong instead of printing it and leaving.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    for stream in filter(None, (sys.stdout, sys.stderr)):
        # What a trainer says may hold characters that this terminal cannot show.
        stream.reconfigure(errors="backslashreplace")
    register_schema()
    with raise_on_signals() as interrupts:
        try:
            sys.argv[1:] = expand_short_keys(recall_arguments(sort_arguments(sys.argv[1:])))
            _, folders = parse_arguments(sys.argv[1:])
            name_folders(folders)
            hydra.main(version_base="1.3", config_path=str(find_config_dir()), config_name="config")(run)()
        except KeyboardInterrupt:
            return _leave("interrupted", 130)
        except Terminated:
            return _leave("terminated", 143)
        except Exception as error:
            if interrupts.is_interrupted:
                # Raised inside a library that made another error of it.
                return _leave("interrupted", 130)
            return _report_exception(error)
    if sweep.exit_codes:
        return sweep.exit_codes[-1]
    # --cfg, --info and the like only show
    return choose_exit_code(_outcomes) if _outcomes else 0


def _leave(how: str, code: int) -> int:
    print(f"fgvalidate: {how}: what was running has been ended, and nothing was judged", file=sys.stderr)
    return code


def _report_exception(error: Exception) -> int:
    if isinstance(error, TaskError):
        traceback.print_exception(error.__cause__)
        print("fgvalidate: this is a bug of fgvalidate; nothing that was running is left", file=sys.stderr)
    else:
        print(f"fgvalidate: {diagnose(error, read_command_line(sys.argv[1:]))}", file=sys.stderr)
    return 2
