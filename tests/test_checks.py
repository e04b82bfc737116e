"""Checks: every operator holds, fails and refuses as it should, and every default check can go red."""

import math
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from fgvalidate.checks import Verdict, judge, preview_checks
from fgvalidate.composition import register_schema
from fgvalidate.errors import SpecError
from fgvalidate.facts import Facts

NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True)
def _resolvers() -> None:
    register_schema()


def make_checks(expressions: dict[str, Any], **config: Any) -> DictConfig:
    checks = OmegaConf.create({**config, "checks": expressions}).checks
    assert isinstance(checks, DictConfig)
    return checks


def judge_one(expression: str, facts: Facts | dict[str, Any], **config: Any) -> Verdict:
    facts = facts if isinstance(facts, Facts) else Facts(values=facts)
    (verdict,) = judge(make_checks({"it": expression}, **config), facts)
    return verdict


@pytest.mark.parametrize(
    ("expression", "value", "status"),
    [
        ("check.eq:${fact:train.returncode},0", 0, "passed"),
        ("check.eq:${fact:train.returncode},0", 1, "failed"),
        ("check.eq:${fact:train.returncode},1", True, "failed"),
        ("check.eq:${fact:train.returncode},true", 1, "failed"),
        ("check.eq:${fact:train.returncode},nan", NAN, "failed"),
        ("check.eq:${fact:train.returncode},[]", [], "passed"),
        ("check.eq:${fact:train.returncode},[]", ["x"], "failed"),
        ("check.ne:${fact:train.returncode},1", 0, "passed"),
        ("check.ne:${fact:train.returncode},1", 1, "failed"),
        ("check.ne:${fact:train.returncode},1", NAN, "failed"),
        ("check.lt:${fact:train.returncode},2", 1.5, "passed"),
        ("check.lt:${fact:train.returncode},2", 2, "failed"),
        ("check.lt:${fact:train.returncode},2", NAN, "failed"),
        ("check.lt:${fact:train.returncode},2", -INF, "failed"),
        ("check.le:${fact:train.returncode},2", 2, "passed"),
        ("check.le:${fact:train.returncode},2", 2.001, "failed"),
        ("check.le:${fact:train.returncode},2", NAN, "failed"),
        ("check.le:${fact:train.returncode},nan", 2, "failed"),
        ("check.le:${fact:train.returncode},inf", INF, "failed"),
        ("check.gt:${fact:train.returncode},2", 3, "passed"),
        ("check.gt:${fact:train.returncode},2", 2, "failed"),
        ("check.gt:${fact:train.returncode},2", INF, "failed"),
        ("check.ge:${fact:train.returncode},2", 2, "passed"),
        ("check.ge:${fact:train.returncode},2", 1, "failed"),
        ("check.ge:${fact:train.returncode},2", NAN, "failed"),
        ("check.le:${fact:train.returncode},2", "1", "error"),
        ("check.le:${fact:train.returncode},2", True, "error"),
        ("check.le:${fact:train.returncode},null", 1, "skipped"),
        ("check.between:${fact:train.returncode},1,2", 1, "passed"),
        ("check.between:${fact:train.returncode},1,2", 2, "passed"),
        ("check.between:${fact:train.returncode},1,2", 2.5, "failed"),
        ("check.between:${fact:train.returncode},1,2", 0, "failed"),
        ("check.between:${fact:train.returncode},1,2", NAN, "failed"),
        ("check.between:${fact:train.returncode},null,2", -5, "passed"),
        ("check.between:${fact:train.returncode},1,null", INF, "failed"),
        ("check.between:${fact:train.returncode},null,null", 1, "skipped"),
        ("check.finite:${fact:train.returncode}", 1.0, "passed"),
        ("check.finite:${fact:train.returncode}", NAN, "failed"),
        ("check.finite:${fact:train.returncode}", [1.0, INF], "failed"),
        ("check.finite:${fact:train.returncode}", [1.0, 2], "passed"),
        ("check.finite:${fact:train.returncode}", [], "error"),
        ("check.finite:${fact:train.returncode}", "1", "error"),
        ("check.contains_all:${fact:train.returncode},[a,b]", {"a": True, "b": True}, "passed"),
        ("check.contains_all:${fact:train.returncode},[a,b]", {"a": True, "b": False}, "failed"),
        ("check.contains_all:${fact:train.returncode},[a,b]", {"a": True}, "error"),
        ("check.contains_all:${fact:train.returncode},[a,b]", ["b", "a"], "passed"),
        ("check.contains_all:${fact:train.returncode},[a,b]", ["a"], "failed"),
        ("check.contains_all:${fact:train.returncode},[a,b]", "xay", "failed"),
        ("check.contains_all:${fact:train.returncode},[a]", 3, "error"),
        ("check.contains_all:${fact:train.returncode},[]", {}, "skipped"),
        ("check.none_in:${fact:train.returncode},[a]", {"a": None}, "passed"),
        ("check.none_in:${fact:train.returncode},[a]", {"a": {"line_number": 3, "line": "an a"}}, "failed"),
        ("check.none_in:${fact:train.returncode},[a]", {}, "error"),
        ("check.none_in:${fact:train.returncode},[a]", "xyz", "passed"),
        ("check.none_in:${fact:train.returncode},[a]", "an a", "failed"),
        ("check.none_in:${fact:train.returncode},[a]", 3, "error"),
        ("check.none_in:${fact:train.returncode},[]", {}, "skipped"),
        ("check.exists:${fact:train.returncode}", 0, "passed"),
        ("check.matches:${fact:train.returncode},'^a+$'", "aaa", "passed"),
        ("check.matches:${fact:train.returncode},'^a+$'", "aab", "failed"),
        ("check.matches:${fact:train.returncode},'^a+$'", 3, "error"),
        ("check.le:${fact:train.returncode},${mul:2,3}", 6, "passed"),
        ("check.le:${fact:train.returncode},${mul:2,3}", 7, "failed"),
        ("check.le:${fact:train.returncode},${add:2,3}", 5, "passed"),
        ("check.le:${fact:train.returncode},${add:2,3}", 6, "failed"),
        ("check.le:${fact:train.returncode},${mul:2,null}", 6, "skipped"),
        ("check.le:${fact:train.returncode},${mul:2,${fact:train.returncode}}", 6, "passed"),
        ("check.le:${fact:train.returncode},${mul:0.5,${fact:train.returncode}}", 6, "failed"),
        ("check.le:${fact:train.returncode},${mul:2,${fact:loss.first}}", 6, "error"),
        ("check.le:${fact:train.returncode},${coalesce:null,5}", 6, "failed"),
        ("check.le:${fact:train.returncode},${coalesce:null,null}", 6, "skipped"),
        ("warn:${check.le:${fact:train.returncode},2}", 3, "warned"),
        ("warn:${check.le:${fact:train.returncode},2}", 2, "passed"),
        ("warn:${check.le:${fact:loss.final},2}", 2, "error"),
        ("warn:${check.le:${fact:train.returncode},2},${fact:train.finished}", 3, "failed"),
        ("when:true,${check.le:${fact:train.returncode},2}", 3, "failed"),
        ("when:false,${check.le:${fact:train.returncode},2}", 3, "skipped"),
        ("when:${fact:train.finished},${check.le:${fact:train.returncode},2}", 1, "error"),
        ("when:${check.ge:${fact:train.returncode},1},${check.le:${fact:train.returncode},2}", 3, "failed"),
        ("when:${check.ge:${fact:train.returncode},9},${check.le:${fact:train.returncode},2}", 3, "skipped"),
        ("when:${fact:train.returncode},${check.le:${fact:train.returncode},2}", 1, "error"),
        ("warn:${check.le:${fact:train.returncode},2},${check.ge:${fact:train.returncode},1}", 3, "warned"),
        ("check.ne:${fact:train.returncode},1", INF, "failed"),
        ("check.le:${fact:train.returncode},${mul:1e308,${fact:train.returncode}}", 1e10, "failed"),
    ],
)
def test_operator(expression: str, value: Any, status: str) -> None:
    verdict = judge_one(f"${{{expression}}}", {"train.returncode": value})

    assert verdict.status == status


