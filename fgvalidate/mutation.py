"""The mutation test: a spec and a recorded run of it come in, a report on the faults that its checks miss goes out.

Each fault of the catalogue is planted in what the run left, and all of that is read, observed and judged anew, as after
training. A fault that leaves every check green has survived. Nothing is trained and nothing is served.
"""

import math
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

from fgvalidate.checks import Verdict, judge
from fgvalidate.completion import Completion
from fgvalidate.conclusion import decide, note_unknown_keys
from fgvalidate.errors import SpecError, show_path
from fgvalidate.facts import Facts
from fgvalidate.faults import CATALOGUE, DAY_S, SEED, Answers, Evidence, NotApplicableError, list_variants
from fgvalidate.inference import InferenceResult, Sample, score
from fgvalidate.judgement import require_run_of
from fgvalidate.observation import Observation, collect_facts
from fgvalidate.process import ProcessResult
from fgvalidate.recording import Recording
from fgvalidate.report import FailureKind, Mutation, Outcome, Report, escape_controls, read_versions
from fgvalidate.run_dir import RunDir
from fgvalidate.server import ServerStart
from fgvalidate.spec import Spec
from fgvalidate.text_search import search_text
from fgvalidate.training_log import TrainingLog, find_training_log, list_files
from fgvalidate.validate import explain_unserved, start_scorer

WRITABLE_READER = "forgather"
"""Of `spec.LOG_READERS`: the format that faults can be written in."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A mutation test that is ready to start."""

    spec: Spec
    checks: DictConfig
    """The check expressions, inside the composed config that their bounds refer to."""
    recording: Recording
    """A run of the spec that was not skipped."""
    run_dir: RunDir
    """Where the report goes; the logs with faults in them lie in its train/ until all are read."""
    repeat: str
    """What to type to repeat the test."""
    spec_file: Path | None = None
    """Where the spec was read; None: it came from no file."""

    @property
    def facts(self) -> Facts:
        """What was observed of the recorded run."""
        assert self.recording.facts is not None
        return self.recording.facts


@dataclass(frozen=True)
class _Judgement:
    verdicts: list[Verdict]
    outcome: Outcome
    failure: str
    reason: str

    @property
    def red(self) -> tuple[str, ...]:
        return tuple(verdict.name for verdict in self.verdicts if verdict.is_red)

    @property
    def warned(self) -> list[str]:
        return [verdict.name for verdict in self.verdicts if verdict.status == "warned"]


def require_sound_run(trial: Trial) -> None:
    """Raises SpecError unless the recorded run is a green run of this spec: no fault could be told from another."""
    spec, recording = trial.spec, trial.recording
    if spec.xfail is not None:
        raise SpecError("xfail: the spec is expected to be red, so no fault could be told from it; mutate a green one")
    _require_same_spec(spec, recording)
    recorded = _judge(trial, trial.facts)
    if recorded.outcome != "passed":
        why = f"the recorded run is not green, so no fault could be told from it: {recorded.reason}"
        # What the subject said may be quoted there.
        raise SpecError(f"mutate={_show(recording)}: {escape_controls(why)}")


def run_mutation_test(trial: Trial) -> Report:
    """Plants every fault of the catalogue, and writes the report.

    Args:
        trial: Of a sound run (see `require_sound_run`), with a run folder of its own that is made already.

    Raises:
        SpecError: What is left of the recorded run says something else than was recorded of it.
        ScorerError: The reference model cannot be loaded.
    """
    began = time.monotonic()
    spec, recording = trial.spec, trial.recording
    replay = _Replay(trial)
    try:
        evidence = replay.read_evidence()
        sound = _judge(trial, replay.observe(evidence, "sound"))
        _require_same_verdicts(sound, _judge(trial, trial.facts), recording)
        mutations = tuple(_try_fault(trial, replay, evidence, name, sound) for name in CATALOGUE)
    finally:
        shutil.rmtree(trial.run_dir.train_dir, ignore_errors=True)
    outcome, failure, reason = _sum_up(mutations)
    report = Report(
        test_id=spec.test_id,
        outcome=outcome,
        failure=failure,
        reason=reason,
        command=trial.repeat,
        verdicts=tuple(sound.verdicts),
        mutations=mutations,
        advice=(
            *note_unknown_keys(spec),
            *_note_waivers(spec, mutations),
            *_note_log(spec),
            f"Run     {recording.run_dir.root}",
        ),
        run_dir=trial.run_dir.root,
        spec_file=trial.spec_file,
        duration_s=time.monotonic() - began,
        spec=asdict(spec),
        versions=read_versions(),
    )
    report.write(trial.run_dir.report_path)
    return report


