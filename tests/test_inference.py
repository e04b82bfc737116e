"""The inference stage through the real command line: served, asked and scored, or red for the right reason."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FAKES = Path(__file__).parent / "fakes"
Call = Callable[..., Any]
TRAINED = {"server_healthy", "completion_not_empty", "perplexity_max"}


@pytest.fixture
def serve(validate: Call, forgather_root: Any) -> Call:
    """Validates a project whose model the fake server serves: `serve("what the server does wrong", *overrides)`."""
    folder = forgather_root.root / "tools/inference_server"
    folder.mkdir(parents=True)
    shutil.copy(FAKES / "server_fake.py", folder / "server.py")

    def run(ways: str = "", *overrides: str, faults: str = "") -> Any:
        spec = ["+spec=tiny_llama_inference", "scorer=builtin", "inference.perplexity_max=1e6"]
        wrong = [f"+server.env.FAKE_SERVER='{ways}'"] if ways else []
        return validate(faults, *spec, *wrong, *overrides)

    return run


def test_a_model_that_speaks_passes_and_what_it_said_is_kept(serve: Call, workplace: Any) -> None:
    run = serve("", "inference.num_samples=3")

    values = run.facts["values"]
    assert (run.code, run.red) == (0, set()), run.stdout + run.stderr
    assert len(values["inference.texts"]) == len(values["inference.perplexities"]) == 3
    assert values["inference.perplexity"] == sorted(values["inference.perplexities"])[1]
    assert values["inference.text"] in values["inference.texts"]
    assert values["inference.model_dir"] == str(run.run_dir / "train")
    assert f"Text    {' '.join(values['inference.text'].split())} (perplexity " in run.stdout
    workplace.wait_until_empty()


def test_the_server_gets_what_forgathers_server_takes(serve: Call, forgather_root: Any) -> None:
    run = serve("die=1")

    log = (run.run_dir / "server.log").read_text(encoding="utf-8")
    assert f"loading {run.run_dir}/train" in log
    assert "RuntimeError: No model.safetensors found" in run.report["server_log_tail"][-1]
    assert forgather_root.calls()


@pytest.mark.parametrize(
    ("ways", "overrides", "words"),
    [
        ("die=1", (), "crash: exited with code 1 before it was healthy"),
        ("unhealthy", ("inference.server_timeout=2",), "launch: not healthy after 2 s"),
        ("slow=30", ("inference.server_timeout=2",), "launch: not healthy after 2 s"),
        ("broken", (), "launch: the first completion failed: POST "),
        ("die_after_health=3", (), "crash: exited with code 3"),
        ("hang", ("inference.request_timeout=2",), "launch: was not answered in full within 2 s"),
        ("answer=nonsense", (), "launch: what is not JSON: nonsense"),
        ("taken=9", (), "infrastructure: its port was taken 3 times"),
    ],
)
def test_a_server_that_fails_is_red_with_the_reason(
    serve: Call, workplace: Any, ways: str, overrides: tuple[str, ...], words: str
) -> None:
    run = serve(ways, *overrides)

    assert (run.code, run.red) == (1, TRAINED), run.stdout + run.stderr
    failure, _, said = words.partition(": ")
    assert said in run.check("server_healthy")["message"]
    assert run.report["failure"] == failure
    workplace.wait_until_empty()


def test_an_empty_completion_is_red(serve: Call) -> None:
    run = serve("empty")

    assert (run.code, run.red) == (1, {"completion_not_empty"})


def test_a_repetition_loop_is_red_where_it_is_bounded(serve: Call) -> None:
    run = serve("repeat", "inference.distinct_2_min=0.3")

    assert (run.code, run.red) == (1, {"distinct_2_min"})


def test_a_port_that_is_lost_twice_is_found_the_third_time(serve: Call) -> None:
    run = serve("taken=2")

    assert (run.code, run.facts["values"]["inference.server_attempts"]) == (0, 3)


def test_a_chatty_server_is_heard_out(serve: Call) -> None:
    run = serve("chatty=100000000")

    assert run.code == 0
    assert (run.run_dir / "server.log").stat().st_size >= 99_000_000


def test_perplexity_above_its_bound_is_red(serve: Call) -> None:
    run = serve("", "inference.perplexity_max=1.01")

    assert (run.code, run.red) == (1, {"perplexity_max"})


def test_the_stage_is_skipped_when_training_did_not_finish(serve: Call) -> None:
    run = serve("", faults="fail_at=5")

    stage = [run.check(name) for name in sorted(TRAINED)]
    assert run.code == 1
    assert "finished" in run.red
    assert {(check["status"], check["message"]) for check in stage} == {("skipped", "training did not finish")}


def test_a_model_whose_training_was_ended_early_is_not_served(serve: Call) -> None:
    """SIGTERM is answered by a final record and an exit code of 0, as if the run were complete."""
    run = serve("", faults="loss=40:NaN;hang_at=60;obliging")

    assert run.report["reason"].startswith("numerics: loss is nan at step 40; stopped at step 50 of ")
    assert (run.facts["values"]["train.finished"], run.facts["values"]["train.returncode"]) == (True, 0)
    assert run.check("server_healthy")["message"] == "training was ended early"
    assert not (run.run_dir / "server.log").exists()


def test_a_stage_that_was_not_run_is_never_a_pass(serve: Call) -> None:
    names = ("returncode", "log_complete", "finished", "all_steps", "forbidden_stderr", "steps_logged", "finite_loss")
    off = [f"checks.{name}=null" for name in (*names, "final_loss_max", "loss_drop")]

    run = serve("", *off, faults="fail_at=5")

    assert (run.code, run.report["outcome"]) == (1, "failed")
    assert "the inference stage was not run: training did not finish" in run.stdout


def test_the_stage_is_run_although_a_loss_check_is_red(serve: Call) -> None:
    run = serve("", "loss.final_max=0.001")

    assert (run.code, run.red) == (1, {"final_loss_max"})
    assert run.check("server_healthy")["status"] == "passed"


def test_inference_none_wins_over_the_specs_body(serve: Call) -> None:
    run = serve("die=1", "inference=none")

    assert (run.code, run.red) == (0, set())
    assert run.check("server_healthy")["message"] == "there is no inference stage"
    assert not (run.run_dir / "server.log").exists()


def test_a_scorer_that_is_not_to_be_had_is_said_before_training(serve: Call, forgather_root: Any) -> None:
    run = serve("", "scorer.model=/nowhere/model")

    assert (run.code, run.run_dir, forgather_root.calls()) == (2, None, [])
    assert "scorer.model=/nowhere/model" in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_server_that_is_not_installed_is_said_before_training(serve: Call, forgather_root: Any) -> None:
    run = serve("", "server=vllm")

    assert (run.code, run.run_dir, forgather_root.calls()) == (2, None, [])
    assert "server.program: 'vllm' was not found" in run.stderr


@pytest.fixture
def cached(workplace: Any) -> None:
    workplace.env["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))


def test_the_shipped_spec_trains_serves_and_speaks(shipped_runs: Path) -> None:
    (run_dir,) = shipped_runs.glob("*-tiny_llama_inference")

    report, facts = (json.loads((run_dir / name).read_text()) for name in ("report.json", "facts.json"))
    values = facts["values"]
    assert report["outcome"] == "passed"
    assert values["inference.texts"][0].strip() != ""
    assert values["inference.completion_tokens"] <= 50
    assert values["inference.is_loopback"] is True
    assert not (run_dir / "train/checkpoints").exists()


@pytest.mark.usefixtures("cached")
def test_a_model_that_was_not_trained_is_red_for_its_perplexity(fgvalidate: Call) -> None:
    unbounded = ("loss.final_max=null", "loss.drop_min=null", "min_steps_logged=0", "loss.no_nan=false")

    run = fgvalidate("+spec=tiny_llama_inference", "max_steps=1", *unbounded)

    assert (run.code, run.red) == (1, {"perplexity_max"}), run.stdout + run.stderr


def test_what_a_recorded_model_said_is_judged_by_new_bounds_but_for_no_other_question(
    serve: Call, fgvalidate: Call
) -> None:
    recorded = serve("")
    words = f"judge={recorded.run_dir}"

    tight = fgvalidate(words, "inference.perplexity_max=0.5")
    scorer = fgvalidate(words, "scorer=gpt2")
    prompt = fgvalidate(words, "inference.prompt=Hm")

    assert recorded.code == 0, recorded.stdout + recorded.stderr
    assert (tight.code, tight.red) == (1, {"perplexity_max"})
    assert (scorer.code, scorer.red) == (1, {"perplexity_max"})
    assert scorer.report["advice"][0] == (
        "The recorded run had scorer.name='builtin', this spec says 'gpt2': its perplexities are no evidence."
    )
    assert prompt.red == {"server_healthy", "completion_not_empty", "perplexity_max"}
    assert "inference.prompt='Once upon a time', this spec says 'Hm'" in prompt.check("perplexity_max")["message"]
