"""One spec, run by the application in a process of its own: its words come in; its report and facts come out.

It is a multirun of one: that has a result for whatever may happen, a lost process and a bad spec included.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fgvalidate.command_line import quote_value, write_command
from fgvalidate.facts import Facts
from fgvalidate.process import ProcessResult, run_process
from fgvalidate.report import FailureKind, Report, choose_exit_code, escape_controls
from fgvalidate.suite import read_results
from fgvalidate.text_search import read_tail

GRACE_S = 90.0
"""How long an interrupted run may take to put away what it started before it is killed, in seconds."""

_OWN_LINE = "fgvalidate: "
_LOST = "lost:"
_FOREIGN_PREFIX = "PYTEST_"
_FOREIGN_NAMES = frozenset({"GITHUB_STEP_SUMMARY"})


@dataclass(frozen=True)
class SpecRun:
    """What one spec came to."""

    report: Report
    facts: Facts | None
    """What was observed; None: nothing was."""


def build_own_environment() -> dict[str, str]:
    """Returns the environment for a process of ours that is started by a test runner.

    It is this one, less what the runner says to its own, and less where CI wants one summary and not one a spec.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN_PREFIX) and name not in _FOREIGN_NAMES
    }


def run_spec(
    words: Sequence[str],
    *,
    test_id: str,
    file: Path,
    folder: Path,
    cwd: Path,
    on_output: Callable[[str], None] | None = None,
) -> SpecRun:
    """Runs one spec; whatever interrupts it, nothing that it started is left.

    Args:
        words: What chooses the spec, and the overrides.
        test_id: The spec's.
        file: The spec's; that another one was run is an error.
        folder: A new, empty folder for what the run leaves.
        cwd: What relative paths in the words are relative to.
        on_output: Called with what the run prints, while it does; None: nobody is.

    Raises:
        LaunchError: Its process cannot be started.
    """
    root = folder / "multirun"
    stdout = folder / "stdout"
    stderr = folder / "stderr"
    last = f"hydra.sweep.dir={quote_value(str(root))}"
    follow = _follow(stdout, on_output) if on_output else None
    ended = run_process(
        [sys.executable, "-m", "fgvalidate", *words, last, "-m"],
        cwd=cwd,
        env=build_own_environment(),
        stdout=stdout,
        stderr=stderr,
        timeout_s=None,
        on_tick=follow,
        grace_s=GRACE_S,
    )
    if follow:
        follow(0)
    rows = list(read_results(root).values())
    report = rows[0].report if len(rows) == 1 else None
    problem = _explain_loss(ended, report, stderr) or _explain_other(report, file)
    if report is None or problem:
        command = report.command if report else write_command(words, ())
        kind: FailureKind = "infrastructure" if problem.startswith(_LOST) else "spec"
        reason = f"{kind}: {problem}"
        return SpecRun(Report(test_id=test_id, outcome="error", failure=kind, reason=reason, command=command), None)
    return SpecRun(report, rows[0].facts)


def _explain_loss(ended: ProcessResult, report: Report | None, stderr: Path) -> str:
    """Says why there is no result to be trusted; an empty string where there is."""
    if report is not None and ended.returncode == choose_exit_code([report.outcome]):
        return ""
    lines = [line for line in read_tail(stderr, num_lines=20) if line.strip()]
    said = next((line.removeprefix(_OWN_LINE) for line in reversed(lines) if line.startswith(_OWN_LINE)), "")
    last = escape_controls(said or (lines[-1] if lines else ""))
    if ended.returncode == 2 and said:
        return last
    how = "was killed" if ended.returncode is None else f"ended with exit code {ended.returncode}"
    if ended.returncode is not None and ended.returncode < 0:
        how = f"was killed by signal {-ended.returncode}"
    return f"{_LOST} its process {how}{f'; the last it said: {last}' if last else ''}"


def _explain_other(report: Report | None, file: Path) -> str:
    """Says that another spec was run; an empty string where it was this one, or none."""
    run = report.spec_file if report else None
    if run is None or run.resolve() == file.resolve():
        return ""
    return f"{file}: another spec of this name was run, {run}; rename one of them"


def _follow(path: Path, on_output: Callable[[str], None]) -> Callable[[float], None]:
    offset = 0

    def read_new(_elapsed_s: float) -> None:
        nonlocal offset
        with path.open("rb") as file:
            file.seek(offset)
            new = file.read()
        offset += len(new)
        if new:
            on_output(new.decode(errors="replace"))

    return read_new
