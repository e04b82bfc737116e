import fcntl
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fgvalidate import process as process_module
from fgvalidate import supervisor
from fgvalidate.errors import LaunchError
from fgvalidate.process import (
    Process,
    ProcessResult,
    build_environment,
    find_program,
    run_process,
    run_tool,
)

FAKES = Path(__file__).parent / "fakes"
PYTHON = (sys.executable, "-I", "-S")
MB = 1_000_000


def wait_until(is_true: Callable[[], bool], *, limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def alive(mark: str) -> list[str]:
    """The processes, zombies not counted, with `mark` in their command line."""
    found = [supervisor.read_process(pid) for pid in supervisor.list_pids()]
    lines = [supervisor.describe(info) for info in found if info is not None and info.is_alive]
    return [line for line in lines if mark in line]


def is_alive(pid: int) -> bool:
    info = supervisor.read_process(pid)
    return info is not None and info.is_alive


def num_ready(folder: Path) -> int:
    stdout = folder / "stdout"
    return stdout.read_text().count("ready") if stdout.exists() else 0


@pytest.fixture
def mark() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Any]:
    return {
        "cwd": tmp_path,
        "env": build_environment({}),
        "stdout": tmp_path / "stdout",
        "stderr": tmp_path / "stderr",
    }


def shape_argv(mark: str, shape: str) -> list[str]:
    return [*PYTHON, str(FAKES / "tree_shapes.py"), mark, shape]


def run_briefly(argv: Sequence[str], places: Mapping[str, Any], **settings: Any) -> ProcessResult:
    return run_process(argv, **{"timeout_s": 60, **places, **settings})


@pytest.mark.parametrize(
    ("script", "returncode"),
    [
        pytest.param("exit 0", 0, id="success"),
        pytest.param("exit 1", 1, id="failure"),
        pytest.param("exit 3", 3, id="any other code"),
        pytest.param("exit 255", 255, id="largest code"),
        pytest.param("kill -KILL $$", -9, id="SIGKILL"),
        pytest.param("kill -TERM $$", -15, id="SIGTERM"),
        pytest.param("kill -INT $$; exit 4", -2, id="SIGINT is not ignored"),
        pytest.param("kill -HUP $$; exit 4", -1, id="SIGHUP is not ignored"),
        pytest.param("kill -PIPE $$; exit 4", -13, id="SIGPIPE is not ignored"),
    ],
)
def test_returncode_is_that_of_the_command(script: str, returncode: int, places: dict[str, Any]) -> None:
    before = time.time()
    result = run_briefly(["sh", "-c", script], places)

    assert result.returncode == returncode
    assert result.argv == ("sh", "-c", script)
    assert not result.timed_out
    assert before <= result.started_at <= time.time()
    assert 0 < result.duration_s < 30
    assert result.orphans == ()
    assert result.survivors == ()


def test_fifty_failing_children_all_report_their_code(places: dict[str, Any], tmp_path: Path) -> None:
    def fail(code: int) -> int | None:
        output = tmp_path / str(code)
        return run_briefly(["sh", "-c", f"exit {code}"], {**places, "stdout": output, "stderr": output}).returncode

    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(fail, range(1, 51)))

    assert codes == list(range(1, 51))


def test_command_that_outlives_its_killed_worker_reports_its_own_code(mark: str, places: dict[str, Any]) -> None:
    result = run_briefly(shape_argv(mark, "killed worker"), places)

    assert result.returncode == 0
    assert result.orphans == ()


def test_output_of_both_streams_is_complete(places: dict[str, Any], tmp_path: Path) -> None:
    code = "import os\nfor _ in range(20): [os.write(fd, b'%d' % fd * 1_000_000) for fd in (1, 2)]"
    result = run_briefly([*PYTHON, "-c", code], places)

    assert result.returncode == 0
    assert (tmp_path / "stdout").read_bytes() == b"1" * 20 * MB
    assert (tmp_path / "stderr").read_bytes() == b"2" * 20 * MB


def test_both_streams_may_go_to_one_file_which_is_emptied_first(places: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "stdout").write_text("old\n")
    run_briefly(["sh", "-c", "echo one; echo two >&2; echo three"], {**places, "stderr": places["stdout"]})

    assert (tmp_path / "stdout").read_text() == "one\ntwo\nthree\n"


