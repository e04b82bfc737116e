"""The class of a failure and its first cause: causes before effects, by the facts that a check reads."""

import errno
import math
from typing import Any

import pytest

from fgvalidate.causes import classify_error, find_cause
from fgvalidate.checks import Status, Verdict
from fgvalidate.errors import HubError, LaunchError, LeaseError, RunDirError, ScorerError, SpecError
from fgvalidate.facts import Facts

RAISED = {"line_number": 12, "line": "KeyError: 3"}
GOOD = {"train.returncode": 0, "train.timed_out": False}
KILLED = {"train.returncode": -9, "train.timed_out": False}
SIGN = {
    "signature": "disk_full",
    "hint": "a disk is full",
    "file": "train.stderr",
    "line_number": 12,
    "line": "no space",
}


def red(name: str, *facts: str, actual: Any = 1, status: Status = "failed", message: str = "") -> Verdict:
    return Verdict(name=name, status=status, actual=actual, expected="== 0", message=message, facts=facts)


def unjudged(name: str, *facts: str) -> Verdict:
    return red(name, *facts, actual=None, status="error", message=f"no {facts[0]}" if facts else "odd")


RETURNCODE = red("returncode", "train.returncode", actual=-9)
FORBIDDEN = red("forbidden_stderr", "stderr.findings", actual=["Traceback"])
FINISHED = red("finished", "train.finished", actual=False)
LOG = red("log_complete", "training_log.state", actual="truncated")
NAN = red("finite_loss", "loss.num_nonfinite", actual=1)
HIGH = red("final_loss_max", "loss.final", actual=9.0)
UNHEALTHY = red("server_healthy", "inference.server_healthy", actual=False)
LOOP = red("perplexity_min", "inference.perplexity", actual=1.5)


@pytest.mark.parametrize(
    ("verdict", "values", "kind"),
    [
        (RETURNCODE, KILLED, "crash"),
        (red("in_time", "train.timed_out", actual=True), {**GOOD, "train.timed_out": True}, "crash"),
        (red("no_orphans", "train.orphans", actual=["7 x"]), GOOD, "crash"),
        (FORBIDDEN, GOOD, "crash"),
        (FINISHED, GOOD, "evidence"),
        (LOG, GOOD, "evidence"),
        (LOG, KILLED, "crash"),
        (LOG, {}, "crash"),
        (red("expected_files", "files.found", actual=[]), GOOD, "evidence"),
        (red("steps_logged", "train.num_steps_logged"), GOOD, "evidence"),
        (red("repo_clean", "repo.created_files", actual=["x"]), GOOD, "evidence"),
        (unjudged("final_loss_max", "loss.final"), GOOD, "evidence"),
        (unjudged("final_loss_max", "loss.final"), KILLED, "crash"),
        (unjudged("mine"), GOOD, "evidence"),
        (NAN, GOOD, "numerics"),
        (HIGH, GOOD, "convergence"),
        (HIGH, {**GOOD, "loss.final": math.nan}, "numerics"),
        (red("grad", "log.grad_norm"), {**GOOD, "log.grad_norm": math.inf}, "numerics"),
        (red("grad", "log.grad_norm"), {**GOOD, "log.grad_norm": 9.0}, "convergence"),
        (red("eval", "eval_loss.final"), GOOD, "convergence"),
        (red("halved", "loss.final", "loss.first"), GOOD, "convergence"),
        (red("if_finished", "train.finished", "loss.final"), GOOD, "convergence"),
        (red("all_steps", "train.global_step", "train.epoch_ended"), GOOD, "evidence"),
        (red("fast", "train.duration_s"), GOOD, "resources"),
        (red("lean", "train.peak_memory_bytes"), GOOD, "resources"),
        (UNHEALTHY, {**GOOD, "inference.server_healthy": False, "inference.server_attempts": 1}, "launch"),
        (
            UNHEALTHY,
            {
                **GOOD,
                "inference.server_healthy": False,
                "inference.server_attempts": 1,
                "inference.server_ended": True,
            },
            "crash",
        ),
        (UNHEALTHY, {**GOOD, "inference.server_healthy": False}, "evidence"),
        (LOOP, GOOD, "text quality"),
        (red("distinct_2_min", "inference.distinct_2"), GOOD, "text quality"),
        (red("completion_not_empty", "inference.num_empty"), GOOD, "text quality"),
        (unjudged("perplexity_max", "inference.perplexity"), {**GOOD, "inference.server_healthy": True}, "evidence"),
        (red("x", "loss.final", status="xpassed", message="passed, though"), GOOD, "spec"),
    ],
)
def test_class_of_a_red_check(verdict: Verdict, values: dict[str, Any], kind: str) -> None:
    assert find_cause([verdict], Facts(values=values)).kind == kind


