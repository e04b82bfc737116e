"""A multirun's folder: what was planned, and what came of it, spec by spec.

    outputs/multirun/<timestamp>/
      suite.json          what was planned, written before anything starts
      results.jsonl       a line a finished spec: its report and its facts
      ending.json         how it ended, written last; without it, the multirun was killed
      <num>-<test_id>/    a run's folder
      report.json  report.html  junit.xml  summary.md

A line is appended by whoever knows the outcome: the process that ran the spec, or the launcher that lost it. So all
reports can be rebuilt from the folder, even when everything of us was killed.
"""

import contextlib
import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from fgvalidate.command_line import read_key
from fgvalidate.errors import RunDirError, SpecError
from fgvalidate.facts import Facts
from fgvalidate.report import FailureKind, Mutation, Outcome, Report, choose_exit_code

SCHEMA_VERSION = 1
PLAN_NAME = "suite.json"
RESULTS_NAME = "results.jsonl"
ENDING_NAME = "ending.json"

Ending = Literal["completed", "stopped", "interrupted", "terminated", "killed"]
"""stopped: by fail_fast after the first red spec. killed: the launcher was, and nobody wrote down how it ended."""

ENDING_WORDS: dict[Ending, str] = {
    "completed": "completed",
    "stopped": "stopped by fail_fast after the first red spec",
    "interrupted": "interrupted",
    "terminated": "terminated",
    "killed": "killed; this is what was written down until then",
}

EXIT_CODES: dict[Ending, int] = {"interrupted": 130, "terminated": 143}

OUTCOME_RANKING: tuple[Outcome, ...] = ("failed", "error", "skipped", "passed")
"""The worst first."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One planned run."""

    num: int
    """Hydra's number of the job, from 0."""
    spec: str
    """The option of the group `spec`."""
    test_id: str
    name: str
    """How reports name it: the test_id, and in brackets the values of further axes: `tiny_llama[max_steps=20]`."""
    overrides: tuple[str, ...]
    """The words on the command line that compose it."""
    run_dir: str
    """Its folder, below the multirun's."""
    markers: tuple[str, ...] = ()
    gpu_requirement: int = 0
    """GPUs that it takes."""
    gpu_memory: float | None = None
    """Memory that it takes on each of them, GiB; None: a whole GPU, or its share of one."""
    specs_per_gpu: int = 1
    """How many specs may share a GPU with it."""
    memory: float | None = None
    """Main memory that it takes, GiB; None: not said."""
    cpu_ok: bool = False
    """Whether it runs on the CPU when it asks for one GPU and there is none."""
    max_steps: int | None = None
    """Optimizer steps asked for; None: as many as its config says."""
    timeout: int = 0
    """Seconds that its training command may take."""
    time_limit: int = 0
    """Seconds that all its stages may take together, those of repeated runs as well."""
    expected_s: float = 0.0
    """Seconds that it is expected to take: as long as the last time, else its time limit."""
    command: str = ""
    """What to type to repeat it alone."""

    @property
    def is_judging(self) -> bool:
        """Whether it judges a recorded run or plants faults in it, and runs nothing itself."""
        return not {"judge", "mutate"}.isdisjoint(map(read_key, self.overrides))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a multirun sets out to do."""

    command: str
    """What was typed."""
    started_at: float
    """Seconds since the epoch."""
    jobs: tuple[Job, ...]
    selection: str = ""
    """The marker expression that chose them; empty: all were run."""
    deselected: int = 0
    """How many it left out."""

    @property
    def is_judging(self) -> bool:
        """Whether it judges recorded runs."""
        return any(job.is_judging for job in self.jobs)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of one job."""

    job: Job
    report: Report
    facts: Facts | None = None
    """None: nothing was observed, since it was skipped, could not be validated, or was lost."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A multirun and all its results; a job without one counts as lost."""

    root: Path
    """Its folder."""
    plan: Plan
    ending: Ending
    duration_s: float
    """Wall time, seconds; until the last result where it was killed."""
    results: tuple[Result, ...] = field(default=())
    """One a job, in the order of their numbers."""

    @property
    def outcomes(self) -> list[Outcome]:
        """Of every job."""
        return [result.report.outcome for result in self.results]

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many jobs ended how, the worst first; outcomes that did not occur are left out."""
        counted = Counter(self.outcomes)
        return {outcome: counted[outcome] for outcome in OUTCOME_RANKING if counted[outcome]}

    @property
    def headline(self) -> str:
        """The verdict in a line: `3 specs: 1 failed, 2 passed`."""
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items())
        return f"{len(self.results)} spec{'' if len(self.results) == 1 else 's'}: {counts or 'none was run'}"

    @property
    def exit_code(self) -> int:
        """130 or 143 when it was interrupted or terminated, else by what the specs ended with."""
        return EXIT_CODES.get(self.ending) or choose_exit_code(self.outcomes)

    @property
    def mutations(self) -> dict[str, dict[str, Mutation]]:
        """By fault and name of the job, what became of the faults that were planted; {} where none were."""
        found: dict[str, dict[str, Mutation]] = {}
        for result in self.results:
            for mutation in result.report.mutations:
                found.setdefault(mutation.name, {})[result.job.name] = mutation
        return found

    @property
    def ranked_results(self) -> list[Result]:
        """The worst first, each kind in the order of its numbers."""
        return sorted(self.results, key=lambda result: OUTCOME_RANKING.index(result.report.outcome))

    def to_document(self) -> dict[str, Any]:
        """Returns the suite for strict JSON (`docs/report.md` names its keys)."""
        return {
            "schema": SCHEMA_VERSION,
            "counts": self.counts,
            "exit_code": self.exit_code,
            "ending": self.ending,
            "command": self.plan.command,
            "selection": self.plan.selection,
            "deselected": self.plan.deselected,
            "started_at": self.plan.started_at,
            "duration_s": round(self.duration_s, 3),
            "mutations": {
                fault: {name: mutation.status for name, mutation in row.items()}
                for fault, row in self.mutations.items()
            },
            "specs": [
                {
                    "num": result.job.num,
                    "name": result.job.name,
                    "overrides": list(result.job.overrides),
                    "markers": list(result.job.markers),
                    "report": result.report.to_document(),
                }
                for result in self.results
            ],
        }

    def write(self, path: Path) -> None:
        """Writes the suite as strict JSON; see `to_document`."""
        path.write_text(json.dumps(self.to_document(), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def start_suite(root: Path, plan: Plan) -> None:
    """Makes the folder of a multirun and writes down what was planned.

    Raises:
        RunDirError: The folder holds a multirun already, or cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (root / PLAN_NAME).open("x", encoding="utf-8") as file:
            json.dump({"schema": SCHEMA_VERSION, **asdict(plan)}, file, indent=2)
    except FileExistsError as error:
        raise RunDirError(f"{root}: this folder holds a multirun already; choose another hydra.sweep.dir") from error
    except OSError as error:
        what = f"cannot write the multirun's folder ({error.strerror})"
        raise RunDirError(f"{root}: {what}; choose another hydra.sweep.dir") from error


