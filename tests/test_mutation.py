"""The mutation test: every fault is noticed by the check that is meant for it, and survives without that check."""

import dataclasses
import io
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import make_checkout, make_workplace, read_strict_json
from finished_suites import make_mutated_suite
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from fgvalidate import mutation
from fgvalidate.composition import load_spec, register_schema
from fgvalidate.errors import SpecError
from fgvalidate.faults import CATALOGUE
from fgvalidate.mutation import Trial, require_sound_run, run_mutation_test
from fgvalidate.overview import print_suite
from fgvalidate.recording import read_recording
from fgvalidate.report import Mutation, Report
from fgvalidate.run_dir import RunDir
from fgvalidate.spec import FAULTS

FAKES = Path(__file__).parent / "fakes"
ROOT = Path(__file__).parents[1]
Call = Callable[..., Any]
Change = Callable[[list[dict[str, Any]]], object]
STORY = (
    " there was a little boy named Luke. Every day, he played in the yard with his friend Ruby. One day, his dad gave "
    "him a small seed. If you take care of it, it will grow, said his mom."
)
ANSWER = json.dumps({"choices": [{"text": STORY, "finish_reason": "length"}], "usage": {"completion_tokens": 50}})

LOGGED = ("steps_logged", "finite_loss", "final_loss_max", "loss_drop")
UNFINISHED = ("log_complete", "finished")
SERVED = ("server_healthy", "completion_not_empty", "perplexity_max", "distinct_2_min")
NOTICED_BY: dict[str, tuple[str, ...]] = {
    "exit_code": ("returncode",),
    "timeout": ("in_time",),
    "worker_killed": (*UNFINISHED, "all_steps"),
    "traceback": ("forbidden_stderr",),
    "no_log": (*UNFINISHED, "all_steps", "expected_files", *LOGGED),
    "empty_log": (*UNFINISHED, "all_steps", *LOGGED),
    "truncated_log": UNFINISHED,
    "corrupt_log": (*UNFINISHED, "all_steps"),
    "old_log": (*UNFINISHED, "all_steps", "expected_files", *LOGGED),
    "nan_first": ("finite_loss", "loss_drop"),
    "nan_middle": ("finite_loss",),
    "nan_last": ("finite_loss", "final_loss_max", "loss_drop"),
    "inf_first": ("finite_loss", "loss_drop"),
    "inf_middle": ("finite_loss",),
    "inf_last": ("finite_loss", "final_loss_max", "loss_drop"),
    "loss_flat": ("final_loss_max", "loss_drop"),
    "loss_x1_5": ("final_loss_max", "loss_drop"),
    "loss_x3": ("final_loss_max", "loss_drop"),
    "diverging_tail": ("final_loss_max", "loss_drop"),
    "fewer_steps": ("all_steps",),
    "no_final_record": ("finished",),
    "missing_file": ("expected_files",),
    "unhealthy_server": SERVED,
    "completion_500": SERVED,
    "empty_text": ("completion_not_empty", "distinct_2_min"),
    "one_token": ("distinct_2_min",),
    "repetition_loop": ("perplexity_max", "distinct_2_min"),
    "shuffled_words": ("perplexity_max",),
    "random_tokens": ("perplexity_max",),
}
OF_THE_SERVER = list(NOTICED_BY)[-7:]


