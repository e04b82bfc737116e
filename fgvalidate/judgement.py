"""Judgement on a recorded run: what was recorded and a spec come in, a report goes out; nothing is run.

The checks and the way to a verdict are those of a run. What this spec demands and the recorded run did not look for is
looked for in the run's folder; what cannot be known any more is a fact that is absent, and its checks are errors.
"""

import glob
import math
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

from fgvalidate.checks import judge
from fgvalidate.comparison import Difference, Kind, compare_command, compare_project, compare_specs, compare_versions
from fgvalidate.conclusion import Case, conclude
from fgvalidate.errors import RunDirError, SpecError
from fgvalidate.facts import CATALOGUE, Facts
from fgvalidate.observation import look_for_files
from fgvalidate.recording import Recording
from fgvalidate.report import Judged, Report
from fgvalidate.run_dir import RunDir
from fgvalidate.spec import Spec
from fgvalidate.text_search import search_text
from fgvalidate.watch import find_stall_limit

_INFERENCE_FACTS = tuple(name for name in CATALOGUE if name.startswith("inference."))
_SCORED_FACTS = (
    "inference.text",  # the one of median perplexity
    "inference.scorer",
    "inference.perplexities",
    "inference.perplexity",
    "inference.completion_perplexity",
    "inference.is_truncated",
)
_NO_STAGE = "there is no inference stage"
_NO_REPORT = "there is no report.json beside the recorded facts"


def judge_recording(case: Case, recording: Recording, run_dir: RunDir) -> tuple[Report, Facts]:
    """Judges every check on what was recorded, and reports in a folder of its own.

    Args:
        case: The spec, and the recorded run's folder.
        recording: Of a run that was not skipped.
        run_dir: The judgement's own folder, claimed; the recorded one is not written to.

    Returns:
        The report, and the recorded facts with what was looked for anew.
    """
    began = time.monotonic()
    assert recording.facts is not None
    report = recording.report
    differences = compare_specs(report.spec, case.spec) if report is not None else []
    facts = fit_facts(recording, recording.facts, case.spec, differences)
    facts.write(run_dir.facts_path)
    verdicts = judge(case.checks, facts, case.notes)
    concluded = conclude(case, facts, verdicts, duration_s=time.monotonic() - began)
    said = [f"{each.explain()}: what its model said is no evidence." for each in _choose(differences, "generation")]
    said += [f"{each.explain()}: its perplexities are no evidence." for each in _choose(differences, "scoring")]
    judged = Judged(
        run_dir=recording.run_dir.root,
        recorded_at=recording.facts.values["train.started_at"],
        took_s=report.duration_s if report is not None else recording.facts.values["train.duration_s"],
        changed=tuple(_list_changes(recording, recording.facts, case.spec, differences, concluded.versions)),
    )
    advice = (*(line[0].upper() + line[1:] for line in said), *concluded.advice)
    concluded = replace(concluded, run_dir=run_dir.root, advice=advice, judged=judged)
    concluded.write(run_dir.report_path)
    return concluded, facts


def require_run_of(spec: Spec, recording: Recording, named: str, *, decisive: Collection[Kind], hint: str = "") -> None:
    """Raises SpecError when what was recorded is a run of another spec.

    Args:
        spec: Which is to be judged by.
        recording: Of a run.
        named: What was typed for the recording, `judge=PATH`.
        decisive: The kinds of fields in which it must not differ.
        hint: What else to do, where it is known how the run was composed.
    """
    assert recording.facts is not None
    if recording.report is None:
        reasons, hint = compare_command(recording.facts, spec), ""
    else:
        reasons = [each.explain() for each in compare_specs(recording.report.spec, spec) if each.kind in decisive]
    if reasons:
        raise SpecError(f"{named}: not a run of this spec: {'; '.join(reasons)}; say what it was run with{hint}")