def test_unobserved_fact_is_an_error_that_says_why() -> None:
    facts = Facts(values={}, notes={"loss.final": "the log is empty"})

    verdict = judge_one("${check.le:${fact:loss.final},2}", facts)

    assert (verdict.status, verdict.message) == ("error", "no loss.final: the log is empty")


def test_fact_that_does_not_apply_is_skipped_with_the_reason() -> None:
    facts = Facts(values={}, not_applicable={"repo.created_files": "no git checkout"})

    verdict = judge_one("${warn:${check.eq:${fact:repo.created_files},[]}}", facts)

    assert (verdict.status, verdict.message) == ("skipped", "no git checkout")


def test_exists_fails_on_an_unobserved_fact() -> None:
    assert judge_one("${check.exists:${fact:eval_loss.final}}", {}).status == "failed"


def test_conditional_warning_needs_the_condition_to_be_observed_and_true() -> None:
    expression = "${warn:${check.ge:${fact:train.global_step},9},${fact:train.epoch_ended}}"

    statuses = [
        judge_one(expression, {"train.global_step": 5, **more}).status
        for more in ({"train.epoch_ended": True}, {"train.epoch_ended": False}, {})
    ]

    assert statuses == ["warned", "failed", "failed"]


def test_anything_the_trainer_logs_can_be_checked() -> None:
    assert judge_one("${check.le:${fact:log.grad_norm},1}", {"log.grad_norm": 2.0}).status == "failed"


