"""A multirun through the real command line: what is chosen, what is reported, and the one exit code."""

import json
import re
from pathlib import Path
from typing import Any

import pytest


def read_rows(root: Path) -> dict[str, tuple[str, str]]:
    """Returns outcome and reason of each spec, by its name."""
    plan = json.loads((root / "suite.json").read_text(encoding="utf-8"))
    lines = (root / "results.jsonl").read_text(encoding="utf-8").splitlines()
    reports = {row["num"]: row["report"] for row in map(json.loads, lines)}
    ended = {job["name"]: reports[job["num"]] for job in plan["jobs"] if job["num"] in reports}
    return {name: (report["outcome"], report["reason"]) for name, report in ended.items()}


BAD_KEY = {"loss": {"finl_max": 3}}
TOO_MANY_GPUS = {"gpu_requirement": 4}
GOOD: Any = ("good", "", {})
RED: Any = ("red", "loss=20:NaN", {})
BAD: Any = ("bad", "", BAD_KEY)
SKIPPED: Any = ("skip", "", TOO_MANY_GPUS)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(([GOOD], 0, {"good": "passed"}), id="pass"),
        pytest.param(([GOOD, RED], 1, {"good": "passed", "red": "failed"}), id="fail"),
        pytest.param(([GOOD, BAD], 2, {"good": "passed", "bad": "error"}), id="bad_spec"),
        pytest.param(([GOOD, RED, BAD], 1, {"good": "passed", "red": "failed", "bad": "error"}), id="fail_before_bad"),
        pytest.param(([GOOD, SKIPPED], 0, {"good": "passed", "skip": "skipped"}), id="skip"),
        pytest.param(([SKIPPED], 3, {"skip": "skipped"}), id="all_skipped"),
        pytest.param(([SKIPPED, BAD], 2, {"skip": "skipped", "bad": "error"}), id="bad_before_skipped"),
    ],
)
@pytest.mark.parametrize("launcher", ["fgvalidate_pool", "basic"])
def test_exit_code_ranks_what_the_specs_ended_with(
    specs: Any, fgvalidate: Any, case: tuple[list[Any], int, dict[str, str]], launcher: str
) -> None:
    chosen, code, outcomes = case
    for name, faults, fields in chosen:
        specs.write(name, faults, **fields)

    run = fgvalidate(*specs.multirun(*outcomes), f"hydra/launcher={launcher}")

    assert run.code == code, run.stdout + run.stderr
    rows = read_rows(run.run_dir)
    assert {name: outcome for name, (outcome, _) in rows.items()} == outcomes
    assert "Traceback" not in run.stdout + run.stderr


def test_every_spec_of_the_group_runs(specs: Any, fgvalidate: Any) -> None:
    for name in ("a", "b"):
        specs.write(name)

    run = fgvalidate("--config-dir", str(specs.folder), "-m", "+spec=a,b", "hydra.launcher.max_parallel=2")

    assert run.code == 0
    assert [line for line in run.stdout.splitlines() if line.startswith("PASSED")][-1].startswith("PASSED 2 specs")
    assert run.report["counts"] == {"passed": 2}
    assert {path.name for path in run.run_dir.iterdir()} >= {"0-a", "1-b", "report.html", "junit.xml", "summary.md"}


def test_line_of_a_bad_spec_names_file_line_and_key(specs: Any, fgvalidate: Any) -> None:
    specs.write("good")
    specs.write("bad", loss={"finl_max": 3})

    run = fgvalidate(*specs.multirun("good", "bad"))

    _, reason = read_rows(run.run_dir)["bad"]
    assert reason.endswith("spec/bad.yaml:14: loss.finl_max: no such key. Did you mean 'final_max'?")
    assert reason in run.stdout


def test_red_spec_is_printed_with_its_checks_and_first_cause(specs: Any, fgvalidate: Any) -> None:
    specs.write("good")
    specs.write("red", "loss=20:NaN", watch={"fail_fast": False})

    run = fgvalidate(*specs.multirun("good", "red"))

    assert re.search(r"^finite_loss +failed +1 ", run.stdout, re.MULTILINE)
    assert "FAILED   red in " in run.stdout
    assert "numerics: loss is nan at step 20 (finite_loss)" in run.stdout
    assert run.stdout.splitlines()[-1].startswith("FAILED 2 specs: 1 failed, 1 passed in ")