def require_apart(run_dir: RunDir, recording: Recording) -> None:
    """Raises RunDirError when the folder to write to lies in the recorded one."""
    if run_dir.root.resolve().is_relative_to(recording.run_dir.root.resolve()):
        raise RunDirError(f"{run_dir.root}: lies in the recorded run's folder; choose another hydra.run.dir")


def _choose(differences: Iterable[Difference], kind: str) -> list[Difference]:
    return [each for each in differences if each.kind == kind]


def _list_changes(
    recording: Recording, facts: Facts, spec: Spec, differences: list[Difference], versions: Mapping[str, str]
) -> list[str]:
    if recording.report is None:
        lines = [f"spec and fgvalidate: cannot be told, {_NO_REPORT}"]
    else:
        lines = [each.describe() for each in differences]
        had, has = recording.report.spec.get("inference") is not None, spec.inference is not None
        if had != has:
            lines.append(f"inference {'left out' if had else 'added'}")
        lines += compare_versions(recording.report.versions, versions)
    project = compare_project(facts, spec)
    return [*lines, project] if project else lines


def fit_facts(recording: Recording, facts: Facts, spec: Spec, differences: list[Difference]) -> Facts:
    """Returns the recorded facts as this spec asks for them.

    Args:
        recording: Of the run.
        facts: What it recorded.
        spec: What is demanded now.
        differences: Between this spec and the recorded one.
    """
    values, notes, not_applicable = dict(facts.values), dict(facts.notes), dict(facts.not_applicable)
    _search_stderr(recording, spec, values, notes)
    _look_for_files(recording, spec, values, notes)
    _apply_watch(spec, differences, values, notes)
    _apply_timeout(spec, differences, values, notes, has_report=recording.report is not None)
    if spec.inference is None:
        _remove(_INFERENCE_FACTS, values, notes)
        not_applicable |= dict.fromkeys(_INFERENCE_FACTS, _NO_STAGE)
    else:
        for names, reason in _list_unknown(recording, differences):
            # Where the run never came to that stage, it would not have with this spec either.
            unknown = [name for name in names if not_applicable.get(name, _NO_STAGE) == _NO_STAGE]
            _remove(unknown, values, notes, not_applicable)
            notes |= dict.fromkeys(unknown, reason)
    return Facts(values=values, notes=notes, not_applicable=not_applicable)


def _apply_watch(spec: Spec, differences: list[Difference], values: dict[str, Any], notes: dict[str, str]) -> None:
    """Fits what was seen while the run ran: a loss above a new ceiling, and whether it stalled by another limit."""
    ceiling, seen = spec.loss.ceiling, values.get("watch.max_loss")
    if ceiling is not None and seen is not None and seen > max(ceiling, values.get("loss.max", -math.inf)):
        values["loss.max"] = seen
        notes["loss.max"] = "as seen while it ran"
    limit = next((each for each in differences if each.key == "watch.stall_timeout"), None)
    if limit is not None and not _was_as_patient(limit, values):
        values.pop("watch.stalled", None)
        notes["watch.stalled"] = f"{limit.explain()}, and silence that is no stall was not recorded"


def _was_as_patient(limit: Difference, values: Mapping[str, Any]) -> bool:
    """Returns whether a run that did not stall by the recorded limit did not by the new one either."""
    if values.get("watch.stalled") is not False:
        return False
    gap_s = values.get("watch.longest_gap_s", 0.0)
    recorded_s, now_s = (
        find_stall_limit(each, num_steps=2, longest_gap_s=gap_s) or 0.0 for each in (limit.recorded, limit.now)
    )
    return now_s >= recorded_s


def _remove(names: Iterable[str], *mappings: dict[str, Any]) -> None:
    for name in names:
        for mapping in mappings:
            mapping.pop(name, None)


