"""Specs under pytest, as real sessions: what is collected and selected, what a reader sees, and what is left behind."""

import dataclasses
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parent.parent
FLAT = Path(__file__).parent / "forgather_specs"
HANGING = "hang_at=15;workers=2"
STUBBORN = f"{HANGING};dataloader;ignore_sigterm"


@dataclass(frozen=True)
class Session:
    """What one session of pytest left."""

    code: int
    stdout: str
    stderr: str
    junit: ET.Element | None
    """What `--junitxml` wrote; None: nothing."""

    @property
    def outcomes(self) -> dict[str, str]:
        """How each test ended, by its name."""
        return {test.get("name", ""): next(iter(self._list_results(test)), "passed") for test in self._tests}

    @property
    def _tests(self) -> list[ET.Element]:
        assert self.junit is not None, self.stdout + self.stderr
        return list(self.junit.iter("testcase"))

    @staticmethod
    def _list_results(test: ET.Element) -> Iterator[str]:
        return (child.tag for child in test if child.tag in {"failure", "error", "skipped"})

    def properties(self, name: str) -> dict[str, str]:
        """The properties of one test."""
        (test,) = (test for test in self._tests if test.get("name") == name)
        return {each.get("name", ""): each.get("value", "") for each in test.iter("property")}

    @property
    def collected(self) -> list[str]:
        """The node ids that `--collect-only -q` printed."""
        return [line for line in self.stdout.splitlines() if "::" in line]

    @property
    def report(self) -> str:
        """What is shown of failures and errors."""
        return self.stdout.partition("= short test summary info =")[0]


@dataclass(frozen=True)
class Pytest:
    """A folder with settings of its own, in which pytest is called."""

    workplace: Any
    env: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return Path(self.workplace.folder)

    @property
    def junit_path(self) -> Path:
        return self.folder.parent / "junit.xml"

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "pytest", "--junitxml", str(self.junit_path), "-rA", *args]

    def run(self, *args: str, cwd: Path | None = None) -> Session:
        self.junit_path.unlink(missing_ok=True)
        done = subprocess.run(
            self.argv(*args),
            cwd=cwd or self.folder,
            env=self.workplace.env | self.env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        junit = ET.parse(self.junit_path).getroot() if self.junit_path.is_file() else None
        return Session(done.returncode, done.stdout, done.stderr, junit)

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*args),
            cwd=self.folder,
            env=self.workplace.env | self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def write_settings(self, *lines: str) -> None:
        (self.folder / "pytest.ini").write_text("\n".join(["[pytest]", *lines]) + "\n", encoding="utf-8")

    def write_test(self) -> None:
        """Writes an ordinary test, `tests/test_plain.py::test_plain`."""
        (self.folder / "tests").mkdir()
        (self.folder / "tests/test_plain.py").write_text("def test_plain():\n    pass\n", encoding="utf-8")


@pytest.fixture
def session(workplace: Any, tmp_path: Path) -> Pytest:
    """pytest in a folder that has a pytest.ini, with a root of its own for temporary folders."""
    found = Pytest(workplace, {"PYTEST_DEBUG_TEMPROOT": str(tmp_path)})
    found.write_settings()
    return found


@pytest.fixture
def specs(specs: Any, workplace: Any) -> Any:
    """Hydra specs, in `conf/spec` of the folder that pytest is called in."""
    return dataclasses.replace(specs, folder=workplace.folder / "conf")


SMOKE, SLOW, PLAIN = ["integration", "smoke"], ["integration", "slow"], ["integration"]
SHIPPED = {
    "tiny_experiment.yaml": "tiny_experiment_smoke",
    "tiny_llama.yaml": "tiny_llama",
    "tiny_llama_inference.yaml": "tiny_llama_inference",
}