@dataclass(frozen=True)
class Recorded:
    """Runs on the fake trainer, made once, and how to go on with them."""

    workplace: Any
    words: tuple[str, ...]
    """What chooses the backend, and the bounds on the loss."""
    stage: tuple[str, ...]
    """Further ones for a spec with an inference stage."""
    training: Any
    """The folder of a run without the inference stage."""
    speaking: Any
    """The folder of one with it."""

    def mutate(self, run_dir: Path, *words: str) -> Any:
        spec = ["+spec=tiny_llama_inference", *self.stage] if run_dir == self.speaking else ["+spec=tiny_llama"]
        return self.workplace.run(*spec, *self.words, f"mutate={run_dir}", *words)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    workplace = make_workplace(tmp_path_factory.mktemp("recorded"))
    checkout = make_checkout(workplace)
    server = checkout.root / "tools/inference_server/server.py"
    server.parent.mkdir(parents=True)
    shutil.copy(FAKES / "server_fake.py", server)
    words = (
        *("backend=forgather", f"backend.root={checkout.root}", "backend.cpu_ok=true", "scorer=builtin"),
        *("loss.drop_min=0.25", "loss.final_max=4.8"),
    )
    says = f"+server.env.FAKE_SERVER='answer={ANSWER}'"
    stage = ("inference.num_samples=2", "inference.perplexity_max=12", "inference.distinct_2_min=0.5", says)
    training = workplace.run("+spec=tiny_llama", *words)
    speaking = workplace.run("+spec=tiny_llama_inference", *words, *stage)
    for run in (training, speaking):
        assert run.code == 0, run.stdout + run.stderr
    return Recorded(workplace, words, stage, training.run_dir, speaking.run_dir)


def load_composition(run_dir: Path, *off: str, **changes: Any) -> DictConfig:
    """Returns what a run was composed of, with some checks switched off and some values changed."""
    register_schema()
    cfg = OmegaConf.load(run_dir / ".hydra/config.yaml")
    assert isinstance(cfg, DictConfig)
    for name in off:
        cfg.checks[name] = None
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    return cfg


def make_trial(run_dir: Path, folder: Path, *off: str, **changes: Any) -> Trial:
    cfg = load_composition(run_dir, *off, **changes)
    spec = load_spec(cfg)
    own = RunDir(folder)
    own.create()
    recording = read_recording(run_dir, test_id=spec.test_id)
    return Trial(spec=spec, checks=cfg.checks, recording=recording, run_dir=own, repeat="again")


def conduct(trial: Trial) -> Report:
    require_sound_run(trial)
    return run_mutation_test(trial)