def _sum_up(mutations: Iterable[Mutation]) -> tuple[Outcome, FailureKind | Literal[""], str]:
    names: dict[str, list[str]] = {}
    for mutation in mutations:
        names.setdefault(mutation.status, []).append(mutation.name)
    survived = names.pop("survived", [])
    counts = ", ".join(f"{len(group)} {status.replace('_', ' ')}" for status, group in names.items())
    if survived:
        survive = "1 fault survives" if len(survived) == 1 else f"{len(survived)} faults survive"
        others = f" ({counts})" if counts else ""
        return "failed", "spec", f"spec: {survive}: {', '.join(survived)}{others}"
    # Not to have noticed anything is no proof of attention.
    if "noticed" not in names:
        return "failed", "spec", f"spec: no fault is noticed: {counts}"
    return "passed", "", counts


def _note_waivers(spec: Spec, mutations: Iterable[Mutation]) -> list[str]:
    noticed = {mutation.name for mutation in mutations if mutation.status == "noticed"}
    return [
        f"mutations.waive.{name}: no longer needed for backend={spec.backend.name}, where the fault is noticed"
        for name in spec.mutations.waive
        if name in noticed
    ]


def _note_log(spec: Spec) -> list[str]:
    if spec.backend.log.reader == WRITABLE_READER:
        return []
    what = f"No fault can be planted in a log that the reader {spec.backend.log.reader} reads"
    return [f"{what}: whether this spec notices NaN, a high loss or missing steps was not tested."]


def _judge(trial: Trial, facts: Facts) -> _Judgement:
    # A check that is expected to be red says nothing of a fault.
    expected = trial.spec.xfail_checks
    verdicts = [verdict for verdict in judge(trial.checks, facts) if verdict.name not in expected]
    return _Judgement(verdicts, *decide(trial.spec, facts, verdicts))


def _try_fault(trial: Trial, replay: "_Replay", evidence: Evidence, name: str, sound: _Judgement) -> Mutation:
    try:
        variants = list_variants(name, evidence)
    except NotApplicableError as error:
        return Mutation(name=name, status="not_applicable", reason=str(error))
    judged = {place: _judge(trial, replay.observe(variant, name)) for place, variant in variants.items()}
    missed = {place: judgement for place, judgement in judged.items() if judgement.outcome == "passed"}
    noticed_by = tuple(dict.fromkeys(check for judgement in judged.values() for check in judgement.red))
    if not missed:
        reason = next(iter(judged.values())).reason
        return Mutation(name=name, status="noticed", noticed_by=noticed_by, reason=reason)
    if waiver := trial.spec.mutations.waive.get(name):
        return Mutation(name=name, status="waived", noticed_by=noticed_by, reason=waiver)
    reason = "; ".join(_explain_miss(place, judgement, sound) for place, judgement in missed.items())
    return Mutation(name=name, status="survived", noticed_by=noticed_by, reason=reason)


def _explain_miss(place: str, judgement: _Judgement, sound: _Judgement) -> str:
    warned = [name for name in judgement.warned if name not in sound.warned]
    said = f"{', '.join(warned)} only warns" if warned else "no check is red"
    return f"{place}: {said}" if place else said


# Whether the recorded run is one that a fault can be planted in


def _require_same_spec(spec: Spec, recording: Recording) -> None:
    if recording.report is None:
        raise SpecError(f"{recording.run_dir.report_path}: no such file, so it is not known what the run was asked for")
    named = f"mutate={_show(recording)}"
    require_run_of(spec, recording, named, decisive={"training", "generation"})
    had, has = recording.report.spec.get("inference") is not None, spec.inference is not None
    if had != has:
        what = (
            "had an inference stage, and this spec has none" if had else "had no inference stage, and this spec has one"
        )
        raise SpecError(f"{named}: not a run of this spec: the recorded run {what}")


