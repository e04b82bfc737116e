"""What differs between a recorded run and a spec, and what that means."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fgvalidate.comparison import compare_commits, compare_specs, compare_versions
from fgvalidate.composition import PACKAGE_DIR
from fgvalidate.spec import Backend, Inference, Log, Loss, Scorer, Server, Spec


def make_spec(**fields: Any) -> Spec:
    known: dict[str, Any] = {
        "test_id": "x",
        "project_dir": "p",
        "config": "c",
        "dynamic_args": {"save_strategy": "steps"},
        "inference": Inference(),
        "server": Server(name="s", program="python"),
        "scorer": Scorer(name="builtin", model=str(PACKAGE_DIR / "builtin/scorer")),
        "backend": Backend(
            name="b", root="/a", program="/a/bin/train", env={"PYTHONPATH": "/a"}, log=Log(path="log.json")
        ),
        "checks": {"final_loss_max": "<fact:loss.final> <= null"},
    }
    return Spec(**known | fields)


def compare(recorded: Spec, now: Spec) -> dict[str, str]:
    return {each.key: each.kind for each in compare_specs(asdict(recorded), now)}


BACKEND: dict[str, Any] = {"name": "b", "root": "/a", "program": "/a/bin/train", "log": Log(path="log.json")}


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({}, {}),
        ({"config": "other"}, {"config": "training"}),
        ({"max_steps": 5}, {"max_steps": "training"}),
        ({"dynamic_args": {"save_strategy": "steps", "seed": 7}}, {"dynamic_args.seed": "training"}),
        ({"dynamic_args": {"save_strategy": "steps", "compile": None}}, {}),
        ({"loss": Loss(final_max=2.0)}, {"loss.final_max": "demand"}),
        ({"timeout": 5, "keep": "all"}, {"timeout": "demand", "keep": "demand"}),
        ({"checks": {"new": "<fact:loss.final> <= 1"}}, {"checks.new": "demand", "checks.final_loss_max": "demand"}),
        ({"inference": Inference(prompt="Hm")}, {"inference.prompt": "generation"}),
        ({"inference": Inference(num_samples=3)}, {"inference.num_samples": "generation"}),
        ({"inference": Inference(perplexity_max=1.0)}, {"inference.perplexity_max": "demand"}),
        ({"inference": Inference(server_timeout=5)}, {"inference.server_timeout": "generation"}),
        ({"inference": Inference(server_timeout=500)}, {"inference.server_timeout": "demand"}),
        ({"inference": None}, {}),
        ({"server": Server(name="t", program="python")}, {"server.name": "generation"}),
        ({"scorer": Scorer(name="gpt2", model="gpt2")}, {"scorer.name": "scoring", "scorer.model": "scoring"}),
        ({"backend": Backend(**BACKEND, env={"PYTHONPATH": "/b"})}, {"backend.env.PYTHONPATH": "demand"}),
        ({"backend": Backend(**BACKEND, env={"PYTHONPATH": "b"})}, {"backend.env.PYTHONPATH": "training"}),
        (
            {"backend": Backend(**BACKEND | {"root": None, "program": "/b/train"}, env={"PYTHONPATH": "/a"})},
            {"backend.root": "demand", "backend.program": "demand"},
        ),
        (
            {"backend": Backend(**BACKEND | {"program": "/a/bin/other"}, env={"PYTHONPATH": "/a"})},
            {"backend.program": "training"},
        ),
    ],
)
def test_kind_of_a_difference(fields: dict[str, Any], kinds: dict[str, str]) -> None:
    assert compare(make_spec(), make_spec(**fields)) == kinds


def test_scorer_that_ships_with_us_is_the_same_wherever_we_are_installed() -> None:
    elsewhere = make_spec(scorer=Scorer(name="builtin", model="/opt/lib/fgvalidate/builtin/scorer"))
    other = make_spec(scorer=Scorer(name="builtin", model="/opt/models/scorer"))

    assert compare(elsewhere, make_spec()) == {"scorer.model": "demand"}
    assert compare(other, make_spec()) == {"scorer.model": "scoring"}


def test_check_whose_bound_alone_changed_is_not_named_besides() -> None:
    now = make_spec(loss=Loss(final_max=2.0), checks={"final_loss_max": "<fact:loss.final> <= 2.0"})

    assert compare(make_spec(), now) == {"loss.final_max": "demand"}


def test_field_that_an_earlier_version_did_not_know_had_its_default() -> None:
    recorded = asdict(make_spec())
    for name in ("watch", "retries", "judge"):
        del recorded[name]
    del recorded["inference"]["num_samples"]

    assert compare_specs(recorded, make_spec()) == []
    assert [each.key for each in compare_specs(recorded, make_spec(inference=Inference(num_samples=2)))] == [
        "inference.num_samples"
    ]


def test_field_that_a_later_version_knows_decides_the_run() -> None:
    recorded = {**asdict(make_spec()), "precision": "bf16"}

    assert [(each.key, each.kind) for each in compare_specs(recorded, make_spec())] == [("precision", "training")]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"loss": Loss(final_max=0.9)}, "loss.final_max null -> 0.9"),
        ({"checks": {}}, "checks.final_loss_max left out"),
        ({"markers": ["a", "b"]}, "markers [integration] -> [a, b]"),
        ({"xfail": "y" * 80}, f"xfail null -> '{'y' * 56}..."),
    ],
)
def test_difference_is_described_shortly(fields: dict[str, Any], words: str) -> None:
    (difference,) = compare_specs(asdict(make_spec()), make_spec(**fields))

    assert difference.describe() == words


A, B = 40 * "a", 40 * "b"


@pytest.mark.parametrize(
    ("recorded", "now", "words"),
    [
        (A, A, ""),
        (A, B, f"project: commit {A[:12]} -> {B[:12]}"),
        (f"{A}-dirty", B, f"project: commit {A[:12]}-dirty -> {B[:12]}"),
        (f"{A}-dirty", A, f"project: cannot be told, its checkout was changed beyond commit {A[:12]}"),
        (A, f"{A}-dirty", f"project: cannot be told, its checkout is changed beyond commit {A[:12]}"),
        (
            f"{A}-dirty",
            f"{A}-dirty",
            f"project: cannot be told, its checkout was and is changed beyond commit {A[:12]}",
        ),
    ],
)
def test_commits(recorded: str, now: str, words: str) -> None:
    assert compare_commits(recorded, now) == words


def test_versions_without_a_digest_cannot_be_told_to_be_the_same() -> None:
    assert compare_versions({"python": "3.11.1"}, {"python": "3.11.2", "fgvalidate sources": "1"}) == [
        "python 3.11.1 -> 3.11.2",
        "fgvalidate: cannot be told, the recorded report does not say which code judged",
    ]


def test_own_package_is_the_one_that_is_meant() -> None:
    assert Path(PACKAGE_DIR).name == "fgvalidate"
