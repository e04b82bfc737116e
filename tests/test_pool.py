"""The pool: jobs that die, launchers that are killed, and what is left of either: nothing but a readable report."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fgvalidate.pool import choose_parallel, order_jobs
from fgvalidate.suite import Job

HANGING = "hang_at=15;workers=2"
STUBBORN = f"{HANGING};dataloader;ignore_sigterm"

Start = Callable[..., subprocess.Popen[str]]


def make_job(num: int, *, gpus: int = 0, expected_s: float = 0.0) -> Job:
    return Job(
        num=num,
        spec=f"s{num}",
        test_id=f"s{num}",
        name=f"s{num}",
        overrides=(),
        run_dir=f"{num}-s{num}",
        gpu_requirement=gpus,
        expected_s=expected_s,
    )


def test_largest_jobs_come_first() -> None:
    jobs = [
        make_job(0, expected_s=5),
        make_job(1, gpus=1, expected_s=9),
        make_job(2, gpus=2),
        make_job(3, expected_s=7),
    ]

    assert [job.num for job in order_jobs(jobs)] == [2, 1, 3, 0]


@pytest.mark.parametrize(
    ("requested", "num_cores", "num_places", "expected"),
    [(None, 2, 0, 1), (None, 1, 0, 1), (None, 16, 0, 8), (None, 16, 12, 12), (3, 16, 0, 3)],
)
def test_number_of_jobs_at_a_time(requested: int | None, num_cores: int, num_places: int, expected: int) -> None:
    assert choose_parallel(requested, num_cores, num_places) == expected


@pytest.fixture
def start(workplace: Any, specs: Any, wait_until: Callable[..., None]) -> Iterator[Start]:
    """Starts a multirun and waits until the named specs have begun to train."""
    started: list[subprocess.Popen[str]] = []

    def has_trained(name: str) -> bool:
        assert started[-1].poll() is None, started[-1].communicate()
        printed = workplace.folder.glob(f"outputs/multirun/*/*-{name}/train.stdout")
        return any("  0.0160 " in path.read_text(encoding="utf-8") for path in printed)

    def run(names: list[str], hanging: list[str], parallel: int) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                workplace.argv(*specs.multirun(*names), f"hydra.launcher.max_parallel={parallel}"),
                cwd=workplace.folder,
                env=workplace.env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        for name in hanging:
            wait_until(lambda name=name: has_trained(name))
        return started[-1]

    yield run
    for app in started:
        app.kill()
        app.communicate()


def find_root(workplace: Any) -> Path:
    (root,) = workplace.folder.glob("outputs/multirun/*")
    return Path(root)


def read_outcomes(root: Path) -> dict[str, tuple[str, str]]:
    report = json.loads((root / "report.json").read_text(encoding="utf-8"))
    return {spec["name"]: (spec["report"]["outcome"], spec["report"]["reason"]) for spec in report["specs"]}


def find_job_process(app: subprocess.Popen[str]) -> psutil.Process:
    """Returns the process of the one job that is running."""
    (job,) = psutil.Process(app.pid).children()
    return job


def test_job_that_is_killed_is_an_error_and_the_others_go_on(start: Start, specs: Any, workplace: Any) -> None:
    specs.write("killed", STUBBORN, timeout=900)
    specs.write("good")
    app = start(["killed", "good"], ["killed"], 1)

    find_job_process(app).kill()

    stdout, stderr = app.communicate(timeout=120)
    outcomes = read_outcomes(find_root(workplace))
    assert app.returncode == 2, stdout + stderr
    assert outcomes["good"] == ("passed", "")
    assert outcomes["killed"][0] == "error"
    assert outcomes["killed"][1].startswith("infrastructure: lost: its process was killed by signal 9")
    workplace.wait_until_empty(limit_s=60)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param((signal.SIGINT, 130, "interrupted"), id="SIGINT"),
        pytest.param((signal.SIGTERM, 143, "terminated"), id="SIGTERM"),
        pytest.param((signal.SIGHUP, 143, "terminated"), id="SIGHUP"),
    ],
)
def test_ended_multirun_reports_what_finished_and_leaves_nothing(
    start: Start, specs: Any, workplace: Any, case: tuple[int, int, str]
) -> None:
    number, code, how = case
    specs.write("good", timeout=900)
    specs.write("running", STUBBORN, timeout=300)
    specs.write("waiting", timeout=200)
    app = start(["good", "running", "waiting"], ["running"], 1)

    app.send_signal(number)

    stdout, stderr = app.communicate(timeout=120)
    workplace.wait_until_empty()
    assert app.returncode == code, stdout + stderr
    assert "Traceback" not in stdout + stderr
    assert read_outcomes(find_root(workplace)) == {
        "good": ("passed", ""),
        "running": ("error", f"ended: the multirun was {how}"),
        "waiting": ("skipped", f"not run: the multirun was {how}"),
    }
    assert stdout.splitlines()[-1].endswith(f", {how}")


def test_ctrl_c_in_a_terminal_reaches_everything_once(start: Start, specs: Any, workplace: Any) -> None:
    specs.write("running", HANGING)
    app = start(["running"], ["running"], 1)

    os.killpg(app.pid, signal.SIGINT)
    os.killpg(app.pid, signal.SIGINT)

    stdout, stderr = app.communicate(timeout=120)
    workplace.wait_until_empty()
    assert app.returncode == 130, stdout + stderr
    assert read_outcomes(find_root(workplace)) == {"running": ("error", "ended: the multirun was interrupted")}


def test_killed_multirun_leaves_nothing_running_and_can_be_reported(start: Start, specs: Any, workplace: Any) -> None:
    specs.write("good", timeout=900)
    specs.write("running", STUBBORN, timeout=300)
    specs.write("other", HANGING, timeout=200)
    app = start(["good", "running", "other"], ["running", "other"], 2)

    app.kill()

    workplace.wait_until_empty(limit_s=60)
    root = find_root(workplace)
    assert not (root / "report.json").exists()
    again = subprocess.run(
        [sys.executable, "-m", "fgvalidate.suite_reports", str(root)],
        cwd=workplace.folder,
        env=workplace.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 2, again.stdout + again.stderr
    assert read_outcomes(root) == {
        "good": ("passed", ""),
        "running": ("error", "infrastructure: lost: the multirun was killed"),
        "other": ("error", "infrastructure: lost: the multirun was killed"),
    }
    assert "killed" in again.stdout.splitlines()[-1]


def test_bug_of_ours_loses_one_spec_and_is_quoted(specs: Any, workplace: Any) -> None:
    specs.write("good")
    specs.write("broken")
    # A module that breaks the process of one spec alone.
    (workplace.folder / "sitecustomize.py").write_text(
        "import os\nimport fgvalidate.validate as v\nreal = v.train\n"
        "def train(plan, on_tick):\n"
        "    if plan.spec.test_id == 'broken':\n        raise RuntimeError('a bug')\n"
        "    return real(plan, on_tick)\n"
        "v.train = train\n",
        encoding="utf-8",
    )
    path = os.pathsep.join([str(workplace.folder), workplace.env["PYTHONPATH"]])

    run = workplace.run(*specs.multirun("good", "broken"), env={"PYTHONPATH": path})

    outcomes = read_outcomes(run.run_dir)
    assert (run.code, outcomes["good"]) == (2, ("passed", ""))
    assert outcomes["broken"][1].startswith(
        "infrastructure: lost: its process ended with exit code 1; the last it printed, in "
    )
    assert outcomes["broken"][1].endswith("RuntimeError: a bug")


def test_no_more_run_at_a_time_than_asked_for(specs: Any, workplace: Any) -> None:
    names = [f"s{number}" for number in range(5)]
    for name in names:
        specs.write(name, "step_s=0.02")

    run = workplace.run(*specs.multirun(*names), "hydra.launcher.max_parallel=2")

    rows = [json.loads(line) for line in (run.run_dir / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    spans = [(row["facts"]["values"]["train.started_at"], row["facts"]["values"]["train.duration_s"]) for row in rows]
    at_a_time = [sum(begun <= start < begun + took for begun, took in spans) for start, _ in spans]
    assert (run.code, max(at_a_time)) == (0, 2)
