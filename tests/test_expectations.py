"""Expected failures: red as expected passes and says so, green against expectation is red."""

from typing import Any

import pytest

from fgvalidate.causes import Cause
from fgvalidate.checks import Status, Verdict
from fgvalidate.conclusion import conclude_expectation
from fgvalidate.errors import SpecError
from fgvalidate.expectations import expect_failures, require_declared
from fgvalidate.spec import Spec


def verdict(status: Status, name: str = "a", message: str = "") -> Verdict:
    return Verdict(name=name, status=status, actual=1, expected="== 0", message=message)


@pytest.mark.parametrize(
    ("status", "becomes", "is_red"),
    [
        ("failed", "xfailed", False),
        ("warned", "xfailed", False),
        ("passed", "xpassed", True),
        ("error", "error", True),
        ("skipped", "skipped", False),
    ],
)
def test_check_that_is_expected_to_fail(status: Status, becomes: str, is_red: bool) -> None:
    turned, other = expect_failures([verdict(status, message="why"), verdict("failed", "b")], {"a": "too few"})

    assert (turned.status, turned.is_red, other.status) == (becomes, is_red, "failed")
    assert turned.message == {
        "xfailed": "as expected: too few; why",
        "xpassed": "passed, though xfail_checks says: too few; remove it from xfail_checks",
    }.get(becomes, "why")


def test_unknown_check_is_refused_with_the_nearest() -> None:
    require_declared(["loss_drop"], ["loss_drop"])

    with pytest.raises(SpecError, match=r"xfail_checks.los_drop: there is no such check. Did you mean 'loss_drop'\?"):
        require_declared(["los_drop"], ["loss_drop"])


HIGH = Cause("convergence", "loss is 9")


@pytest.mark.parametrize(
    ("statuses", "cause", "concluded"),
    [
        (["passed"], None, ("failed", "spec", "spec: passed, though xfail says: too few; remove xfail")),
        (["passed", "warned"], None, ("failed", "spec", "spec: passed, though xfail says: too few; remove xfail")),
        (["passed", "failed"], HIGH, ("passed", "", "red as expected (too few): convergence: loss is 9")),
        (["failed"], HIGH, ("passed", "", "red as expected (too few): convergence: loss is 9")),
        (["failed"], Cause("infrastructure", "x"), ("failed", "infrastructure", "infrastructure: x")),
        (["error", "passed"], Cause("evidence", "x"), ("failed", "evidence", "evidence: x")),
        (["skipped"], Cause("evidence", "x"), ("failed", "evidence", "evidence: x")),
        (["failed", "xpassed"], HIGH, ("failed", "convergence", "convergence: loss is 9")),
    ],
)
def test_spec_that_is_expected_to_be_red(
    statuses: list[Status], cause: Cause | None, concluded: tuple[str, str, str]
) -> None:
    spec = Spec(test_id="x", project_dir="p", config="c", xfail="too few")

    assert conclude_expectation(spec, [verdict(status) for status in statuses], cause) == concluded


HIGH_LOSS = "loss_from=9.0;loss_to=6.5"


def test_red_spec_that_is_expected_to_be_red_passes(validate: Any) -> None:
    run = validate(HIGH_LOSS, "xfail='diverges'")

    assert (run.code, run.report["outcome"], run.report["failure"], run.red) == (0, "passed", "", {"final_loss_max"})
    assert run.report["reason"].startswith("red as expected (diverges): convergence: final_loss_max is 6.")
    assert ": red as expected (diverges): convergence: " in run.stdout.splitlines()[-1]


def test_green_spec_that_is_expected_to_be_red_is_red(validate: Any) -> None:
    run = validate("", "xfail='diverges'")

    assert (run.code, run.report["failure"], run.red) == (1, "spec", set())
    assert run.stdout.splitlines()[-1].endswith(": spec: passed, though xfail says: diverges; remove xfail")


def test_machine_is_not_what_a_spec_is_expected_to_fail_by(validate: Any) -> None:
    words = ["xfail='diverges'", "+xfail_checks.finished='breaks off'"]

    run = validate("die=75:No space left on device", *words)

    assert (run.code, run.report["failure"]) == (1, "infrastructure")
    assert run.check("finished")["status"] == "failed"


def test_checks_that_are_expected_to_fail(validate: Any) -> None:
    run = validate(HIGH_LOSS, "+xfail_checks.final_loss_max='too few steps'")

    check = run.check("final_loss_max")
    assert (run.code, run.red, check["status"]) == (0, set(), "xfailed")
    assert check["message"].startswith("as expected: too few steps")
    assert run.report["reason"] == "red as expected: final_loss_max"


def test_check_that_passes_against_expectation_is_red(validate: Any) -> None:
    run = validate("", "+xfail_checks.final_loss_max='too few steps'")

    assert (run.code, run.report["failure"], run.check("final_loss_max")["status"]) == (1, "spec", "xpassed")
    assert run.report["reason"] == (
        "spec: final_loss_max passed, though xfail_checks says: too few steps; remove it from xfail_checks"
    )


def test_check_without_evidence_did_not_fail_as_expected(validate: Any) -> None:
    run = validate("log=none", "+xfail_checks.final_loss_max='too few steps'")

    assert (run.code, run.check("final_loss_max")["status"]) == (1, "error")


def test_expected_failure_of_an_unknown_check_starts_nothing(validate: Any) -> None:
    run = validate("", "+xfail_checks.final_loss_mx='too few steps'")

    assert (run.code, run.run_dir) == (2, None)
    assert "xfail_checks.final_loss_mx: there is no such check. Did you mean 'final_loss_max'?" in run.stderr
