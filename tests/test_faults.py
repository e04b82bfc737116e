"""Every planted fault is found: through the real command line, on a trainer whose exit code is 0 whatever happens."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Validate = Callable[..., Any]

UNREADABLE = {"log_complete", "finished", "all_steps", "steps_logged", "finite_loss", "final_loss_max", "loss_drop"}
NO_LOG = UNREADABLE | {"expected_files"}
NO_LOSS = {"steps_logged", "finite_loss", "final_loss_max", "loss_drop"}
LAST_LOSS = {"finite_loss", "final_loss_max", "loss_drop"}
TRAINING_KEYS = [
    "timestamp",
    "global_step",
    "epoch",
    "loss",
    "grad_norm",
    "max_grad_norm",
    "tokens",
    "total_tokens",
    "total_flos",
    "learning_rate",
]
EVALUATION_KEYS = ["timestamp", "global_step", "epoch", "eval_loss"]
FINAL_KEYS = [
    "timestamp",
    "global_step",
    "epoch",
    "train_runtime",
    "train_samples",
    "step",
    "train_samples_per_second",
    "train_steps_per_second",
    "effective_batch_size",
    "total_tokens",
    "tokens_per_second",
]
FLOPS_KEYS = ["total_flops", "flops_per_second"]


def fault(name: str, faults: str, red: set[str], *words: str, overrides: tuple[str, ...] = ()) -> Any:
    """A row: what goes wrong, the checks that are red for it, and words that say why; "check: words"."""
    return pytest.param(faults, overrides, red, words, id=name)


FAULTS = [
    fault("exit_code_1", "exit=1", {"returncode"}, "returncode: 1 == 0"),
    fault(
        "traceback_after_a_good_run",
        "stderr=Traceback (most recent call last):",
        {"forbidden_stderr"},
        "forbidden_stderr: line 3: Traceback (most recent call last):",
    ),
    fault(
        "python_error_while_training",
        "fail_at=75",
        {"finished", "all_steps", "forbidden_stderr"},
        "finished: the log has no final record",
        "finished: it ends with record 7, and training was not completed",
        "all_steps: 70 >= 200",
        "all_steps: the last step logged before training broke off",
        "forbidden_stderr: line 11:     raise RuntimeError(",
    ),
    fault(
        "python_error_before_the_first_record",
        "fail_at=5",
        NO_LOSS | {"finished", "all_steps", "forbidden_stderr"},
        "finished: the log has no final record",
        "steps_logged: 0 >= 2",
        "final_loss_max: no loss.final: the log holds no training record",
    ),
    fault(
        "worker_killed",
        "kill_at=75;dataloader",
        UNREADABLE,
        "log_complete: empty == 'complete'",
        "log_complete: the log is empty",
        "no_orphans: they outlived the command and had to be ended",
    ),
    fault(
        "torchrun_killed",
        "kill_torchrun_at=75;hang_at=76;workers=2",
        UNREADABLE,
        "log_complete: empty == 'complete'",
        "no_orphans: they outlived the command and had to be ended",
    ),
    fault(
        "unknown_flag",
        "",
        NO_LOG | {"returncode"},
        "returncode: 2 == 0",
        "log_complete: missing == 'complete'",
        "log_complete: the trainer left nothing there",
        overrides=("+dynamic_args.nonsense=1",),
    ),
    fault(
        "nan_at_the_first_step",
        "loss=10:NaN",
        {"finite_loss", "loss_drop"},
        "finite_loss: 1 == 0",
        "finite_loss: the first is nan at step 10",
    ),
    fault("nan_in_the_middle", "loss=100:NaN", {"finite_loss"}, "finite_loss: the first is nan at step 100"),
    fault(
        "nan_at_the_last_step",
        "loss=200:NaN",
        LAST_LOSS,
        "finite_loss: the first is nan at step 200",
        "final_loss_max: {'float': 'nan'} <= 6.0",
    ),
    fault("infinity_in_the_middle", "loss=100:Infinity", {"finite_loss"}, "finite_loss: the first is inf at step 100"),
    fault(
        "minus_infinity_at_the_last_step",
        "loss=200:-Infinity",
        LAST_LOSS,
        "finite_loss: the first is -inf at step 200",
        "final_loss_max: {'float': '-inf'} <= 6.0",
    ),
    fault("loss_null_in_the_middle", "loss=100:null", {"finite_loss"}, "finite_loss: at step 100"),
    fault("loss_null_at_the_last_step", "loss=200:null", LAST_LOSS, "finite_loss: at step 200"),
    fault("loss_text_at_the_last_step", 'loss=200:"4.1"', LAST_LOSS, "finite_loss: at step 200"),
    fault("loss_beyond_any_float", f"loss=100:1{400 * '0'}", {"finite_loss"}, "finite_loss: at step 100"),
    fault(
        "nan_at_the_last_step_that_is_allowed",
        "loss=200:NaN",
        {"final_loss_max", "loss_drop"},
        "final_loss_max: {'float': 'nan'} <= 6.0",
        overrides=("loss.no_nan=false",),
    ),
    fault(
        "nan_against_a_lower_bound",
        "loss=200:NaN",
        LAST_LOSS | {"final_loss_min"},
        "final_loss_min: {'float': 'nan'} >= 1.0",
        overrides=("loss.final_min=1.0",),
    ),
    fault(
        "log_cut_in_its_final_record",
        "log=cut_in_record",
        {"log_complete", "finished"},
        "log_complete: truncated == 'complete'",
        "log_complete: breaks off after record 20",
    ),
    fault(
        "log_cut_after_a_whole_record",
        "log=cut_after_record",
        {"log_complete", "finished", "all_steps"},
        "log_complete: truncated == 'complete'",
        "log_complete: breaks off after record 10",
        "all_steps: 100 >= 200",
    ),
    fault(
        "closing_bracket_missing",
        "log=no_bracket",
        {"log_complete"},
        "log_complete: breaks off after record 21, without its closing bracket",
    ),
    fault("log_empty", "log=empty", UNREADABLE, "log_complete: empty == 'complete'", "all_steps: the log is empty"),
    fault(
        "log_with_garbage_in_the_middle",
        "log=garbage",
        {"log_complete", "finished", "all_steps"},
        "log_complete: corrupt == 'complete'",
        "log_complete: cannot be read beyond record 10",
    ),
    fault(
        "log_of_nothing_but_brackets",
        "log=nested",
        UNREADABLE,
        "log_complete: corrupt == 'complete'",
    ),
    fault(
        "no_log",
        "log=none",
        NO_LOG,
        "log_complete: missing == 'complete'",
        "log_complete: no trainer_logs.json in",
        "log_complete: it holds config.json",
        "expected_files: missing: trainer_logs.json",
    ),
    fault(
        "log_of_an_earlier_run",
        "log=old",
        NO_LOG,
        "log_complete: stale == 'complete'",
        "log_complete: an earlier run's log",
    ),
    fault(
        "log_of_an_earlier_run_with_a_new_date",
        "log=old_with_new_date",
        NO_LOG,
        "log_complete: stale == 'complete'",
        "final_loss_max: an earlier run's log",
    ),
    fault(
        "expected_file_missing",
        "",
        {"expected_files"},
        "expected_files: missing: model.safetensors, *.bin",
        overrides=("expected_files=[trainer_logs.json,model.safetensors,'events.out.*','*.bin']",),
    ),
    fault("too_few_steps_logged", "", {"steps_logged"}, "steps_logged: 20 >= 21", overrides=("min_steps_logged=21",)),
    fault("fewer_steps_than_asked", "stop_after=150", {"all_steps"}, "all_steps: 150 >= 200"),
    fault("final_record_missing", "no_final", {"finished"}, "finished: it ends with record 20"),
    fault("training_goes_on_after_the_final_record", "train_on", {"finished"}, "finished: it ends with record 22"),
    fault("loss_too_high", "loss_from=9.0;loss_to=6.5", {"final_loss_max"}, "final_loss_max: <= 6.0"),
    fault(
        "loss_flat", "loss_from=5.0;loss_to=5.0", {"loss_drop"}, "loss_drop: 0.0 >= 0.1", "loss_drop: from 5 at step 10"
    ),
    fault("loss_rises", "loss_from=3.0;loss_to=5.0", {"loss_drop"}, "loss_drop: -0."),
    fault("loss_rises_from_below_0", "loss=10:-1.0", {"loss_drop"}, "loss_drop: -5."),
    fault(
        "loss_against_half_of_infinity",
        "loss=10:Infinity",
        {"halved"},
        overrides=(
            "loss.no_nan=false",
            "loss.drop_min=null",
            "+checks.halved='${check.le:${fact:loss.final},${mul:0.5,${fact:loss.first}}}'",
        ),
    ),
    fault(
        "forbidden_text_at_the_end_of_a_long_stderr",
        "stderr_flood=60000;stderr=CUDA error: device-side assert triggered",
        {"forbidden_stderr"},
        "forbidden_stderr: line 60003: CUDA error: device-side assert triggered",
    ),
    fault(
        "fewer_steps_than_logging_steps",
        "",
        NO_LOSS,
        "steps_logged: training finished without logging a step: its logging_steps is above 5 steps",
        "steps_logged: max_steps at least logging_steps",
        overrides=("max_steps=5",),
    ),
]


@pytest.mark.parametrize(("faults", "overrides", "red", "words"), FAULTS)
def test_a_fault_is_red(
    validate: Validate, faults: str, overrides: tuple[str, ...], red: set[str], words: tuple[str, ...]
) -> None:
    # To the end, since what else is red depends on when the run is ended.
    run = validate(faults, "watch.fail_fast=false", *overrides)

    assert (run.code, run.report["outcome"], run.red) == (1, "failed", red), run.stdout + run.stderr
    for name, _, text in (word.partition(": ") for word in words):
        check = run.check(name)
        assert text in f"{check['actual']} {check['expected']}; {check['message']}"


def test_no_orphan_of_a_killed_launcher_is_left(validate: Validate, workplace: Any) -> None:
    run = validate("kill_torchrun_at=75;hang_at=76;ignore_sigterm;workers=2;dataloader")

    assert workplace.find_processes() == []
    assert run.facts["values"]["train.returncode"] == 0
    assert len(run.facts["values"]["train.orphans"]) == 4


def test_a_loss_that_may_be_nan_is_not_judged(validate: Validate) -> None:
    run = validate("loss=100:NaN", "loss.no_nan=false")

    assert (run.code, run.red) == (0, set())
    assert run.check("finite_loss")["status"] == "skipped"


def test_a_timeout_ends_workers_that_ignore_sigterm(validate: Validate, workplace: Any) -> None:
    run = validate("hang_at=75;ignore_sigterm;workers=2;dataloader", "timeout=1")

    workplace.wait_until_empty()
    assert (run.code, run.red) == (1, UNREADABLE | {"returncode", "in_time"})
    assert run.check("in_time")["message"] == "still running after 1 s, and ended"
    assert run.facts["values"]["train.survivors"] == []


def test_a_timeout_is_red_although_the_command_then_exits_with_0_and_a_complete_log(validate: Validate) -> None:
    run = validate("hang_at=75;obliging", "timeout=1")

    assert (run.code, run.red) == (1, {"in_time"})
    assert run.facts["values"]["train.returncode"] == 0
    assert run.check("log_complete")["status"] == "passed"
    assert run.check("finished")["status"] == "passed"


@pytest.mark.parametrize(
    "line", ["at rank 0 3 ... waiting", "rank host 1 2 10.0.0.1 is up", "a b , 1 2 3"], ids=["dots", "address", "comma"]
)
def test_a_line_on_stdout_that_resembles_a_step_changes_nothing(validate: Validate, line: str) -> None:
    run = validate(f"step_s=0.01;stdout={line}", "max_steps=100")

    assert (run.code, run.stderr) == (0, "")


def test_a_warn_pattern_on_stderr_is_a_warning(validate: Validate) -> None:
    run = validate("stderr=FutureWarning: soon", "stderr.warn_patterns=[FutureWarning]")

    assert (run.code, run.red, run.warned) == (0, set(), {"warn_stderr"})
    assert "line 3: FutureWarning: soon" in run.check("warn_stderr")["message"]


def test_the_command_in_the_report_repeats_the_run(validate: Validate, workplace: Any) -> None:
    run = validate(
        'stop_after=150;stderr=CUDA "error": 1', "stderr.forbidden_patterns=['CUDA \"error\": 1', Traceback]"
    )

    done = subprocess.run(
        ["/bin/sh", "-c", run.report["command"]],
        cwd=workplace.folder,
        env=workplace.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.code, run.red) == (1, {"all_steps", "forbidden_stderr"})
    assert (done.returncode, done.stdout.splitlines()[-1].partition(": ")[2]) == (1, run.report["reason"])


def test_nothing_to_judge_is_refused(validate: Validate) -> None:
    names = [check["name"] for check in validate().report["checks"]]

    run = validate("", *(f"checks.{name}=null" for name in names))

    assert (run.code, run.run_dir) == (2, None)
    assert "checks: none is declared" in run.stderr


def make_checkout(root: Path) -> None:
    (root / ".gitignore").write_text("__pycache__/\n", encoding="utf-8")
    identity = ["-c", "user.name=tester", "-c", "user.email=tester@example.invalid"]
    for arguments in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *arguments], cwd=root, check=True)


def test_a_file_created_in_the_checkout_is_a_warning(validate: Validate, forgather_root: Any) -> None:
    make_checkout(forgather_root.root)

    run = validate("touch=output.txt")

    assert (run.code, run.red, run.warned) == (0, set(), {"repo_clean"})
    assert run.check("repo_clean")["actual"] == ["examples/tutorials/tiny_llama/output.txt"]


def test_a_clean_checkout_stays_clean(validate: Validate, forgather_root: Any) -> None:
    make_checkout(forgather_root.root)

    run = validate()

    assert (run.code, run.red, run.warned) == (0, set(), set())
    assert run.check("repo_clean")["status"] == "passed"


def test_an_expected_file_is_found_by_its_pattern(validate: Validate) -> None:
    run = validate("", "expected_files=['events.out.tfevents.*',trainer_logs.json,'../../config.json']")

    assert (run.code, run.red) == (0, set())


@pytest.mark.parametrize(
    ("faults", "max_steps", "keys", "red"),
    [
        pytest.param(
            "logging_steps=100;eval_steps=500",
            500,
            [*[TRAINING_KEYS] * 5, EVALUATION_KEYS, FINAL_KEYS + FLOPS_KEYS],
            set(),
            id="500_steps",
        ),
        pytest.param(
            "logging_steps=1;eval_steps=10;loss_to=1.0",
            25,
            [
                *[*[TRAINING_KEYS] * 10, EVALUATION_KEYS] * 2,
                *[TRAINING_KEYS] * 5,
                FINAL_KEYS + FLOPS_KEYS,
            ],
            set(),
            id="each_step",
        ),
        pytest.param("logging_steps=100", 20, [FINAL_KEYS], NO_LOSS, id="no_training_record"),
        pytest.param(
            "logging_steps=100;fail_at=75",
            200,
            [],
            NO_LOSS | {"finished", "all_steps", "forbidden_stderr"},
            id="after_a_python_error",
        ),
    ],
)
def test_the_logs_that_real_runs_leave_are_judged_rightly(
    validate: Validate, faults: str, max_steps: int, keys: list[list[str]], red: set[str]
) -> None:
    run = validate(faults, f"max_steps={max_steps}")

    text = Path(run.facts["values"]["training_log.path"]).read_text(encoding="utf-8")
    records = json.loads(text)
    assert [list(record) for record in records] == keys
    assert text == "[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]"
    assert (run.code, run.red) == (1 if red else 0, red)
    assert run.facts["values"]["training_log.state"] == "complete"
    if records:
        assert (records[-1]["step"], records[-1]["global_step"]) == (max_steps - 1, max_steps)
        assert run.facts["values"]["train.global_step"] == max_steps


def test_warnings_are_named_in_the_last_line(validate: Validate) -> None:
    run = validate("stderr=FutureWarning: soon", "stderr.warn_patterns=[FutureWarning]")

    assert run.stdout.splitlines()[-1].endswith(": with warnings: warn_stderr")


def test_a_loss_that_does_not_fall_is_pointed_out_where_no_bound_would_notice(validate: Validate) -> None:
    run = validate("loss_from=3;loss_to=3", "loss.final_max=4", "loss.drop_min=null")

    assert run.code == 0
    assert "The loss did not fall, and no bound demands it: loss.drop_min=0.1 would be red." in run.stdout


def test_several_specs_end_in_one_line_and_one_exit_code(validate: Validate) -> None:
    run = validate("", "-m", "+spec=tiny_llama", "loss.final_max=9,0.01")

    assert run.code == 1
    assert run.stdout.splitlines()[-1].startswith("FAILED 2 specs: 1 failed, 1 passed in ")


@pytest.mark.parametrize("faults", ["remove_run", "report_is_a_folder"])
def test_a_trainer_that_takes_the_runs_folder_away_is_one_line(validate: Validate, workplace: Any, faults: str) -> None:
    trainer = workplace.folder / "trainer"
    harm = {"remove_run": 'rm -r "$(dirname "$d")"', "report_is_a_folder": 'mkdir "$d/../report.json"'}[faults]
    script = '#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = --output-dir ] && d=$2; shift; done\n'
    trainer.write_text(f"{script}{harm}\n", encoding="utf-8")
    trainer.chmod(0o755)

    run = validate("", f"backend.program={trainer}")

    assert run.code == 2
    assert run.stderr.count("\n") == 1
    assert "the trainer removed or replaced it" in run.stderr