SMOKE, SLOW, PLAIN = ["integration", "smoke"], ["integration", "slow"], ["integration"]


@pytest.fixture
def marked(specs: Any) -> Any:
    """Three specs, of each tier one."""
    for name, markers in {"quick": SMOKE, "middle": PLAIN, "long": SLOW}.items():
        specs.write(name, markers=markers)
    return specs


@pytest.mark.parametrize(
    ("select", "chosen"),
    [
        ("smoke", {"quick"}),
        ("integration and not slow", {"quick", "middle"}),
        ("integration", {"quick", "middle", "long"}),
        ("(smoke or slow) and integration", {"quick", "long"}),
        ("middle or long", {"middle", "long"}),
        ("not middle", {"quick", "long"}),
    ],
)
@pytest.mark.parametrize("key", ["select", "hydra.sweeper.select"])
def test_specs_are_selected_by_marker_and_id(
    marked: Any, fgvalidate: Any, select: str, chosen: set[str], key: str
) -> None:
    text = f'"{select}"' if key != "select" and "(" in select else select

    run = fgvalidate(*marked.multirun("quick", "middle", "long"), f"{key}={text}", "list=true")

    listed = {line.split()[0] for line in run.stdout.splitlines()[1:-1]}
    assert (run.code, listed) == (0, chosen), run.stdout + run.stderr


def test_selected_specs_run_and_no_others(marked: Any, fgvalidate: Any) -> None:
    run = fgvalidate(*marked.multirun("quick", "middle", "long"), "select=smoke")

    assert (run.code, set(read_rows(run.run_dir))) == (0, {"quick"})


def test_selection_does_not_change_what_is_selected(marked: Any, fgvalidate: Any) -> None:
    run = fgvalidate(*marked.multirun("quick"), "select=smoke")

    (folder,) = run.run_dir.glob("0-quick")
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["spec"]["markers"] == SMOKE


def test_unknown_name_in_a_selection_is_pointed_out(marked: Any, fgvalidate: Any) -> None:
    run = fgvalidate(*marked.multirun("quick", "long"), "select=not slwo", "list=true")

    assert run.stderr == "fgvalidate: select: no spec is named or marked 'slwo'. Did you mean 'slow'?\n"


def test_empty_selection_says_what_there_was(marked: Any, fgvalidate: Any, workplace: Any) -> None:
    run = fgvalidate(*marked.multirun("quick", "long"), "select=gpu")

    assert run.code == 3
    assert run.stderr.splitlines()[-3:] == [
        "fgvalidate: nothing is selected by 'gpu'; there are:",
        "  quick: integration, smoke",
        "  long: integration, slow",
    ]
    assert list(workplace.folder.iterdir()) == []


def test_selection_that_cannot_be_read_is_a_line(marked: Any, fgvalidate: Any, workplace: Any) -> None:
    run = fgvalidate(*marked.multirun("quick", "long"), "select=smoke and")

    assert (run.code, len(run.stderr.splitlines())) == (2, 1)
    assert "smoke and" in run.stderr
    assert list(workplace.folder.iterdir()) == []


def test_spec_that_cannot_be_composed_is_never_selected_away(marked: Any, fgvalidate: Any) -> None:
    (marked.folder / "spec/broken.yaml").write_text("# @package _global_\nmarkers: [\n", encoding="utf-8")

    run = fgvalidate(*marked.multirun("quick", "broken"), "select=smoke")

    assert run.code == 2
    assert {name: outcome for name, (outcome, _) in read_rows(run.run_dir).items()} == {
        "quick": "passed",
        "broken": "error",
    }


def test_list_says_what_would_run_and_why_not_and_runs_nothing(marked: Any, fgvalidate: Any, workplace: Any) -> None:
    marked.write("huge", gpu_requirement=4, markers=PLAIN)

    run = fgvalidate(*marked.multirun("quick", "huge"), "list=true")

    assert run.stdout.splitlines()[1].split() == ["quick", "quick", "integration,", "smoke", "1", "300", "s", "run"]
    assert "it needs 4 GPUs" in run.stdout
    assert run.stdout.splitlines()[-1] == "2 selected; nothing was run"
    assert (run.code, list(workplace.folder.iterdir())) == (0, [])


