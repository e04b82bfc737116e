"""The training log: the trainer's output directory comes in, what its log proves goes out.

`backend.log` says which reader knows the format, where the log lies, and what proves that training ran to its end.
"""

import contextlib
import glob
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fgvalidate.log_reader import LogReader, iterate_lines, open_reader
from fgvalidate.log_records import Records, State, is_number, names_zone, to_float, to_step, to_time
from fgvalidate.spec import Log

CLOCK_TOLERANCE_S = 1.0
FIRST_EPOCH_TIME_S = 1e9
FORGATHER = Log(reader="forgather", path="runs/*/trainer_logs.json")


@dataclass(frozen=True, kw_only=True)
class TrainingLog:
    """What a log holds, as far as it could be read."""

    path: Path | None
    """The file, the last one where several make the log; None when there is none."""
    state: State
    """complete: nothing of it is missing. stale: written before this run began, and therefore not read as its log."""
    reason: str = ""
    """What is wrong with it; empty when it is complete."""
    folder: Path | None = None
    """Where the files beside the log lie; None: there is no log of this run."""
    num_logs: int = 0
    """Logs that this run wrote; the newest was read."""
    num_records: int = 0
    steps: "array[int]" = field(default_factory=lambda: array("q"))
    """Global steps of the training records; -1 where a record has none."""
    losses: "array[float]" = field(default_factory=lambda: array("d"))
    """Their losses, nats per token; NaN also for a loss that is null or not a number."""
    superseded_steps: "array[int]" = field(default_factory=lambda: array("q"))
    """Global steps of the training records that later ones replaced, since their steps were done again."""
    superseded_losses: "array[float]" = field(default_factory=lambda: array("d"))
    """Their losses."""
    last_values: dict[str, Any] = field(default_factory=dict)
    """By key: the value in the last record that has it."""
    last_eval_loss: float | None = None
    """None: no evaluation record."""
    final: dict[str, Any] | None = None
    """The final record; None when there is none, or when training records follow it."""
    says_finished: bool = False
    """Whether the log says, besides its records, that all steps were done."""
    last_step: int | None = None
    """Steps done by the last record that says so, or by the log itself; None when neither does."""
    has_fractional_epochs: bool = True
    """Whether `epoch` is the passes over the data done, and not the number of the current one."""
    steps_per_second: float | None = None
    """By the log's clock, warm-up left out; None: fewer than two training records have a time."""
    tokens_per_second: float | None = None
    """Likewise; None: fewer than two records have tokens and a time."""
    max_grad_norm: float | None = None
    """Highest gradient norm of any record, NaN if one is NaN; None: no record has one."""
    peak_memory_bytes: float | None = None
    """Highest `peak_mem_allocated` of any record; None: no record has one."""
    finished: bool | None = False
    """Whether it is proven that training ran to its end; None: nothing could prove it."""
    finished_reason: str = ""
    """Why `finished` is not true; empty when it is."""

    @property
    def global_step(self) -> int | None:
        """Steps done: the final record's, else the last one's that says so; None when none does."""
        final_step = None if self.final is None else to_step(self.final.get("global_step"))
        return self.last_step if final_step is None else final_step

    @property
    def epoch(self) -> float | None:
        """Passes over the data done, by the last record that says so; None when none does."""
        epoch = self.last_values.get("epoch")
        return to_float(epoch) if is_number(epoch) and self.has_fractional_epochs else None


def find_training_log(
    output_dir: Path,
    settings: Log,
    *,
    stdout: Path,
    written_after: float,
    started_at: float,
    requested_steps: int | None,
) -> TrainingLog:
    """Finds the newest log that this run wrote, and reads it.

    Args:
        output_dir: The trainer's output directory.
        settings: How the trainer logs. Without a match of its path, the last part of that is looked for at any depth.
        stdout: What the training command printed.
        written_after: By the clock of the file system, seconds since the epoch: an older file is an earlier run's.
        started_at: By this machine's clock, seconds since the epoch: a log whose last record is older is a copy of an
            earlier run's.
        requested_steps: Steps asked for; None: none were.

    Returns:
        The log; of state stale, empty or missing where that is all there is.
    """
    reader = open_reader(settings)
    if settings.path is None:
        log = _build_log(stdout, reader, reader.read([stdout]), folder=output_dir, num_logs=1)
    else:
        log = _find_log_file(output_dir, settings.path, reader, written_after=written_after, started_at=started_at)
    finished, reason = _prove_end(
        log, reader, output_dir=output_dir, stdout=stdout, written_after=written_after, requested_steps=requested_steps
    )
    return replace(log, finished=finished, finished_reason=reason)


def _find_log_file(
    output_dir: Path, pattern: str, reader: LogReader, *, written_after: float, started_at: float
) -> TrainingLog:
    name = Path(pattern).name
    found = list_files(output_dir, pattern)
    if not any(_is_fresh(path, written_after) for path in found):
        found += [path for path in output_dir.rglob(name) if path.is_file()]
    fresh = [path for path in found if _is_fresh(path, written_after)]
    if not fresh:
        if found:
            return _stale(found[0])
        written = sorted(path.name for path in output_dir.iterdir()) if output_dir.is_dir() else []
        holds = f"it holds {', '.join(written[:8])}" if written else "the trainer left nothing there"
        return TrainingLog(path=None, state="missing", reason=f"no {name} in {output_dir}: {holds}")
    logs = sorted(reader.group_files(sorted(set(fresh))), key=_find_age, reverse=True)
    num_copies, beside_the_point = 0, None
    for files in logs:
        records = reader.read(files)
        if _is_copy(records, started_at):
            num_copies += 1
            continue
        log = _build_log(files[-1], reader, records, folder=files[-1].parent, num_logs=len(logs) - num_copies)
        if records.losses or records.state != "complete" or not reader.may_be_beside_the_point:
            return log
        beside_the_point = beside_the_point or log
    return beside_the_point or _stale(fresh[0])