@pytest.mark.parametrize(
    ("reds", "values", "cause"),
    [
        pytest.param(
            [RETURNCODE, LOG, FINISHED],
            KILLED,
            "crash: returncode is -9, expected == 0; also red: log_complete, finished",
            id="signal_before_the_log_that_it_cut",
        ),
        pytest.param(
            [LOG, FINISHED, FORBIDDEN],
            GOOD,
            "crash: forbidden_stderr is Traceback, expected == 0; also red: log_complete, finished",
            id="traceback_before_the_log",
        ),
        pytest.param(
            [FINISHED],
            {**GOOD, "train.finished": False, "stderr.exception": RAISED},
            "crash: finished is false, expected == 0; line 12 of train.stderr: KeyError: 3",
            id="exception_that_the_launcher_hides",
        ),
        pytest.param(
            [unjudged("final_loss_max", "loss.final"), LOG],
            GOOD,
            "evidence: log_complete is truncated, expected == 0; also red: final_loss_max",
            id="log_before_what_could_not_be_judged",
        ),
        pytest.param(
            [UNHEALTHY, HIGH],
            {**GOOD, "inference.server_healthy": False, "inference.server_attempts": 1},
            "convergence: final_loss_max is 9, expected == 0; also red: server_healthy",
            id="training_before_serving",
        ),
        pytest.param(
            [LOOP, UNHEALTHY],
            {**GOOD, "inference.server_healthy": False, "inference.server_attempts": 1},
            "launch: server_healthy is false, expected == 0; also red: perplexity_min",
            id="server_before_its_text",
        ),
        pytest.param(
            [FINISHED, HIGH, NAN],
            GOOD,
            "numerics: loss is nan at step 40 (finite_loss); also red: finished, final_loss_max",
            id="nan_before_all",
        ),
        pytest.param(
            [RETURNCODE, FINISHED, FORBIDDEN, NAN],
            {
                **KILLED,
                "train.global_step": 70,
                "stderr.exception": RAISED,
            },
            "numerics: loss is nan at step 40 (finite_loss); the traceback after step 70 follows from it "
            "(returncode, forbidden_stderr); also red: finished",
            id="nan_before_the_traceback",
        ),
        pytest.param(
            [RETURNCODE, NAN],
            KILLED,
            "numerics: loss is nan at step 40 (finite_loss); how it ended follows from it (returncode)",
            id="nan_before_the_signal",
        ),
        pytest.param(
            [RETURNCODE, FINISHED],
            {**KILLED, "infrastructure.findings": [SIGN]},
            "infrastructure: a disk is full (disk_full, line 12 of train.stderr: no space); "
            "also red: returncode, finished",
            id="machine_before_the_crash",
        ),
        pytest.param(
            [FINISHED],
            {**GOOD, "infrastructure.findings": [SIGN]},
            "infrastructure: a disk is full (disk_full, line 12 of train.stderr: no space); also red: finished",
            id="machine_where_the_launcher_hides_the_crash",
        ),
        pytest.param(
            [RETURNCODE, NAN],
            {**KILLED, "infrastructure.findings": [SIGN]},
            "numerics: loss is nan at step 40 (finite_loss); how it ended follows from it (returncode)",
            id="nan_before_the_machine",
        ),
        pytest.param(
            [HIGH],
            {**GOOD, "infrastructure.findings": [SIGN]},
            "convergence: final_loss_max is 9, expected == 0",
            id="machine_is_no_excuse_for_the_loss",
        ),
        pytest.param(
            [FINISHED],
            {**GOOD, "infrastructure.findings": [{**SIGN, "file": "server.log"}]},
            "evidence: finished is false, expected == 0",
            id="servers_trouble_is_none_of_training",
        ),
        pytest.param(
            [UNHEALTHY],
            {
                **GOOD,
                "inference.server_healthy": False,
                "inference.server_attempts": 3,
                "infrastructure.findings": [SIGN, {**SIGN, "signature": "mine", "hint": "", "file": "server.log"}],
            },
            "infrastructure: (mine, line 12 of server.log: no space); also red: server_healthy",
            id="servers_own_trouble",
        ),
    ],
)
def test_first_cause_comes_first(reds: list[Verdict], values: dict[str, Any], cause: str) -> None:
    facts = Facts(values=values, notes={"loss.num_nonfinite": "the first is nan at step 40"})

    assert str(find_cause(reds, facts)) == cause


def test_words_of_a_program_stay_on_one_short_line() -> None:
    sign = {**SIGN, "line": "a\r\n\tb" + 1000 * "c"}

    cause = find_cause([RETURNCODE], Facts(values={**KILLED, "infrastructure.findings": [sign]}))

    assert "a b" in cause.text
    assert "\n" not in cause.text
    assert len(cause.text) < 400


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SpecError("x"), "spec"),
        (ValueError("x"), "spec"),
        (LaunchError("x"), "launch"),
        (RunDirError("x"), "launch"),
        (ScorerError("x"), "launch"),
        (HubError("x"), "infrastructure"),
        (LeaseError("x"), "infrastructure"),
        (OSError(errno.ENOSPC, "x", "y"), "infrastructure"),
        (OSError(errno.ENOENT, "x", "y"), "evidence"),
    ],
)
def test_class_of_an_error(error: Exception, kind: str) -> None:
    assert classify_error(error) == kind
