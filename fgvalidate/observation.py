"""From what was observed to facts: a process result, a training log, findings and files come in, `Facts` go out."""

import glob
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fgvalidate.curve import thin_curve
from fgvalidate.facts import CATALOGUE, LOG_PREFIX, Facts
from fgvalidate.inference import InferenceResult, find_median
from fgvalidate.log_records import to_float
from fgvalidate.perplexity import Perplexity
from fgvalidate.process import ProcessResult
from fgvalidate.signatures import Sign
from fgvalidate.text_search import Finding
from fgvalidate.training_log import TrainingLog
from fgvalidate.watch import Watched, show_step

NUM_NONFINITE_STEPS = 10
NUM_SHOWN_KEYS = 12
_INFERENCE_FACTS = tuple(name for name in CATALOGUE if name.startswith("inference."))


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Everything that the training stage left."""

    process: ProcessResult
    timeout: int
    """Seconds that it was allowed."""
    log: TrainingLog
    requested_steps: int | None
    """Steps asked for; None: none were."""
    findings: Mapping[str, Finding | None] | None
    """By pattern looked for in stderr; None: it could not be read, since the trainer removed it."""
    stderr_bytes: int | None
    """None: likewise."""
    files: Mapping[str, bool]
    """By expected file: whether it exists."""
    created_files: frozenset[str] | None
    """What the run added to the project's checkout; None: it is in no checkout that git can read."""
    commit: str | None
    """The checkout's commit, `-dirty` when it differed; None: likewise, or it has no commit."""
    num_gpus_available: int
    gpu_names: tuple[str, ...]
    """The models of those that the run was given."""
    host: str
    """This machine's name."""
    num_cores: int
    """CPU cores that we may use."""
    inference: InferenceResult | str
    """What the inference stage observed, or why it was not run."""
    watched: Watched = field(default_factory=Watched)
    """What was seen of the run while it ran."""
    foreign_memory_share: float | None = None
    """The largest share of the memory of a GPU of the run that others had; None: it had none, or it is not known."""
    exception: Finding | None = None
    """The first uncaught Python exception on stderr; None: there is none, or the run ended well."""
    signs: tuple[Sign, ...] | None = None
    """Signs of trouble of the machine; None: the run ended well, and none were looked for."""


def collect_facts(seen: Observation) -> Facts:
    """Derives all facts of a run from what was observed of it."""
    values: dict[str, Any] = {}
    notes: dict[str, str] = {}
    _add_process(seen, values, notes)
    _add_log(seen, values, notes)
    _add_losses(seen.log, values, notes)
    _add_seen_losses(seen.watched, values, notes)
    _add_measurements(seen.log, values, notes)
    if seen.findings is None:
        notes["stderr.findings"] = "the file that took stderr is gone: the run removed it"
    else:
        values["stderr.findings"] = {name: found and asdict(found) for name, found in seen.findings.items()}
    values["stderr.num_bytes"] = seen.stderr_bytes
    values["files.found"] = dict(seen.files)
    values["gpu.num_available"] = seen.num_gpus_available
    values["gpu.num_used"] = len(seen.gpu_names)
    values["gpu.names"] = list(seen.gpu_names)
    values["host.name"] = seen.host
    values["host.num_cores"] = seen.num_cores
    not_applicable: dict[str, str] = {}
    _add_watch(seen, values, notes, not_applicable)
    _add_trouble(seen, values, notes, not_applicable)
    if isinstance(seen.inference, str):
        not_applicable |= dict.fromkeys(_INFERENCE_FACTS, seen.inference)
    else:
        _add_inference(seen.inference, values, notes)
    if seen.created_files is None:
        not_applicable |= dict.fromkeys(("repo.commit", "repo.created_files"), "the project is in no git checkout")
    else:
        values["repo.commit"] = seen.commit
        values["repo.created_files"] = sorted(seen.created_files)
        if seen.commit is None:
            notes["repo.commit"] = "git names no commit of the project's checkout"
    known = {name: value for name, value in values.items() if value is not None}
    return Facts(values=known, notes=notes, not_applicable=not_applicable)