def _require_same_verdicts(sound: _Judgement, recorded: _Judgement, recording: Recording) -> None:
    for now, then in zip(sound.verdicts, recorded.verdicts, strict=True):
        if now.status != then.status:
            raise SpecError(
                f"mutate={_show(recording)}: what is left of the run does not say what was recorded of it: {now.name} "
                f"was {then.status}, and is {now.status} ({escape_controls(str(now.message or now.actual))}); "
                "run the spec again"
            )


def _show(recording: Recording) -> str:
    return show_path(recording.run_dir.root)


# What the run left, read and observed anew


class _Replay:
    """Observes what a recorded run left, as it is or with a fault in it."""

    def __init__(self, trial: Trial) -> None:
        self._spec = trial.spec
        self._recording = trial.recording
        self._facts = trial.facts
        self._scratch = trial.run_dir.train_dir
        self._stderr_path = trial.recording.run_dir.stderr_path
        values = trial.facts.values
        path = values.get("training_log.path")
        self._log_path = None if path is None else trial.recording.locate(path)
        reader = trial.spec.backend.log.reader
        can_write = reader == WRITABLE_READER
        self._log_problem = "" if can_write else f"a log that the reader {reader} reads cannot be written with a fault"
        self._has_answers = "inference.server_healthy" in values
        self._scorer = start_scorer(trial.spec) if self._has_answers else None
        self._samples: dict[tuple[Completion, ...], list[Sample]] = {}

    def read_evidence(self) -> Evidence:
        """Reads what the run left."""
        values = self._facts.values
        process = ProcessResult(
            argv=tuple(values["train.argv"]),
            returncode=values.get("train.returncode"),
            timed_out=values["train.timed_out"],
            started_at=values["train.started_at"],
            duration_s=values["train.duration_s"],
            cleanup_s=values["train.cleanup_s"],
            peak_memory_bytes=values["train.peak_memory_bytes"],
            orphans=tuple(values["train.orphans"]),
            survivors=tuple(values["train.survivors"]),
        )
        return Evidence(
            process=process,
            timeout=self._spec.timeout,
            log=None if self._log_problem else self._read_log(),
            log_problem=self._log_problem,
            log_age_s=DAY_S if values["training_log.state"] == "stale" else 0.0,
            has_stderr=self._stderr_path.is_file(),
            files=values["files.found"],
            answers=self._read_answers() if self._has_answers else None,
        )

    def _read_log(self) -> str | None:
        if self._log_path is None:
            return None
        try:
            return self._log_path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            what = f"the recorded run's log cannot be read ({error.strerror}); run the spec again"
            raise SpecError(f"{self._log_path}: {what}") from error

    def _read_answers(self) -> Answers:
        values = self._facts.values
        assert self._spec.inference is not None
        # Of all samples but the first, the text alone is recorded, and no fact is made of the rest.
        completions = tuple(
            Completion(
                text=text,
                finish_reason=values.get("inference.finish_reason") if number == 0 else None,
                prompt_tokens=values.get("inference.prompt_tokens") if number == 0 else None,
                completion_tokens=values.get("inference.completion_tokens") if number == 0 else None,
                latency_s=values.get("inference.latency_s", math.nan) if number == 0 else math.nan,
            )
            for number, text in enumerate(values["inference.texts"])
        )
        problem = (
            "" if "inference.text" in values else self._facts.notes.get("inference.text", "no completion was recorded")
        )
        assert self._scorer is not None
        return Answers(
            start=self._read_start(completions, problem),
            completions=completions,
            problem=problem,
            noise=self._scorer.result().draw_text(self._spec.inference.max_tokens, seed=SEED),
        )

    def _read_start(self, completions: tuple[Completion, ...], problem: str) -> ServerStart | None:
        values = self._facts.values
        if "inference.server_startup_s" not in values:
            return None
        return ServerStart(
            is_healthy=values["inference.server_healthy"],
            reason="" if values["inference.server_healthy"] else problem,
            num_attempts=values["inference.server_attempts"],
            startup_s=values["inference.server_startup_s"],
            port=0,  # of no fact
            is_loopback=values.get("inference.is_loopback"),
            first=completions[0] if completions else None,
            log_tail=(),
        )

    def observe(self, seen: Evidence, name: str) -> Facts:
        """Reads the evidence, and collects the facts of it.

        Args:
            seen: What there is.
            name: A new folder of this name holds it while it is read.
        """
        values = self._facts.values
        folder = self._scratch / name
        folder.mkdir()
        log = self._find_log(seen, folder)
        stderr = self._write_stderr(seen, folder)
        has_files = log.folder is not None
        observed = collect_facts(
            Observation(
                process=seen.process,
                timeout=seen.timeout,
                log=log,
                requested_steps=self._spec.requested_steps,
                findings=None if stderr is None else search_text(stderr, self._spec.stderr.patterns),
                stderr_bytes=None if stderr is None else stderr.stat().st_size,
                files={file: has_files and is_there for file, is_there in seen.files.items()},
                created_files=_to_set(values.get("repo.created_files")),
                commit=values.get("repo.commit"),
                num_gpus_available=values["gpu.num_available"],
                gpu_names=tuple(values["gpu.names"]),
                host=values["host.name"],
                num_cores=values["host.num_cores"],
                inference=self._infer(seen, log),
            )
        )
        shutil.rmtree(folder)
        return observed

    def _find_log(self, seen: Evidence, folder: Path) -> TrainingLog:
        train_dir = self._recording.run_dir.train_dir
        output_dir, written_after = train_dir, -math.inf
        if not self._log_problem:
            output_dir = folder / "train"
            output_dir.mkdir()
            written_after = output_dir.stat().st_mtime
            self._copy_proofs(output_dir)
        if seen.log is not None and self._log_path is not None:
            path = output_dir / self._log_path.relative_to(train_dir)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(seen.log, encoding="utf-8")
            if seen.log_age_s:
                os.utime(path, (written_after - seen.log_age_s, written_after - seen.log_age_s))
        log = find_training_log(
            output_dir,
            self._spec.backend.log,
            stdout=self._recording.run_dir.stdout_path,
            written_after=written_after,
            started_at=seen.process.started_at,
            requested_steps=self._spec.requested_steps,
        )
        # It is spoken of as the file that the run wrote.
        reason = log.reason.replace(str(output_dir), str(train_dir))
        return replace(log, path=None if log.path is None else self._log_path, reason=reason)

    def _copy_proofs(self, output_dir: Path) -> None:
        """Makes the files whose being there proves that training ran to its end."""
        pattern, train_dir = self._spec.backend.log.finished.file, self._recording.run_dir.train_dir
        for path in list_files(train_dir, pattern) if pattern is not None else ():
            proof = output_dir / path.relative_to(train_dir)
            proof.parent.mkdir(parents=True, exist_ok=True)
            proof.touch()

    def _write_stderr(self, seen: Evidence, folder: Path) -> Path | None:
        if not seen.has_stderr or not seen.added_stderr:
            return self._stderr_path if seen.has_stderr else None
        path = folder / self._stderr_path.name
        shutil.copyfile(self._stderr_path, path)
        with path.open("a", encoding="utf-8") as file:
            file.write(seen.added_stderr)
        return path

    def _infer(self, seen: Evidence, log: TrainingLog) -> InferenceResult | str:
        if reason := explain_unserved(self._spec, log):
            return reason
        answers = seen.answers
        if answers is None:
            return self._facts.not_applicable.get("inference.server_healthy", "it was not run")
        model_dir = self._facts.values.get("inference.model_dir")
        return InferenceResult(
            problem=answers.problem,
            scorer=self._spec.scorer.name,
            model_dir=model_dir and Path(model_dir),
            start=answers.start,
            samples=tuple(self._score(answers.completions)),
        )

    def _score(self, completions: tuple[Completion, ...]) -> list[Sample]:
        assert self._spec.inference is not None
        assert self._scorer is not None
        if completions not in self._samples:
            self._samples[completions] = score(self._spec.inference.prompt, list(completions), self._scorer)
        return self._samples[completions]


def _to_set(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