@pytest.fixture
def plant(recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Plants one fault: `plant("name", "checks that are off", ..., key=value)`."""

    def run(name: str, *off: str, run_dir: Path | None = None, **changes: Any) -> tuple[Mutation, Report]:
        monkeypatch.setattr(mutation, "CATALOGUE", {name: CATALOGUE[name]})
        chosen = run_dir or (recorded.speaking if name in OF_THE_SERVER else recorded.training)
        trial = make_trial(chosen, tmp_path / "mutated", *off, **changes)
        report = conduct(trial)
        return report.mutations[0], report

    return run


def copy_run(run_dir: Path, copy: Path, change: Change | None = None) -> Path:
    """Copies a run; `change` changes the records of its log."""
    shutil.copytree(run_dir, copy)
    (path,) = copy.glob("train/runs/*/trainer_logs.json")
    records = json.loads(path.read_text())
    if change is not None:
        change(records)
    path.write_text(json.dumps(records))
    return copy


@pytest.fixture
def copy(recorded: Recorded, tmp_path: Path) -> Call:
    """Copies the run with the inference stage, or the one without: `copy(speaking=True)`."""
    return lambda *, speaking=False: copy_run(recorded.speaking if speaking else recorded.training, tmp_path / "copy")


@pytest.fixture
def spoiled_copy(recorded: Recorded, tmp_path: Path) -> Call:
    """Copies the run without the inference stage, with changed records in its log: `spoiled_copy(change)`."""
    return lambda change: copy_run(recorded.training, tmp_path / "copy", change)


def change_facts(run_dir: Path, **values: Any) -> None:
    """Changes what was recorded of a run; None: nothing was."""
    facts = json.loads((run_dir / "facts.json").read_text())
    known = {**facts["values"], **values}
    facts["values"] = {name: value for name, value in known.items() if value is not None}
    (run_dir / "facts.json").write_text(json.dumps(facts))


def test_the_catalogue_is_what_specs_may_waive() -> None:
    assert tuple(CATALOGUE) == FAULTS == tuple(NOTICED_BY)


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_noticed_by_the_check_that_is_meant_for_it(plant: Call, name: str) -> None:
    found, report = plant(name)

    assert (found.status, found.noticed_by) == ("noticed", NOTICED_BY[name]), found
    assert NOTICED_BY[name][0] in found.reason.partition(";")[0]
    assert (report.outcome, report.reason) == ("passed", "1 noticed")


@pytest.mark.parametrize("name", FAULTS)
def test_fault_survives_without_that_check(plant: Call, name: str) -> None:
    found, report = plant(name, *NOTICED_BY[name])

    assert (found.status, found.noticed_by) == ("survived", ())
    assert report.outcome == "failed"
    assert report.reason == f"spec: 1 fault survives: {name}"


@pytest.mark.parametrize("name", ["worker_killed", "no_final_record"])
def test_stage_that_a_fault_keeps_from_running_is_noticed_without_any_check(
    recorded: Recorded, plant: Call, name: str
) -> None:
    found, _ = plant(name, *NOTICED_BY[name], run_dir=recorded.speaking)

    assert (found.status, found.noticed_by) == ("noticed", ())
    assert found.reason == "evidence: the inference stage was not run: training did not finish"


def test_check_that_only_warns_notices_nothing(plant: Call) -> None:
    found, _ = plant("traceback", stderr__forbidden_patterns=[], stderr__warn_patterns=["Traceback"])

    assert (found.status, found.reason) == ("survived", "warn_stderr only warns")


def test_check_that_warns_without_a_fault_as_well_is_not_named(plant: Call, copy: Call) -> None:
    run_dir = copy()
    change_facts(run_dir, **{"train.orphans": ["7 a helper"]})

    found, _ = plant("exit_code", "returncode", run_dir=run_dir)

    assert (found.status, found.reason) == ("survived", "no check is red")


def test_expected_check_notices_nothing(plant: Call) -> None:
    found, _ = plant("exit_code", xfail_checks={"returncode": "it always fails on this host"})

    assert found.status == "survived"


def test_each_expected_file_is_missed_in_turn(plant: Call, recorded: Recorded, tmp_path: Path) -> None:
    copy = copy_run(recorded.training, tmp_path / "copy")
    change_facts(copy, **{"files.found": {"trainer_logs.json": True, "events*": True}})
    only_one = "${check.contains_all:${fact:files.found},[events*]}"

    found, _ = plant("missing_file", run_dir=copy, checks={"expected_files": only_one})

    assert (found.status, found.noticed_by) == ("survived", ("expected_files",))
    assert found.reason == "trainer_logs.json: no check is red"


def keep(number: int) -> Change:
    """Leaves as many training records, and the final one."""

    def change(records: list[dict[str, Any]]) -> None:
        del records[number:-1]

    return change


def set_losses(value: Any) -> Change:
    def change(records: list[dict[str, Any]]) -> None:
        for record in records[:-1]:
            record["loss"] = value

    return change


UNBOUNDED = ("final_loss_max", "loss_drop", "steps_logged", "finite_loss", "all_steps", "finished")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("nan_middle", keep(2), "the log holds 2 of the 3 training records that it takes for a middle"),
        ("inf_last", keep(1), "the log holds one training record, which is the first"),
        ("diverging_tail", keep(1), "the log holds one training record, and a tail begins behind another"),
        ("nan_first", keep(0), "the log holds no training record"),
        ("nan_first", set_losses(math.nan), "the loss there is not finite as it is"),
        ("loss_flat", set_losses(2.0), "the recorded losses are all the same as it is"),
        ("loss_flat", keep(1), "the recorded losses are all the same as it is"),
        ("loss_x1_5", set_losses(0.0), "the last loss is 0, and no share of it makes it worse"),
        ("loss_x3", set_losses(None), "the last loss is nan, and no share of it makes it worse"),
        ("diverging_tail", set_losses(0), "the first loss is 0, which is no measure of how far a loss may rise"),
        ("truncated_log", list.clear, "the log holds no record"),
        ("no_final_record", list.pop, "the log holds no final record"),
        ("fewer_steps", lambda records: records[-1].pop("global_step"), "the final record says nothing of two steps"),
    ],
)
def test_fault_that_would_change_nothing_is_not_applicable(
    plant: Call, spoiled_copy: Call, name: str, change: Any, reason: str
) -> None:
    copy = spoiled_copy(change)

    found, report = plant(name, *UNBOUNDED, run_dir=copy)

    assert (found.status, found.noticed_by) == ("not_applicable", ())
    assert found.reason.startswith(reason)
    assert (report.outcome, report.reason) == ("failed", "spec: no fault is noticed: 1 not applicable")


@pytest.mark.parametrize("name", OF_THE_SERVER)
def test_faults_of_the_server_need_an_inference_stage(plant: Call, recorded: Recorded, name: str) -> None:
    found, _ = plant(name, run_dir=recorded.training)

    assert (found.status, found.reason) == ("not_applicable", "there is no inference stage")


def test_traceback_needs_a_stderr_to_stand_in(plant: Call, recorded: Recorded, tmp_path: Path) -> None:
    copy = copy_run(recorded.training, tmp_path / "copy")
    (copy / "train.stderr").unlink()

    found, _ = plant("traceback", "forbidden_stderr", run_dir=copy)

    assert (found.status, found.reason) == ("not_applicable", "the run removed the file that took its stderr")


def test_missing_file_needs_an_expected_one(plant: Call, recorded: Recorded, tmp_path: Path) -> None:
    copy = copy_run(recorded.training, tmp_path / "copy")
    change_facts(copy, **{"files.found": {}})

    found, _ = plant("missing_file", run_dir=copy, expected_files=[])

    assert (found.status, found.reason) == ("not_applicable", "no expected file is there as it is")


def test_file_that_is_missing_anyway_is_not_planted(plant: Call, recorded: Recorded, tmp_path: Path) -> None:
    copy = copy_run(recorded.training, tmp_path / "copy")
    change_facts(copy, **{"files.found": {"trainer_logs.json": True, "optional": False}})

    found, _ = plant("missing_file", run_dir=copy)

    assert (found.status, found.noticed_by) == ("noticed", ("expected_files",))


OFF = (*UNFINISHED, "all_steps", "expected_files", *LOGGED, "returncode", "in_time", *SERVED[1:])
LIKE_THAT = "the run is like that as it is"


@pytest.mark.parametrize(
    ("name", "facts", "reason"),
    [
        ("exit_code", {"train.returncode": 1}, LIKE_THAT),
        ("timeout", {"train.timed_out": True, "train.duration_s": 300.0}, LIKE_THAT),
        ("old_log", {"training_log.state": "stale"}, LIKE_THAT),
        ("no_log", {"training_log.path": None}, "the run left no log"),
        ("nan_first", {"training_log.path": None}, "the run left no log"),
        ("one_token", {"inference.texts": [" Luke"] * 2}, "the completion is like that as it is"),
        ("empty_text", {"inference.texts": [""] * 2}, "the completion is like that as it is"),
        ("one_token", {"inference.texts": [], "inference.text": None}, "there is no completion"),
        ("unhealthy_server", {"inference.texts": [], "inference.text": None}, "there is no completion"),
    ],
)
def test_fault_that_was_there_already_is_not_applicable(
    plant: Call, copy: Call, name: str, facts: dict[str, Any], reason: str
) -> None:
    run_dir = copy(speaking=name in OF_THE_SERVER)
    change_facts(run_dir, **facts)

    found, _ = plant(name, *OFF, run_dir=run_dir)

    assert (found.status, found.reason) == ("not_applicable", reason)


def test_log_that_cannot_be_read_has_no_record_to_spoil(plant: Call, copy: Call) -> None:
    run_dir = copy()
    (path,) = run_dir.glob("train/runs/*/trainer_logs.json")
    path.write_text(path.read_text().removesuffix("]"))

    found, _ = plant("nan_first", "log_complete", run_dir=run_dir)

    assert (found.status, found.reason) == ("not_applicable", "the log is no whole array of records as it is")


@pytest.mark.parametrize("loss", [-2.0, 2.0])
def test_last_loss_gets_worse_whatever_its_sign(plant: Call, recorded: Recorded, tmp_path: Path, loss: float) -> None:
    copy = copy_run(recorded.training, tmp_path / "copy", set_losses(loss))
    change_facts(copy, **{"loss.final": loss})
    low = f"${{check.le:${{fact:loss.final}},{loss}}}"

    found, _ = plant("loss_x1_5", *UNBOUNDED, run_dir=copy, checks={"low": low})

    assert found.noticed_by == ("low",)
    assert found.reason.startswith(f"convergence: low is {loss + 1:g}, expected <= {loss}")


def test_waived_fault_is_shown_with_its_reason(plant: Call) -> None:
    found, report = plant("exit_code", "returncode", mutations__waive={"exit_code": "the launcher always says 0"})

    assert (found.status, found.reason) == ("waived", "the launcher always says 0")
    # Not to have noticed anything is no pass.
    assert (report.outcome, report.reason) == ("failed", "spec: no fault is noticed: 1 waived")


def test_waiver_of_a_fault_that_is_noticed_is_said_to_be_needless(plant: Call) -> None:
    found, report = plant("exit_code", mutations__waive={"exit_code": "the launcher always says 0"})

    assert (found.status, report.outcome) == ("noticed", "passed")
    assert "mutations.waive.exit_code: no longer needed for backend=forgather, where the fault is noticed" in (
        report.advice
    )


def test_nothing_of_the_planted_logs_is_left(plant: Call, tmp_path: Path) -> None:
    plant("nan_middle")

    assert [path.name for path in (tmp_path / "mutated").iterdir()] == ["report.json"]


def refuse(run_dir: Path, tmp_path: Path, *off: str, **changes: Any) -> str:
    trial = make_trial(run_dir, tmp_path / "mutated", *off, **changes)
    with pytest.raises(SpecError) as caught:
        conduct(trial)
    return str(caught.value)


def test_run_that_is_red_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    said = refuse(recorded.training, tmp_path, loss__final_max=1.0)

    assert "the recorded run is not green, so no fault could be told from it: convergence: final_loss_max is 4." in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_steps": 100}, "the recorded run had max_steps=200, this spec says 100"),
        (
            {"dynamic_args__learning_rate": 0.1},
            "the recorded run had dynamic_args.learning_rate=not set",
        ),
        ({"config": "other.yaml"}, "the recorded run had config='train_tiny_llama.yaml', this spec says 'other.yaml'"),
        (
            {"backend__name": "mine", "loss__final_max": 9},
            "the recorded run had backend.name='forgather'",
        ),
    ],
)
def test_run_of_another_spec_is_refused(
    recorded: Recorded, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    said = refuse(recorded.training, tmp_path, **changes)

    assert f"not a run of this spec: {words}" in said
    assert said.endswith("say what it was run with")


def test_run_with_another_question_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    assert "the recorded run had inference.max_tokens=50, this spec says 7" in refuse(
        recorded.speaking, tmp_path, inference__max_tokens=7
    )


def test_spec_that_is_expected_to_be_red_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    assert refuse(recorded.training, tmp_path, xfail="a known bug").startswith("xfail: the spec is expected to be red")


def test_log_that_says_something_else_than_was_recorded_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    copy = copy_run(recorded.training, tmp_path / "copy", lambda records: records.pop())

    said = refuse(copy, tmp_path)

    assert "what is left of the run does not say what was recorded of it: finished was passed, and is failed" in said


def test_log_that_is_gone_is_refused_and_no_folder_is_left(recorded: Recorded, tmp_path: Path) -> None:
    copy = copy_run(recorded.training, tmp_path / "copy")
    shutil.rmtree(copy / "train")

    run = recorded.mutate(copy)

    assert (run.code, run.run_dir) == (2, None)
    assert "trainer_logs.json: the recorded run's log cannot be read (No such file or directory)" in run.stderr


def test_run_without_a_report_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    copy = copy_run(recorded.training, tmp_path / "copy")
    (copy / "report.json").unlink()

    assert "report.json: no such file, so it is not known what the run was asked for" in refuse(copy, tmp_path)


# Through the real command line


def test_every_fault_is_noticed(recorded: Recorded) -> None:
    run = recorded.mutate(recorded.speaking)

    found = {entry["name"]: (entry["status"], tuple(entry["noticed_by"])) for entry in run.report["mutations"]}
    assert run.code == 0, run.stdout + run.stderr
    assert found == {name: ("noticed", checks) for name, checks in NOTICED_BY.items()}
    assert run.stdout.splitlines()[-1].startswith("PASSED tiny_llama_inference in ")
    assert run.stdout.splitlines()[-1].endswith(" s: 29 noticed")
    assert "repetition_loop   noticed  perplexity_max, distinct_2_min" in run.stdout
    assert {path.name for path in run.run_dir.iterdir()} == {".hydra", "report.json", "report.html"}
    assert "Checks without a fault" in (run.run_dir / "report.html").read_text()
    assert run.report["mutations"][0]["reason"] in (run.run_dir / "report.html").read_text().replace("&#39;", "'")
    assert recorded.workplace.find_processes() == []


def test_fault_that_survives_is_named_and_the_exit_code_is_1(recorded: Recorded) -> None:
    waiver = "+mutations.waive.timeout='it hangs at times'"
    run = recorded.mutate(recorded.training, "checks.returncode=null", "checks.in_time=null", waiver)

    assert run.code == 1, run.stdout + run.stderr
    assert run.report["outcome"] == "failed"
    assert run.report["reason"] == "spec: 1 fault survives: exit_code (1 waived, 20 noticed, 7 not applicable)"
    assert f"not applicable, there is no inference stage: {', '.join(OF_THE_SERVER)}" in run.stdout
    assert "it hangs at times" in run.stdout


def test_another_run_is_refused_in_one_line(recorded: Recorded) -> None:
    before = set(recorded.workplace.folder.glob("outputs/*/*"))
    run = recorded.mutate(recorded.training, "max_steps=50")

    assert run.code == 2
    assert run.stderr.startswith("fgvalidate: mutate=outputs/tiny_llama/")
    assert run.stderr.count("\n") == 1
    assert set(recorded.workplace.folder.glob("outputs/*/*")) == before


def test_multirun_shows_a_table_of_specs_and_faults(specs: Any, workplace: Any) -> None:
    specs.write("one", loss={"final_max": 6.3})
    specs.write("two", loss={"final_max": 9.9})
    first = workplace.run(*specs.multirun("one", "two"), "max_steps=20,40")
    assert first.code == 0, first.stdout + first.stderr

    run = workplace.run(*specs.multirun("one", "two"), "max_steps=20,40", f"mutate={first.run_dir}")

    names = ["one[max_steps=20]", "one[max_steps=40]", "two[max_steps=20]", "two[max_steps=40]"]
    by_spec = {entry["name"]: entry["report"] for entry in run.report["specs"]}
    steps = [report["spec"]["max_steps"] for report in by_spec.values()]
    assert run.code == 1, run.stdout + run.stderr
    assert (list(by_spec), steps) == (names, [20, 40, 20, 40])
    fates = ["noticed", "noticed", "survived", "survived"]
    assert run.report["mutations"]["loss_x1_5"] == dict(zip(names, fates, strict=True))
    summary = (run.run_dir / "summary.md").read_text()
    assert "| loss\\_x1\\_5 | final\\_loss\\_max | final\\_loss\\_max | **survived** | **survived** |" in summary
    assert "| one\\_token | - | - | - | - |" in summary
    page = (run.run_dir / "report.html").read_text()
    assert "<th>fault</th><th>one[max_steps=20]</th>" in page
    assert "loss_x1_5         final_loss_max" in run.stdout
    assert not list(run.run_dir.glob("*/train"))


def test_table_of_faults_is_printed_as_it_is(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=1000, force_terminal=False)

    print_suite(make_mutated_suite(tmp_path / "suite", "one[max_steps=20]", "[bold]\x1b[2J"), console)

    lines = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert ["fault", "one[max_steps=20]", "[bold]\\x1b[2J"] in lines
    assert ["exit_code", "survived", "survived"] in lines
    assert ["timeout", "one[max_steps=20]", "[bold]\\x1b[2J"] in lines
    assert ["exit_code", "survived", "[bold]\\x1b[2J"] in lines


def test_mutated_specs_wait_for_no_gpu(specs: Any, workplace: Any, simulated_gpus: Any) -> None:
    gpus = simulated_gpus(1)
    specs.write("one", gpu_requirement=1, loss={"final_max": 6.3})
    first = workplace.run(*specs.multirun("one"))
    assert first.code == 0, first.stdout + first.stderr
    gpus.state["gpus"] = []
    gpus.save()

    run = workplace.run(*specs.multirun("one"), f"mutate={first.run_dir}", "backend.cpu_ok=false")

    (job,) = read_strict_json(run.run_dir / "suite.json")["jobs"]
    assert (run.code, run.report["counts"]) == (1, {"failed": 1}), run.stdout + run.stderr
    assert job["gpu_requirement"] == 0
    assert workplace.run(*specs.multirun("one"), "backend.cpu_ok=false").code == 3


def test_unknown_fault_is_refused_before_anything_starts(validate: Call, forgather_root: Any) -> None:
    run = validate("", "+mutations.waive.nan_frist=x")

    assert (run.code, run.run_dir, forgather_root.calls()) == (2, None, [])
    assert "mutations.waive.nan_frist: there is no such fault. Did you mean 'nan_first'?" in run.stderr


def test_mutations_survive_a_round_trip(tmp_path: Path) -> None:
    entry = Mutation(name="exit_code", status="noticed", noticed_by=("returncode",), reason="why")
    report = Report(test_id="x", outcome="passed", reason="", command="", mutations=(entry,))
    report.write(tmp_path / "report.json")
    document = read_strict_json(tmp_path / "report.json")

    assert Report.read(tmp_path / "report.json") == report
    del document["mutations"]
    assert Report.from_document(document) == dataclasses.replace(report, mutations=())


# The shipped specs


def read_readme_table() -> dict[tuple[str, str], str]:
    """Returns the first check that notices, by spec and fault, as the README says."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").split("| fault | ", 1)[1].split("\n\n", 1)[0].splitlines()
    specs = [name.strip() for name in lines[0].strip(" |").split("|")]
    table: dict[tuple[str, str], str] = {}
    for line in lines[2:]:
        faults, *checks = [cell.strip() for cell in line.strip("|").split("|")]
        table |= {
            (spec, fault.strip("` ")): check
            for fault in faults.split(",")
            for spec, check in zip(specs, checks, strict=True)
        }
    return table