def _add_trouble(
    seen: Observation, values: dict[str, Any], notes: dict[str, str], not_applicable: dict[str, str]
) -> None:
    """Adds what tells the machine's trouble from the subject's."""
    if seen.signs is None:
        not_applicable["infrastructure.findings"] = "the run ended well, and nothing was looked for"
    else:
        values["infrastructure.findings"] = [asdict(sign) for sign in seen.signs]
    if seen.exception is not None:
        values["stderr.exception"] = asdict(seen.exception)
    elif seen.signs is None:
        not_applicable["stderr.exception"] = "the run ended well, and nothing was looked for"
    else:
        notes["stderr.exception"] = "no uncaught Python exception stands in stderr"
    values["gpu.foreign_memory_share"] = seen.foreign_memory_share
    if seen.foreign_memory_share is None and seen.gpu_names:
        notes["gpu.foreign_memory_share"] = "the driver does not say how much of the GPUs' memory is in use"
    elif not seen.gpu_names:
        not_applicable["gpu.foreign_memory_share"] = "the run was given no GPU"


def _add_process(seen: Observation, values: dict[str, Any], notes: dict[str, str]) -> None:
    process = seen.process
    values |= {
        "train.argv": list(process.argv),
        "train.returncode": process.returncode,
        "train.timed_out": process.timed_out,
        "train.started_at": process.started_at,
        "train.duration_s": process.duration_s,
        "train.cleanup_s": process.cleanup_s,
        "train.peak_memory_bytes": process.peak_memory_bytes,
        "train.orphans": list(process.orphans),
        "train.survivors": list(process.survivors),
    }
    if process.timed_out:
        notes["train.timed_out"] = f"still running after {seen.timeout} s, and ended"
    elif process.stopped:
        notes["train.returncode"] = f"ended by fgvalidate: {explain_stop(seen.watched)}"
    elif process.returncode is None:
        notes["train.returncode"] = "the process that watched it was killed, and it was ended unseen"
    elif process.returncode < 0:
        notes["train.returncode"] = f"killed by signal {-process.returncode}"
    if process.orphans:
        notes["train.orphans"] = "they outlived the command and had to be ended"


def explain_stop(watched: Watched) -> str:
    """Returns why a run was ended early: what was seen first."""
    return watched.alarms[0].text


def _add_watch(
    seen: Observation, values: dict[str, Any], notes: dict[str, str], not_applicable: dict[str, str]
) -> None:
    watched = seen.watched
    values |= {
        "watch.stopped": seen.process.stopped,
        "watch.stopped_after_s": watched.stopped_after_s if seen.process.stopped else None,
        "watch.stopped_by": watched.alarms[0].kind if seen.process.stopped else None,
        "watch.alarms": [alarm.text for alarm in watched.alarms],
        "watch.global_step": watched.last_step,
        "watch.num_steps": watched.num_steps,
        "watch.max_loss": watched.max_loss,
        "watch.longest_gap_s": watched.longest_gap_s,
        "watch.stalled": watched.is_stalled,
        "watch.stacks": list(watched.stacks),
    }
    if watched.num_steps < 2:
        notes["watch.longest_gap_s"] = "no two steps were seen while it ran"
    if watched.last_step is None:
        notes["watch.global_step"] = "no step was seen while it ran"
    if watched.max_loss is None:
        notes["watch.max_loss"] = "no loss was seen while it ran"
    stalls = [alarm.text for alarm in watched.alarms if alarm.kind == "stall"]
    if stalls:
        notes["watch.stalled"] = stalls[0]
    if not seen.process.stopped:
        names = ("watch.stopped_after_s", "watch.stopped_by")
        not_applicable |= dict.fromkeys(names, "the run was not ended early")
        return
    of = f" of {seen.requested_steps}" if seen.requested_steps else ""
    where = "before the first step" if watched.last_step is None else f"at step {watched.last_step}{of}"
    saving = f"stopped {where} after {watched.stopped_after_s or 0.0:.1f} s, which saves the rest"
    notes["watch.stopped"] = f"{explain_stop(watched)}; {saving}"