@pytest.mark.parametrize(
    ("suite", "chosen"),
    [
        ("smoke", ["tiny_experiment"]),
        ("standard", ["tiny_experiment", "tiny_llama"]),
        ("full", ["tiny_experiment", "tiny_llama", "tiny_llama_inference"]),
    ],
)
def test_suites_select_what_the_tiers_say_without_m(fgvalidate: Any, suite: str, chosen: list[str]) -> None:
    run = fgvalidate(f"+suite={suite}", "list=true")

    assert [line.split()[0] for line in run.stdout.splitlines()[1:-1]] == chosen


def test_suite_runs_without_m(fgvalidate: Any, forgather_args: Any) -> None:
    backend = [word for word in forgather_args() if not word.startswith("+spec")]

    run = fgvalidate("+suite=smoke", *backend, "max_steps=20", "bounds={}")

    assert run.code == 0, run.stdout + run.stderr
    assert read_rows(run.run_dir) == {"tiny_experiment_smoke": ("passed", "")}


def test_each_value_of_a_second_axis_is_a_run_of_its_own(specs: Any, fgvalidate: Any) -> None:
    specs.write("good")

    run = fgvalidate(*specs.multirun("good"), "max_steps=20,30")

    assert run.code == 0
    assert set(read_rows(run.run_dir)) == {"good[max_steps=20]", "good[max_steps=30]"}
    assert {path.name for path in run.run_dir.glob("*-good")} == {"0-good", "1-good"}


def test_two_specs_of_one_test_id_are_refused(specs: Any, fgvalidate: Any, workplace: Any) -> None:
    specs.write("a")
    specs.write("b", test_id="a")

    run = fgvalidate(*specs.multirun("a", "b"))

    assert run.code == 2
    assert run.stderr == "fgvalidate: test_id: 'a' is that of two specs, a and b; each needs its own\n"
    assert list(workplace.folder.iterdir()) == []


def test_select_failed_runs_what_the_last_multirun_did_not_see_passing(specs: Any, fgvalidate: Any) -> None:
    specs.write("good")
    specs.write("red", "loss=20:NaN")
    specs.write("bad", loss={"finl_max": 3})
    fgvalidate(*specs.multirun("good", "red", "bad"))
    specs.write("red")
    specs.write("bad")

    run = fgvalidate(*specs.multirun("good", "red", "bad"), "select_failed=true")

    assert (run.code, set(read_rows(run.run_dir))) == (0, {"red", "bad"})


def test_select_failed_with_nothing_failed_is_an_empty_selection(specs: Any, fgvalidate: Any) -> None:
    specs.write("good")
    fgvalidate(*specs.multirun("good"))

    run = fgvalidate(*specs.multirun("good"), "select_failed=true")

    assert run.code == 3
    assert "none of them failed in the last multirun" in run.stderr


def test_select_failed_without_an_earlier_multirun_is_refused(specs: Any, fgvalidate: Any) -> None:
    specs.write("good")

    run = fgvalidate(*specs.multirun("good"), "select_failed=true")

    assert (run.code, "there is no earlier multirun" in run.stderr) == (2, True)


def test_fail_fast_ends_what_runs_and_starts_no_more(specs: Any, fgvalidate: Any, workplace: Any) -> None:
    specs.write("red", "fail_at=5", timeout=400)
    specs.write("hanging", "hang_at=5", timeout=300)
    specs.write("waiting", timeout=200)

    run = fgvalidate(*specs.multirun("red", "hanging", "waiting"), "fail_fast=true", "hydra.launcher.max_parallel=2")

    assert run.code == 1
    rows = read_rows(run.run_dir)
    assert rows["hanging"] == ("error", "ended: fail_fast stopped the multirun after another spec was red")
    assert (rows["red"][0], set(rows)) == ("failed", {"red", "hanging"})
    assert run.report["counts"] == {"failed": 1, "error": 1, "skipped": 1}
    assert "stopped by fail_fast" in run.stdout.splitlines()[-1]
    workplace.wait_until_empty()


def test_fail_fast_is_refused_by_launchers_that_cannot(specs: Any, fgvalidate: Any, workplace: Any) -> None:
    specs.write("good")

    run = fgvalidate(*specs.multirun("good"), "fail_fast=true", "hydra/launcher=basic")

    assert run.code == 2
    assert run.stderr.startswith("fgvalidate: fail_fast: ")
    assert list(workplace.folder.iterdir()) == []