@pytest.mark.parametrize(
    ("markers", "files"),
    [
        ("smoke", ["tiny_experiment.yaml"]),
        ("integration and not slow", ["tiny_experiment.yaml", "tiny_llama.yaml"]),
        ("integration", ["tiny_experiment.yaml", "tiny_llama.yaml", "tiny_llama_inference.yaml"]),
    ],
)
@pytest.mark.parametrize("folder", [ROOT / "conf/spec", FLAT], ids=["hydra", "flat"])
def test_tiers_select_what_they_say(session: Pytest, markers: str, files: list[str], folder: Path) -> None:
    run = session.run("--fg-specs", str(folder), "-m", markers, "--collect-only", "-q", "--strict-markers")

    names = {path.name: path.stem if folder == FLAT else SHIPPED[path.name] for path in map(Path, files)}
    place = "tests/forgather_specs" if folder == FLAT else "conf/spec"
    assert (run.code, run.collected) == (0, [f"{place}/{file}::{names[file]}" for file in files])


def test_passing_spec_has_properties_and_leaves_nothing_here(session: Pytest, specs: Any) -> None:
    specs.write("good", markers=["integration", "my-own"])

    run = session.run("--fg-specs", "conf/spec", "--strict-markers", "-p", "no:cacheprovider")

    assert (run.code, run.outcomes) == (0, {"good": "passed"})
    properties = run.properties("good")
    assert list(properties) == ["loss", "run_dir"]
    facts = json.loads((Path(properties["run_dir"]) / "facts.json").read_text(encoding="utf-8"))
    assert properties["loss"] == str(facts["values"]["loss.final"])
    assert Path(properties["run_dir"]).is_relative_to(session.env["PYTEST_DEBUG_TEMPROOT"])
    assert {path.name for path in session.folder.iterdir()} == {"conf", "pytest.ini"}
    assert re.search(
        r"^finished +passed +true ", run.stdout, re.MULTILINE
    )  # -rA shows the reports of those that passed


def test_recorded_multirun_is_judged_again_spec_by_spec(
    session: Pytest, specs: Any, fgvalidate: Any, forgather_root: Any
) -> None:
    specs.write("good")
    specs.write("red")
    recorded = fgvalidate(*specs.multirun("good", "red"))
    specs.write("red", loss={"final_max": 0.01})
    num_calls = len(forgather_root.calls())
    root = recorded.run_dir.relative_to(session.folder)

    run = session.run("--fg-specs", "conf/spec", "--fg-override", f"judge={root}")

    assert (run.code, run.outcomes) == (1, {"good": "passed", "red": "failure"}), run.stdout
    assert len(forgather_root.calls()) == num_calls
    assert f"Judged  {recorded.run_dir}/1-red, recorded " in run.report


def test_subject_does_not_learn_that_pytest_runs_it(session: Pytest, specs: Any, forgather_root: Any) -> None:
    specs.write("good")

    session.run("--fg-specs", "conf")

    (call,) = forgather_root.calls()
    assert [name for name in call["env"] if name.startswith("PYTEST_")] == []


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_red_spec_shows_its_checks_first_cause_and_command(
    session: Pytest, specs: Any, options: tuple[str, ...]
) -> None:
    specs.write("good")
    specs.write("red", "loss=20:NaN;stderr=CUDA is sad", watch={"fail_fast": False})

    run = session.run("--fg-specs", "conf/spec", "--fg-override", "max_steps=20", *options)

    cause = "numerics: loss is nan at step 20 (finite_loss)"
    assert (run.code, run.outcomes) == (1, {"good": "passed", "red": "failure"})
    assert re.search(r"^finite_loss +failed +1 +== 0 +the first is nan at step 20", run.report, re.MULTILINE)
    assert re.search(rf"^FAILED red in [\d.]+ s: {re.escape(cause)}$", run.report, re.MULTILINE)
    assert "The last lines of stderr:\n" in run.report
    assert "\n  CUDA is sad\n" in run.report
    command = f"python -m fgvalidate --config-dir {session.folder / 'conf'} +spec=red max_steps=20\n"
    assert command in run.report.replace(sys.executable, "python")
    assert f"FAILED conf/spec/red.yaml::red - {cause[:30]}" in run.stdout
    assert "Traceback" not in run.stdout + run.stderr
    assert ".py:" not in run.report
    assert "Training complete:" in run.report.partition("Captured stdout call")[2]


