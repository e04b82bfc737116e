"""Slurm's queue, through its command line: jobs are listed, described and cancelled.

Every question has a time limit, and None is the answer where Slurm gives none. `sacct` is never relied on: many
clusters have no accounting.
"""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fgvalidate.process import run_tool

ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "LAUNCH_FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
"""States that a job does not leave, since none of ours is ever requeued."""
WAITING = frozenset({"CONFIGURING", "PENDING"})
HELD = frozenset({"REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
HOPELESS_REASONS = re.compile(
    r"AccountNotAllowed|BadConstraints|DependencyNeverSatisfied|InvalidAccount|InvalidQOS|JobHeldAdmin|JobHeldUser"
    r"|JobHoldMaxRequeue|PartitionNodeLimit|PartitionTimeLimit|QOSNotAllowed|.*MaxWallDurationPerJobLimit"
    r"|.*Max(?:Cpu|CPU|GRES|Mem|Memory|Node|TRES)\w*PerJob\w*|.*requeued held.*"
)
"""Why a pending job never starts, unless someone changes it or the cluster."""

ANSWER_TIMEOUT_S = 30.0
SACCT_TIMEOUT_S = 10.0

_FIELD = re.compile(r"(?:^| )(?P<name>[A-Za-z/]+)=(?P<value>\S*)")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A job as the queue shows it."""

    job_id: str
    state: str
    """Slurm's word, in capitals; `ENDED`, `WAITING` and `HELD` sort them."""
    reason: str
    """Why it waits, or why it ended, in Slurm's words; "None" is one of them."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended for good."""
        return self.state in ENDED

    @property
    def is_hopeless(self) -> bool:
        """Whether it waits for something that does not come by itself."""
        is_stuck = self.state == "PENDING" and HOPELESS_REASONS.fullmatch(self.reason) is not None
        return is_stuck or self.state in HELD


def list_jobs(prefix: str) -> dict[str, Entry] | None:
    """Lists this user's jobs whose names begin with a prefix, by job id; ended ones as long as Slurm remembers them.

    Returns:
        None when Slurm does not answer.
    """
    # squeue takes filters from the environment: a job that they hide would be taken for lost.
    filters = [f"--unset={name}" for name in os.environ if name.startswith("SQUEUE_")]
    argv = ["env", *filters, "squeue", "--me", "--states=all", "--noheader", "--format=%i|%T|%r|%j"]
    answer = run_tool(argv, cwd=Path("/"), timeout_s=ANSWER_TIMEOUT_S)
    if answer is None:
        return None
    rows = (line.split("|", maxsplit=3) for line in answer.splitlines() if line.count("|") >= 3)
    return {
        job_id: Entry(job_id=job_id, state=state, reason=reason.strip("()"))
        for job_id, state, reason, name in rows
        if name.startswith(prefix)
    }


def cancel_jobs(job_ids: Collection[str]) -> None:
    """Asks Slurm to end jobs; whether it has is for `list_jobs` to say."""
    if job_ids:
        run_tool(["scancel", *sorted(job_ids)], cwd=Path("/"), timeout_s=ANSWER_TIMEOUT_S)


def describe_job(job_id: str) -> dict[str, str]:
    """Returns what Slurm knows of a job, by Slurm's names (JobState, ExitCode, RunTime, Reason); {}: nothing."""
    answer = run_tool(["scontrol", "show", "job", "--oneliner", job_id], cwd=Path("/"), timeout_s=ANSWER_TIMEOUT_S)
    fields: dict[str, str] = {}
    for match in _FIELD.finditer(answer or ""):
        # Paths and comments come last, and may hold anything.
        fields.setdefault(match["name"], match["value"])
    return fields


def ask_accounting(job_id: str) -> dict[str, str]:
    """Returns what the accounting remembers of a job that the queue has forgotten, as `describe_job` does.

    {}: nothing; it is often not there, and may hang.
    """
    argv = [
        "sacct",
        "--noheader",
        "--parsable2",
        "--allocations",
        f"--jobs={job_id}",
        "--format=State,ExitCode,Elapsed",
    ]
    answer = run_tool(argv, cwd=Path("/"), timeout_s=SACCT_TIMEOUT_S)
    values = (answer or "").strip().split("|")
    if len(values) != 3:
        return {}
    state, exit_code, elapsed = values
    return {"JobState": state.partition(" ")[0], "ExitCode": exit_code, "RunTime": elapsed}
