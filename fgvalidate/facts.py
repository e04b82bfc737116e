"""Facts: everything that was observed of a run, nothing judged. Flat dotted names, JSON round trip.

The catalogue below names every fact there can be (and `log.<key>` for whatever the trainer logs), so that a misspelt
name in a check is a spec error before anything starts. A fact that could not be observed is absent, with a note that
says why; one that has no meaning for this run is not applicable, with a reason.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgvalidate.errors import SpecError, suggest

LOG_PREFIX = "log."
SCHEMA_VERSION = 1

CATALOGUE: dict[str, str] = {
    "train.argv": "the training command, as a list",
    "train.returncode": "its exit code; negative: killed by that signal",
    "train.timed_out": "whether it was ended because `timeout` had passed",
    "train.started_at": "when it started, seconds since the epoch",
    "train.duration_s": "how long it ran, seconds",
    "train.cleanup_s": "from its end until its process tree was gone, seconds",
    "train.peak_memory_bytes": "peak of its process tree's resident memory (the sum over processes, sampled), bytes",
    "train.orphans": "processes that outlived it and had to be ended, as `pid command line`",
    "train.survivors": "processes that could not be ended, as `pid command line`",
    "train.finished": "whether training provably completed: by a final record, or by what `backend.log.finished` says",
    "train.global_step": "optimizer steps done: the final record's, else the last record's",
    "train.max_steps": "optimizer steps asked for",
    "train.epoch": "passes over the data done, fractional: the last record's; absent where the log only numbers them",
    "train.epoch_ended": "whether training finished exactly at the end of an epoch",
    "train.num_steps_logged": "training records in the log; of a step that was done again, the last",
    "watch.stopped": "whether the run was ended early because of what was seen while it ran",
    "watch.stopped_after_s": "when it was, seconds since its start",
    "watch.stopped_by": "what it was ended for: nonfinite (a loss), ceiling, forbidden (text) or stall",
    "watch.alarms": "what was seen while it ran that a check is red for, in the order in which it was seen",
    "watch.global_step": "the last step that was seen while it ran, on stdout or in the log",
    "watch.num_steps": "steps that were seen while it ran",
    "watch.max_loss": "the highest loss that was seen while it ran, less what its printed digits may be rounded up by",
    "watch.longest_gap_s": "the longest time between two of them, seconds",
    "watch.stalled": "whether it went without a step and without output for longer than `watch.stall_timeout` allows",
    "watch.stacks": "where its processes then stood, a text each",
    "training_log.path": "the training log that was read",
    "training_log.state": "complete, truncated, corrupt, empty, stale (an earlier run's) or missing",
    "training_log.num_records": "records of any kind that could be read",
    "training_log.num_logs": "logs that this run wrote; the newest was read",
    "training_log.num_superseded": "training records that later ones replaced, since their steps were done again",
    "loss.first": "loss in the first training record, nats per token",
    "loss.final": "loss in the last training record, nats per token",
    "loss.min": "lowest finite training loss, nats per token",
    "loss.max": "highest training loss, infinity and superseded ones included, nats per token",
    "loss.drop": "share of the first recorded loss that is gone by the last: (first - final) / abs(first)",
    "loss.num_nonfinite": "training records with a loss of NaN or inf, superseded ones and what was seen live included",
    "loss.nonfinite_steps": "global steps of the first ten of them",
    "loss.curve": "training losses as [global step, loss], thinned to at most 400 with their extremes kept",
    "eval_loss.final": "loss in the last evaluation record, nats per token",
    "grad_norm.max": "highest gradient norm in any record, NaN when one is NaN",
    "throughput.steps_per_second": "optimizer steps a second by the records' timestamps, the first tenth left out",
    "throughput.tokens_per_second": "tokens a second likewise, else the log's own last `tokens_per_second`",
    "memory.peak_bytes": "highest `peak_mem_allocated` in any record, bytes",
    "stderr.findings": "by pattern looked for: line number and line of its first occurrence, or null",
    "stderr.num_bytes": "size of the training command's stderr, bytes",
    "stderr.exception": "first uncaught Python exception that a run which broke off printed: line_number and line",
    "files.run_directory": "where expected files are looked for: the training log's folder; the output's for stdout",
    "files.found": "by expected file: whether it exists",
    "repo.commit": "commit of the project's git checkout before training; `-dirty` when a tracked file differed",
    "repo.created_files": "files created or changed in the project's git checkout (bytecode and outputs/ apart)",
    "inference.model_dir": "the model that was served: a checkpoint, or the output's root",
    "inference.server_healthy": "whether the server became healthy and answered a first completion",
    "inference.server_ended": "whether the server ended by itself before it was healthy",
    "inference.server_startup_s": "from its start until it was healthy, seconds",
    "inference.server_attempts": "how often it was started (again when another took its port)",
    "inference.is_loopback": "whether the server's port can be reached from this machine alone",
    "inference.texts": "the completions, by sample",
    "inference.text": "the completion of median perplexity",
    "inference.num_empty": "completions without a visible character",
    "inference.finish_reason": "why the first sample ended, as the server says",
    "inference.prompt_tokens": "tokens of the prompt, as the server says",
    "inference.completion_tokens": "tokens of the first sample, as the server says",
    "inference.latency_s": "from request to answer, the first sample's, seconds",
    "inference.scorer": "the language model that scored the texts",
    "inference.perplexities": "perplexity of prompt + completion, by sample",
    "inference.perplexity": "their median",
    "inference.completion_perplexity": "median perplexity of the completions alone, given the prompt",
    "inference.is_truncated": "whether any text was longer than the scorer takes, and cut",
    "inference.distinct_2": "median share of distinct word bigrams in the completions",
    "gpu.num_available": "GPUs on this machine that CUDA_VISIBLE_DEVICES lets us use",
    "gpu.num_used": "GPUs given to the run",
    "gpu.names": "their models",
    "gpu.foreign_memory_share": "largest share of a GPU's memory that others than the run had just before or after it",
    "host.name": "the machine it ran on",
    "host.num_cores": "CPU cores that it was allowed to use",
    "infrastructure.findings": "signs of trouble of the machine in what a run that broke off printed: "
    "signature, hint, file, line_number, line",
}


class UnknownFactError(SpecError):
    """A check names a fact that no run can have."""


@dataclass(frozen=True)
class Absent:
    """Stands for a known fact that this run does not have; `skip` says whether its checks are skipped or in error."""

    name: str
    reason: str
    skip: bool = False


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was observed of one run."""

    values: Mapping[str, Any]
    """By fact name: numbers, texts, booleans, lists and mappings of them; never None at the top."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """By fact name: where a value stands, or why there is none."""
    not_applicable: Mapping[str, str] = field(default_factory=dict)
    """By fact name: why the fact has no meaning for this run; its checks are skipped."""

    def get(self, name: str) -> Any:
        """Returns the fact's value, or an `Absent` that says why there is none."""
        if name in self.values:
            return self.values[name]
        if name in self.not_applicable:
            return Absent(name, self.not_applicable[name], skip=True)
        reason = self.notes.get(name, "")
        if not reason and name.startswith(LOG_PREFIX):
            logged = sorted(key for key in self.values if key.startswith(LOG_PREFIX))
            reason = f"the trainer logged {', '.join(logged)}" if logged else "the trainer logged nothing"
        return Absent(name, reason)

    def write(self, path: Path) -> None:
        """Writes strict JSON, a line a fact; see `to_document`."""
        path.write_text(_dump(self.to_document()) + "\n", encoding="utf-8")

    def to_document(self) -> dict[str, Any]:
        """Returns the facts for strict JSON; see `to_json`."""
        return {
            "schema": SCHEMA_VERSION,
            "values": to_json(dict(self.values)),
            "notes": dict(self.notes),
            "not_applicable": dict(self.not_applicable),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Facts":
        """The inverse of `to_document`.

        Raises:
            SpecError: The document is of another schema.
            KeyError, TypeError: It is not one of ours.
        """
        if document["schema"] != SCHEMA_VERSION:
            raise SpecError(f"schema {document['schema']}, this version reads schema {SCHEMA_VERSION}")
        for key in ("values", "notes", "not_applicable"):
            if not isinstance(document[key], Mapping):
                raise TypeError(f"{key}: not a mapping")
        for reason in (*document["notes"].values(), *document["not_applicable"].values()):
            if not isinstance(reason, str):
                raise TypeError(f"{reason!r:.40} where a text belongs")
        return cls(
            values=from_json(document["values"]),
            notes=document["notes"],
            not_applicable=document["not_applicable"],
        )

    @classmethod
    def read(cls, path: Path) -> "Facts":
        """Reads what `write` wrote.

        Raises:
            SpecError: The file is not one of ours.
        """
        try:
            return cls.from_document(json.loads(path.read_text(encoding="utf-8")))
        except SpecError as error:
            raise SpecError(f"{path}: {error}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SpecError(f"{path}: not a facts.json that can be read ({error})") from error


def _dump(document: Mapping[str, Any]) -> str:
    # A curve with each number on a line of its own would bury the other facts.
    entries = []
    for key, value in document.items():
        text = json.dumps(value, allow_nan=False)
        if isinstance(value, Mapping) and value:
            lines = [f"    {json.dumps(name)}: {json.dumps(item, allow_nan=False)}" for name, item in value.items()]
            text = "{\n" + ",\n".join(lines) + "\n  }"
        entries.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}"


def to_json(value: Any) -> Any:
    """Returns the value for strict JSON: a non-finite float becomes `{"float": "nan"}` (or "inf", "-inf")."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def from_json(value: Any) -> Any:
    """The inverse of `to_json`."""
    if isinstance(value, dict):
        if set(value) == {"float"}:
            return float(value["float"])
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return value


def check_fact_name(name: str) -> None:
    """Raises UnknownFactError unless the catalogue holds the name."""
    known = name in CATALOGUE or (name.startswith(LOG_PREFIX) and len(name) > len(LOG_PREFIX))
    if not known:
        raise UnknownFactError(f"no such fact: '{name}'.{suggest(name, list(CATALOGUE))}")


@dataclass
class _Binding:
    facts: Facts
    read: list[str]


_binding: ContextVar[_Binding | None] = ContextVar("fgvalidate_facts", default=None)


@contextmanager
def bind_facts(facts: Facts) -> Iterator[list[str]]:
    """While it is open, `${fact:...}` reads these facts; yields the list that collects the names read."""
    binding = _Binding(facts, [])
    token = _binding.set(binding)
    try:
        yield binding.read
    finally:
        _binding.reset(token)


def facts_are_bound() -> bool:
    """Whether checks are evaluated on facts now; otherwise they only show what they would check."""
    return _binding.get() is not None


def resolve_fact(name: str) -> Any:
    """The `fact` resolver: the fact's value, an `Absent`, or the text `<fact:NAME>` while no facts are bound.

    Raises:
        UnknownFactError: The catalogue has no such fact.
    """
    check_fact_name(name)
    binding = _binding.get()
    if binding is None:
        return f"<fact:{name}>"
    binding.read.append(name)
    return binding.facts.get(name)
