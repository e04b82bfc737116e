"""Recorded runs judged again, through the real command line: nothing is run, and nothing passes for want of looking."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_faults import FAULTS, make_checkout
from test_sweep import read_rows

from fgvalidate.comparison import Difference
from fgvalidate.errors import RunDirError
from fgvalidate.facts import CATALOGUE, Facts
from fgvalidate.judgement import fit_facts, require_apart
from fgvalidate.recording import Recording
from fgvalidate.report import Report
from fgvalidate.run_dir import RunDir
from fgvalidate.spec import Inference, Spec

Call = Callable[..., Any]


def list_files(folder: Path) -> dict[str, tuple[float, int]]:
    return {str(path.relative_to(folder)): (path.stat().st_mtime, path.stat().st_size) for path in folder.rglob("*")}


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


@pytest.fixture
def judge_again(fgvalidate: Call, forgather_args: Call, forgather_root: Any) -> Call:
    """Judges a recorded run in a place where nothing could be run: no project, and no trainer."""

    def judge(recorded: Any, *overrides: str, faults: str = "") -> Any:
        path = recorded if isinstance(recorded, Path) else recorded.run_dir
        if forgather_root.root.exists():
            forgather_root.root.rename(forgather_root.root.with_name("gone"))
        num_calls = len(forgather_root.calls())
        run = fgvalidate(*forgather_args(faults, *overrides, f"judge={path}"))
        assert len(forgather_root.calls()) == num_calls, "something was run"
        return run

    return judge


def test_a_bound_turns_green_to_red_and_back_and_the_recorded_folder_is_not_written_to(
    validate: Call, judge_again: Call
) -> None:
    recorded = validate()
    before = list_files(recorded.run_dir)

    tight = judge_again(recorded, "loss.final_max=0.9")
    loose = judge_again(recorded, "loss.final_max=5.5")

    assert recorded.code == 0
    assert (tight.code, tight.red) == (1, {"final_loss_max"}), tight.stdout + tight.stderr
    assert (loose.code, loose.red) == (0, set())
    assert list_files(recorded.run_dir) == before
    assert tight.run_dir != recorded.run_dir
    assert tight.facts == recorded.facts
    assert {path.name for path in tight.run_dir.iterdir()} == {".hydra", "facts.json", "report.json", "report.html"}


def test_a_red_run_turns_green_with_the_bound_that_it_broke(validate: Call, judge_again: Call) -> None:
    recorded = validate("", "loss.final_max=0.5")

    run = judge_again(recorded, "loss.final_max=9")

    assert (recorded.code, run.code, run.report["outcome"]) == (1, 0, "passed")


def test_report_says_which_run_was_judged_and_what_has_changed(validate: Call, judge_again: Call) -> None:
    recorded = validate()

    run = judge_again(recorded, "loss.final_max=0.9")

    changed = ["loss.final_max 6.0 -> 0.9", "project: cannot be told, it was in no git checkout"]
    took = recorded.report["duration_s"]
    assert recorded.report["judged"] is None
    assert run.report["judged"] == {
        "run_dir": str(recorded.run_dir),
        "recorded_at": recorded.facts["values"]["train.started_at"],
        "took_s": took,
        "changed": changed,
    }
    assert f"Judged  {recorded.run_dir}, recorded 20" in run.stdout
    assert f" UTC (took {took:.1f} s)\nChanged since: {'; '.join(changed)}\n" in run.stdout
    assert ", judged again: convergence: final_loss_max is " in run.stdout.splitlines()[-1]
    page = (run.run_dir / "report.html").read_text(encoding="utf-8")
    assert page.count("<dt>judged again</dt>") == 2
    assert "loss.final_max 6.0 -&gt; 0.9" in page


def test_command_in_the_report_judges_again(validate: Call, judge_again: Call, workplace: Any) -> None:
    run = judge_again(validate(), "loss.final_max=0.9")

    done = subprocess.run(
        ["/bin/sh", "-c", run.report["command"]],
        cwd=workplace.folder,
        env=workplace.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert ", judged again: convergence: final_loss_max is " in done.stdout.splitlines()[-1]


def test_relative_path_means_the_folder_where_it_was_typed(validate: Call, judge_again: Call, workplace: Any) -> None:
    recorded = validate()

    run = judge_again(recorded.run_dir.relative_to(workplace.folder))

    assert (run.code, run.report["judged"]["run_dir"]) == (0, str(recorded.run_dir))


def test_run_is_judged_by_its_own_words_where_no_spec_is_said(validate: Call, fgvalidate: Call) -> None:
    recorded = validate("", "max_steps=100", "loss.final_max=9")

    same = fgvalidate(f"judge={recorded.run_dir}")
    tight = fgvalidate(f"judge={recorded.run_dir}/facts.json", "loss.final_max=0.5")

    assert (same.code, same.report["spec"]["max_steps"]) == (0, 100), same.stdout + same.stderr
    assert (tight.code, tight.red) == (1, {"final_loss_max"})
    assert tight.report["spec"]["loss"]["final_max"] == 0.5


def test_new_forbidden_pattern_is_looked_for_in_the_recorded_stderr(validate: Call, judge_again: Call) -> None:
    faults = "stderr=FutureWarning: soon"
    recorded = validate(faults)

    forbidden = judge_again(recorded, "stderr.forbidden_patterns=[FutureWarning]", faults=faults)
    absent = judge_again(recorded, "stderr.forbidden_patterns=[DeprecationWarning]", faults=faults)
    warned = judge_again(recorded, "stderr.warn_patterns=[FutureWarning]", faults=faults)

    assert (forbidden.code, forbidden.red) == (1, {"forbidden_stderr"})
    assert "line 3: FutureWarning: soon" in forbidden.check("forbidden_stderr")["message"]
    assert (absent.code, absent.check("forbidden_stderr")["status"]) == (0, "passed")
    assert (warned.code, warned.warned) == (0, {"warn_stderr"})


@pytest.mark.parametrize("loss", ["removed", "cut"])
def test_new_pattern_is_an_error_where_stderr_is_no_longer_what_it_was(
    validate: Call, judge_again: Call, loss: str
) -> None:
    recorded = validate()
    stderr = recorded.run_dir / "train.stderr"
    stderr.unlink() if loss == "removed" else stderr.write_text("", encoding="utf-8")

    run = judge_again(recorded, "stderr.forbidden_patterns=[FutureWarning]")
    same = judge_again(recorded)

    check = run.check("forbidden_stderr")
    assert (run.code, check["status"]) == (1, "error")
    assert "did not look for 'FutureWarning'" in check["message"]
    assert str(stderr) in check["message"]
    assert same.code == 0


def test_new_expected_file_is_looked_for_beside_the_recorded_log(
    validate: Call, judge_again: Call, tmp_path: Path
) -> None:
    recorded = validate()
    moved = shutil.move(recorded.run_dir, tmp_path / "moved")

    there = judge_again(moved, "expected_files=[trainer_logs.json,'events.out.*','../../config.json']")
    missing = judge_again(moved, "expected_files=[model.safetensors]")
    outside = judge_again(moved, "expected_files=['../../../../moved/report.json']")
    beside = judge_again(moved, "expected_files=['../../../*']")

    assert (there.code, there.red) == (0, set()), there.stdout
    assert (missing.code, missing.check("expected_files")["message"]) == (1, "missing: model.safetensors")
    assert (outside.check("expected_files")["status"], beside.code) == ("error", 0)
    assert there.report["judged"]["run_dir"] == str(moved)


def test_file_that_keep_has_removed_is_an_error_and_not_missing(validate: Call, judge_again: Call) -> None:
    recorded = validate()

    run = judge_again(recorded, "expected_files=['../../checkpoints/*/model.safetensors']")

    check = run.check("expected_files")
    assert (run.code, check["status"]) == (1, "error")
    assert "may have been removed since" in check["message"]


def test_copied_facts_alone_are_judged_as_far_as_they_reach(validate: Call, judge_again: Call, tmp_path: Path) -> None:
    recorded = validate()
    copy = tmp_path / "copy/facts.json"
    copy.parent.mkdir()
    shutil.copy(recorded.run_dir / "facts.json", copy)

    same = judge_again(copy, "loss.final_max=5")
    pattern = judge_again(copy, "stderr.forbidden_patterns=[Killed]")
    file = judge_again(copy, "expected_files=[config.json]")
    other = judge_again(copy, "max_steps=50")

    assert (same.code, same.report["judged"]["changed"][0]) == (
        0,
        "spec and fgvalidate: cannot be told, there is no report.json beside the recorded facts",
    )
    assert (pattern.code, pattern.check("forbidden_stderr")["status"]) == (1, "error")
    assert (file.code, file.check("expected_files")["status"]) == (1, "error")
    assert (other.code, other.run_dir) == (2, None)
    assert "its command has no 50; it was asked for 200 steps, and not 50" in other.stderr


OTHER_TRAININGS = [
    (["max_steps=50"], "the recorded run had max_steps=200, this spec says 50"),
    (["+backend.env.FAKE_FORGATHER='loss=10:NaN'"], "backend.env.FAKE_FORGATHER=not set, this spec says 'loss="),
    (["+spec=tiny_experiment"], "a run of tiny_llama, and the spec is tiny_experiment_smoke; choose +spec"),
    (["+spec=tiny_experiment", "test_id=tiny_llama"], "recorded run had project_dir='examples/tutorials/tiny_ll"),
]


def test_another_training_is_refused(validate: Call, judge_again: Call) -> None:
    recorded = validate()

    for overrides, words in OTHER_TRAININGS:
        run = judge_again(recorded, *overrides)

        assert (run.code, run.run_dir, run.stderr.count("\n")) == (2, None, 1)
        assert words in run.stderr


def test_steps_may_be_said_in_either_place_and_what_changes_no_command_is_no_other_training(
    validate: Call, judge_again: Call
) -> None:
    recorded = validate("", "max_steps=100")

    run = judge_again(
        recorded,
        "dynamic_args.max_steps=100",
        "+dynamic_args.compile=false",
        "timeout=200",
        "gpu_requirement=4",
        "watch.fail_fast=false",
        "retries.infrastructure=2",
        "keep=all",
    )

    assert run.code == 0, run.stdout + run.stderr


def test_run_that_took_longer_than_it_is_now_allowed_is_red(validate: Call, judge_again: Call) -> None:
    recorded = validate("step_s=0.02", "max_steps=100")

    run = judge_again(recorded, "max_steps=100", "timeout=1", faults="step_s=0.02")

    assert (run.code, run.red) == (1, {"in_time"}), run.stdout + run.stderr
    assert "is now allowed 1 s" in run.check("in_time")["message"]


def test_nan_stays_red_without_a_bound_that_it_could_break(validate: Call, judge_again: Call) -> None:
    recorded = validate("loss=200:NaN")
    words = ["loss.no_nan=false", "loss.drop_min=null", "loss.final_max=1000"]

    run = judge_again(recorded, *words, faults="loss=200:NaN")

    assert (run.code, run.red) == (1, {"final_loss_max"})
    assert run.facts["values"]["loss.final"] == {"float": "nan"}


def test_project_that_changed_is_named(validate: Call, fgvalidate: Call, forgather_root: Any) -> None:
    make_checkout(forgather_root.root)
    recorded = validate()
    same = fgvalidate(f"judge={recorded.run_dir}")
    config = next(forgather_root.root.rglob("train_tiny_llama.yaml"))
    config.write_text("logging_steps: 5\n", encoding="utf-8")
    dirty = fgvalidate(f"judge={recorded.run_dir}")
    make_checkout(forgather_root.root)

    other = fgvalidate(f"judge={recorded.run_dir}")

    commit = recorded.facts["values"]["repo.commit"][:12]
    assert same.report["judged"]["changed"] == []
    assert "Changed since: nothing: spec, project and fgvalidate are the same\n" in same.stdout
    assert dirty.report["judged"]["changed"] == [
        f"project: cannot be told, its checkout is changed beyond commit {commit}"
    ]
    assert other.report["judged"]["changed"][0].startswith(f"project: commit {commit} -> ")


def test_code_that_changed_is_named(validate: Call, judge_again: Call) -> None:
    recorded = validate()
    change_json(recorded.run_dir / "report.json", lambda report: report["versions"].update({"fgvalidate sources": "0"}))

    run = judge_again(recorded)

    assert run.report["judged"]["changed"][0].startswith("fgvalidate sources 0 -> ")


def test_judgement_of_a_judgement_is_one_of_the_recorded_run(validate: Call, judge_again: Call) -> None:
    recorded = validate()
    strict = judge_again(recorded, "timeout=1", "loss.final_max=0.1")

    again = judge_again(strict, "stderr.forbidden_patterns=[Killed]")
    shutil.rmtree(recorded.run_dir)
    gone = judge_again(strict)

    assert (strict.code, again.code) == (1, 0)
    assert again.report["judged"]["run_dir"] == str(recorded.run_dir)
    assert (gone.code, "which is gone" in gone.stderr) == (2, True)


def test_spec_that_judges_by_itself_is_refused(specs: Any, fgvalidate: Call) -> None:
    specs.write("sly", judge="somewhere")

    run = fgvalidate("--config-dir", str(specs.folder), "+spec=sly")

    assert (run.code, "it belongs on the command line" in run.stderr) == (2, True)


def test_gpus_are_neither_needed_nor_taken(validate: Call, judge_again: Call) -> None:
    recorded = validate()

    run = judge_again(recorded, "gpu_requirement=8", "backend.cpu_ok=false", "memory=1000")

    assert run.code == 0, run.stdout + run.stderr


def test_what_is_no_recording_is_one_line(judge_again: Call, workplace: Any) -> None:
    (workplace.folder / "facts.json").write_text('{"schema": 1, "val', encoding="utf-8")

    half = judge_again(Path("facts.json"))
    nowhere = judge_again(Path("nowhere"))

    for run in (half, nowhere):
        assert (run.code, run.run_dir, run.stderr.count("\n")) == (2, None, 1), run.stdout + run.stderr
    assert half.stderr.startswith("fgvalidate: facts.json: not a facts.json that can be read (")
    assert "nowhere: no such file or folder; give the folder of a run" in nowhere.stderr


def test_what_a_recording_says_cannot_move_the_cursor(validate: Call, judge_again: Call) -> None:
    recorded = validate()
    change_json(recorded.run_dir / "report.json", lambda report: report["spec"].update(markers=["\x1b[2J"]))
    shown = judge_again(recorded)
    change_json(
        recorded.run_dir / "report.json", lambda report: report["spec"]["backend"].update(arguments=["\x1b[2J"])
    )

    refused = judge_again(recorded)

    assert shown.code == 0
    assert "markers [\\x1b[2J] -> [integration]" in shown.stdout
    assert "had backend.arguments=[\\x1b[2J]" in refused.stderr
    assert "\x1b" not in shown.stdout + refused.stderr


def test_every_fault_gets_the_same_verdicts_again(specs: Any, fgvalidate: Call) -> None:
    patterns = {"forbidden_patterns": ["RuntimeError", "CUDA error", "Traceback"]}
    plain = [(row.id, row.values[0]) for row in FAULTS if row.values[0] and not row.values[1]]
    assert len(plain) > 20
    for name, faults in [*plain, ("none", "")]:
        bounds = {"final_max": 6.0, "drop_min": 0.1}
        specs.write(name, faults, max_steps=200, loss=bounds, stderr=patterns, min_steps_logged=2)
    names = [name for name, _ in plain] + ["none"]
    recorded = fgvalidate(*specs.multirun(*names), "hydra.launcher.max_parallel=2")

    again = fgvalidate("--config-dir", str(specs.folder), f"judge={recorded.run_dir}")

    before, after = ({spec["name"]: spec["report"] for spec in run.report["specs"]} for run in (recorded, again))
    assert (recorded.code, again.code, set(after)) == (1, 1, set(names)), again.stdout + again.stderr
    for name in names:
        assert after[name]["checks"] == before[name]["checks"]
        assert (after[name]["outcome"], after[name]["reason"]) == (before[name]["outcome"], before[name]["reason"])
        assert after[name]["stderr_tail"] == before[name]["stderr_tail"]
        assert after[name]["judged"]["changed"] == ["project: cannot be told, it was in no git checkout"]


@pytest.fixture
def recorded_suite(specs: Any, fgvalidate: Call) -> Any:
    """A multirun with a green spec, a red one, one that was skipped, one that could not be composed."""
    specs.write("good")
    specs.write("red", "loss=20:NaN")
    specs.write("skip", gpu_requirement=4)
    specs.write("bad", loss={"finl_max": 3})
    return fgvalidate(*specs.multirun("good", "red", "skip", "bad"))


def test_whole_multirun_is_judged_again(recorded_suite: Any, specs: Any, fgvalidate: Call, workplace: Any) -> None:
    specs.write("bad")
    specs.write("new")
    root = recorded_suite.run_dir.relative_to(workplace.folder)

    alone = fgvalidate("--config-dir", str(specs.folder), f"judge={root}", "loss.final_max=0.01")
    named = fgvalidate(*specs.multirun("good", "new"), f"judge={root}")

    rows = read_rows(alone.run_dir)
    assert (alone.code, named.code) == (1, 2), named.stdout + named.stderr
    assert {name: outcome for name, (outcome, _) in rows.items()} == {
        "good": "failed",
        "red": "failed",
        "skip": "skipped",
        "bad": "error",
    }
    assert rows["skip"][1].startswith("the recorded run was skipped: it needs 4 GPUs")
    assert "there is nothing to judge of bad: " in rows["bad"][1]
    outcomes = read_rows(named.run_dir)
    assert outcomes["good"] == ("passed", "")
    assert "no run of new is recorded there; it holds good, red, skip, bad" in outcomes["new"][1]
    planned = json.loads((alone.run_dir / "suite.json").read_text(encoding="utf-8"))["jobs"]
    assert {job["gpu_requirement"] for job in planned} == {0}
    summary = (alone.run_dir / "summary.md").read_text(encoding="utf-8")
    assert "2 of 4 judged again from recorded runs" in summary
    assert "failed, judged again |" in summary
    assert 'name="judged"' in (alone.run_dir / "junit.xml").read_text(encoding="utf-8")
    page = (alone.run_dir / "report.html").read_text(encoding="utf-8")
    assert "<dt>judged again</dt><dd>2 of 4, from recorded runs</dd>" in page


def test_selection_and_list_go_on_working(recorded_suite: Any, specs: Any, fgvalidate: Call) -> None:
    words = ["--config-dir", str(specs.folder), f"judge={recorded_suite.run_dir}"]

    listed = fgvalidate(*words, "select=good or skip", "list=true")
    selected = fgvalidate(*words, "select=good")

    lines = [line.split() for line in listed.stdout.splitlines()[1:-1]]
    would = {line[0]: " ".join(line[-2:]) for line in lines if line[0] in {"good", "red", "skip"}}
    assert would == {"good": "judge again", "skip": "judge again"}
    # Its spec still cannot be composed, and what cannot be read cannot be ruled out.
    assert set(read_rows(selected.run_dir)) == {"good", "bad"}


def test_select_failed_means_the_last_multirun_that_ran_something(
    recorded_suite: Any, specs: Any, fgvalidate: Call
) -> None:
    specs.write("red")
    specs.write("bad")
    fgvalidate("--config-dir", str(specs.folder), f"judge={recorded_suite.run_dir}", "loss.final_max=0.01")

    run = fgvalidate("--config-dir", str(specs.folder), "select_failed=true")

    assert (run.code, set(read_rows(run.run_dir))) == (0, {"red", "bad"}), run.stdout + run.stderr


def test_jobs_of_further_axes_are_judged_each_on_its_own_run(specs: Any, fgvalidate: Call) -> None:
    specs.write("one")
    recorded = fgvalidate(*specs.multirun("one"), "max_steps=20,40")

    alone = fgvalidate("--config-dir", str(specs.folder), f"judge={recorded.run_dir}", "loss.final_max=9,0.01")
    axes = fgvalidate(*specs.multirun("one"), "max_steps=20,40", f"judge={recorded.run_dir}")
    unnamed = fgvalidate("--config-dir", str(specs.folder), "+spec=one", f"judge={recorded.run_dir}")

    assert {name: outcome for name, (outcome, _) in read_rows(alone.run_dir).items()} == {
        "one[max_steps=20][loss.final_max=9]": "passed",
        "one[max_steps=20][loss.final_max=0.01]": "failed",
        "one[max_steps=40][loss.final_max=9]": "passed",
        "one[max_steps=40][loss.final_max=0.01]": "failed",
    }
    assert (axes.code, set(read_rows(axes.run_dir))) == (0, {"one[max_steps=20]", "one[max_steps=40]"})
    assert (unnamed.code, "several runs of one are recorded there" in unnamed.stderr) == (2, True)


def test_recorded_run_without_inference_is_no_pass_of_a_spec_that_has_it(validate: Call, judge_again: Call) -> None:
    saves = "dynamic_args.save_strategy=steps"
    recorded = validate("", saves)

    run = judge_again(recorded, saves, "inference=completion")
    names = [check["name"] for check in run.report["checks"] if "inference stage" in check["message"]]
    unchecked = judge_again(recorded, saves, "inference=completion", *(f"checks.{name}=null" for name in names))

    assert (run.code, run.red) == (1, {"server_healthy", "completion_not_empty", "perplexity_max"})
    assert run.check("server_healthy")["status"] == "error"
    reason = "evidence: the inference stage was not run: the recorded run had no inference stage"
    assert (unchecked.code, unchecked.report["reason"]) == (1, reason)


def make_recording(folder: Path, spec: dict[str, Any] | None, **facts: Any) -> Recording:
    values = {"train.started_at": 1.0, "train.duration_s": 2.0, "train.timed_out": False, **facts}
    report = None
    if spec is not None:
        report = Report(test_id="x", outcome="passed", reason="", command="", run_dir=folder, spec=spec)
    return Recording(run_dir=RunDir(folder), facts=Facts(values=values), report=report)


SPEC = Spec(
    test_id="x",
    project_dir="p",
    config="c",
    dynamic_args={"save_strategy": "steps"},
    inference=Inference(),
)
SPOKEN = {"inference.server_healthy": True, "inference.perplexity": 3.0, "inference.num_empty": 0}
GENERATION = Difference(key="inference.prompt", recorded="a", now="b", kind="generation")
SCORING = Difference(key="scorer.name", recorded="builtin", now="gpt2", kind="scoring")
WITH_STAGE: dict[str, Any] = {"inference": {"prompt": "a"}}


@pytest.mark.parametrize(
    ("spec", "differences", "kept", "reason"),
    [
        (WITH_STAGE, [], set(SPOKEN), ""),
        (WITH_STAGE, [GENERATION], set(), "the recorded run had inference.prompt='a', this spec says 'b'"),
        (WITH_STAGE, [SCORING, GENERATION], set(), "the recorded run had inference.prompt='a', this spec says 'b'"),
        (
            WITH_STAGE,
            [SCORING],
            {"inference.server_healthy", "inference.num_empty"},
            "the recorded run had scorer.name='builtin', this spec says 'gpt2'",
        ),
        ({"inference": None}, [], set(), "the recorded run had no inference stage"),
        (None, [], set(), "there is no report.json beside the recorded facts, which says what the model was asked"),
    ],
    ids=["same", "prompt", "both", "scorer", "no_stage", "facts_alone"],
)
def test_what_the_model_said_is_no_evidence_for_another_question(
    tmp_path: Path, spec: dict[str, Any] | None, differences: list[Difference], kept: set[str], reason: str
) -> None:
    recording = make_recording(tmp_path, spec, **SPOKEN)
    assert recording.facts is not None

    facts = fit_facts(recording, recording.facts, SPEC, differences)

    assert {name for name in facts.values if name.startswith("inference.")} == kept
    assert facts.notes.get("inference.perplexity", "") == reason


def test_stage_that_is_left_out_now_is_not_judged(tmp_path: Path) -> None:
    recording = make_recording(tmp_path, WITH_STAGE, **SPOKEN)
    assert recording.facts is not None

    facts = fit_facts(recording, recording.facts, Spec(test_id="x", project_dir="p", config="c"), [])

    stage = {name for name in CATALOGUE if name.startswith("inference.")}
    assert set(facts.not_applicable) == stage
    assert not stage & set(facts.values)


def test_stage_that_was_not_reached_stays_so(tmp_path: Path) -> None:
    recorded = Facts(
        values={"train.duration_s": 2.0}, not_applicable={"inference.perplexity": "training did not finish"}
    )

    facts = fit_facts(make_recording(tmp_path, WITH_STAGE), recorded, SPEC, [GENERATION])

    assert facts.not_applicable == {"inference.perplexity": "training did not finish"}


def test_folder_in_the_recorded_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match="lies in the recorded run's folder"):
        require_apart(RunDir(tmp_path / "again"), make_recording(tmp_path, None))


def test_a_new_ceiling_judges_what_was_seen_on_stdout(validate: Call, judge_again: Call) -> None:
    faults = "loss=10:99.0;log=empty"
    recorded = validate(faults)

    run = judge_again(recorded, "loss.ceiling=50", faults=faults)

    assert recorded.facts["values"]["watch.max_loss"] == pytest.approx(99, abs=0.1)
    assert (run.code, run.check("loss_ceiling")["status"]) == (1, "failed")


@pytest.mark.parametrize(("now", "status"), [("2", "error"), ("900", "passed"), ("null", "passed")])
def test_a_new_limit_of_a_stall_is_judged_as_far_as_it_can_be_told(
    validate: Call, judge_again: Call, now: str, status: str
) -> None:
    recorded = validate("", "watch.stall_timeout=250")

    run = judge_again(recorded, f"watch.stall_timeout={now}")

    assert run.check("not_stalled")["status"] == status
    assert run.code == (0 if status == "passed" else 1)
