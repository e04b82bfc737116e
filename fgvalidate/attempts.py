"""Attempts: a run whose machine was the reason that it is red is repeated, in a folder of its own, on other GPUs.

What comes in is how to run once; what goes out is the report of the last attempt, which names all of them. The run's
folder holds the last attempt; those before it are moved into its subfolders `attempt-1`, `attempt-2`, ...
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from fgvalidate.errors import SpecError
from fgvalidate.facts import Facts
from fgvalidate.report import Attempt, Report
from fgvalidate.run_dir import RunDir
from fgvalidate.suite import read_plan, read_results

LARGEST_RED_SHARE = 0.3
"""Share of a multirun's specs: when more of the others are red, the machine is in no state to try again."""


@dataclass
class Attempts:
    """What was tried so far; filled while a run is repeated, so that an error on the way loses nothing."""

    run_dir: RunDir
    past: list[Attempt] = field(default_factory=list)

    @property
    def gpus(self) -> tuple[str, ...]:
        """The full UUIDs of all GPUs that were tried."""
        return tuple(dict.fromkeys(gpu for attempt in self.past for gpu in attempt.gpus))

    def add(self, report: Report, gpus: tuple[str, ...]) -> None:
        """Puts an attempt aside, so that the run's folder is free for the next one.

        Raises:
            RunDirError: Its files cannot be moved.
        """
        # Its report goes on saying where it was run, which is what the paths among its facts are relative to.
        folder = self.run_dir.put_aside(len(self.past) + 1)
        self.past.append(describe_attempt(report, gpus, folder))


def describe_attempt(report: Report, gpus: tuple[str, ...], folder: Path) -> Attempt:
    """Returns what is kept of one attempt."""
    return Attempt(
        outcome=report.outcome,
        failure=report.failure,
        reason=report.reason,
        run_dir=folder,
        duration_s=report.duration_s,
        gpus=gpus,
    )


def repeat_run(
    run_once: Callable[[tuple[str, ...]], tuple[Report, Facts, tuple[str, ...]]],
    attempts: Attempts,
    *,
    num_retries: int,
    explain_stop: Callable[[], str],
    say: Callable[[str], None],
) -> tuple[Report, Facts]:
    """Runs once, and again as long as the machine is the reason that the run is red.

    Args:
        run_once: Runs in the run's folder, which is empty but for earlier attempts. It is given the full UUIDs of the
            GPUs that were tried, and returns report, facts and the UUIDs of those that it had.
        attempts: Takes what was tried.
        num_retries: How often the run may be repeated.
        explain_stop: Says why a retry would be of no use now; an empty string: it may be.
        say: Is told of each retry, on one line.

    Returns:
        The report and the facts of the last attempt.
    """
    while True:
        report, facts, gpus = run_once(attempts.gpus)
        if report.failure != "infrastructure" or not num_retries:
            return _conclude(report, attempts, gpus), facts
        if len(attempts.past) == num_retries:
            return _conclude(report, attempts, gpus), facts
        if why := explain_stop():
            stopped = replace(report, reason=f"{report.reason}; not tried again: {why}")
            return _conclude(stopped, attempts, gpus), facts
        attempts.add(report, gpus)
        say(f"{report.test_id}: attempt {len(attempts.past)}: {report.reason}; trying again")


def _conclude(report: Report, attempts: Attempts, gpus: tuple[str, ...]) -> Report:
    if not attempts.past:
        return report
    assert report.run_dir is not None
    everyone = (*attempts.past, describe_attempt(report, gpus, report.run_dir))
    before = attempts.past[-1]
    number = len(everyone)
    reason = f"{report.reason}; attempt {number} of {number}"
    if report.outcome == "passed":
        earlier = f"passed on attempt {number}; attempt {number - 1}: {before.reason}"
        reason = "; ".join(filter(None, [earlier, report.reason]))
    return replace(report, reason=reason, attempts=everyone)


def explain_stop(root: Path, num: int) -> str:
    """Says why nothing is tried again in a multirun; an empty string: it may be.

    Args:
        root: The multirun's folder.
        num: The number of the job that asks.
    """
    try:
        num_jobs = len(read_plan(root).jobs)
    except SpecError:
        return ""  # of another sweeper, which plans nothing
    rows = read_results(root).items()
    num_red = sum(row.report.outcome in {"failed", "error"} for other, row in rows if other != num)
    if num_red <= LARGEST_RED_SHARE * num_jobs:
        return ""
    return f"{num_red} of {num_jobs} specs are red, more than {LARGEST_RED_SHARE:.0%}"