def _add_log(seen: Observation, values: dict[str, Any], notes: dict[str, str]) -> None:
    log = seen.log
    values |= {
        "train.finished": log.finished,
        "train.global_step": log.global_step,
        "train.max_steps": seen.requested_steps,
        "train.epoch": log.epoch,
        "train.epoch_ended": _is_epoch_ended(log) if log.finished else None,
        "train.num_steps_logged": len(log.losses),
        "training_log.path": log.path and str(log.path),
        "training_log.state": log.state,
        "training_log.num_records": log.num_records,
        "training_log.num_logs": log.num_logs,
        "training_log.num_superseded": len(log.superseded_losses),
        "files.run_directory": log.folder and str(log.folder),
        **{f"{LOG_PREFIX}{key}": value for key, value in log.last_values.items() if _is_scalar(value)},
    }
    if log.reason:
        notes["training_log.state"] = log.reason
    if not log.finished:
        notes["train.finished"] = log.finished_reason
    if log.num_logs > 1:
        notes["training_log.num_logs"] = f"the newest was read, {log.path}"
    if log.superseded_losses:
        again = f"training went back to step {min(log.superseded_steps)}, and did steps again"
        notes |= dict.fromkeys(("train.num_steps_logged", "training_log.num_superseded"), again)
    if not log.losses:
        notes["train.num_steps_logged"] = _explain_no_steps(seen)
    if log.global_step is None:
        notes["train.global_step"] = log.reason or "no record says how many steps were done"
    elif not log.finished:
        notes["train.global_step"] = "the last step logged before training broke off"


def _explain_no_steps(seen: Observation) -> str:
    log = seen.log
    # A log of more than its end that has no loss has it under another name.
    if not log.finished or (log.num_records > 1 and log.last_eval_loss is None):
        return _explain_no_loss(log)
    steps = seen.requested_steps or log.global_step
    return (
        f"training finished without logging a step: its logging_steps is above {steps} steps; "
        f"ask for more, max_steps at least logging_steps"
    )


def _explain_no_loss(log: TrainingLog) -> str:
    if log.reason or not log.num_records:
        return log.reason or "the log holds no training record"
    names = ", ".join(list(log.last_values)[:NUM_SHOWN_KEYS])
    return f"the log holds no training record, one with a loss; its records have {names} (see backend.log.keys)"


def _add_losses(log: TrainingLog, values: dict[str, Any], notes: dict[str, str]) -> None:
    steps, losses = log.steps, log.losses
    if log.superseded_losses:
        # A loss that was NaN was NaN, though its step was done again.
        steps, losses = log.superseded_steps + steps, log.superseded_losses + losses
    nonfinite = [index for index, loss in enumerate(losses) if not math.isfinite(loss)]
    finite = [loss for loss in losses if math.isfinite(loss)] if nonfinite else losses
    values["eval_loss.final"] = log.last_eval_loss
    if not log.losses:
        for name in ("loss.final", "loss.first", "loss.drop", "loss.max", "loss.num_nonfinite", "loss.curve"):
            notes[name] = _explain_no_loss(log)
        return
    values |= {
        "loss.first": log.losses[0],
        "loss.final": log.losses[-1],
        "loss.min": min(finite, default=None),
        "loss.max": math.inf if nonfinite and math.inf in losses else max(finite, default=None),
        "loss.num_nonfinite": len(nonfinite),
        "loss.nonfinite_steps": [steps[index] for index in nonfinite[:NUM_NONFINITE_STEPS]],
        "loss.curve": thin_curve(log.steps, log.losses) or None,
    }
    if values["loss.max"] is None:
        notes["loss.max"] = "no training record has a loss that is a number"
    if values["loss.curve"] is None:
        notes["loss.curve"] = "no training record says its step"
    if nonfinite:
        first = nonfinite[0]
        notes["loss.num_nonfinite"] = f"the first is {losses[first]} at step {steps[first]}"
    if len(log.losses) < 2:
        notes["loss.drop"] = "only one training record, so there is no first loss to compare the last with"
    elif log.losses[0] == 0:
        notes["loss.drop"] = "the first recorded loss is 0"
    else:
        values["loss.drop"] = (log.losses[0] - log.losses[-1]) / abs(log.losses[0])
        notes["loss.drop"] = f"from {log.losses[0]:.4g} at step {log.steps[0]} to {log.losses[-1]:.4g} at the last"


def _add_seen_losses(watched: Watched, values: dict[str, Any], notes: dict[str, str]) -> None:
    """Takes in what was seen while it ran and the log does not hold: it counts against a run, and never for it."""
    if watched.num_nonfinite > values.get("loss.num_nonfinite", 0):
        first = watched.nonfinite[0]
        steps = {step.step for step in watched.nonfinite if step.step is not None}
        values["loss.num_nonfinite"] = watched.num_nonfinite
        steps |= set(values.get("loss.nonfinite_steps", ()))
        values["loss.nonfinite_steps"] = sorted(steps)[:NUM_NONFINITE_STEPS]
        notes["loss.num_nonfinite"] = f"the first is {first.loss}{show_step(first)}, as seen while it ran"
    high, logged = watched.highest, values.get("loss.max")
    if high is not None and (logged is None or high.loss > logged):
        values["loss.max"] = high.loss
        notes["loss.max"] = f"{high.loss:.6g}{show_step(high)}, as seen while it ran"