def _list_unknown(recording: Recording, differences: list[Difference]) -> list[tuple[tuple[str, ...], str]]:
    """Returns names of inference facts that say nothing about this spec, and why not; the weightiest reason last."""
    if recording.report is None:
        return [(_INFERENCE_FACTS, f"{_NO_REPORT}, which says what the model was asked")]
    if recording.report.spec.get("inference") is None:
        return [(_INFERENCE_FACTS, "the recorded run had no inference stage")]
    scoring, generation = _choose(differences, "scoring"), _choose(differences, "generation")
    unknown: list[tuple[tuple[str, ...], str]] = []
    if scoring:
        unknown.append((_SCORED_FACTS, scoring[0].explain()))
    if generation:
        unknown.append((_INFERENCE_FACTS, generation[0].explain()))
    return unknown


def _search_stderr(recording: Recording, spec: Spec, values: dict[str, Any], notes: dict[str, str]) -> None:
    recorded = values.get("stderr.findings")
    patterns = spec.stderr.patterns
    if not isinstance(recorded, Mapping) or all(pattern in recorded for pattern in patterns):
        return
    path = recording.run_dir.stderr_path
    try:
        size = path.stat().st_size
        if size != values.get("stderr.num_bytes"):
            notes["stderr.findings"] = f"{path} is no longer as the run left it, so it cannot be searched now"
            return
        findings = search_text(path, [pattern for pattern in patterns if pattern not in recorded])
    except OSError as error:
        notes["stderr.findings"] = f"{path} cannot be searched now: {error.strerror}"
        return
    values["stderr.findings"] = {**recorded, **{name: found and asdict(found) for name, found in findings.items()}}


def _look_for_files(recording: Recording, spec: Spec, values: dict[str, Any], notes: dict[str, str]) -> None:
    recorded = values.get("files.found")
    names = [name for name in spec.expected_files if isinstance(recorded, Mapping) and name not in recorded]
    if not names:
        return
    assert isinstance(recorded, Mapping)
    where = values.get("files.run_directory")
    if where is None or values.get("training_log.state") == "stale":
        values["files.found"] = {**recorded, **look_for_files(None, names)}
        return
    folder = recording.locate(where)
    root = recording.run_dir.root
    if not folder.is_dir() or not folder.is_relative_to(root):
        notes["files.found"] = f"the folder of its training log is not in {root}, so nothing can be looked for now"
        return
    found = look_for_files(folder, names)
    unknown = [name for name in names if not _can_be_told(folder, name, found[name], recording, spec)]
    if unknown:
        notes["files.found"] = f"what may have been removed since cannot be looked for now: {', '.join(unknown)}"
    values["files.found"] = {**recorded, **{name: found[name] for name in names if name not in unknown}}


def _can_be_told(folder: Path, name: str, is_there: bool, recording: Recording, spec: Spec) -> bool:
    """Returns whether a name that is looked for now gives the answer that it would have given after the run."""
    parts = PurePosixPath(name).parts
    literal = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    place = _descend(folder, parts[:literal], recording.run_dir.root)
    if place is None or ".." in parts[literal:]:
        return False
    if is_there:
        return True
    removed = [recording.run_dir.train_dir / name for name in spec.backend.checkpoints]
    gone = [path for path in removed if not path.exists()]
    return not any(place.is_relative_to(path) or path.is_relative_to(place) for path in gone)


def _descend(folder: Path, parts: Iterable[str], root: Path) -> Path | None:
    """Returns where a relative path leads; None: out of the run's folder, which may have had another place."""
    place = folder
    for part in parts:
        place = place.parent if part == ".." else place / part
        if not place.is_relative_to(root):
            return None
    return place


def _apply_timeout(
    spec: Spec, differences: list[Difference], values: dict[str, Any], notes: dict[str, str], *, has_report: bool
) -> None:
    """Says of a run that took longer than it is now allowed that it would have been ended."""
    is_changed = not has_report or any(each.key == "timeout" for each in differences)
    took_s = values["train.duration_s"]
    if is_changed and values.get("train.timed_out") is False and took_s > spec.timeout:
        values["train.timed_out"] = True
        notes["train.timed_out"] = f"it took {took_s:.1f} s, and is now allowed {spec.timeout} s"
