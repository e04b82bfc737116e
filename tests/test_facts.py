"""Facts: they survive a round trip, and a misspelt one is told at once."""

import json
import math
from pathlib import Path

import pytest

from fgvalidate.errors import SpecError
from fgvalidate.facts import Absent, Facts, UnknownFactError, bind_facts, resolve_fact


def test_round_trip_keeps_every_value(tmp_path: Path) -> None:
    facts = Facts(
        values={
            "loss.final": math.inf,
            "train.orphans": ["1 a"],
            "stderr.findings": {"x": None},
            "log.name": "NaN",
            "loss.max": -math.inf,
        },
        notes={"loss.min": "why"},
        not_applicable={"repo.created_files": "no checkout"},
    )

    facts.write(tmp_path / "facts.json")

    assert Facts.read(tmp_path / "facts.json") == facts


def test_file_has_a_line_a_fact(tmp_path: Path) -> None:
    values = {"loss.curve": [[10, 3.0], [20, math.nan]], "stderr.findings": {"x": None}}

    Facts(values=values, notes={"loss.min": "why"}).write(tmp_path / "facts.json")

    assert (tmp_path / "facts.json").read_text(encoding="utf-8").splitlines() == [
        "{",
        '  "schema": 1,',
        '  "values": {',
        '    "loss.curve": [[10, 3.0], [20, {"float": "nan"}]],',
        '    "stderr.findings": {"x": null}',
        "  },",
        '  "notes": {',
        '    "loss.min": "why"',
        "  },",
        '  "not_applicable": {}',
        "}",
    ]


def test_file_is_strict_json_with_nan(tmp_path: Path) -> None:
    Facts(values={"loss.final": math.nan}).write(tmp_path / "facts.json")

    text = (tmp_path / "facts.json").read_text(encoding="utf-8")

    assert json.loads(text, parse_constant=pytest.fail)["values"] == {"loss.final": {"float": "nan"}}
    assert math.isnan(Facts.read(tmp_path / "facts.json").values["loss.final"])


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": 99}', '{"schema": 1}', '{"schema": 1, "values": 3}'])
def test_foreign_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "facts.json"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(SpecError, match=r"facts\.json: "):
        Facts.read(path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("loss.finl", " Did you mean 'loss.final'?"), ("zzz", ""), ("log.", ""), ("", "")],
)
def test_name_outside_the_catalogue_is_an_error(name: str, hint: str) -> None:
    with pytest.raises(UnknownFactError) as error:
        resolve_fact(name)

    assert str(error.value) == f"no such fact: '{name}'.{hint}"


def test_fact_is_a_text_until_facts_are_bound() -> None:
    unbound = resolve_fact("loss.final")
    with bind_facts(Facts(values={"loss.final": 2.0})) as names_read:
        bound = resolve_fact("loss.final")

    assert (unbound, bound, names_read) == ("<fact:loss.final>", 2.0, ["loss.final"])
    assert resolve_fact("loss.final") == "<fact:loss.final>"


def test_unobserved_fact_carries_its_reason() -> None:
    facts = Facts(values={}, notes={"loss.final": "no log"}, not_applicable={"repo.created_files": "no checkout"})

    assert facts.get("loss.final") == Absent("loss.final", "no log")
    assert facts.get("repo.created_files") == Absent("repo.created_files", "no checkout", skip=True)