def test_too_few_gpus_are_a_skip_with_the_reason(session: Pytest, specs: Any) -> None:
    specs.write("huge", gpu_requirement=4)

    run = session.run("--fg-specs", "conf/spec")

    assert (run.code, run.outcomes) == (0, {"huge": "skipped"})
    assert "SKIPPED [1] conf/spec/huge.yaml:1: it needs 4 GPUs, none is available" in run.stdout


BAD_LINE = "conf/spec/bad.yaml:14: loss.finl_max: no such key. Did you mean 'final_max'?"


def test_bad_spec_is_a_collection_error_in_a_line(session: Pytest, specs: Any) -> None:
    specs.write("bad", loss={"finl_max": 3})
    specs.write("good")

    stopped = session.run("--fg-specs", "conf/spec")
    run = session.run("--fg-specs", "conf/spec", "--continue-on-collection-errors")

    assert (stopped.code, "good" in stopped.outcomes) == (2, False)
    assert (run.code, run.outcomes["good"]) == (1, "passed")
    assert re.search(rf"^_+ ERROR collecting conf/spec/bad.yaml _+\n{re.escape(BAD_LINE)}\n", run.report, re.MULTILINE)
    assert "Traceback" not in run.stdout + run.stderr


def test_bad_flat_spec_is_a_collection_error_in_a_line(session: Pytest) -> None:
    text = (FLAT / "tiny_llama.yaml").read_text(encoding="utf-8")
    (session.folder / "flat").mkdir()
    (session.folder / "flat/bad.yaml").write_text(f"{text}gpu_requirment: 1\n", encoding="utf-8")
    line = len(text.splitlines()) + 1

    run = session.run("--fg-specs", "flat")

    assert run.code == 2
    assert f"flat/bad.yaml:{line}: gpu_requirment: no such key. Did you mean 'gpu_requirement'?" in run.report
    assert "Traceback" not in run.stdout + run.stderr


def test_spec_that_is_red_as_expected_is_an_xfail_and_such_a_check_a_warning(session: Pytest, specs: Any) -> None:
    specs.write("diverges", "loss=20:NaN", xfail="no warmup")
    specs.write("high", loss={"final_max": 1.0}, xfail_checks={"final_loss_max": "20 steps are too few"})

    run = session.run("--fg-specs", "conf/spec")

    assert run.code == 0
    line = r"^XFAIL conf/spec/diverges.yaml::diverges - .*red as expected \(no warmup\): numerics: "
    assert re.search(line, run.stdout, re.MULTILINE)
    assert "1 passed, 1 xfailed" in run.stdout
    assert "final_loss_max is red as expected: 20 steps are too few" in run.stdout


def test_spec_that_cannot_be_validated_fails_with_the_line(session: Pytest, specs: Any) -> None:
    specs.write("lost", project_dir="nowhere")

    run = session.run("--fg-specs", "conf/spec")

    assert (run.code, run.outcomes) == (1, {"lost": "failure"})
    assert re.search(
        r"^ERROR lost: spec: conf/spec/lost.yaml:\d+: project_dir: no such folder: nowhere", run.report, re.MULTILINE
    )
    assert "Traceback" not in run.stdout + run.stderr


