"""One spec in a process of its own: its result, and what is said where there is none to be trusted."""

import os
from pathlib import Path
from typing import Any

import pytest

from fgvalidate.spec_run import SpecRun, run_spec


@pytest.fixture
def run(workplace: Any, specs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a spec of the folder: `run("name", *overrides, file="other.yaml", chosen="another")`."""
    for name in set(os.environ) - set(workplace.env):
        monkeypatch.delenv(name)
    for name, value in workplace.env.items():
        monkeypatch.setenv(name, value)

    def call(name: str, *overrides: str, chosen: str = "", printed: list[str] | None = None) -> SpecRun:
        folder = tmp_path / "run's (1)"
        folder.mkdir()
        return run_spec(
            [f"--config-dir={specs.folder}", f"+spec={chosen or name}", *overrides],
            test_id=name,
            file=specs.folder / f"spec/{name}.yaml",
            folder=folder,
            cwd=workplace.folder,
            on_output=None if printed is None else printed.append,
        )

    return call


def test_report_and_facts_come_back(run: Any, specs: Any, workplace: Any) -> None:
    specs.write("good")
    printed: list[str] = []

    found = run("good", printed=printed)

    assert (found.report.outcome, found.report.reason) == ("passed", "")
    assert found.facts.values["train.finished"] is True
    assert "PASSED 1 spec: 1 passed" in "".join(printed)
    assert list(workplace.folder.iterdir()) == []


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(("fail_at=5", {}, "failed", "finished is false, expected == true"), id="failed"),
        pytest.param(("", {"gpu_requirement": 4}, "skipped", "it needs 4 GPUs"), id="skipped"),
        pytest.param(("", {"project_dir": "nowhere"}, "error", "project_dir: no such folder: nowhere"), id="error"),
        pytest.param(("", {"loss": {"finl_max": 3}}, "error", "no such key. Did you mean 'final_max'?"), id="bad_spec"),
    ],
)
def test_every_outcome_has_its_reason(run: Any, specs: Any, case: tuple[str, dict[str, Any], str, str]) -> None:
    faults, fields, outcome, reason = case
    specs.write("one", faults, **fields)

    found = run("one")

    assert found.report.outcome == outcome
    assert reason in found.report.reason


def test_what_the_application_refuses_is_quoted(run: Any, specs: Any) -> None:
    specs.write("good")

    found = run("good", chosen="god")

    assert found.report.outcome == "error"
    assert found.report.reason.startswith("spec: spec=god: there is no such spec. Did you mean 'good'?")


def test_result_of_another_spec_is_an_error(run: Any, specs: Any) -> None:
    specs.write("good")
    specs.write("other")

    found = run("good", chosen="other")

    assert found.report.outcome == "error"
    assert f"another spec of this name was run, {specs.folder}/spec/other.yaml" in found.report.reason


def test_several_results_are_an_error(run: Any, specs: Any) -> None:
    specs.write("good")

    found = run("good", "max_steps=20,30")

    assert (found.report.outcome, found.facts) == ("error", None)
    assert found.report.reason == "infrastructure: lost: its process ended with exit code 0"


def test_no_result_is_an_error(run: Any, specs: Any) -> None:
    specs.write("good")

    found = run("good", "list=true")

    assert (found.report.outcome, found.report.reason) == (
        "error",
        "infrastructure: lost: its process ended with exit code 0",
    )


def test_pass_that_the_exit_code_does_not_confirm_is_an_error(
    run: Any, specs: Any, workplace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs.write("good")
    (workplace.folder / "sitecustomize.py").write_text(
        "import sys\nif '-m' in sys.orig_argv and 'fgvalidate' in sys.orig_argv:\n"
        "    leave = sys.exit\n    sys.exit = lambda code=0: leave(code or 7)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", f"{workplace.folder}{os.pathsep}{os.environ['PYTHONPATH']}")

    found = run("good")

    assert (found.report.outcome, found.report.reason) == (
        "error",
        "infrastructure: lost: its process ended with exit code 7",
    )


def test_summary_of_ci_is_not_written_once_a_spec(
    run: Any, specs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs.write("good")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))

    run("good")

    assert not (tmp_path / "summary.md").exists()