def append_result(root: Path, num: int, report: Report, facts: Facts | None) -> None:
    """Appends the result of one job; safe while other processes append theirs.

    Args:
        root: The multirun's folder.
        num: The job's number.
        report: What it ended with.
        facts: What was observed; None: nothing was.
    """
    row = {
        "num": num,
        "finished_at": time.time(),
        "report": report.to_document(),
        "facts": facts and facts.to_document(),
    }
    line = json.dumps(row, allow_nan=False).encode() + b"\n"
    with (root / RESULTS_NAME).open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # A writer that was killed may have left half a line.
        size = file.seek(0, os.SEEK_END)
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            line = b"\n" + line
        file.write(line)
        file.flush()


def append_error(root: Path, job: Job, failure: FailureKind, reason: str) -> None:
    """Appends the result of a job that could not be validated, with the class of the failure and why."""
    append_result(root, job.num, report_error(job, failure, reason), None)


def report_error(job: Job, failure: FailureKind | Literal[""], reason: str, *, duration_s: float = 0.0) -> Report:
    """Returns the report of a job that could not be validated.

    Args:
        job: Which.
        failure: The class of the failure; "": it was none, since somebody wanted the job to end.
        reason: Why.
        duration_s: How long it took, seconds.
    """
    return Report(
        test_id=job.test_id,
        outcome="error",
        failure=failure,
        reason=f"{failure}: {reason}" if failure else reason,
        command=job.command,
        duration_s=duration_s,
    )


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the results."""

    num: int
    """The job's number."""
    report: Report
    facts: Facts | None
    finished_at: float
    """When it was appended, seconds since the epoch."""