def list_files(folder: Path, pattern: str) -> list[Path]:
    """Returns the files of a pattern below a folder."""
    matches = glob.glob(pattern, root_dir=folder, recursive=True)
    return [path for match in matches if (path := folder / match).is_file()]


def _find_age(files: Sequence[Path]) -> int:
    return max(path.stat().st_mtime_ns for path in files)


def _is_fresh(path: Path, written_after: float) -> bool:
    return path.stat().st_mtime >= written_after


def _is_copy(records: Records, started_at: float) -> bool:
    said = records.last_values.get("timestamp")
    # Some trainers' timestamps are not seconds since the epoch but since their start, or name no time zone: those
    # prove nothing.
    last_said = None if isinstance(said, str) and not names_zone(said) else to_time(said)
    return last_said is not None and FIRST_EPOCH_TIME_S < last_said < started_at - CLOCK_TOLERANCE_S


def find_growing_log(output_dir: Path, settings: Log, *, written_after: float) -> Path | None:
    """Returns the newest log that this run has begun to write where it is expected; None: there is none (yet).

    Args:
        output_dir: See `find_training_log`, as for `settings` and `written_after`.
        settings: See `find_training_log`.
        written_after: See `find_training_log`.
    """
    paths = list_files(output_dir, settings.path) if settings.path is not None else []
    with contextlib.suppress(OSError):  # gone meanwhile
        fresh = [path for path in paths if _is_fresh(path, written_after)]
        return max(fresh, key=lambda path: path.stat().st_mtime, default=None)
    return None


def _stale(path: Path) -> TrainingLog:
    reason = f"{path} was written before this run began: it is an earlier run's log"
    return TrainingLog(path=path, state="stale", reason=reason)


def read_training_log(path: Path, settings: Log = FORGATHER) -> TrainingLog:
    """Reads one file, whatever its state and age; of what proves the end of training, the final record alone counts."""
    reader = open_reader(settings)
    records = reader.read([path])
    log = _build_log(path, reader, records, folder=path.parent, num_logs=1)
    return replace(log, finished=records.final is not None or records.says_finished)


def _build_log(path: Path, reader: LogReader, records: Records, *, folder: Path, num_logs: int) -> TrainingLog:
    return TrainingLog(
        path=path,
        state=records.state,
        reason=records.reason,
        folder=folder,
        num_logs=num_logs,
        num_records=records.num_records,
        steps=records.steps,
        losses=records.losses,
        superseded_steps=records.superseded_steps,
        superseded_losses=records.superseded_losses,
        last_values=records.last_values,
        last_eval_loss=records.last_eval_loss,
        final=records.final,
        says_finished=records.says_finished,
        last_step=records.last_step,
        has_fractional_epochs=reader.counts_epochs_in_fractions or records.has_fractional_epochs,
        steps_per_second=records.steps_pace.per_second(),
        tokens_per_second=records.tokens_pace.per_second(),
        max_grad_norm=records.max_grad_norm,
        peak_memory_bytes=records.peak_memory_bytes,
    )


def _prove_end(
    log: TrainingLog,
    reader: LogReader,
    *,
    output_dir: Path,
    stdout: Path,
    written_after: float,
    requested_steps: int | None,
) -> tuple[bool | None, str]:
    """Returns whether training ran to its end (None: nothing could prove it), and why that is not so."""
    proof = reader.settings.finished
    if proof.steps:
        return _prove_by_steps(log, requested_steps)
    if proof.file is not None:
        is_there = any(_is_fresh(path, written_after) for path in list_files(output_dir, proof.file))
        return is_there, "" if is_there else f"this run wrote no {proof.file} (backend.log.finished.file)"
    if proof.line is not None:
        is_there = _holds_line(stdout, re.compile(proof.line))
        return is_there, "" if is_there else f"no line of stdout matches {proof.line!r} (backend.log.finished.line)"
    if proof.key is None and reader.final_key is None:
        return None, (
            f"nothing in a log that the reader {reader.settings.reader} reads proves that training completed; say what "
            "does: backend.log.finished.steps=true, or .key, .file or .line"
        )
    if log.final is not None or (proof.key is None and log.says_finished):
        return True, ""
    where = log.reason or f"it ends with record {log.num_records}, and training was not completed"
    key = f" (one with {proof.key!r} and without a loss)" if proof.key is not None else ""
    return False, f"the log has no final record{key}: {where}"


def _prove_by_steps(log: TrainingLog, requested_steps: int | None) -> tuple[bool | None, str]:
    if requested_steps is None:
        return None, "backend.log.finished.steps needs a number of steps to be reached; set max_steps"
    step = log.global_step
    if step is None:
        return False, log.reason or "no record says how many steps were done"
    is_reached = step >= requested_steps
    return is_reached, "" if is_reached else f"the log ends at step {step} of {requested_steps}"


def _holds_line(path: Path, pattern: "re.Pattern[str]") -> bool:
    return path.is_file() and any(pattern.search(line) for line, _ in iterate_lines(path))