def test_joblib_launcher_runs_specs_that_need_no_gpu(specs: Any, fgvalidate: Any, workplace: Any) -> None:
    specs.write("good", gpu_requirement=0)
    specs.write("red", "loss=20:NaN", gpu_requirement=0)

    run = fgvalidate(*specs.multirun("good", "red"), "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")

    assert run.code == 1, run.stdout + run.stderr
    assert {name: outcome for name, (outcome, _) in read_rows(run.run_dir).items()} == {
        "good": "passed",
        "red": "failed",
    }
    workplace.wait_until_empty()


def test_multirun_never_starts_in_a_folder_that_holds_one(specs: Any, fgvalidate: Any) -> None:
    specs.write("good")
    args = [*specs.multirun("good"), "hydra.sweep.dir=outputs/multirun/mine"]
    fgvalidate(*args)

    again = fgvalidate(*args)

    assert again.code == 2
    assert again.stderr.endswith("this folder holds a multirun already; choose another hydra.sweep.dir\n")


@pytest.mark.parametrize("number", [0, -1])
def test_pool_of_no_process_is_refused(specs: Any, fgvalidate: Any, workplace: Any, number: int) -> None:
    specs.write("good")

    run = fgvalidate(*specs.multirun("good"), f"hydra.launcher.max_parallel={number}")

    assert run.code == 2
    assert run.stderr.endswith(f"hydra.launcher.max_parallel: must be at least 1, or null, not {number}\n")
    assert list(workplace.folder.iterdir()) == []


def test_multirun_without_a_spec_says_which_there_are(fgvalidate: Any, workplace: Any) -> None:
    run = fgvalidate("-m", "max_steps=5,6")

    assert run.code == 2
    assert run.stderr.startswith("fgvalidate: no spec is chosen: say +spec=NAME, one of tiny_experiment, tiny_llama")
    assert list(workplace.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"test_id": "a/b::c"}, "test_id: must be usable as a folder's name, not 'a/b::c'"),
        ({"markers": ["integration", "xfail"]}, "markers: is a mark of pytest's own"),
        ({"markers": ["skip"]}, "markers: is a mark of pytest's own"),
    ],
)
def test_spec_with_names_that_cannot_be_is_an_error_in_one_line(
    specs: Any, fgvalidate: Any, fields: dict[str, Any], line: str
) -> None:
    specs.write("odd", **fields)
    specs.write("good")

    run = fgvalidate(*specs.multirun("odd", "good"))

    outcomes = {name: (outcome, line in reason) for name, (outcome, reason) in read_rows(run.run_dir).items()}
    assert (run.code, outcomes) == (2, {"odd": ("error", True), "good": ("passed", False)})
    assert "Traceback" not in run.stdout + run.stderr


def test_select_failed_repeats_the_values_of_further_axes(specs: Any, fgvalidate: Any) -> None:
    specs.write("one")
    first = fgvalidate(*specs.multirun("one"), "loss.final_max=0.01,9")

    again = fgvalidate("--config-dir", str(specs.folder), "select_failed=true")

    assert (first.code, again.code) == (1, 1)
    assert {name: outcome for name, (outcome, _) in read_rows(again.run_dir).items()} == {
        "one[loss.final_max=0.01]": "failed"
    }


def test_empty_selection_text_is_refused(specs: Any, fgvalidate: Any, workplace: Any) -> None:
    specs.write("good")

    run = fgvalidate(*specs.multirun("good"), "select=")

    assert (run.code, run.stderr.startswith("fgvalidate: select: it is empty")) == (2, True), run.stderr
    assert list(workplace.folder.iterdir()) == []


def test_overlong_test_id_costs_its_own_spec_alone(specs: Any, fgvalidate: Any) -> None:
    specs.write("long", test_id="x" * 300)
    specs.write("good")

    run = fgvalidate(*specs.multirun("long", "good"))

    assert run.code == 2
    assert {name: outcome for name, (outcome, _) in read_rows(run.run_dir).items()} == {
        "long": "error",
        "good": "passed",
    }
    assert (run.run_dir / "report.html").is_file()