def _add_measurements(log: TrainingLog, values: dict[str, Any], notes: dict[str, str]) -> None:
    own = log.last_values.get("tokens_per_second")
    own = to_float(own) if own is not None else None
    values |= {
        "grad_norm.max": log.max_grad_norm,
        "memory.peak_bytes": log.peak_memory_bytes,
        "throughput.steps_per_second": log.steps_per_second,
        "throughput.tokens_per_second": own if log.tokens_per_second is None else log.tokens_per_second,
    }
    absent = {
        "grad_norm.max": "no record has a grad_norm",
        "memory.peak_bytes": "no record has a peak_mem_allocated",
        "throughput.steps_per_second": "fewer than two training records have a step and a timestamp",
        "throughput.tokens_per_second": "fewer than two records have tokens and a timestamp, none a tokens_per_second",
    }
    notes |= {name: log.reason or reason for name, reason in absent.items() if values[name] is None}
    if log.tokens_per_second is None and own is not None:
        notes["throughput.tokens_per_second"] = "the log's own figure, over the whole run"


def _add_inference(result: InferenceResult, values: dict[str, Any], notes: dict[str, str]) -> None:
    start, samples = result.start, result.samples
    values |= {
        "inference.scorer": result.scorer,
        "inference.model_dir": result.model_dir and str(result.model_dir),
        "inference.server_healthy": start is not None and start.is_healthy,
        "inference.texts": [sample.completion.text for sample in samples],
    }
    if start is not None:
        values |= {
            "inference.server_ended": start.has_ended and not start.is_healthy,
            "inference.server_startup_s": start.startup_s,
            "inference.server_attempts": start.num_attempts,
            "inference.is_loopback": start.is_loopback,
        }
    if result.problem:
        # Without all the samples there is nothing to take the median of.
        notes |= dict.fromkeys(_INFERENCE_FACTS, result.problem)
        return
    first = samples[0].completion
    wholes = [_read_perplexity(sample.whole) for sample in samples]
    median = find_median(wholes)
    values |= {
        "inference.text": min(samples, key=lambda sample: _distance(sample.whole, median)).completion.text,
        "inference.num_empty": sum(not sample.completion.text.strip() for sample in samples),
        "inference.finish_reason": first.finish_reason,
        "inference.prompt_tokens": first.prompt_tokens,
        "inference.completion_tokens": first.completion_tokens,
        "inference.latency_s": first.latency_s,
        "inference.perplexities": wholes,
        "inference.perplexity": median,
        "inference.completion_perplexity": find_median([_read_perplexity(sample.continuation) for sample in samples]),
        "inference.is_truncated": any(sample.whole is not None and sample.whole.is_truncated for sample in samples),
        "inference.distinct_2": find_median([sample.distinct_2 for sample in samples]),
    }
    if median is None:
        notes["inference.perplexity"] = "a text has fewer than two tokens, which is no evidence"
    if values["inference.distinct_2"] is None:
        notes["inference.distinct_2"] = "a completion has fewer than two words, which is no evidence"


def _read_perplexity(score: Perplexity | None) -> float | None:
    return None if score is None else score.perplexity


def _distance(score: Perplexity | None, median: float | None) -> float:
    return math.inf if score is None or median is None else abs(score.perplexity - median)


def _is_epoch_ended(log: TrainingLog) -> bool:
    """Whether the last step is the one nearest to the end of an epoch."""
    epoch, step = log.epoch, log.global_step
    if epoch is None or not math.isfinite(epoch) or not step or round(epoch) < 1:
        return False
    return abs(epoch - round(epoch)) < 0.5 * epoch / step


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def look_for_files(run_directory: Path | None, names: list[str]) -> dict[str, bool]:
    """Looks for files beside the training log; a name may be a shell pattern.

    Args:
        run_directory: The log's folder; None: there is no log, and nothing is found.
        names: Paths or patterns relative to it.
    """
    if run_directory is None:
        return dict.fromkeys(names, False)
    return {name: _exists(run_directory, name) for name in names}


def _exists(folder: Path, name: str) -> bool:
    matches = glob.glob(name, root_dir=folder, recursive=True)
    return any((folder / path).exists() for path in [name, *matches])