@pytest.fixture
def start(
    session: Pytest, specs: Any, wait_until: Callable[..., None]
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a session with one hanging spec, and waits until it trains."""
    started: list[subprocess.Popen[str]] = []

    def run(faults: str, *args: str) -> subprocess.Popen[str]:
        specs.write("hanging", faults)
        started.append(session.start("--fg-specs", "conf/spec", *args))
        wait_until(lambda: is_training(session.folder.parent) or started[-1].poll() is not None)
        assert started[-1].poll() is None, started[-1].communicate()
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def is_training(folder: Path) -> bool:
    printed = folder.rglob("train.stdout")
    return any("  0.0160 " in path.read_text(encoding="utf-8") for path in printed)


def test_spec_whose_process_is_killed_is_a_failure(start: Any, workplace: Any) -> None:
    process = start(HANGING)
    (app,) = (each for each in psutil.Process(process.pid).children(recursive=True) if is_app(each))

    app.kill()

    stdout, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "ERROR hanging: infrastructure: lost: its process was killed by signal 9" in stdout
    workplace.wait_until_empty()


def is_app(process: psutil.Process) -> bool:
    """Whether it is the application itself: not its supervisor, and not the job that it has forked."""
    parent = process.parent()
    return "fgvalidate" in process.cmdline() and parent is not None and "fgvalidate" not in parent.cmdline()


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "xdist"])
@pytest.mark.parametrize("faults", [HANGING, STUBBORN], ids=["hanging", "stubborn"])
def test_ctrl_c_ends_the_spec_and_is_reported_as_usual(
    start: Any, workplace: Any, faults: str, options: tuple[str, ...]
) -> None:
    process = start(faults, *options)

    os.killpg(process.pid, signal.SIGINT)

    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 2, stdout + stderr
    assert "!! " in stdout
    assert "KeyboardInterrupt" in stdout
    workplace.wait_until_empty(limit_s=30)


def test_killed_session_leaves_nothing(start: Any, workplace: Any) -> None:
    process = start(STUBBORN)

    process.kill()

    workplace.wait_until_empty(limit_s=60)


def test_time_limit_of_pytest_ends_the_spec(session: Pytest, specs: Any, workplace: Any) -> None:
    specs.write("hanging", HANGING)

    run = session.run("--fg-specs", "conf/spec", "--timeout=15")

    assert (run.code, run.outcomes) == (1, {"hanging": "failure"})
    assert "Timeout (>15.0s)" in run.stdout
    assert workplace.find_processes() == []


def test_first_failure_stops_the_session(session: Pytest, specs: Any, forgather_root: Any) -> None:
    specs.write("a", "fail_at=5")
    specs.write("b")

    run = session.run("--fg-specs", "conf/spec", "-x")

    assert (run.code, run.outcomes, len(forgather_root.calls())) == (1, {"a": "failure"}, 1)


def test_only_what_failed_last_is_run_again(session: Pytest, specs: Any) -> None:
    specs.write("good")
    specs.write("red", "fail_at=5")
    session.run("--fg-specs", "conf/spec")
    specs.write("red")

    run = session.run("--fg-specs", "conf/spec", "--lf")

    assert (run.code, run.outcomes) == (0, {"red": "passed"})


@pytest.mark.parametrize(
    "args",
    [
        ["conf/spec/a.yaml::id_a", "--fg-specs", "conf"],
        ["conf/spec/a.yaml", "--fg-specs=conf/spec"],
        ["--fg-specs", "conf/spec", "-k", "id_a"],
        ["--fg-specs", "conf/spec", "-k", "not slow and not id_c"],
        ["--fg-specs", "conf/spec", "--deselect", "conf/spec/b.yaml", "--deselect", "conf/spec/c.yaml::id_c"],
    ],
    ids=["node_id", "file", "name", "marker", "deselect"],
)
def test_one_spec_is_selected_in_the_ways_of_pytest(session: Pytest, specs: Any, args: list[str]) -> None:
    session.write_test()
    for name, markers in {"a": PLAIN, "b": SLOW, "c": PLAIN}.items():
        specs.write(name, test_id=f"id_{name}", markers=markers)

    run = session.run("--collect-only", "-q", *args)

    assert (run.code, run.collected) == (0, ["conf/spec/a.yaml::id_a"])


SPEC, TEST = "conf/spec/a.yaml::a", "tests/test_plain.py::test_plain"


@pytest.mark.parametrize(
    ("settings", "args", "collected"),
    [
        ([], ["--fg-specs", "conf"], [SPEC]),
        ([], ["--fg-specs", "conf", "tests"], [TEST, SPEC]),
        ([], ["--fg-specs", "conf", "."], [SPEC, TEST]),
        ([], [], [TEST]),
        (["fg_specs = conf"], [], [SPEC, TEST]),
        (["fg_specs = conf/spec", "testpaths = tests"], [], [TEST, SPEC]),
        (["fg_specs = conf/spec", "testpaths = tests"], ["tests"], [TEST]),
        (["fg_specs = conf/spec", "testpaths = tests"], ["conf"], [SPEC]),
        (["fg_specs = conf/spec"], ["conf/spec/a.yaml"], [SPEC]),
        (["fg_specs = nowhere", "testpaths = tests"], ["--fg-specs", "conf"], [SPEC]),
    ],
)
def test_folders_of_the_command_line_and_of_the_settings(
    session: Pytest, specs: Any, settings: list[str], args: list[str], collected: list[str]
) -> None:
    session.write_settings(*settings)
    session.write_test()
    specs.write("a")

    run = session.run("--strict-config", "--collect-only", "-q", *args)

    assert (run.code, run.collected) == (0, collected), run.stdout + run.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--fg-specs", "nowhere"], "ERROR: --fg-specs: no such folder: {folder}/nowhere"),
        (["--fg-override", "max_steps=2"], "ERROR: --fg-override: there are no specs to override; name their folder"),
        (["--fg-specs", "conf", "--fg-override", "max_steps"], "ERROR: --fg-override: max_steps: must be KEY=VALUE"),
        (["--fg-specs", "conf", "--fg-override=--cfg=job"], "ERROR: --fg-override: --cfg=job: must be KEY=VALUE"),
        (["--fg-specs", "conf", "-p", "no:tmpdir"], "ERROR: --fg-specs: it needs pytest's plugin tmpdir"),
    ],
    ids=["no_folder", "no_specs", "no_value", "option", "no_tmpdir"],
)
def test_wrong_usage_is_a_line(session: Pytest, specs: Any, args: list[str], message: str) -> None:
    specs.write("a")

    run = session.run(*args)

    said = run.stderr.strip().splitlines()
    assert (run.code, len(said)) == (4, 1)
    assert said[0].startswith(message.format(folder=session.folder))


def test_link_that_leads_nowhere_is_no_spec_that_is_passed_over(session: Pytest, specs: Any) -> None:
    specs.write("a")
    (session.folder / "conf/spec/gone.yaml").symlink_to("nowhere.yaml")

    run = session.run("--fg-specs", "conf/spec")

    assert run.code == 4
    assert "conf/spec/gone.yaml: a link that leads nowhere; mend or remove it" in run.stdout + run.stderr


def test_folder_without_specs_is_no_test(session: Pytest) -> None:
    (session.folder / "empty").mkdir()

    run = session.run("--fg-specs", "empty")

    assert (run.code, "no tests ran" in run.stdout) == (5, True)


def test_folder_that_is_named_twice_counts_once(session: Pytest, specs: Any) -> None:
    specs.write("a")
    (session.folder / "link").symlink_to(session.folder / "conf")

    run = session.run("--fg-specs", "conf", "--fg-specs", "conf/spec", "--fg-specs", "link", "--collect-only", "-q")

    assert len(run.collected) == 1


def test_session_of_another_root_and_the_strictest_settings(session: Pytest, specs: Any, tmp_path: Path) -> None:
    specs.write("good")
    other = tmp_path / "other"
    (other / "inner").mkdir(parents=True)
    options = ["--rootdir", str(other), "-W", "error", "--import-mode=importlib", "-p", "no:cacheprovider"]

    run = session.run("--fg-specs", "../../work/conf", *options, cwd=other / "inner")

    assert (run.code, run.outcomes) == (0, {"good": "passed"}), run.stdout + run.stderr


def test_override_wins_and_is_repeatable(session: Pytest, specs: Any, forgather_root: Any) -> None:
    specs.write("good", max_steps=20)
    overrides = ["--fg-override", "max_steps=30", "--fg-override", "+dynamic_args.learning_rate=0.5"]

    run = session.run("--fg-specs", "conf/spec", *overrides)

    (call,) = forgather_root.calls()
    argv = call["argv"]
    assert run.code == 0
    assert (argv[argv.index("--max-steps") + 1], argv[argv.index("--learning-rate") + 1]) == ("30", "0.5")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("loss.finl_max=3", "command line: loss.finl_max: no such key. Did you mean 'final_max'?"),
        ("max_steps=20,30", "command line: max_steps=20,30: several values need a multirun"),
        ("+spec=b", "command line: +spec=a +spec=b: choose one spec"),
        ("backend=nothing", "backend=nothing: there is no such backend"),
    ],
)
def test_wrong_override_is_a_collection_error(session: Pytest, specs: Any, override: str, line: str) -> None:
    specs.write("a")
    specs.write("b")

    run = session.run("--fg-specs", "conf/spec", "--fg-override", override, "-k", "a")

    assert run.code == 2
    assert f"\n{line}" in run.report


def test_warnings_of_a_spec_are_warnings_of_pytest(session: Pytest, specs: Any) -> None:
    specs.write("good", "stderr=be careful", stderr={"warn_patterns": ["careful"]})
    text = "SpecWarning: warn_stderr is careful, expected has none of careful (line 3: be careful)"

    warned = session.run("--fg-specs", "conf/spec")
    strict = session.run("--fg-specs", "conf/spec", "-W", "error")
    ignored = session.run("--fg-specs", "conf/spec", "-W", "ignore::fgvalidate.pytest_items.SpecWarning")

    assert (warned.code, f"  conf/spec/good.yaml:1: {text}\n" in warned.stdout) == (0, True)
    assert (strict.code, strict.outcomes) == (1, {"good": "failure"})
    assert "Traceback" not in strict.stdout
    assert (ignored.code, "SpecWarning" in ignored.stdout) == (0, False)


def test_key_that_is_left_out_is_a_warning(session: Pytest, forgather_root: Any) -> None:
    text = (FLAT / "tiny_llama.yaml").read_text(encoding="utf-8")
    (session.folder / "flat").mkdir()
    (session.folder / "flat/new.yaml").write_text(f"{text}brand_new: 1\n", encoding="utf-8")
    words = [f"backend.root={forgather_root.root}", "backend.cpu_ok=true", "unknown_keys=warn", "max_steps=20"]

    run = session.run("--fg-specs", "flat", *(f"--fg-override={word}" for word in words))

    assert (run.code, run.outcomes) == (0, {"tiny_llama": "passed"}), run.stdout
    assert "SpecWarning: ignored: flat/new.yaml:" in run.stdout


def test_output_is_shown_at_once_where_nothing_is_captured(session: Pytest, specs: Any) -> None:
    specs.write("good")

    run = session.run("--fg-specs", "conf/spec", "-s")

    assert re.search(r"^PASSED 1 spec: 1 passed in ", run.stdout, re.MULTILINE)


def test_text_of_a_trainer_moves_no_cursor(session: Pytest, specs: Any) -> None:
    specs.write("red", "stdout=\x1b[2Jgone;stderr=\x1b[31mred;fail_at=5")

    run = session.run("--fg-specs", "conf/spec")

    assert "\\x1b[2Jgone" in run.stdout
    assert "\x1b" not in run.stdout


@pytest.mark.parametrize("policy", ["all", "failed"])
def test_folder_of_a_run_is_kept_as_those_of_tmp_path(session: Pytest, specs: Any, policy: str) -> None:
    session.write_settings(f"tmp_path_retention_policy = {policy}")
    specs.write("good")
    specs.write("red", "fail_at=5")

    run = session.run("--fg-specs", "conf/spec")

    kept = [name for name in ("good", "red") if Path(run.properties(name)["run_dir"]).is_dir()]
    assert kept == (["good", "red"] if policy == "all" else ["red"])


def test_workers_never_share_a_gpu(session: Pytest, specs: Any, simulated_gpus: Any) -> None:
    simulated_gpus(1)
    for name in ("a", "b", "c"):
        specs.write(name, "step_s=0.05", gpu_requirement=1)

    run = session.run("--fg-specs", "conf/spec", "-n", "2")

    assert (run.code, run.outcomes) == (0, dict.fromkeys("abc", "passed"))
    run_dirs = [Path(run.properties(name)["run_dir"]) for name in "abc"]
    values = [json.loads((path / "facts.json").read_text(encoding="utf-8"))["values"] for path in run_dirs]
    spans = sorted((each["train.started_at"], each["train.started_at"] + each["train.duration_s"]) for each in values)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
    assert len({path.parents[2].name for path in run_dirs}) == 2  # both workers had one


def test_documented_specs_run_unedited(session: Pytest, forgather_root: Any) -> None:
    shutil.copytree(FLAT, session.folder / "specs")
    words = ["backend.cpu_ok=true", "inference=none", f"backend.root={forgather_root.root}"]

    run = session.run("--fg-specs", "specs", *(f"--fg-override={word}" for word in words))

    assert (run.code, set(run.outcomes.values()), len(run.outcomes)) == (0, {"passed"}, 3), run.stdout


@pytest.mark.parametrize(
    ("words", "outcome"),
    [([], "passed"), (["+dynamic_args.learning_rate=0", "loss.drop_min=0.3"], "failure")],
    ids=["learns", "learns_nothing"],
)
def test_smoke_spec_on_the_builtin_backend(session: Pytest, words: list[str], outcome: str) -> None:
    overrides = [f"--fg-override={word}" for word in ("backend=builtin", "max_steps=60", *words)]

    run = session.run("--fg-specs", str(FLAT), "-m", "smoke", *overrides)

    assert run.outcomes == {"tiny_experiment": outcome}, run.stdout


def test_other_sessions_load_nothing_of_ours(session: Pytest) -> None:
    heavy = {"hydra", "omegaconf", "torch", "transformers", "rich", "yaml", "fgvalidate.pytest_items"}
    (session.folder / "test_modules.py").write_text(
        f"import sys\ndef test_modules():\n    assert 'fgvalidate.pytest_plugin' in sys.modules\n"
        f"    assert {heavy!r} & set(sys.modules) == set()\n",
        encoding="utf-8",
    )

    run = session.run("-p", "no:hydra_pytest")

    assert run.code == 0, run.stdout


def test_session_that_only_could_run_specs_does_not_load_hydra(session: Pytest, specs: Any) -> None:
    session.write_settings("fg_specs = conf/spec")
    specs.write("a")
    (session.folder / "test_modules.py").write_text(
        "import sys\ndef test_modules():\n"
        "    assert {'hydra', 'omegaconf', 'torch', 'rich'} & set(sys.modules) == set()\n",
        encoding="utf-8",
    )

    run = session.run("-p", "no:hydra_pytest", "test_modules.py")

    assert run.code == 0, run.stdout


def test_registers_of_the_projects_own_tests_stay_theirs(session: Pytest, specs: Any) -> None:
    specs.write("a")
    (session.folder / "test_own.py").write_text(
        "from omegaconf import OmegaConf\n"
        "def test_own():\n    OmegaConf.register_new_resolver('mul', lambda x: x)\n"
        "    assert not OmegaConf.has_resolver('fact')\n",
        encoding="utf-8",
    )

    run = session.run("--fg-specs", "conf", "test_own.py")

    assert run.outcomes == {"test_own": "passed", "a": "passed"}, run.stdout


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"test_id": "a"}, "conf/spec/b.yaml: test_id: 'a' is also that of a.yaml; each needs its own"),
        ({"markers": ["a:b"]}, "markers: 'a:b' is no name that pytest takes; rename it"),
        ({"markers": ["_a"]}, "markers: '_a' is no name that pytest takes; rename it"),
        ({"markers": ["xfail"]}, "markers: is a mark of pytest's own"),
        ({"markers": ["integration", "skip"]}, "markers: is a mark of pytest's own"),
        ({"test_id": "a/b::c"}, "test_id: must be usable as a folder's name, not 'a/b::c'"),
    ],
    ids=["test_id", "colon", "underscore", "xfail", "skip", "slash"],
)
def test_names_that_pytest_cannot_tell_apart_or_take_are_errors(
    session: Pytest, specs: Any, fields: dict[str, Any], line: str
) -> None:
    specs.write("a")
    specs.write("b", **fields)

    run = session.run("--fg-specs", "conf/spec", "--collect-only")

    assert run.code == 2
    assert line in run.report


def test_hydra_specs_in_a_folder_of_another_name_are_an_error(session: Pytest, specs: Any) -> None:
    specs.write("a")
    (session.folder / "conf/spec").rename(session.folder / "mine")

    run = session.run("--fg-specs", "mine")

    assert run.code == 2
    assert (
        "mine/a.yaml:1: it begins with `# @package`, and the folder of such specs is named 'spec'; move it to"
        in run.report
    )
