"""The documentation says what the code does."""

import dataclasses
import importlib
import json
import re
from pathlib import Path

import pytest
from finished_suites import make_mixed_suite

from fgvalidate.facts import CATALOGUE, Facts
from fgvalidate.operators import MODIFIERS, OPERATORS
from fgvalidate.report import Report
from fgvalidate.spec import (
    INTERNAL_FIELDS,
    LOG_KEYS,
    LOG_READERS,
    Finished,
    Inference,
    Log,
    Loss,
    Mutations,
    Retries,
    Spec,
    Stderr,
    Watch,
)
from fgvalidate.suite import RESULTS_NAME
from fgvalidate.suite_reports import write_reports

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def read_table(path: Path, heading: str) -> dict[str, str]:
    """Returns the first and the last column of the table under a heading."""
    section = path.read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {row[0].strip(" `"): row[-1].strip(" |") for row in rows[1:]}


def test_every_fact_is_documented() -> None:
    documented = read_table(ROOT / "docs/checks.md", "Facts")

    assert documented == {
        **CATALOGUE,
        "log.<key>": "whatever the trainer logs: the value in the last record that has it",
    }


def test_every_operator_is_documented() -> None:
    documented = read_table(ROOT / "docs/checks.md", "Operators")

    assert documented == {f"check.{operator.name}": operator.meaning for operator in OPERATORS}


def test_every_modifier_is_documented() -> None:
    documented = read_table(ROOT / "docs/checks.md", "Modifiers")

    assert documented == MODIFIERS


def test_every_key_of_a_report_is_documented(tmp_path: Path) -> None:
    Report(test_id="x", outcome="passed", reason="", command="").write(tmp_path / "report.json")

    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))

    assert set(read_table(ROOT / "docs/report.md", "report.json")) == set(written)


def test_every_key_of_a_facts_file_is_documented(tmp_path: Path) -> None:
    Facts(values={}).write(tmp_path / "facts.json")

    written = json.loads((tmp_path / "facts.json").read_text(encoding="utf-8"))

    assert set(read_table(ROOT / "docs/report.md", "facts.json")) == set(written)


def test_every_key_of_a_multiruns_report_is_documented(tmp_path: Path) -> None:
    suite = make_mixed_suite(tmp_path / "suite")

    document = suite.to_document()

    assert set(read_table(ROOT / "docs/report.md", "A multirun's report.json")) == set(document)
    assert set(read_table(ROOT / "docs/report.md", "An entry of specs")) == set(document["specs"][0])


def test_every_key_of_a_result_line_is_documented(tmp_path: Path) -> None:
    suite = make_mixed_suite(tmp_path / "suite")

    row = json.loads((suite.root / RESULTS_NAME).read_text(encoding="utf-8").splitlines()[0])

    assert set(read_table(ROOT / "docs/report.md", "A line of results.jsonl")) == set(row)


def test_every_file_of_a_multirun_is_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    suite = make_mixed_suite(tmp_path / "suite")
    write_reports(suite)

    documented = read_table(ROOT / "docs/report.md", "The files of a multirun")

    assert set(documented) == {path.name for path in suite.root.iterdir()}


def test_every_setting_of_a_log_is_documented() -> None:
    page = ROOT / "docs/logs.md"

    assert set(read_table(page, "Settings")) == {field.name for field in dataclasses.fields(Log)}
    assert set(read_table(page, "Proofs")) == {field.name for field in dataclasses.fields(Finished)}
    assert set(read_table(page, "Readers")) == set(LOG_READERS)
    assert set(read_table(page, "Keys")) == set(LOG_KEYS)


@pytest.mark.parametrize("reader", LOG_READERS)
def test_usual_names_in_a_log_are_documented(reader: str) -> None:
    kind = importlib.import_module(f"fgvalidate.log_{reader}").Reader
    rows = read_table(ROOT / "docs/logs.md", "Keys")

    for theirs, ours in kind.usual_keys.items():
        assert re.search(rf"`{theirs}` in [^;]*`{reader}`", rows[ours]), theirs


@pytest.mark.parametrize("schema", [Spec, Loss, Stderr, Inference, Watch, Retries, Mutations])
def test_every_spec_field_is_in_the_readme(schema: type) -> None:
    prefix = "" if schema is Spec else f"{schema.__name__.lower()}."
    left_out = {"loss", "stderr", "watch", "retries", "mutations", "backend", "server", "scorer"} | INTERNAL_FIELDS

    names = [f"`{prefix}{field.name}`" for field in dataclasses.fields(schema) if field.name not in left_out]

    assert [name for name in names if name not in README] == []


def test_readme_begins_with_two_commands_of_one_line_each() -> None:
    blocks = [block.split("```", 1)[0].strip() for block in README.split("```sh\n")[1:]]

    assert [block.count("\n") for block in blocks] == [0, 0]
    assert blocks[0].endswith("python -m fgvalidate +spec=tiny_llama")
    assert blocks[1].endswith("python -m pytest")
