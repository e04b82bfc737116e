"""Why a run is red: verdicts and facts, or an error of ours, come in; the class of failure and the first cause go out.

| class | what it means |
|---|---|
| spec | the spec, a config file or an override is wrong, or expects a failure that did not come |
| launch | something could not be started, or did not come up |
| infrastructure | the machine, the network or the hub was the reason; only this may be tried again |
| crash | a program broke off, ran out of time or left something running |
| numerics | a loss is NaN or infinite |
| convergence | the model did not learn what its bounds demand |
| text quality | the text of the trained model is not what its bounds demand |
| resources | it took more time, memory or GPUs than its checks allow |
| evidence | a run that ended well did not leave what would prove it |

The class of a red check comes from the facts that it reads, so that users' own checks have one too. A cause comes
before its effects: NaN before the crash that follows from it, a crash before the log that it cut short.
"""

import errno
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fgvalidate.checks import Verdict
from fgvalidate.errors import FgvalidateError, HubError, LaunchError, LeaseError, RunDirError, ScorerError
from fgvalidate.facts import Facts
from fgvalidate.report import FailureKind as Kind
from fgvalidate.report import show_value

LONGEST_QUOTE = 200
"""Characters of a program's own words in a cause."""

_STAGE = "inference."
_TRAINING_OUTPUT = ("train.stderr", "train.stdout")
_FIRST = "the first is "

# The first that fits; what is not named here is evidence: steps, files, the state of the log.
_KINDS: tuple[tuple[tuple[str, ...], Kind], ...] = (
    (("train.duration_s", "train.cleanup_s", "train.peak_memory_bytes", "stderr.num_bytes"), "resources"),
    (("inference.latency_s", "inference.server_startup_s", "gpu.", "host."), "resources"),
    (("train.returncode", "train.timed_out", "train.orphans", "train.survivors", "stderr."), "crash"),
    (("watch.stalled", "watch.stopped", "watch.alarms", "watch.stacks"), "crash"),
    (("watch.longest_gap_s",), "resources"),
    (("infrastructure.",), "infrastructure"),
    (("loss.num_nonfinite", "loss.nonfinite_steps"), "numerics"),
    (("loss.", "eval_loss.", "log."), "convergence"),
    (("inference.server_", "inference.is_loopback"), "launch"),
    (("inference.model_dir", "inference.scorer"), "evidence"),
    (("inference.",), "text quality"),
)
# What a run was ended early for.
_STOPS: dict[str, Kind] = {
    "nonfinite": "numerics",
    "ceiling": "convergence",
    "forbidden": "crash",
    "stall": "crash",
}
# Of a check that reads several facts, the last of these counts: the others are conditions, or what it is compared with.
_FURTHEST: tuple[Kind, ...] = (
    "evidence",
    "crash",
    "resources",
    "infrastructure",
    "convergence",
    "numerics",
    "launch",
    "text quality",
)