def test_unlogged_key_names_what_was_logged() -> None:
    verdict = judge_one("${check.le:${fact:log.gradnorm},1}", {"log.grad_norm": 2.0})

    assert verdict.message == "no log.gradnorm: the trainer logged log.grad_norm"


def test_a_finding_is_quoted_with_its_line() -> None:
    finding = {"line_number": 7, "line": "RuntimeError: boom"}

    verdict = judge_one("${check.none_in:${fact:stderr.findings},[Runtime]}", {"stderr.findings": {"Runtime": finding}})

    assert verdict.message == "line 7: RuntimeError: boom"


def test_a_broken_check_is_an_error_and_the_others_go_on() -> None:
    checks = make_checks({"bad": "${check.le:${fact:loss.final},${nope}}", "good": "${check.le:${fact:loss.final},2}"})

    verdicts = judge(checks, Facts(values={"loss.final": 1.0}))

    assert [(v.name, v.status) for v in verdicts] == [("bad", "error"), ("good", "passed")]


def test_null_disables_a_check() -> None:
    checks = make_checks({"off": None, "on": "${check.le:${fact:loss.final},2}"})

    assert [v.name for v in judge(checks, Facts(values={"loss.final": 1.0}))] == ["on"]


def test_notes_are_added_to_what_is_not_green() -> None:
    checks = make_checks({"it": "${check.le:${fact:loss.final},2}"})
    notes = {"loss.final": "this bound was set for 200 steps"}

    red, green = (judge(checks, Facts(values={"loss.final": loss}), notes)[0] for loss in (3.0, 1.0))

    assert (red.message, green.message) == ("this bound was set for 200 steps", "")