class Results:
    """The results of a multirun as they are appended; each call reads on where the last one ended."""

    def __init__(self, root: Path) -> None:
        self._path = root / RESULTS_NAME
        self._offset = 0

    def read_new(self) -> Iterator[Row]:
        """Yields what was appended since the last call; half a line, as a killed writer leaves it, is no result."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                with contextlib.suppress(ValueError, KeyError, TypeError, SpecError):
                    yield _read_row(json.loads(line))


def _read_row(document: dict[str, Any]) -> Row:
    return Row(
        num=document["num"],
        report=Report.from_document(document["report"]),
        facts=document["facts"] and Facts.from_document(document["facts"]),
        finished_at=document["finished_at"],
    )


def read_results(root: Path) -> dict[int, Row]:
    """Reads what was appended so far, by job number; of two results of one job the first counts."""
    rows: dict[int, Row] = {}
    for row in Results(root).read_new():
        rows.setdefault(row.num, row)
    return rows


def read_result(root: Path, num: int) -> Row | None:
    """Reads the result of one job; None: it left none. Of a long file no other line is decoded."""
    path = root / RESULTS_NAME
    if not path.is_file():
        return None
    start = json.dumps({"num": num})[:-1].encode() + b","
    with path.open("rb") as file:
        for line in file:
            if line.startswith(start):
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, SpecError):
                    return _read_row(json.loads(line))
    return None


def read_plan(root: Path) -> Plan:
    """Reads what a multirun set out to do; what a later version says besides is left out.

    Raises:
        SpecError: The folder holds no multirun that can be read.
    """
    path = root / PLAN_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA_VERSION:
            raise SpecError(f"{path}: of another schema than {SCHEMA_VERSION}, which this version reads")
        jobs = tuple(Job(**_choose_known(Job, job)) for job in document["jobs"])
        return Plan(**{**_choose_known(Plan, document), "jobs": jobs})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecError(f"{path}: not a multirun that can be read ({error})") from error


def find_last_suite(folder: Path) -> Path | None:
    """Returns the multirun below a folder that ran something last; None when there is none that can be read."""
    # A plan is written once, when its multirun starts. One that judged again took no time that a run would take, and
    # what it saw failing is to be run, not judged, when it is repeated.
    plans = sorted(folder.glob(f"*/{PLAN_NAME}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in plans:
        with contextlib.suppress(SpecError):
            if not read_plan(path.parent).is_judging:
                return path.parent
    return None


def _choose_known(schema: type[Job] | type[Plan], document: dict[str, Any]) -> dict[str, Any]:
    known = {item.name for item in fields(schema)} & document.keys()
    return {name: tuple(value) if isinstance(value := document[name], list) else value for name in known}


def record_ending(root: Path, ending: Ending, duration_s: float) -> None:
    """Writes down how a multirun ended, so that its reports can be rebuilt as they were.

    Args:
        root: The multirun's folder.
        ending: How it ended.
        duration_s: Wall time, seconds.
    """
    document = {"schema": SCHEMA_VERSION, "ending": ending, "duration_s": duration_s}
    part = root / f"{ENDING_NAME}.part"
    part.write_text(json.dumps(document) + "\n", encoding="utf-8")
    part.replace(root / ENDING_NAME)


def read_ending(root: Path) -> tuple[Ending, float] | None:
    """Reads what `record_ending` wrote; None when nothing can be read, and so the multirun was killed."""
    try:
        document = json.loads((root / ENDING_NAME).read_text(encoding="utf-8"))
        ending, duration_s = document["ending"], float(document["duration_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (ending, duration_s) if ending in get_args(Ending) else None


def read_suite(root: Path) -> Suite:
    """Reads a multirun back from its folder, however it ended.

    Raises:
        SpecError: The folder holds no multirun that can be read.
    """
    plan = read_plan(root)
    if ended := read_ending(root):
        return conclude_suite(root, plan, *ended)
    last = max((row.finished_at for row in read_results(root).values()), default=plan.started_at)
    return conclude_suite(root, plan, "killed", max(0.0, last - plan.started_at))


def conclude_suite(root: Path, plan: Plan, ending: Ending, duration_s: float) -> Suite:
    """Puts the plan and the results together; a job without a result gets one that says why."""
    rows = read_results(root)
    missing: dict[Ending, tuple[Outcome, str]] = {
        "completed": ("error", "lost: its process ended without a word"),
        "stopped": ("skipped", "not run: fail_fast stopped the multirun after the first red spec"),
        "interrupted": ("skipped", "not run: the multirun was interrupted"),
        "terminated": ("skipped", "not run: the multirun was terminated"),
        "killed": ("error", "lost: the multirun was killed"),
    }
    outcome, reason = missing[ending]

    def find(job: Job) -> Result:
        if row := rows.get(job.num):
            return Result(job=job, report=row.report, facts=row.facts)
        if outcome == "error":
            return Result(job=job, report=report_error(job, "infrastructure", reason))
        return Result(job=job, report=Report(test_id=job.test_id, outcome=outcome, reason=reason, command=job.command))

    return Suite(root=root, plan=plan, ending=ending, duration_s=duration_s, results=tuple(map(find, plan.jobs)))
