"""The conclusion: verdicts and facts come in, a report goes out that says what became of the run, and why."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

from fgvalidate.causes import Cause, find_cause
from fgvalidate.checks import Verdict
from fgvalidate.composition import explain_unknown_keys
from fgvalidate.expectations import expect_failures
from fgvalidate.facts import Facts
from fgvalidate.report import FailureKind, Outcome, Report, read_versions
from fgvalidate.run_dir import RunDir
from fgvalidate.spec import Spec
from fgvalidate.text_search import read_tail

NUM_TAIL_LINES = 20
NUM_STACK_LINES = 100
SUGGESTED_HEADROOM = 1.25


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a verdict is reached on, whether the run is still to come or was recorded."""

    spec: Spec
    checks: DictConfig
    """The check expressions, inside the composed config that their bounds refer to."""
    notes: Mapping[str, str]
    """By fact name: what to say in a verdict on that fact that is not green."""
    run_dir: RunDir
    """Holds what the run printed."""
    repeat: str
    """What to type to repeat it."""
    spec_file: Path | None = None
    """Where the spec was read; None: it came from no file."""


def conclude(plan: Case, facts: Facts, verdicts: list[Verdict], *, duration_s: float) -> Report:
    """Sums the verdicts up: green when at least one check passed and none is red, unless that is what is expected.

    Args:
        plan: What was run.
        facts: What was observed.
        verdicts: What the checks said of it.
        duration_s: The whole run's, wall time.
    """
    spec = plan.spec
    red = [verdict for verdict in verdicts if verdict.is_red]
    # What the machine did was not expected.
    if spec.xfail_checks and not (red and find_cause(red, facts).kind == "infrastructure"):
        verdicts = expect_failures(verdicts, spec.xfail_checks)
    is_red = any(verdict.is_red for verdict in verdicts)
    is_unhealthy = facts.values.get("inference.server_healthy") is False
    outcome, failure, reason = decide(spec, facts, verdicts)
    return Report(
        test_id=plan.spec.test_id,
        outcome=outcome,
        failure=failure,
        reason=reason,
        command=plan.repeat,
        verdicts=tuple(verdicts),
        advice=(*note_unknown_keys(plan.spec), *quote_text(facts), *advise(plan.spec, facts)),
        server_log_tail=read_last_lines(plan.run_dir.server_log_path) if is_unhealthy else (),
        stderr_tail=read_last_lines(plan.run_dir.stderr_path) if is_red else (),
        stacks=quote_stacks(facts),
        run_dir=plan.run_dir.root,
        spec_file=plan.spec_file,
        duration_s=duration_s,
        spec=asdict(plan.spec),
        versions=read_versions(),
    )


def decide(spec: Spec, facts: Facts, verdicts: list[Verdict]) -> tuple[Outcome, FailureKind | Literal[""], str]:
    """Sums the verdicts up.

    Returns:
        The outcome; the class of failure, "" where there is none; the first cause, or what is worth a warning.
    """
    return conclude_expectation(spec, verdicts, find_failure(spec, facts, verdicts))


def find_failure(spec: Spec, facts: Facts, verdicts: list[Verdict]) -> Cause | None:
    """Returns why the run is red; None: it is green."""
    red = [verdict for verdict in verdicts if verdict.is_red]
    # What was ended early is no pass, whatever its checks say.
    if red or facts.values.get("watch.stopped") is True:
        return find_cause(red, facts)
    # A stage that was asked for and never ran is no pass, whichever checks the spec has switched off.
    if spec.inference is not None and "inference.server_healthy" not in facts.values:
        why = facts.get("inference.server_healthy").reason
        return Cause("evidence", f"the inference stage was not run: {why}")
    if not any(verdict.status == "passed" for verdict in verdicts):
        return Cause("evidence", "no check could be judged, or none passed")
    return None


def conclude_expectation(
    spec: Spec, verdicts: list[Verdict], cause: Cause | None
) -> tuple[Outcome, FailureKind | Literal[""], str]:
    """Returns outcome, class of failure and reason, by whether the spec is expected to be red."""
    if cause is None and spec.xfail is not None:
        what = f"passed, though xfail says: {spec.xfail}; remove xfail"
        return "failed", "spec", str(Cause("spec", what))
    if cause is None:
        named = {
            "with warnings": [verdict.name for verdict in verdicts if verdict.status == "warned"],
            "red as expected": [verdict.name for verdict in verdicts if verdict.status == "xfailed"],
        }
        return "passed", "", "; ".join(f"{what}: {', '.join(names)}" for what, names in named.items() if names)
    # What could not be judged, what passed against expectation and what the machine did was not expected.
    statuses = {verdict.status for verdict in verdicts}
    has_failed = "failed" in statuses and "xpassed" not in statuses
    if spec.xfail is not None and has_failed and cause.kind != "infrastructure":
        return "passed", "", f"red as expected ({spec.xfail}): {cause}"
    return "failed", cause.kind, str(cause)


def read_last_lines(path: Path) -> tuple[str, ...]:
    """Returns the end of what a program printed; nothing when the file is gone."""
    return tuple(read_tail(path, num_lines=NUM_TAIL_LINES)) if path.is_file() else ()


def quote_stacks(facts: Facts) -> tuple[str, ...]:
    """Returns the beginning of where the processes stood when the run stalled; nothing when it did not."""
    lines = [line for text in facts.values.get("watch.stacks", []) for line in text.splitlines()]
    left_out = len(lines) - NUM_STACK_LINES
    return (*lines[:NUM_STACK_LINES], *([f"and {left_out} more lines in stacks.txt"] if left_out > 0 else []))


def note_unknown_keys(spec: Spec) -> list[str]:
    """Returns what was left out of the spec, since no field has these names."""
    return [f"Ignored {problem}" for problem in explain_unknown_keys(spec.unknown)]


def quote_text(facts: Facts) -> list[str]:
    """Returns what the model said, and what its perplexity means."""
    text, perplexity = facts.values.get("inference.text"), facts.values.get("inference.perplexity")
    scorer = facts.values.get("inference.scorer")
    if text is None or perplexity is None or scorer is None:
        return []
    band = f", {name_band(perplexity)}" if scorer == "gpt2" else ""
    return [f"Text    {' '.join(text.split())} (perplexity {perplexity:.1f} under {scorer}{band})"]


def name_band(perplexity: float) -> str:
    """Returns what a perplexity under GPT-2 means: the bands overlap, and the better one is named."""
    bands = [(60, "well-written English"), (200, "acceptable"), (1000, "poorly trained")]
    return next((name for bound, name in bands if perplexity <= bound), "random tokens")


def advise(spec: Spec, facts: Facts) -> list[str]:
    """Suggests bounds: for a backend that has none, for a loss that has none, for a loss that may stay where it is."""
    loss, drop = facts.values.get("loss.final"), facts.values.get("loss.drop")
    lines = []
    if spec.bounds and spec.backend.name not in spec.bounds:
        known = ", ".join(spec.bounds)
        lines.append(f"The spec's bounds are for {known}; for backend={spec.backend.name} there are none.")
    if loss is None or not loss > 0:
        return lines
    if spec.loss.final_max is None and spec.loss.final_min is None and spec.loss.drop_min is None:
        bound = f"loss.final_max={loss * SUGGESTED_HEADROOM:.3g}"
        lines.append(f"No loss bound is set. This run ended at {loss:.4g}; with 25 % of headroom: {bound}")
    if spec.loss.drop_min is None and drop is not None and not drop > 0:
        lines.append("The loss did not fall, and no bound demands it: loss.drop_min=0.1 would be red.")
    return lines