def test_preview_shows_every_check_with_its_bounds() -> None:
    checks = make_checks(
        {
            "a": "${check.le:${fact:loss.final},${loss.final_max}}",
            "b": "${check.le:${fact:loss.final},${mul:0.5,${fact:loss.first}}}",
            "c": "${warn:${check.eq:${fact:train.finished},true}}",
        },
        loss={"final_max": 7.0},
    )

    assert preview_checks(checks) == {
        "a": "<fact:loss.final> <= 7.0",
        "b": "<fact:loss.final> <= <0.5 * <fact:loss.first>>",
        "c": "<fact:train.finished> == true (else a warning)",
    }


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("${check.le:${fact:loss.finl},2}", "checks.it: no such fact: 'loss.finl'. Did you mean 'loss.final'?"),
        ("${chek.le:${fact:loss.final},2}", "checks.it: no such operator: 'chek.le'. Did you mean 'check.le'?"),
        ("${check.le:${fact:loss.final},two}", "checks.it: check.le compares with a number"),
        ("${check.le:${fact:loss.final}}", "checks.it: check.le takes the fact and one bound, got 1"),
        ("${check.le:${fact:loss.final},${nope}}", "checks.it: Interpolation key 'nope' not found"),
        ("${check.matches:${fact:loss.final},'('}", "checks.it: check.matches compares with a valid regular"),
        ("${check.none_in:${fact:loss.final},x}", "checks.it: check.none_in compares with a list, not 'x'"),
        ("${mul:${mul:2,x},2}", "checks.it: mul takes numbers, not 'x'"),
        ("${check.le:${fact:loss.final},2} and ${check.ge:${fact:loss.final},1}", "checks.it: must be one expression"),
        ("${check.le:${fact:loss.final},2} ", "checks.it: must be one expression"),
        ("x ${check.le:${fact:loss.final},2}", "checks.it: must be one check expression"),
        ("${when:1,${check.le:${fact:loss.final},2}}", "checks.it: when takes true, false or a check as its condition"),
        ("${fact:loss.final}", "checks.it: must be one check expression"),
        ("${check.le:1,2}", "checks.it: it reads no fact"),
        (True, "checks.it: must be one check expression"),
        ({"status": "passed"}, "checks.it: must be one check expression"),
        ("passed", "checks.it: must be one check expression"),
        (None, "checks: none is declared"),
    ],
)
def test_bad_check_is_refused_before_anything_starts(expression: Any, words: str) -> None:
    with pytest.raises(SpecError) as error:
        preview_checks(make_checks({"it": expression}))

    assert str(error.value).startswith(words)


GOOD_FACTS: dict[str, Any] = {
    "train.returncode": 0,
    "train.timed_out": False,
    "watch.stalled": False,
    "train.orphans": [],
    "train.survivors": [],
    "training_log.state": "complete",
    "train.finished": True,
    "train.global_step": 200,
    "train.epoch_ended": False,
    "stderr.findings": {"Traceback": None, "slow": None},
    "files.found": {"trainer_logs.json": True},
    "train.num_steps_logged": 20,
    "loss.num_nonfinite": 0,
    "loss.max": 7.0,
    "loss.final": 2.0,
    "loss.drop": 0.6,
    "repo.created_files": [],
    "inference.server_healthy": True,
    "inference.num_empty": 0,
    "inference.perplexity": 100.0,
    "inference.distinct_2": 0.9,
}


def judge_defaults(facts: dict[str, Any], **loss: Any) -> dict[str, str]:
    """Judges by the shipped default checks; returns statuses by check."""
    shipped = OmegaConf.load(Path(__file__).parent.parent / "conf/checks/default.yaml")
    config = OmegaConf.create(
        {
            "max_steps": None,
            "dynamic_args": {"max_steps": 200},
            "stderr": {"forbidden_patterns": ["Traceback"], "warn_patterns": ["slow"]},
            "expected_files": ["trainer_logs.json"],
            "min_steps_logged": 2,
            "loss": {"final_max": 4.0, "final_min": 0.5, "drop_min": 0.35, "no_nan": True, "ceiling": 9.0, **loss},
            "inference": {"perplexity_max": 500.0, "perplexity_min": 5.0, "distinct_2_min": 0.3},
            "checks": shipped,
        }
    )
    return {verdict.name: verdict.status for verdict in judge(config.checks, Facts(values=facts))}


