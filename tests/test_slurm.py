"""Each spec is a Slurm job with its own resources; whatever becomes of a job, there is a row, and nothing stays behind.

Against a real Slurm (tests/slurm_cluster.py) and real launches, with jobs that do what they are told
(tests/fakes/slurm_app.py).
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import Cluster

from fgvalidate.errors import LaunchError, SpecError
from fgvalidate.monitor import Monitor
from fgvalidate.report import Report
from fgvalidate.suite import Job, Plan, read_results, start_suite
from fgvalidate.terminal import get_console
from hydra_plugins.fgvalidate_slurm import _guard, _queue, _submission, _watch
from hydra_plugins.fgvalidate_slurm.launcher import Settings, SlurmLauncher

ROOT = Path(__file__).parents[1]
APP = Path(__file__).parent / "fakes" / "slurm_app.py"

QUICK = {"poll_interval": 0.5, "grace": 2, "time_slack": 30}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@dataclass
class Launch:
    """One multirun on Slurm."""

    root: Path
    app: subprocess.Popen[str]
    workplace: Any
    cluster: Cluster
    wait_until: Callable[..., None]
    stdout: str = ""
    stderr: str = ""

    def finish(self, *, limit_s: float = 150.0) -> int:
        """Waits for its end; returns the exit code."""
        self.stdout, self.stderr = self.app.communicate(timeout=limit_s)
        return self.app.returncode

    @property
    def rows(self) -> dict[int, Report]:
        """The results so far, by job number."""
        return {num: row.report for num, row in read_results(self.root).items()}

    @property
    def outcomes(self) -> dict[int, str]:
        return {num: report.outcome for num, report in self.rows.items()}

    def saw(self, num: int) -> dict[str, Any]:
        """What a job saw when it started; {}: it has not."""
        path = self.root / str(num) / "saw.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def wait_for_start(self, *nums: int) -> None:
        self.wait_until(lambda: self.app.poll() is not None or all(map(self.saw, nums)))
        assert self.app.poll() is None, self.app.communicate()

    def find_job(self, num: int) -> str:
        """Returns the id under which Slurm knows a job."""
        (found,) = (
            job_id
            for job_id, name in self.cluster.list_active().items()
            if re.fullmatch(rf"fgvalidate-\w+-{num}-t{num}", name)
        )
        return found

    def find_log(self, num: int) -> str:
        """Returns the log of a job, as reasons name it."""
        return str(self.root / ".submitit" / f"{self.saw(num)['job_id']}_0_log.out")

    def ended_at(self, num: int) -> float:
        """Returns when a job was through, seconds since the epoch."""
        return float((self.root / str(num) / "ended_at").read_text(encoding="utf-8"))

    def explain(self, num: int) -> str:
        """Returns why a job has ended, without the numbers that no test can know."""
        return re.sub(r"after \d+ s", "after N s", self.rows[num].reason.removeprefix("infrastructure: "))


@dataclass
class Launcher:
    """Starts multiruns."""

    cluster: Cluster
    workplace: Any
    wait_until: Callable[..., None]
    launches: list[Launch] = field(default_factory=list)

    def __call__(
        self,
        *tasks: str,
        jobs: dict[int, dict[str, Any]] | None = None,
        path: Path | None = None,
        env: dict[str, str] | None = None,
        words: Sequence[str] = (),
        **settings: object,
    ) -> Launch:
        """Starts a multirun of one job a task.

        Args:
            tasks: What each job does.
            jobs: What the plan says of some jobs, by number.
            path: A folder to look for programs in first.
            env: More for the environment.
            words: More for the command line.
            settings: The launcher's.
        """
        root = self.workplace.folder / f"multirun{len(self.launches)}"
        plan = Plan(
            command="",
            started_at=0.0,
            jobs=tuple(
                Job(
                    num=num,
                    spec="",
                    test_id=f"t{num}",
                    name=f"t{num}",
                    overrides=(f"+does={task}",),
                    run_dir=str(num),
                    command=f"repeat {num}",
                    **{"time_limit": 30, **(jobs or {}).get(num, {})},
                )
                for num, task in enumerate(tasks)
            ),
        )
        start_suite(root, plan)
        options = [f"hydra.launcher.{name}={value}" for name, value in {**QUICK, **settings}.items()]
        argv = [sys.executable, str(APP), "-m", f"+does={','.join(tasks)}", f"hydra.sweep.dir={root}"]
        argv += ["hydra.sweep.subdir=${hydra:job.num}", "hydra/launcher=fgvalidate_slurm", *options, *words]
        environment = {**self.workplace.env, **self.cluster.env, **(env or {})}
        if path is not None:
            environment["PATH"] = f"{path}:{environment['PATH']}"
        app = subprocess.Popen(
            argv,
            cwd=self.workplace.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.launches.append(Launch(root, app, self.workplace, self.cluster, self.wait_until))
        return self.launches[-1]


@pytest.fixture
def launch(cluster: Cluster, workplace: Any, wait_until: Callable[..., None]) -> Iterator[Launcher]:
    """Starts multiruns on the cluster; afterwards nothing of theirs is in the queue or runs."""
    launcher = Launcher(cluster, workplace, wait_until)
    yield launcher
    for one in launcher.launches:
        one.app.kill()
        one.app.communicate()
    wait_until(lambda: cluster.list_active() == {})
    workplace.wait_until_empty(limit_s=60)


def write_program(folder: Path, name: str, *lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("\n".join(["#!/bin/bash", *lines, ""]), encoding="utf-8")
    path.chmod(0o755)
    return folder


def test_jobs_get_gpus_of_their_own_and_no_others(launch: Launcher) -> None:
    gpus = {num: {"gpu_requirement": count} for num, count in enumerate([1, 1, 1, 2, 0])}

    # Of the first three none ends before two of them run at the same time.
    run = launch("meet", "meet", "meet", "pass", "pass", jobs=gpus)

    assert run.finish() == 0, run.stderr
    assert run.outcomes == dict.fromkeys(range(5), "passed")
    held = {num: set(filter(None, run.saw(num)["gpus"].split(","))) for num in range(5)}
    assert {num: len(held[num]) for num in held} == {0: 1, 1: 1, 2: 1, 3: 2, 4: 0}
    assert set().union(*held.values()) == {"0", "1"}
    spans = {num: (run.saw(num)["started_at"], run.ended_at(num)) for num in range(5)}
    pairs = [(one, other) for one in spans for other in range(one)]
    at_once = [(a, b) for a, b in pairs if spans[a][0] < spans[b][1] and spans[b][0] < spans[a][1]]
    assert any(one < 3 for one, _ in at_once)
    assert [(a, b) for a, b in at_once if held[a] & held[b]] == []


def test_flat_specs_reach_the_nodes(cluster: Cluster, workplace: Any, forgather_root: Any, tmp_path: Path) -> None:
    body = (
        "project_dir: examples/tutorials/tiny_llama\nconfig: train_tiny_llama.yaml\nmax_steps: 20\ngpu_requirement: 0\n"
    )
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.yaml").write_text(f"test_id: id_{name}\n{body}", encoding="utf-8")
    variables = {"FGVALIDATE_SPECS": str(tmp_path / "one"), "FORGATHER_ROOT": str(forgather_root.root)}
    options = [f"hydra.launcher.{name}={value}" for name, value in QUICK.items()]
    searchpath = f"hydra.searchpath=[forgather://{tmp_path / 'two'}]"

    run = workplace.run(
        "-m",
        "+spec=id_one,two",
        "hydra/launcher=fgvalidate_slurm",
        searchpath,
        *options,
        env={**cluster.env, **variables},
    )

    assert run.code == 0, run.stdout + run.stderr
    assert [spec["report"]["outcome"] for spec in run.report["specs"]] == ["passed", "passed"]


def test_jobs_get_time_and_memory_of_their_own_whatever_the_shell_has_set(launch: Launcher) -> None:
    jobs: dict[int, dict[str, Any]] = {
        0: {"time_limit": 91, "memory": 1.5, "gpu_requirement": 2},
        1: {"timeout": 600},
        2: {"memory": 1},
    }
    shell = {"SBATCH_TIMELIMIT": "7", "SBATCH_JOB_NAME": "mine", "SBATCH_EXPORT": "NONE", "SQUEUE_PARTITION": "urgent"}
    run = launch("wait", "wait", "wait", jobs=jobs, env=shell, mem_gb=0.5, cpus_per_task=3)
    run.wait_for_start(0, 1, 2)

    found = [run.cluster.describe(run.find_job(num)) for num in range(3)]
    (run.root / "go").touch()

    assert run.finish() == 0, run.stderr
    assert [job["TimeLimit"] for job in found] == ["00:03:00", "00:11:00", "00:01:00"]
    assert [job["MinMemoryNode"] for job in found] == ["1.50G", "512M", "1G"]
    assert [job.get("TresPerNode") for job in found] == ["gres:gpu:2", None, None]
    assert [(job["NumCPUs"], job["Requeue"], job["Partition"]) for job in found] == [("3", "0", "main")] * 3
    said = re.sub(r"  \(\d of 3\)", "", run.stdout).splitlines()
    queued = [f"queued   t{num}  as job {found[num]['JobId']}" for num in range(3)]
    started = [f"started  t{num}" for num in range(3)]
    assert sorted(said) == sorted([*queued, *started, *(f"PASSED   t{num}" for num in range(3))])


def test_every_lost_job_has_a_row_that_says_how_and_the_others_finish(launch: Launcher) -> None:
    tasks = ("pass", "die", "raise", "forget", "swell", "hang", "hang", "hang", "pass", "hang", "wait")
    jobs: dict[int, dict[str, Any]] = {
        4: {"memory": 0.2},
        5: {"gpu_requirement": 1},
        7: {"memory": 40},
        8: {"gpu_requirement": 9},
        9: {"gpu_requirement": 2},
    }
    run = launch(*tasks, jobs=jobs)
    run.wait_for_start(5, 6, 7)
    run.wait_until(lambda: any("-10-t10" in name for name in run.cluster.list_active().values()))

    run.cluster.call("scontrol", "update", f"JobId={run.find_job(6)}", "EndTime=now")
    unstarted = run.find_job(9)
    run.cluster.call("scancel", unstarted)
    run.cluster.call("scancel", run.find_job(5))
    urgent = run.cluster.call(
        "sbatch", "--parsable", "--partition=urgent", "--mem=50000M", "--wrap=true", "--output=/dev/null"
    )
    run.wait_until(lambda: run.app.poll() is not None or set(run.rows) == set(range(10)))
    (run.root / "go").touch()

    assert run.finish() == 0, run.stderr
    assert urgent
    passed = {num for num, outcome in run.outcomes.items() if outcome == "passed"}
    assert passed == {0, 10}
    assert {run.outcomes[num] for num in range(1, 10)} == {"error"}
    assert {run.rows[num].command for num in range(1, 10)} == {f"repeat {num}" for num in range(1, 10)}
    asked = "and ends: Slurm asked this job to end, and it does"
    ends = {
        1: "FAILED, killed by SIGKILL, after N s; its log is {log}, and ends: does die",
        2: "FAILED, exit code 1, after N s; its log is {log}, and ends: ValueError: no such step",
        3: "COMPLETED, but it left no result, after N s; its log is {log}, and ends: does forget",
        5: f"CANCELLED, after N s; its log is {{log}}, {asked}",
        6: f"TIMEOUT, its limit is 1 min, after N s; its log is {{log}}, {asked}",
        7: f"PREEMPTED, after N s; its log is {{log}}, {asked}",
    }
    for num, end in ends.items():
        assert run.explain(num) == f"Slurm job {run.saw(num)['job_id']}: {end.format(log=run.find_log(num))}"
    swollen = f"FAILED, killed by SIGKILL, after N s; its log is {run.find_log(4)}, and ends: slurmstepd-node1: error: "
    start, said, last_words = run.explain(4).partition(swollen)
    assert (start, said) == (f"Slurm job {run.saw(4)['job_id']}: ", swollen)
    # Slurm says it twice, and either may come last.
    assert re.search(r"exceeded (job )?memory limit", last_words, re.IGNORECASE)
    refusal = "sbatch: error: Batch job submission failed: Requested node configuration is not available"
    assert run.rows[8].reason == f"infrastructure: Slurm did not take the job: {refusal}"
    log = run.root / ".submitit" / f"{unstarted}_0_log.out"
    assert run.explain(9) == f"Slurm job {unstarted}: CANCELLED, after N s; it left no log ({log})"


def test_a_batch_script_that_cannot_start_is_lost_alone(launch: Launcher) -> None:
    setup = "hydra.launcher.setup=['[[ $SLURM_JOB_NAME != *-1-t1 ]] || exec /no/such/python']"
    run = launch("pass", "pass", words=[setup])
    # Slurm itself cannot start this one: nobody can write there.
    other = launch("pass", words=["+hydra.launcher.additional_parameters.output=/no/such/folder/log"])

    assert run.finish() == 0, run.stderr
    assert other.finish() == 0, other.stderr
    assert run.outcomes == {0: "passed", 1: "error"}
    assert re.search(r": FAILED, exit code 12[67], after N s; its log is .*/no/such/python", run.explain(1))
    assert ": FAILED, its batch script could not be started (JobLaunchFailure), after N s; it left no" in other.explain(
        0
    )


def test_a_node_that_fails_loses_its_job(launch: Launcher) -> None:
    run = launch("hang")
    run.wait_for_start(0)

    run.cluster.call("scontrol", "update", "NodeName=node1", "State=DOWN", "Reason=test")
    try:
        assert run.finish() == 0, run.stderr
    finally:
        run.cluster.call("scontrol", "update", "NodeName=node1", "State=RESUME")
    assert run.explain(0).startswith(f"Slurm job {run.saw(0)['job_id']}: NODE_FAIL, ")


def test_jobs_that_cannot_or_do_not_start_are_given_up(launch: Launcher) -> None:
    # A partition for jobs of a minute: Slurm takes the longer one, and never starts it.
    run = launch("pass", "pass", jobs={1: {"time_limit": 300}}, partition="short")
    other = launch("wait", "pass", jobs={num: {"gpu_requirement": 2} for num in range(2)}, queue_timeout=8)
    other.wait_for_start(0)
    other.wait_until(lambda: other.app.poll() is not None or 1 in other.rows)
    (other.root / "go").touch()

    assert run.finish() == 0, run.stderr
    assert other.finish() == 0, other.stderr
    assert run.outcomes == {0: "passed", 1: "error"}
    assert ": PENDING for a reason that does not pass (PartitionTimeLimit); cancelled" in run.explain(1)
    assert other.outcomes == {0: "passed", 1: "error"}
    assert re.search(r": still PENDING \((Resources|Priority)\) after N s; cancelled", other.explain(1))


def test_a_job_that_slurm_has_forgotten_is_lost_without_accounting(launch: Launcher, tmp_path: Path) -> None:
    lines = {"hangs": "exec sleep 1000", "fails": "echo no >&2; exit 1"}
    folders = {name: write_program(hide_job(tmp_path / name, "-1-t1"), "sacct", line) for name, line in lines.items()}
    paths = {name: f"{folder}:{launch.workplace.env['PATH']}" for name, folder in folders.items()}
    everything_else = copy_programs_without(tmp_path / "all", "sacct")
    paths["missing"] = f"{hide_job(tmp_path / 'missing', '-1-t1')}:{everything_else}"
    runs = {name: launch("pass", "hang", env={"PATH": path}) for name, path in paths.items()}

    for run in runs.values():
        assert run.finish() == 0, run.stderr

    assert [name for name, path in paths.items() if shutil.which("sacct", path=path) is None] == ["missing"]
    for run in runs.values():
        assert run.outcomes == {0: "passed", 1: "error"}
        assert ": Slurm no longer knows it, and it left no result; " in run.explain(1)


def test_the_queue_is_seen_whole_whatever_the_shell_filters(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**cluster.env, "SQUEUE_PARTITION": "urgent", "SQUEUE_STATES": "RUNNING"}.items():
        monkeypatch.setenv(name, value)
    job_id = cluster.call("sbatch", "--parsable", "--hold", "--job-name=probe|1", "--wrap=true").strip()
    try:
        found = _queue.list_jobs("probe|")
    finally:
        cluster.call("scancel", job_id)

    assert found == {job_id: _queue.Entry(job_id=job_id, state="PENDING", reason="JobHeldUser")}
    assert _queue.list_jobs("prob|") == {}


def test_a_queue_that_cannot_be_asked_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{write_program(tmp_path / 'bin', 'squeue', 'exit 1')}:{os.environ['PATH']}")

    assert _queue.list_jobs("") is None


def test_a_job_that_only_the_queue_does_not_show_is_not_given_up(launch: Launcher, tmp_path: Path) -> None:
    programs, calls = hide_job(tmp_path / "bin", "-0-t0"), tmp_path / "calls"
    (programs / "scontrol").unlink()
    write_program(programs, "scontrol", f"echo >>{calls}", f'exec {shutil.which("scontrol")} "$@"')
    run = launch("wait", path=programs)

    # Each time, its grace is over.
    run.wait_until(lambda: run.app.poll() is not None or (calls.is_file() and len(calls.read_bytes()) >= 2))
    (run.root / "go").touch()

    assert run.finish() == 0, run.stderr
    assert run.outcomes == {0: "passed"}


def hide_job(folder: Path, ending: str) -> Path:
    """Writes a squeue and a scontrol that know nothing of the job whose name ends so."""
    found = {name: shutil.which(name) for name in ("squeue", "scontrol")}
    write_program(folder, "squeue", rf'{found["squeue"]} "$@" | grep -v -e "{ending}\$"; true')
    answer = f'answer=$({found["scontrol"]} "$@")'
    return write_program(folder, "scontrol", answer, f'[[ $answer != *"{ending} "* ]] && echo "$answer"')


def copy_programs_without(folder: Path, name: str) -> Path:
    """Makes a folder of links to all programs but one."""
    folder.mkdir()
    for program in [*Path("/bin").iterdir(), *Path("/usr/bin").iterdir()]:
        if program.name != name and not (folder / program.name).exists():
            (folder / program.name).symlink_to(program)
    return folder


@pytest.mark.parametrize(
    ("signals", "code", "poll_interval"),
    [
        pytest.param([signal.SIGINT], 130, 0.5, id="SIGINT"),
        pytest.param([signal.SIGINT, signal.SIGINT, signal.SIGTERM], 130, 0.5, id="impatience"),
        # Slurm was asked before the second job began, and not again.
        pytest.param([signal.SIGINT], 130, 600, id="before_the_next_question"),
        pytest.param([signal.SIGTERM], 143, 0.5, id="SIGTERM"),
        pytest.param([signal.SIGKILL], -9, 0.5, id="SIGKILL"),
    ],
)
def test_nothing_stays_in_the_queue_when_the_launcher_is_ended(
    launch: Launcher, signals: list[signal.Signals], code: int, poll_interval: float
) -> None:
    jobs = {1: {"gpu_requirement": 1}, 2: {"gpu_requirement": 2}}
    run = launch("pass", "hang", "pass", jobs=jobs, poll_interval=poll_interval)
    run.wait_for_start(1)
    run.wait_until(lambda: 0 in run.rows and run.find_job(2))

    for number in signals:
        # As a terminal does: to the whole group.
        os.killpg(run.app.pid, number)

    returncode = run.finish()
    if signals == [signal.SIGKILL]:
        run.wait_until(lambda: run.cluster.list_active() == {})
    assert run.cluster.list_active() == {}
    run.workplace.wait_until_empty(limit_s=30)
    assert returncode == code
    # What had begun is told from what had not; a launcher that was killed tells nothing.
    begun = {} if signals == [signal.SIGKILL] else {1: "error"}
    assert run.outcomes == {0: "passed", **begun}
    assert all("ended: the multirun was " in run.rows[num].reason for num in begun)


def test_a_job_whose_submission_lost_its_answer_is_submitted_again(launch: Launcher, tmp_path: Path) -> None:
    real, mark = shutil.which("sbatch"), tmp_path / "mark"
    lines = [f'if mkdir {mark}; then {real} "$@"; echo "sbatch: error: Socket timed out" >&2; exit 1; fi']
    run = launch("pass", path=write_program(tmp_path / "bin", "sbatch", *lines, f'exec {real} "$@"'))

    assert run.finish() == 0, run.stderr

    assert run.outcomes == {0: "passed"}
    assert mark.is_dir()
    first, second = (run.cluster.describe(str(int(run.saw(0)["job_id"]) - back)) for back in (1, 0))
    assert (first["JobName"], first["JobState"]) == (second["JobName"], "CANCELLED")


def test_sbatch_that_never_works_is_an_error_and_no_hang(launch: Launcher, tmp_path: Path) -> None:
    refuse = write_program(tmp_path / "bin", "sbatch", "echo 'sbatch: error: Socket timed out' >&2; exit 1")
    run = launch("pass", path=refuse, patience=2)

    assert run.finish() == 0, run.stderr

    assert {num: row.reason for num, row in run.rows.items()} == {
        0: "infrastructure: Slurm did not take the job: sbatch: error: Socket timed out"
    }


def test_a_job_that_does_not_end_after_its_result_is_ended_and_makes_room(launch: Launcher) -> None:
    run = launch("linger", "pass", max_parallel=1)

    assert run.finish() == 0, run.stderr

    assert run.outcomes == {0: "passed", 1: "passed"}
    first, second = (run.cluster.describe(run.saw(num)["job_id"]) for num in range(2))
    assert first["JobState"] == "CANCELLED"
    assert second["SubmitTime"] >= first["EndTime"]


def test_a_controller_that_comes_back_in_time_loses_no_job(launch: Launcher) -> None:
    run = launch("wait", "pass", max_parallel=1)
    run.wait_for_start(0)

    run.cluster.stop_controller()
    (run.root / "go").touch()
    run.wait_until(lambda: 0 in run.rows)
    run.cluster.start_controller()

    assert run.finish() == 0, run.stderr
    assert run.outcomes == {0: "passed", 1: "passed"}
    run.cluster.restart()


def test_an_absent_controller_is_no_hang_and_its_jobs_are_ended_when_it_is_back(launch: Launcher) -> None:
    run = launch("hang", "pass", max_parallel=1, patience=12)
    interrupted = launch("hang", patience=12)
    run.wait_for_start(0)
    interrupted.wait_for_start(0)
    assert interrupted.app.stdout
    assert [interrupted.app.stdout.readline() for _ in range(2)][1] == "started  t0  (1 of 1)\n"

    run.cluster.stop_controller()
    try:
        interrupted.app.send_signal(signal.SIGINT)
        assert interrupted.finish() == 130
        assert run.finish() == 0, run.stderr
    finally:
        run.cluster.start_controller()

    job_id, log = run.saw(0)["job_id"], run.find_log(0)
    silence = "Slurm has not answered for 12 s, and it"
    assert {row.failure for row in run.rows.values()} == {"infrastructure"}
    assert {num: row.reason.removeprefix("infrastructure: ") for num, row in run.rows.items()} == {
        0: f"Slurm job {job_id}: {silence} may still run: scancel {job_id}; its log is {log}, and ends: does hang",
        1: f"{silence} was not submitted",
    }
    waits = "fgvalidate: Slurm does not answer; it has 12 s to do so\n"
    assert run.stderr == f"{waits}fgvalidate: Slurm has not ended these jobs yet: scancel {job_id}\n"
    other = interrupted.saw(0)["job_id"]
    assert interrupted.stderr.startswith(
        f"fgvalidate: Slurm has not ended these jobs yet: scancel {other}\ninterrupted\n"
    )
    assert interrupted.explain(0).startswith(f"Slurm job {other}: ended: the multirun was interrupted; its log is ")
    for ended in (job_id, other):
        run.wait_until(lambda ended=ended: run.cluster.describe(ended).get("JobState") == "CANCELLED")
    run.cluster.restart()


def test_a_job_that_slurm_does_not_end_is_no_hang(launch: Launcher, tmp_path: Path) -> None:
    deaf = write_program(tmp_path / "bin", "scancel", "true")
    run = launch("linger", path=deaf, grace=1, patience=3)
    other = launch("hang", path=deaf, patience=3)
    other.wait_for_start(0)
    job_id = other.saw(0)["job_id"]

    other.app.send_signal(signal.SIGTERM)

    assert run.finish() == 0, run.stderr
    assert other.finish() == 143
    assert run.outcomes == {0: "passed"}
    left = f"fgvalidate: Slurm has not ended these jobs yet: scancel {run.saw(0)['job_id']}\n"
    assert run.stderr == left
    assert other.stderr == left.replace(run.saw(0)["job_id"], job_id)
    assert {*run.cluster.list_active()} == {run.saw(0)["job_id"], job_id}
    run.cluster.call("scancel", "--me")


def test_a_result_that_cannot_be_written_is_said(launch: Launcher) -> None:
    run = launch("die")
    (run.root / "results.jsonl").mkdir()

    assert run.finish() == 0

    said = (
        f"fgvalidate: {run.root}: Is a directory: this result is not kept: Slurm job {run.saw(0)['job_id']}: FAILED, "
    )
    assert run.stderr.startswith(said)


def test_a_job_that_runs_far_beyond_its_limit_is_given_up(tmp_path: Path) -> None:
    job = Job(num=0, spec="", test_id="t", name="t", overrides=(), run_dir="0", time_limit=50, command="repeat")
    one = _watch._Tracked(job=job, job_id="7")
    settings = Settings(time_slack=10, patience=40)
    monitor = Monitor(get_console(), tmp_path, Plan(command="", started_at=0.0, jobs=(job,)))
    watch = _watch._Watch([one], Any, tmp_path, settings, monitor, Any, Any, "p")  # type: ignore[arg-type]
    entry = _queue.Entry(job_id="7", state="COMPLETING", reason="None")

    rows = []
    for one.ran_s in (99.0, 100.0):
        watch._check_limits(one, entry, 0.0)
        rows.append({num: row.report.reason for num, row in read_results(tmp_path).items()})

    assert rows == [{}, {0: "infrastructure: Slurm job 7: still COMPLETING after 100 s, its limit is 60 s; cancelled"}]


def test_a_launch_without_a_plan_is_refused(launch: Launcher) -> None:
    run = launch("pass", words=["hydra.sweep.dir=elsewhere"])

    assert run.finish() == 2
    assert run.stderr.startswith("fgvalidate: ")
    assert "elsewhere/suite.json: not a multirun that can be read" in run.stderr


def test_a_guard_that_was_killed_or_dismissed_stops_nobody() -> None:
    for is_killed in (True, False):
        with _guard.Guard("fgvalidate-none", 1.0) as guard:
            if is_killed:
                guard._process.kill()
                guard._process.wait()
            guard.tell(_guard.SUBMITTING)
            guard.dismiss()

        assert guard._process.returncode == (-signal.SIGKILL if is_killed else 0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "Slurm no longer knows it, and it left no result"),
        ({"JobState": "COMPLETED", "ExitCode": "0:0"}, "COMPLETED, but it left no result"),
        ({"JobState": "FAILED", "ExitCode": "2:0", "RunTime": "00:01:05"}, "FAILED, exit code 2, after 65 s"),
        ({"JobState": "FAILED", "ExitCode": "0:9", "Reason": "JobLaunchFailure"}, "FAILED, killed by SIGKILL"),
        ({"JobState": "OUT_OF_MEMORY", "ExitCode": "0:125", "Reason": "OutOfMemory"}, "OUT_OF_MEMORY, OutOfMemory"),
        (
            {"JobState": "NODE_FAIL", "Reason": "NodeDown", "RunTime": "1-00:00:01"},
            "NODE_FAIL, NodeDown, after 86401 s",
        ),
        ({"JobState": "CANCELLED", "ExitCode": "143:0", "Reason": "None"}, "CANCELLED"),
        ({"JobState": "CANCELLED", "ExitCode": "0:15"}, "CANCELLED"),
        (
            {"JobState": "TIMEOUT", "ExitCode": "0:15", "RunTime": "INVALID"},
            "TIMEOUT, its limit is 7 min, after INVALID",
        ),
        ({"JobState": "FAILED", "ExitCode": "what"}, "FAILED, exit code 0"),
        ({"RunTime": "00:00:01"}, "UNKNOWN, after 1 s"),
    ],
)
def test_the_end_of_a_lost_job_is_explained(fields: dict[str, str], said: str) -> None:
    assert _watch.explain_end(fields, 7) == said


@pytest.mark.parametrize(
    ("state", "reason", "is_hopeless"),
    [
        ("PENDING", "Resources", False),
        ("PENDING", "Priority", False),
        ("PENDING", "None", False),
        ("PENDING", "AssocGrpGRES", False),
        ("PENDING", "PartitionTimeLimit", True),
        ("PENDING", "JobHeldUser", True),
        ("PENDING", "QOSMaxWallDurationPerJobLimit", True),
        ("PENDING", "launch failed requeued held", True),
        ("REQUEUE_HOLD", "None", True),
        ("RUNNING", "PartitionTimeLimit", False),
    ],
)
def test_only_what_cannot_start_is_hopeless(state: str, reason: str, is_hopeless: bool) -> None:
    assert _queue.Entry(job_id="1", state=state, reason=reason).is_hopeless is is_hopeless


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (
            "echo 'OUT_OF_MEMORY|0:125|00:00:05'",
            {"JobState": "OUT_OF_MEMORY", "ExitCode": "0:125", "RunTime": "00:00:05"},
        ),
        ("echo 'CANCELLED by 0|0:0|00:00:05'", {"JobState": "CANCELLED", "ExitCode": "0:0", "RunTime": "00:00:05"}),
        ("echo 'Slurm accounting storage is disabled'", {}),
        ("true", {}),
        ("echo 'FAILED|1:0|00:00:05'; exit 1", {}),
    ],
)
def test_accounting_is_believed_where_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, fields: dict[str, str]
) -> None:
    monkeypatch.setenv("PATH", f"{write_program(tmp_path / 'bin', 'sacct', line)}:{os.environ['PATH']}")

    assert _queue.ask_accounting("1") == fields


@pytest.mark.parametrize(
    ("message", "returncode", "said"),
    [
        ("sbatch: hint\nsbatch: error: Invalid qos specification\n\n", 1, "sbatch: error: Invalid qos specification"),
        ("", 124, "sbatch did not answer within 60 s"),
        ("", 1, "sbatch failed with exit code 1 and said nothing"),
    ],
)
def test_a_refusal_is_explained_in_a_line(message: str, returncode: int, said: str) -> None:
    assert _submission.explain_refusal(message, returncode) == said


def test_a_job_name_fits_into_a_batch_script() -> None:
    job = Job(num=3, spec="", test_id="a b\n#SBATCH|x[y=1]", name="", overrides=(), run_dir="")

    assert _submission.name_job("p", job) == "p-3-a_b__SBATCH_x_y_1_"


@pytest.mark.parametrize(
    ("time_limit", "timeout", "slack", "minutes"),
    [(60, 0, 0, 1), (61, 0, 0, 2), (600, 300, 300, 15), (0, 300, 300, 10), (0, 0, 0, 1)],
)
def test_a_time_limit_is_rounded_up_to_minutes(time_limit: int, timeout: int, slack: int, minutes: int) -> None:
    job = Job(num=0, spec="", test_id="", name="", overrides=(), run_dir="", time_limit=time_limit, timeout=timeout)

    assert _submission.compute_limit_min(job, slack) == minutes


def test_settings_go_to_sbatch() -> None:
    job = Job(num=0, spec="", test_id="", name="", overrides=(), run_dir="", gpu_requirement=2)
    settings = Settings(
        partition="p", account="a", qos="q", gres="gpu:a100", setup=["x"], additional_parameters={"reservation": "r"}
    )

    assert _submission.build_parameters(job, "n", settings) == {
        "job_name": "n",
        "time": 5,
        "nodes": 1,
        "ntasks_per_node": 1,
        "gres": "gpu:a100:2",
        "partition": "p",
        "account": "a",
        "qos": "q",
        "setup": ["x"],
        "use_srun": False,
        "stderr_to_stdout": True,
        "additional_parameters": {"no-requeue": True, "reservation": "r"},
    }


@pytest.mark.parametrize("value", [None, ""])
def test_gpus_that_slurm_does_not_name_are_refused(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value or "")
    if value is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")

    with pytest.raises(LaunchError, match=r"Slurm gave the job 1 GPU\(s\), but set no CUDA_VISIBLE_DEVICES"):
        _submission.confine_gpus(1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "; it left no log ({log})"),
        (b"", "; its log is {log}, and is empty"),
        (b"\n \n", "; its log is {log}, and is empty"),
        (b"three\nsubmitit INFO (now) - Bye\n[now][submitit][INFO] - Bye\n", "; its log is {log}, and ends: three"),
        (b"one\rtwo \n\n", "; its log is {log}, and ends: two"),
        (b"x" * 9000 + b"\n\xffend", "; its log is {log}, and ends: \ufffdend"),
    ],
)
def test_the_end_of_a_log_is_told(tmp_path: Path, content: bytes | None, said: str) -> None:
    log = tmp_path / "log"
    if content is not None:
        log.write_bytes(content)

    assert _watch.describe_log(log) == said.format(log=log)


def test_the_first_interrupt_is_held_back_and_then_delivered_and_no_other() -> None:
    seen = []

    def work() -> None:
        with _watch.Interrupts() as interrupts:
            try:
                with interrupts.deferred():
                    signal.raise_signal(signal.SIGINT)
                    signal.raise_signal(signal.SIGTERM)
                    seen.append("after the signals")
            finally:
                signal.raise_signal(signal.SIGINT)
                seen.append("at the end")

    with pytest.raises(KeyboardInterrupt):
        work()

    assert seen == ["after the signals", "at the end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_interrupt_that_is_swallowed_is_delivered_again() -> None:
    with _watch.Interrupts() as interrupts:
        interrupts.insist()
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            interrupts.insist()


def test_an_interrupt_that_is_not_held_back_is_delivered_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), _watch.Interrupts():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_parallel": 0}, "hydra.launcher.max_parallel: must be at least 1, not 0"),
        ({"queue_timeout": 0}, "hydra.launcher.queue_timeout: must be at least 1, not 0"),
        ({"grace": float("nan")}, "hydra.launcher.grace: must be at least 0, not nan"),
        ({"poll_interval": 0}, "hydra.launcher.poll_interval: must be positive, not 0"),
        ({"patience": -1}, "hydra.launcher.patience: must be positive, not -1"),
    ],
)
def test_settings_that_would_hang_are_refused(settings: dict[str, Any], said: str) -> None:
    launcher = SlurmLauncher(**settings)

    with pytest.raises(SpecError, match=f"^{re.escape(said)}$"):
        launcher.setup(hydra_context=None, task_function=None, config=None)  # type: ignore[arg-type]


def test_a_missing_extra_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)

    with pytest.raises(
        LaunchError, match=r"^hydra/launcher=fgvalidate_slurm needs .*: pip install 'fgvalidate\[slurm\]'$"
    ):
        SlurmLauncher().setup(hydra_context=None, task_function=None, config=None)  # type: ignore[arg-type]


def test_a_machine_without_slurm_is_one_line_and_exit_code_2(fgvalidate: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    run = fgvalidate(
        "-m", "+spec=tiny_experiment", "hydra/launcher=fgvalidate_slurm", env={"PATH": str(tmp_path / "empty")}
    )

    missing = "sbatch, squeue, scancel, scontrol not found in PATH"
    advice = "run it where Slurm's commands are, on a login node"
    assert run.stderr == f"fgvalidate: hydra/launcher=fgvalidate_slurm: {missing}; {advice}\n"
    assert run.code == 2


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs/slurm.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    documented = {row[0].strip("| `"): "" if row[1] == "null" else row[1].strip("`") for row in rows}

    settings = dataclasses.asdict(Settings())
    declared = {name: value for name, value in settings.items() if not name.startswith("_")}

    assert documented == {name: "" if value is None else str(value) for name, value in declared.items()}


def test_other_hydra_applications_import_nothing_heavy_for_it() -> None:
    heavy = {"submitit", "torch", "numpy", "cloudpickle", "fgvalidate.report"}
    code = (
        "import sys; from hydra.core.plugins import Plugins; "
        "names = {plugin.__name__ for plugin in Plugins.instance().discover()}; "
        f"print('SlurmLauncher' in names, sorted({heavy} & set(sys.modules)))"
    )

    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert answer.stdout == "True []\n"


def test_specs_run_as_slurm_jobs_through_the_real_command_line(cluster: Cluster, specs: Any, workplace: Any) -> None:
    specs.write("good", gpu_requirement=0)
    specs.write("red", "loss=20:NaN", gpu_requirement=0)
    workplace.env.update(cluster.env)

    run = workplace.run(
        *specs.multirun("good", "red"), "hydra/launcher=fgvalidate_slurm", "hydra.launcher.poll_interval=0.5"
    )

    assert run.code == 1, run.stdout + run.stderr
    assert run.report["counts"] == {"failed": 1, "passed": 1}
    assert [spec["report"]["outcome"] for spec in run.report["specs"]] == ["passed", "failed"]
    assert sorted(path.name for path in run.run_dir.glob("*-*")) == ["0-good", "1-red"]
    assert cluster.list_active() == {}