@dataclass(frozen=True)
class Cause:
    """The first cause of a failure."""

    kind: Kind
    text: str
    """One line."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class _Red:
    """A red verdict, its class, and its place in the order of cause and effect."""

    verdict: Verdict
    kind: Kind
    rank: int
    """0: numerics; 1: how training ended; 2: what it left; 3: what it learnt; 4: what could not be judged; 5: the
    server; 6: its text; 7: anything else."""


def classify_error(error: BaseException) -> Kind:
    """Returns the class of what kept a spec from being validated."""
    if isinstance(error, LeaseError | HubError):
        return "infrastructure"
    if isinstance(error, LaunchError | RunDirError | ScorerError):
        return "launch"
    if isinstance(error, OSError) and not isinstance(error, FgvalidateError):
        return "infrastructure" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "evidence"
    return "spec"


def find_cause(red: Iterable[Verdict], facts: Facts) -> Cause:
    """Finds the first cause.

    Args:
        red: The red verdicts, in the order in which their checks are declared; at least one, unless the run was ended
            early.
        facts: What was observed.
    """
    reds = _rank(list(red), facts)
    stop = facts.values.get("watch.stopped_by")
    # All that is red besides follows from being ended; but a text that ended it has a cause of its own.
    ended = Cause(_STOPS[stop], facts.notes["watch.stopped"]) if stop is not None else None
    if ended is not None and (stop != "forbidden" or not reds):
        return ended
    first = reds[0]
    sign = None if first.kind == "numerics" else _find_sign(reds, facts)
    if sign is not None:
        what = f"{sign['hint']} " if sign["hint"] else ""
        where = f"{sign['signature']}, line {sign['line_number']} of {sign['file']}"
        return Cause("infrastructure", f"{what}({where}: {_quote(sign['line'])}){_list_others(reds)}")
    if first.kind == "numerics":
        return Cause("numerics", f"{_describe_nonfinite(first, facts)}{_trace_effects(reds, facts)}")
    if ended is not None:
        return ended
    quote = _quote_exception(facts) if first.kind == "crash" and first.rank != 5 else ""
    return Cause(first.kind, f"{describe(first.verdict)}{quote}{_list_others(reds[1:])}")


def describe(verdict: Verdict) -> str:
    """Returns what a red verdict says, on one line."""
    if verdict.status == "xpassed":
        return f"{verdict.name} {verdict.message}"
    if verdict.actual is None:
        return f"{verdict.name} could not be judged: {verdict.message}"
    why = f" ({verdict.message})" if verdict.message else ""
    return f"{verdict.name} is {show_value(verdict.actual)}, expected {verdict.expected}{why}"


def _quote(line: str) -> str:
    return " ".join(line.split())[:LONGEST_QUOTE]


def _quote_exception(facts: Facts) -> str:
    found = facts.values.get("stderr.exception")
    return f"; line {found['line_number']} of train.stderr: {_quote(found['line'])}" if found else ""


def _list_others(reds: list[_Red]) -> str:
    return f"; also red: {', '.join(red.verdict.name for red in reds)}" if reds else ""


def _describe_nonfinite(red: _Red, facts: Facts) -> str:
    note = facts.notes.get("loss.num_nonfinite", "")
    if "loss.num_nonfinite" not in red.verdict.facts or not note.startswith(_FIRST):
        return describe(red.verdict)
    return f"loss is {note.removeprefix(_FIRST)} ({red.verdict.name})"


def _trace_effects(reds: list[_Red], facts: Facts) -> str:
    """Says which of the others follow from a loss that is not finite: how training ended, where that is red too."""
    crashed = [red for red in reds[1:] if red.rank == 1]
    others = [red for red in reds[1:] if red.rank != 1]
    step = facts.values.get("train.global_step")
    when = f" after step {step}" if step is not None else ""
    has_traceback = "stderr.exception" in facts.values
    names = ", ".join(red.verdict.name for red in crashed)
    what = "the traceback" if has_traceback else "how it ended"
    effect = f"; {what}{when} follows from it ({names})" if crashed else ""
    return f"{effect}{_list_others(others)}"


def _find_sign(reds: list[_Red], facts: Facts) -> dict[str, Any] | None:
    """Returns the first sign of trouble of the machine in the output of a program that something red tells of."""
    is_training = any(red.rank in {1, 2} or (red.rank == 4 and red.kind == "crash") for red in reds)
    is_serving = any(red.rank == 5 for red in reds)
    for sign in facts.values.get("infrastructure.findings", []):
        if is_training if sign["file"] in _TRAINING_OUTPUT else is_serving:
            return dict(sign)
    return None


def _rank(red: list[Verdict], facts: Facts) -> list[_Red]:
    """Classes the red verdicts and puts causes before effects; of equals, what is declared first comes first."""
    has_crashed = _has_crashed(red, facts)
    return sorted((_classify(verdict, facts, has_crashed=has_crashed) for verdict in red), key=lambda each: each.rank)


def _has_crashed(red: list[Verdict], facts: Facts) -> bool:
    """Says whether the training command came to a bad end, whatever its log says."""
    is_bad = facts.values.get("train.returncode") != 0 or facts.values.get("train.timed_out") is True
    # Some launchers exit with 0 whatever their workers raise.
    has_raised = "stderr.exception" in facts.values and facts.values.get("train.finished") is False
    return (
        is_bad
        or has_raised
        or any(verdict.status == "failed" and name_kind(verdict.facts) == "crash" for verdict in red)
    )


def name_kind(facts: Iterable[str]) -> Kind:
    """Returns the class of a red check by the names of the facts that it reads, as long as nothing else is known."""
    kinds: list[Kind] = [
        next((kind for prefixes, kind in _KINDS if name.startswith(prefixes)), "evidence") for name in facts
    ]
    return max(kinds, key=_FURTHEST.index, default="evidence")


def _classify(verdict: Verdict, facts: Facts, *, has_crashed: bool) -> _Red:
    if verdict.status == "xpassed":
        return _Red(verdict, "spec", 7)
    kind = name_kind(verdict.facts)
    if any(name.startswith(_STAGE) for name in verdict.facts):
        return _classify_stage(verdict, kind, facts)
    if verdict.status == "error":
        return _Red(verdict, "crash" if has_crashed else "evidence", 4)
    if kind == "numerics" or (kind == "convergence" and _reads_nonfinite(verdict, facts)):
        return _Red(verdict, "numerics", 0)
    if kind == "evidence":
        return _Red(verdict, "crash" if has_crashed else "evidence", 2)
    return _Red(verdict, kind, {"crash": 1, "convergence": 3}.get(kind, 7))


def _classify_stage(verdict: Verdict, kind: Kind, facts: Facts) -> _Red:
    """Classes a red check of the inference stage."""
    is_unhealthy = facts.values.get("inference.server_healthy") is False
    if kind == "launch" or (verdict.status == "error" and is_unhealthy):
        if "inference.server_attempts" not in facts.values:
            return _Red(verdict, "evidence", 5)  # there was no model to start it with
        # One that ended by itself has crashed; one that had to be ended never came up.
        return _Red(verdict, "crash" if facts.values.get("inference.server_ended") else "launch", 5)
    return _Red(verdict, "evidence" if verdict.status == "error" else kind, 6 if kind == "text quality" else 7)


def _reads_nonfinite(verdict: Verdict, facts: Facts) -> bool:
    values = [facts.values.get(name) for name in verdict.facts]
    return any(isinstance(value, float) and not math.isfinite(value) for value in values)