def test_default_checks_all_pass_on_a_good_run() -> None:
    assert set(judge_defaults(GOOD_FACTS).values()) == {"passed"}


FOUND = {"line_number": 1, "line": "x"}


@pytest.mark.parametrize(
    ("fact", "value", "check", "status"),
    [
        ("train.returncode", 1, "returncode", "failed"),
        ("train.returncode", -9, "returncode", "failed"),
        ("train.timed_out", True, "in_time", "failed"),
        ("watch.stalled", True, "not_stalled", "failed"),
        ("train.orphans", ["7 worker"], "no_orphans", "warned"),
        ("train.survivors", ["7 worker"], "no_survivors", "failed"),
        ("training_log.state", "truncated", "log_complete", "failed"),
        ("train.finished", False, "finished", "failed"),
        ("train.global_step", 199, "all_steps", "failed"),
        ("stderr.findings", {"Traceback": FOUND, "slow": None}, "forbidden_stderr", "failed"),
        ("stderr.findings", {"Traceback": None, "slow": FOUND}, "warn_stderr", "warned"),
        ("files.found", {"trainer_logs.json": False}, "expected_files", "failed"),
        ("train.num_steps_logged", 1, "steps_logged", "failed"),
        ("loss.num_nonfinite", 1, "finite_loss", "failed"),
        ("loss.max", 9.1, "loss_ceiling", "failed"),
        ("loss.max", INF, "loss_ceiling", "failed"),
        ("loss.final", 4.1, "final_loss_max", "failed"),
        ("loss.final", 0.4, "final_loss_min", "failed"),
        ("loss.drop", 0.3, "loss_drop", "failed"),
        ("loss.drop", NAN, "loss_drop", "failed"),
        ("repo.created_files", ["x"], "repo_clean", "warned"),
        ("inference.server_healthy", False, "server_healthy", "failed"),
        ("inference.num_empty", 1, "completion_not_empty", "failed"),
        ("inference.perplexity", 501.0, "perplexity_max", "failed"),
        ("inference.perplexity", 4.0, "perplexity_min", "failed"),
        ("inference.distinct_2", 0.2, "distinct_2_min", "failed"),
    ],
)
def test_each_default_check_goes_red_alone(fact: str, value: Any, check: str, status: str) -> None:
    statuses = judge_defaults({**GOOD_FACTS, fact: value})

    assert {name: found for name, found in statuses.items() if found != "passed"} == {check: status}


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_final_loss_fails_both_bounds_when_it_is_not_finite(value: float) -> None:
    statuses = judge_defaults({**GOOD_FACTS, "loss.final": value}, no_nan=False)

    assert (statuses["final_loss_max"], statuses["final_loss_min"], statuses["finite_loss"]) == (
        "failed",
        "failed",
        "skipped",
    )


@pytest.mark.parametrize("fact", sorted(set(GOOD_FACTS) - {"train.epoch_ended"}))
def test_no_default_check_passes_for_want_of_its_fact(fact: str) -> None:
    facts = {name: value for name, value in GOOD_FACTS.items() if name != fact}

    assert "error" in judge_defaults(facts).values()


def test_short_run_is_only_a_warning_when_the_epoch_ended() -> None:
    statuses = judge_defaults({**GOOD_FACTS, "train.global_step": 150, "train.epoch_ended": True})

    assert statuses["all_steps"] == "warned"


def test_bounds_of_null_are_skipped() -> None:
    statuses = judge_defaults(GOOD_FACTS, final_max=None, final_min=None, drop_min=None, ceiling=None)

    assert {name for name, status in statuses.items() if status == "skipped"} == {
        "loss_ceiling",
        "final_loss_max",
        "final_loss_min",
        "loss_drop",
    }
