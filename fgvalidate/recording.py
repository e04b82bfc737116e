"""Recorded runs: a path that a user typed comes in, the facts of one run and the folder that they lie in go out."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvalidate.errors import SpecError
from fgvalidate.facts import Facts
from fgvalidate.report import Report
from fgvalidate.run_dir import RunDir
from fgvalidate.suite import PLAN_NAME, Job, Plan, read_plan, read_result, read_suite

FACTS_NAME = "facts.json"
_NUMBERS = ("train.started_at", "train.duration_s")
"""What the facts of every run hold."""
_LAST_MOMENT = 253_402_300_799.0
"""The end of the year 9999, seconds since the epoch."""
_TEXTS = ("files.run_directory", "inference.text", "inference.scorer", "repo.commit")
_GIVE_ONE = "give the folder of a run, its facts.json, or the folder of a multirun"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What is left of a run that has ended."""

    run_dir: RunDir
    """Its folder, as it is found now."""
    facts: Facts | None
    """What was observed of it; None: it was skipped, as its report says."""
    report: Report | None
    """What it ended with; None: there is no report beside the facts."""

    def locate(self, recorded: str) -> Path:
        """Returns where a path that the run recorded is now: its folder may have been moved since, or copied."""
        was = self.report.run_dir if self.report is not None else None
        path = Path(recorded)
        if was is not None and path.is_relative_to(was):
            return self.run_dir.root / path.relative_to(was)
        return path


def is_multirun(path: Path) -> bool:
    """Returns whether a path is the folder of a multirun."""
    return (path / PLAN_NAME).is_file()


def read_recording(path: Path, *, test_id: str, name: str | None = None) -> Recording:
    """Reads what a run recorded; of one that judged another again, what that other one recorded.

    Args:
        path: Its folder, its facts.json, or the folder of the multirun that it was part of.
        test_id: Of the spec that it is to be a run of.
        name: Of the job that it is to be in a multirun; None: the one of this test_id.

    Raises:
        SpecError: There is no such recording, it cannot be read, or it is another spec's.
    """
    recording = _read_recording(path, test_id, name)
    judged = recording.report.judged if recording.report is not None else None
    if judged is None:
        return recording
    # Its facts were fitted to the spec that it was judged by.
    if not judged.run_dir.is_dir():
        raise SpecError(f"{path}: judged again from {judged.run_dir}, which is gone; give the run that was recorded")
    return _read_recording(judged.run_dir, test_id, None)


def require_facts(path: Path) -> None:
    """Raises SpecError when a path is neither a file nor the folder of a run that was observed."""
    if not path.exists():
        raise SpecError(f"{path}: no such file or folder; {_GIVE_ONE}")
    if not path.is_file() and not (path / FACTS_NAME).is_file():
        raise SpecError(f"{path / FACTS_NAME}: no such file; {_GIVE_ONE}")


def _read_recording(path: Path, test_id: str, name: str | None) -> Recording:
    if is_multirun(path):
        return _read_job(path, _choose_job(path, test_id, name))
    job = _find_own_job(path)
    if job is None:
        require_facts(path)
    recording = _read_job(path.parent, job) if job is not None else _read_run(path)
    if recording.report is not None and recording.report.test_id != test_id:
        raise SpecError(
            f"{path}: a run of {recording.report.test_id}, and the spec is {test_id}; choose +spec to match"
        )
    return recording


def _read_run(path: Path) -> Recording:
    facts_path = path if path.is_file() else path / FACTS_NAME
    folder = facts_path.parent.absolute()
    # Beside a copy of the facts that has another name lies another run's report, or none.
    report = _read_report(RunDir(folder)) if facts_path.name == FACTS_NAME else None
    facts = Facts.read(facts_path)
    _require_run(facts, facts_path)
    return Recording(run_dir=RunDir(_find_attempt(folder, report)), facts=facts, report=report)


def _find_own_job(path: Path) -> Job | None:
    """Returns the job whose folder a path is; None: it is no part of a multirun."""
    parent = path.absolute().parent
    if not is_multirun(parent):
        return None
    return next((job for job in read_plan(parent).jobs if job.run_dir == path.name), None)


def _choose_job(root: Path, test_id: str, name: str | None) -> Job:
    plan = read_plan(root)
    named = [job for job in plan.jobs if job.name == name] or [job for job in plan.jobs if job.test_id == test_id]
    if not named:
        raise SpecError(f"{root}: no run of {name or test_id} is recorded there; it holds {_list_names(plan)}")
    if len(named) > 1:
        names = ", ".join(job.name for job in named)
        raise SpecError(f"{root}: several runs of {test_id} are recorded there ({names}); give the folder of one")
    return named[0]


def _list_names(plan: Plan) -> str:
    return ", ".join(job.name for job in plan.jobs) or "no run"


def _read_job(root: Path, job: Job) -> Recording:
    row = read_result(root, job.num)
    if row is None:
        reason = next(result.report.reason for result in read_suite(root).results if result.job.num == job.num)
        raise SpecError(f"{root}: there is nothing to judge of {job.name}: {reason}")
    folder = RunDir(_find_attempt((root / job.run_dir).absolute(), row.report))
    if row.facts is None and row.report.outcome != "skipped":
        raise SpecError(f"{root}: there is nothing to judge of {job.name}: {row.report.reason}")
    _require_report(row.report, root / job.run_dir)
    if row.facts is not None:
        _require_run(row.facts, root / job.run_dir)
    return Recording(run_dir=folder, facts=row.facts, report=row.report)


def _find_attempt(folder: Path, report: Report | None) -> Path:
    """Returns the folder of the run itself: a repeated one lies deeper down, and all may have been moved."""
    was = report.run_dir if report is not None else None
    if was is None or folder.name not in was.parts:
        return folder
    below = folder.joinpath(*was.parts[len(was.parts) - was.parts[::-1].index(folder.name) :])
    return below if below.is_dir() else folder


def _read_report(run_dir: RunDir) -> Report | None:
    try:
        report = Report.read(run_dir.report_path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecError(f"{run_dir.report_path}: not a report that can be read ({error})") from error
    _require_report(report, run_dir.report_path)
    return report


def _require_report(report: Report, path: Path) -> None:
    """Raises SpecError unless a report is a run's, as far as it is read."""
    if not isinstance(report.spec, dict) or not isinstance(report.versions, dict) or not _is_number(report.duration_s):
        raise SpecError(f"{path}: not the report of a run")


def _require_run(facts: Facts, path: Path) -> None:
    """Raises SpecError unless these are facts of a run: what is no check's to judge is as it must be."""
    for name in _NUMBERS:
        value: Any = facts.values.get(name)
        if not _is_number(value) or not 0 <= value <= _LAST_MOMENT:
            raise SpecError(f"{path}: not the facts of a run: {name} is {value!r}")
    for name in _TEXTS:
        if not isinstance(facts.values.get(name, ""), str):
            raise SpecError(f"{path}: not the facts of a run: {name} is {facts.values[name]!r:.80}")
    for name in ("loss.final", "loss.drop", "inference.perplexity"):
        if not isinstance(facts.values.get(name, 0), int | float):
            raise SpecError(f"{path}: not the facts of a run: {name} is {facts.values[name]!r:.80}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
