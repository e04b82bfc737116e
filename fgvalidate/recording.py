"""Recorded runs: a path that a user typed comes in, the facts of one run and the folder that they lie in go out."""

from dataclasses import dataclass
from pathlib import Path

from fgvalidate.errors import SpecError
from fgvalidate.facts import Facts
from fgvalidate.report import Report
from fgvalidate.run_dir import RunDir
from fgvalidate.suite import PLAN_NAME, Plan, read_plan, read_results


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What is left of a run that has ended."""

    run_dir: RunDir
    """Its folder, as it is found now."""
    facts: Facts
    """What was observed of it."""
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
    """Reads what a run recorded.

    Args:
        path: Its folder, its facts.json, or the folder of the multirun that it was part of.
        test_id: Of the spec that it is to be a run of.
        name: Of the job that it is to be in a multirun; None: the one of this test_id.

    Raises:
        SpecError: There is no such recording, it cannot be read, or it is another spec's.
    """
    if is_multirun(path):
        return _read_job(path, test_id, name)
    run_dir = RunDir((path.parent if path.name == "facts.json" else path).absolute())
    recording = Recording(run_dir=run_dir, facts=_read_facts(run_dir), report=_read_report(run_dir))
    if recording.report is not None and recording.report.test_id != test_id:
        raise SpecError(
            f"{path}: a run of {recording.report.test_id}, and the spec is {test_id}; choose +spec to match"
        )
    return recording


def _read_job(root: Path, test_id: str, name: str | None) -> Recording:
    plan = read_plan(root)
    named = [job for job in plan.jobs if job.name == name] or [job for job in plan.jobs if job.test_id == test_id]
    if not named:
        raise SpecError(f"{root}: no run of {name or test_id} is recorded there; it holds {_list_names(plan)}")
    if len(named) > 1:
        names = ", ".join(job.name for job in named)
        raise SpecError(f"{root}: several runs of {test_id} are recorded there ({names}); give the folder of one")
    (job,) = named
    row = read_results(root).get(job.num)
    if row is None or row.facts is None:
        reason = row.report.reason if row is not None else "it left no result"
        raise SpecError(f"{root}: nothing was observed of {job.name}, so there is nothing to judge: {reason}")
    folder = (root / job.run_dir).absolute()
    was = row.report.run_dir
    if was is not None and folder.name in was.parts:
        # A repeated run lies deeper down, and the multirun's folder may have been moved.
        folder = folder.joinpath(*was.parts[len(was.parts) - was.parts[::-1].index(folder.name) :])
    return Recording(run_dir=RunDir(folder), facts=row.facts, report=row.report)


def _list_names(plan: Plan) -> str:
    return ", ".join(job.name for job in plan.jobs) or "no run"


def _read_facts(run_dir: RunDir) -> Facts:
    if not run_dir.facts_path.is_file():
        what = "give the folder of a run, its facts.json, or the folder of a multirun"
        raise SpecError(f"{run_dir.facts_path}: no such file; {what}")
    return Facts.read(run_dir.facts_path)


def _read_report(run_dir: RunDir) -> Report | None:
    try:
        return Report.read(run_dir.report_path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecError(f"{run_dir.report_path}: not a report that can be read ({error})") from error
