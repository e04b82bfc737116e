"""What is acted on is what a check is red for, whatever has been made of the checks."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from fgvalidate.composition import register_schema
from fgvalidate.spec import Backend, Log, Loss, Spec, Stderr, Watch
from fgvalidate.watch import Rules
from fgvalidate.watch_rules import build_rules

DEFAULTS = Path(__file__).parent.parent / "conf/checks/default.yaml"
ALL = Rules(
    nonfinite=True, ceiling=9.0, high_loss=True, forbidden=("CUDA error", "a"), stall=True, stall_timeout_s=None
)


@pytest.fixture(autouse=True)
def _resolvers() -> None:
    register_schema()


def build(*, checks: dict[str, str | None] | None = None, **fields: Any) -> Rules:
    """Returns the rules of a spec that has a bound of every kind, less what is changed."""
    given = {
        "loss": Loss(ceiling=9.0),
        "stderr": Stderr(forbidden_patterns=["CUDA error", "a"], warn_patterns=["b"]),
        "backend": Backend(name="fake", log=Log(path="x")),
        **fields,
    }
    spec = Spec(test_id="x", project_dir="p", config="c", **given)
    shipped = OmegaConf.to_container(OmegaConf.load(DEFAULTS), resolve=False)
    assert isinstance(shipped, dict)
    fields_of_spec = {**dataclasses.asdict(spec), "checks": {**shipped, **(checks or {})}}
    return build_rules(spec, OmegaConf.create(fields_of_spec).checks)


def test_every_default_check_is_acted_on() -> None:
    assert build() == ALL


def test_what_is_set_is_handed_on() -> None:
    rules = build(watch=Watch(fail_fast=False, stall_timeout=7.5))

    assert rules == dataclasses.replace(ALL, fail_fast=False, stall_timeout_s=7.5)


@pytest.mark.parametrize(
    ("changes", "off"),
    [
        ({"loss": Loss(no_nan=False, ceiling=9.0)}, {"nonfinite": False}),
        ({"loss": Loss()}, {"ceiling": None, "high_loss": False}),
        ({"stderr": Stderr()}, {"forbidden": ()}),
        ({"checks": {"finite_loss": None}}, {"nonfinite": False}),
        ({"checks": {"loss_ceiling": None}}, {"high_loss": False}),
        ({"checks": {"forbidden_stderr": None}}, {"forbidden": ()}),
        ({"checks": {"not_stalled": None}}, {"stall": False}),
        ({"xfail_checks": {"finite_loss": "known"}}, {"nonfinite": False}),
        ({"xfail_checks": {"loss_ceiling": "known"}}, {"high_loss": False}),
        ({"xfail_checks": {"forbidden_stderr": "known"}}, {"forbidden": ()}),
        ({"xfail_checks": {"not_stalled": "known"}}, {"stall": False}),
        ({"checks": {"finite_loss": "${warn:${check.eq:${fact:loss.num_nonfinite},0}}"}}, {"nonfinite": False}),
        ({"checks": {"finite_loss": "${check.le:${fact:loss.num_nonfinite},3}"}}, {"nonfinite": False}),
        ({"checks": {"finite_loss": "${check.finite:${fact:loss.final}}"}}, {"nonfinite": False}),
        ({"checks": {"loss_ceiling": "${check.le:${fact:loss.max},99}"}}, {"high_loss": False}),
        (
            {"checks": {"forbidden_stderr": "${check.none_in:${fact:stderr.findings},[a]}"}},
            {"forbidden": ("a",)},
        ),
    ],
)
def test_what_no_check_is_red_for_is_not_acted_on(changes: dict[str, Any], off: dict[str, Any]) -> None:
    assert build(**changes) == dataclasses.replace(ALL, **off)