def test_stdin_is_empty(places: dict[str, Any], tmp_path: Path) -> None:
    result = run_briefly(["cat"], places)

    assert result.returncode == 0
    assert (tmp_path / "stdout").read_text() == ""


def test_command_has_its_own_group_in_a_session_without_our_terminal(places: dict[str, Any], tmp_path: Path) -> None:
    code = "import os; print(os.getpgid(0) == os.getpid(), os.getsid(0) == os.getppid())"
    run_briefly([*PYTHON, "-c", code], places)

    assert (tmp_path / "stdout").read_text() == "True True\n"


def test_command_inherits_no_descriptor_but_its_streams(places: dict[str, Any], tmp_path: Path) -> None:
    code = "import os\nfor fd in range(1024):\n  try: os.fstat(fd); print(fd)\n  except OSError: pass"
    with (tmp_path / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        run_briefly([*PYTHON, "-c", code], places, held_fds=[lock.fileno()])

    assert (tmp_path / "stdout").read_text().split() == ["0", "1", "2"]


def test_held_lock_lasts_until_the_tree_is_gone(mark: str, places: dict[str, Any], tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as ours, (tmp_path / "lock").open("w") as another:
        fcntl.flock(ours, fcntl.LOCK_EX)
        with Process(shape_argv(mark, "plain"), **places, held_fds=[ours.fileno()]):
            ours.close()
            with pytest.raises(BlockingIOError):
                fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)

        fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_arguments_and_environment_arrive_byte_for_byte(places: dict[str, Any], tmp_path: Path) -> None:
    odd = "\u00e9 \n\udcff'\""
    script = 'printf "%s|%s|%s" "$1" "$ODD" "$PWD"'
    run_briefly(["sh", "-c", script, "sh", odd], {**places, "env": {**places["env"], "ODD": odd}})

    expected = os.fsencode(odd)
    assert (tmp_path / "stdout").read_bytes() == b"|".join([expected, expected, os.fsencode(tmp_path)])


@pytest.mark.parametrize(
    ("shape", "num_processes"),
    [
        pytest.param("children", 3, id="children"),
        pytest.param("daemons", 3, id="re-parented workers in sessions of their own"),
        pytest.param("daemon of an obedient command", 2, id="a worker that ignores SIGTERM below one that does not"),
        pytest.param("no environment", 2, id="a worker without environment"),
        pytest.param("forking on", 2, id="workers that hand over to a child all the time"),
        pytest.param("multiplying", 2, id="a worker that starts more and more workers"),
    ],
)
def test_timeout_leaves_nothing_of_the_tree(
    shape: str, num_processes: int, mark: str, places: dict[str, Any], tmp_path: Path
) -> None:
    with Process(shape_argv(mark, shape), **places, grace_s=0.3) as process:
        wait_until(lambda: num_ready(tmp_path) == num_processes)
        assert len(alive(mark)) >= num_processes - 1  # one of them may be handing over
        result = process.end(timed_out=True)

    assert alive(mark) == []
    assert result.returncode in {-15, -9}
    assert result.timed_out
    assert result.survivors == ()
    assert result.cleanup_s < 15


def test_run_process_ends_the_tree_at_its_time_limit(mark: str, places: dict[str, Any]) -> None:
    result = run_briefly(shape_argv(mark, "children"), places, timeout_s=0.5, grace_s=0.2)

    assert alive(mark) == []
    assert result.returncode == -9
    assert result.timed_out
    assert 0.7 <= result.duration_s < 15


def test_processes_killed_together_with_the_command_are_not_orphans(
    mark: str, places: dict[str, Any], tmp_path: Path
) -> None:
    with Process(shape_argv(mark, "daemons"), **places, grace_s=0.1) as process:
        wait_until(lambda: num_ready(tmp_path) == 3)
        result = process.end()

    assert result.returncode == -9
    assert result.orphans == ()
    assert not result.timed_out


def test_worker_left_by_a_command_that_obeys_sigterm_is_an_orphan(
    mark: str, places: dict[str, Any], tmp_path: Path
) -> None:
    with Process(shape_argv(mark, "daemon of an obedient command"), **places, grace_s=0.3) as process:
        wait_until(lambda: num_ready(tmp_path) == 2)
        result = process.end()

    assert result.returncode == -15
    assert len(result.orphans) == 1
    assert mark in result.orphans[0]
    assert alive(mark) == []


def test_orphans_of_a_successful_command_are_named_and_ended(mark: str, places: dict[str, Any]) -> None:
    result = run_briefly(shape_argv(mark, "orphans"), places)

    assert alive(mark) == []
    assert result.returncode == 0
    assert len(result.orphans) == 2
    for orphan in result.orphans:
        pid, _, command = orphan.partition(" ")
        assert int(pid) > 1
        assert command == " ".join(shape_argv(mark, "orphans"))
    assert result.survivors == ()
    assert result.duration_s < result.cleanup_s


def test_helper_that_ends_soon_after_the_command_is_no_orphan(mark: str, places: dict[str, Any]) -> None:
    result = run_briefly(shape_argv(mark, "late helper"), places)

    assert result.returncode == 0
    assert result.orphans == ()
    assert 0.2 < result.cleanup_s < 2.0


def test_command_that_ended_before_its_time_limit_has_not_timed_out(mark: str, places: dict[str, Any]) -> None:
    with Process(shape_argv(mark, "orphans"), **places) as process:
        wait_until(lambda: not Path(f"/proc/{process.pid}").exists())
        result = process.end(timed_out=True)

    assert result.returncode == 0
    assert not result.timed_out
    assert len(result.orphans) == 2


def test_command_has_its_grace_time_to_clean_up(places: dict[str, Any], tmp_path: Path) -> None:
    argv = [*PYTHON, str(FAKES / "tree_sigterm.py"), str(tmp_path / "cleaned")]
    with Process(argv, **places, grace_s=20) as process:
        wait_until(lambda: num_ready(tmp_path) == 1)
        result = process.end(timed_out=True)

    assert (tmp_path / "cleaned").read_text() == "cleaned up"
    assert result.returncode == 0
    assert result.timed_out
    assert result.cleanup_s < 10


@pytest.mark.parametrize(
    ("signals", "returncode"),
    [
        pytest.param([signal.SIGKILL], -9, id="SIGKILL"),
        pytest.param([signal.SIGTERM], 143, id="SIGTERM"),
        pytest.param([signal.SIGINT], -2, id="Ctrl-C"),
        pytest.param([signal.SIGINT, signal.SIGINT, signal.SIGTERM], 143, id="impatience during the ending"),
        pytest.param([signal.SIGINT, signal.SIGKILL], -9, id="SIGKILL during the ending"),
    ],
)
def test_nothing_is_left_when_we_are_killed(
    signals: list[signal.Signals], returncode: int, mark: str, tmp_path: Path
) -> None:
    argv = [sys.executable, str(FAKES / "tree_driver.py"), mark, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(FAKES.parent.parent)}
    with (
        (tmp_path / "driver").open("w") as output,
        subprocess.Popen(argv, env=env, stdout=output, stderr=output) as driver,
    ):
        wait_until(lambda: num_ready(tmp_path) == 3 and (tmp_path / "supervisor").exists())
        supervisor_pid = int((tmp_path / "supervisor").read_text())
        assert len(alive(mark)) == 4

        for number in signals:
            driver.send_signal(number)
            time.sleep(0.1)  # within the grace time of 1 s
        driver.wait(30)
        left_at_the_end = alive(mark)

    wait_until(lambda: alive(mark) == [] and not is_alive(supervisor_pid))
    assert driver.returncode == returncode
    if signal.SIGKILL not in signals:
        assert left_at_the_end == []


@pytest.mark.parametrize("shape", ["children", "daemons"])
def test_nothing_is_left_when_the_supervisor_is_killed(
    shape: str, mark: str, places: dict[str, Any], tmp_path: Path
) -> None:
    with Process(shape_argv(mark, shape), **places) as process:
        wait_until(lambda: num_ready(tmp_path) == 3)
        os.kill(process._supervisor.pid, signal.SIGKILL)
        result = process.wait(30)

    assert alive(mark) == []
    assert result is not None
    assert result.returncode is None
    assert not result.timed_out
    assert result.peak_memory_bytes == 0
    assert result.survivors == ()


def test_nothing_is_left_when_the_supervisor_is_stopped(
    mark: str, places: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "_STATEMENT_SLACK_S", 0.2)
    with Process(shape_argv(mark, "daemons"), **places, grace_s=0.1) as process:
        wait_until(lambda: num_ready(tmp_path) == 3)
        os.kill(process._supervisor.pid, signal.SIGSTOP)
        result = process.end(timed_out=True)

    assert alive(mark) == []
    assert result.returncode is None
    assert result.timed_out


def test_supervisor_ends_the_tree_on_sigterm_but_not_on_sigint(
    mark: str, places: dict[str, Any], tmp_path: Path
) -> None:
    with Process(shape_argv(mark, "plain"), **places) as process:
        wait_until(lambda: num_ready(tmp_path) == 1)
        os.kill(process._supervisor.pid, signal.SIGINT)
        os.kill(process._supervisor.pid, signal.SIGHUP)
        assert process.wait(0.3) is None
        os.kill(process._supervisor.pid, signal.SIGTERM)
        result = process.wait(30)

    assert result is not None
    assert result.returncode == -15
    assert not result.timed_out


@pytest.mark.parametrize("error", [RuntimeError("judge"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_exception_in_the_block_ends_the_tree(
    error: BaseException, mark: str, places: dict[str, Any], tmp_path: Path
) -> None:
    def judge() -> None:
        with Process(shape_argv(mark, "daemons"), **places, grace_s=0.1):
            wait_until(lambda: num_ready(tmp_path) == 3)
            raise error

    with pytest.raises(type(error)) as caught:
        judge()

    assert caught.value is error
    assert alive(mark) == []


def test_exception_of_on_tick_ends_the_tree(mark: str, places: dict[str, Any]) -> None:
    def stop(_: float) -> None:
        raise RuntimeError("display")

    with pytest.raises(RuntimeError, match="display"):
        run_briefly(shape_argv(mark, "children"), places, on_tick=stop, tick_s=0.1, grace_s=0.1)

    assert alive(mark) == []


def test_on_tick_is_told_the_seconds_since_the_start(places: dict[str, Any]) -> None:
    ticks: list[float] = []
    result = run_briefly(["sleep", "1.1"], places, on_tick=ticks.append, tick_s=0.25)

    assert result.returncode == 0
    assert 2 <= len(ticks) <= 4
    assert ticks == sorted(ticks)
    assert 0.25 <= ticks[0] < ticks[-1] <= 1.5


def test_command_is_ended_when_it_should_stop_with_a_short_grace_time(mark: str, places: dict[str, Any]) -> None:
    members: list[str] = []

    def should_stop(process: Process, _elapsed_s: float) -> bool:
        members[:] = [supervisor.describe(member) for member in process.list_members()]
        return num_ready(places["cwd"]) == 3

    began = time.monotonic()
    result = run_briefly(
        shape_argv(mark, "children"), places, should_stop=should_stop, tick_s=0.05, grace_s=120.0, stop_grace_s=0.2
    )

    assert (result.stopped, result.timed_out, result.returncode) == (True, False, -9)
    assert len([line for line in members if mark in line]) == 3
    assert alive(mark) == []
    assert time.monotonic() - began < 60


def test_command_that_ends_by_itself_was_not_stopped(places: dict[str, Any]) -> None:
    with Process(["sh", "-c", "exit 3"], **places) as process:
        wait_until(lambda: not is_alive(process.pid))
        result = process.end(stopped=True)

    assert (result.stopped, result.returncode) == (False, 3)


def test_wait_returns_none_while_the_command_runs_and_the_same_result_ever_after(places: dict[str, Any]) -> None:
    with Process(["sleep", "0.4"], **places) as process:
        assert process.wait(0.05) is None
        result = process.wait()

    assert result is not None
    assert result.returncode == 0
    assert process.wait(0) is result
    assert process.end(timed_out=True) is result


def test_peak_memory_adds_up_the_processes_of_the_tree(mark: str, places: dict[str, Any]) -> None:
    result = run_briefly(shape_argv(mark, "memory"), places)

    assert result.returncode == 0
    assert 120 * MB <= result.peak_memory_bytes <= 400 * MB


def test_peak_memory_of_a_command_too_short_to_be_sampled_is_known(places: dict[str, Any]) -> None:
    result = run_briefly([*PYTHON, "-c", "b'x' * 100_000_000"], places)

    assert 100 * MB <= result.peak_memory_bytes <= 200 * MB


def make_script(path: Path, content: str, mode: int) -> None:
    path.write_text(content)
    path.chmod(mode)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        pytest.param("no-such-program", "'no-such-program' was not found in PATH (", id="not in PATH"),
        pytest.param("./missing", "/missing: No such file or directory", id="missing"),
        pytest.param("./folder", "/folder: it is a directory", id="directory"),
        pytest.param("./plain", "/plain: Permission denied; make it executable", id="not executable"),
        pytest.param("./lost", "/lost: the interpreter that its first line names does not exist", id="no interpreter"),
        pytest.param("./text", "/text: it is neither a program for this machine nor a script", id="text"),
        pytest.param("./zero\0byte", "embedded null byte", id="null byte"),
    ],
)
def test_program_that_cannot_be_started_is_a_launch_error(
    program: str, reason: str, places: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    make_script(tmp_path / "plain", "#!/bin/sh\n", 0o644)
    make_script(tmp_path / "lost", "#!/no/such/interpreter\n", 0o755)
    make_script(tmp_path / "text", "once upon a time\n", 0o755)

    with pytest.raises(LaunchError) as caught:
        run_briefly([program], places)

    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        pytest.param("cwd", "its working directory {} cannot be entered (No such file or directory)", id="cwd"),
        pytest.param("stdout", "its output file {} cannot be written (No such file or directory)", id="stdout"),
        pytest.param("stderr", "its output file {} cannot be written (No such file or directory)", id="stderr"),
    ],
)
def test_place_that_does_not_exist_is_a_launch_error(
    place: str, reason: str, places: dict[str, Any], tmp_path: Path
) -> None:
    missing = tmp_path / "missing" / "place"

    with pytest.raises(LaunchError) as caught:
        run_briefly(["true"], {**places, place: missing})

    assert str(caught.value) == f"cannot start 'true': {reason.format(missing)}"


def test_supervisor_that_cannot_be_started_is_a_launch_error(
    places: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "_SUPERVISOR_ARGV", ("/no/such/python",))

    with pytest.raises(LaunchError, match="cannot start the supervisor of commands, /no/such/python: "):
        run_briefly(["true"], places)


def test_supervisor_that_fails_is_a_launch_error(places: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "_SUPERVISOR_ARGV", ("false",))

    with pytest.raises(LaunchError, match="cannot start 'true': its supervisor, false, failed"):
        run_briefly(["true"], places)


@pytest.mark.parametrize(
    ("ours", "extra", "expected"),
    [
        pytest.param({"HOME": "/h", "LANG": "C"}, {}, {"HOME": "/h", "LANG": "C"}, id="the rest is inherited"),
        pytest.param({"HYDRA_FULL_ERROR": "1"}, {}, {}, id="Hydra"),
        pytest.param({"PYTHONPATH": "/p", "PYTHONHOME": "/p"}, {}, {}, id="another Python's modules"),
        pytest.param({"PYTHONUNBUFFERED": "1"}, {}, {"PYTHONUNBUFFERED": "1"}, id="other Python settings stay"),
        pytest.param({"FGVALIDATE_RUN": "1"}, {}, {}, id="our marker"),
        pytest.param({"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "ROLE_RANK": "0"}, {}, {}, id="ranks"),
        pytest.param({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "ROLE_NAME": "a"}, {}, {}, id="sizes and roles"),
        pytest.param({"MASTER_ADDR": "a", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "r"}, {}, {}, id="rendezvous"),
        pytest.param({"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}, {}, {}, id="NCCL"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "1"}, {}, {"CUDA_VISIBLE_DEVICES": "1"}, id="GPUs stay"),
        pytest.param({"A": "1", "B": "2"}, {"A": "3", "C": "4"}, {"A": "3", "B": "2", "C": "4"}, id="extra wins"),
        pytest.param({"A": "1", "B": "2"}, {"A": None, "C": None}, {"B": "2"}, id="None removes"),
        pytest.param({}, {"RANK": "0", "PYTHONPATH": "/q"}, {"RANK": "0", "PYTHONPATH": "/q"}, id="extra may set all"),
    ],
)
def test_environment_is_ours_without_what_is_not_meant_for_the_subject(
    ours: dict[str, str], extra: dict[str, str | None], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", ours)

    assert build_environment(extra) == expected


@pytest.mark.parametrize(
    ("extra", "path"),
    [
        pytest.param({"PATH": "/usr/bin"}, "/venv/bin:/opt/bin:/usr/bin", id="before PATH"),
        pytest.param({"PATH": None}, f"/venv/bin:/opt/bin:{os.defpath}", id="before the default"),
    ],
)
def test_folders_come_first_in_path(extra: dict[str, str | None], path: str) -> None:
    assert build_environment(extra, path_first=[Path("/venv/bin"), Path("/opt/bin")])["PATH"] == path


def test_program_is_found_in_the_path_of_its_environment(tmp_path: Path) -> None:
    make_script(tmp_path / "forgather", "#!/bin/sh\n", 0o755)
    env = {"PATH": f"/no/such/folder:{tmp_path}"}

    assert find_program("forgather", env=env) == tmp_path / "forgather"
    assert find_program(str(tmp_path / "forgather"), env=env) == tmp_path / "forgather"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        pytest.param("forgather", r"'forgather' was not found in PATH \(/no:/where\); install it", id="not in PATH"),
        pytest.param("./forgather", "'./forgather' is not an executable file; correct the path", id="no such file"),
    ],
)
def test_program_that_is_not_found_is_a_launch_error(program: str, reason: str) -> None:
    with pytest.raises(LaunchError, match=reason):
        find_program(program, env={"PATH": "/no:/where"})


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        pytest.param(["echo", "abc"], "abc\n", id="output"),
        pytest.param(["sh", "-c", "echo $GIT_OPTIONAL_LOCKS; echo no >&2"], "0\n", id="git takes no locks"),
        pytest.param(["sh", "-c", "echo abc; exit 1"], None, id="failure"),
        pytest.param(["no-such-tool"], None, id="missing"),
        pytest.param(["sleep", "20"], None, id="slow"),
        pytest.param(["sh", "-c", "sleep 3 & echo abc"], "abc\n", id="does not wait for what it leaves"),
        pytest.param(["head", "-c", "20000000", "/dev/zero"], None, id="too much"),
    ],
)
def test_tool_gives_its_output_or_none(argv: list[str], expected: str | None, tmp_path: Path) -> None:
    start = time.monotonic()

    assert run_tool(argv, cwd=tmp_path, timeout_s=1.0) == expected
    assert time.monotonic() - start < 2.5


@pytest.mark.parametrize("has_pidfds", [True, False])
def test_signal_reaches_only_the_process_that_was_meant(has_pidfds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(pid)

    if not has_pidfds:
        monkeypatch.setattr(os, "pidfd_open", refuse)
    with subprocess.Popen(["sleep", "60"]) as child:
        info = supervisor.read_process(child.pid)
        assert info is not None
        former = supervisor.ProcessInfo(child.pid, b"1 (a) ) b) S 1 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0 0 5")
        supervisor.send_signal(former, signal.SIGKILL)
        supervisor.send_signal(info, signal.SIGTERM)

        assert child.wait(30) == -15


def test_long_command_line_is_described_on_one_short_line() -> None:
    with subprocess.Popen(["sh", "-c", "read line\n\n: ", "x" * 300], stdin=subprocess.PIPE) as child:
        info = supervisor.read_process(child.pid)
        assert info is not None
        wait_until(lambda: "read" in supervisor.describe(info))
        line = supervisor.describe(info)

    assert line.startswith(f"{child.pid} sh -c read line : xxx")
    assert line.endswith("xxx...")
    assert len(line) == 200