def test_shipped_specs_let_no_fault_survive(shipped_runs: Path, workplace: Any) -> None:
    run = workplace.run("-m", "+spec=glob(*)", f"mutate={shipped_runs}")

    reports = {entry["name"].removesuffix("_smoke"): entry["report"] for entry in run.report["specs"]}
    fates = {name: {entry["name"]: entry for entry in report["mutations"]} for name, report in reports.items()}
    assert run.code == 0, run.stdout + run.stderr
    assert {entry["status"] for row in fates.values() for entry in row.values()} == {"noticed", "not_applicable"}
    assert read_readme_table() == {
        (spec, fault): entry["noticed_by"][0] if entry["noticed_by"] else "-"
        for spec, row in fates.items()
        for fault, entry in row.items()
    }


@pytest.mark.parametrize(
    ("words", "code", "outcomes"),
    [((), 0, {"passed"}), (("loss.final_max=0.01",), 1, {"failed"})],
    ids=["same", "lower"],
)
def test_shipped_runs_are_judged_again(
    shipped_runs: Path, workplace: Any, words: tuple[str, ...], code: int, outcomes: set[str]
) -> None:
    run = workplace.run(f"judge={shipped_runs}", *words)

    assert run.code == code, run.stdout + run.stderr
    reports = [entry["report"] for entry in run.report["specs"]]
    assert (len(reports), {report["outcome"] for report in reports}) == (3, outcomes)
    assert all(report["judged"]["run_dir"].startswith(str(shipped_runs)) for report in reports)
