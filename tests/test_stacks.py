"""Where processes stand is told with py-spy, and without it as far as the kernel says."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fgvalidate import stacks
from fgvalidate.stacks import MOST_PROCESSES, dump_stacks
from fgvalidate.supervisor import ProcessInfo, list_pids, read_process

SLEEPER = "import time\ndef fall_asleep():\n    print('asleep', flush=True)\n    time.sleep(60)\nfall_asleep()"


@pytest.fixture
def sleeper() -> Iterator[ProcessInfo]:
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "asleep\n"
        process = read_process(child.pid)
        assert process is not None
        yield process
        child.kill()


@pytest.fixture
def spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program into the place of py-spy."""

    def put(script: str) -> None:
        path = tmp_path / "py-spy"
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        monkeypatch.setattr(stacks, "find_spy", lambda: str(path))

    return put


def test_python_process_is_told_with_its_functions(sleeper: ProcessInfo) -> None:
    """Where tracing is not permitted, the text says so."""
    (text,) = dump_stacks([sleeper])

    first, state, *lines = text.splitlines()
    assert first.startswith(f"{sleeper.pid} {sys.executable} -c import time")
    assert state.startswith("  State: ")
    assert any("fall_asleep" in line for line in lines) or "py-spy could not read it" in lines[0]


def test_stopped_process_is_told_too(sleeper: ProcessInfo) -> None:
    os.kill(sleeper.pid, signal.SIGSTOP)
    os.waitpid(sleeper.pid, os.WUNTRACED)

    (text,) = dump_stacks([sleeper])

    assert "  State: T (stopped)" in text
    assert "fall_asleep" in text or "py-spy could not read it" in text


def test_stack_is_indented_and_bounded(sleeper: ProcessInfo, spy: Callable[[str], None]) -> None:
    spy('echo "Process 1: x"; echo "Thread 1 (idle)"; seq 1 100000')

    (text,) = dump_stacks([sleeper])

    assert "\n  Thread 1 (idle)\n  1\n  2\n" in text
    assert len(text) < stacks.LONGEST_STACK_CHARACTERS + 500


def test_process_is_not_stopped_where_that_is_not_needed(sleeper: ProcessInfo, spy: Callable[[str], None]) -> None:
    spy('[ "$2" = --nonblocking ] && echo "Thread $3 $4"')

    (text,) = dump_stacks([sleeper])

    assert text.endswith(f"  Thread --pid {sleeper.pid}")


def test_what_cannot_be_done_without_stopping_the_process_is_done_so(
    sleeper: ProcessInfo, spy: Callable[[str], None]
) -> None:
    spy('[ "$2" = --nonblocking ] && exit 1; echo "Thread $2 $3"')

    (text,) = dump_stacks([sleeper])

    assert text.endswith(f"  Thread --pid {sleeper.pid}")


@pytest.mark.parametrize("script", ["exit 1", "echo 'Error: Permission denied'", "exec sleep 30"])
def test_stack_that_cannot_be_read_says_so(
    sleeper: ProcessInfo, spy: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(stacks, "TOOL_LIMIT_S", 0.5)
    spy(script)

    (text,) = dump_stacks([sleeper])

    assert "\n  State: " in text
    assert "\n  no Python stack: py-spy could not read it" in text


def test_no_more_time_is_spent_than_there_is(
    sleeper: ProcessInfo, spy: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "TIME_LIMIT_S", 0.0)
    spy("echo Thread")

    (text,) = dump_stacks([sleeper])

    assert text.endswith("  no Python stack: there was no time left")


def test_without_py_spy_it_is_named(sleeper: ProcessInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "find_spy", lambda: None)

    (text,) = dump_stacks([sleeper])

    assert text.endswith("  no Python stack: py-spy is not installed; pip install 'fgvalidate[stacks]'")


def test_py_spy_is_found_beside_our_python() -> None:
    found = stacks.find_spy()

    assert found is not None
    assert Path(found).is_file()


def test_other_programs_have_no_python_stack() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"x\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"x\n"
        process = read_process(child.pid)
        assert process is not None

        (text,) = dump_stacks([process])

        child.kill()
    assert text.splitlines()[0] == f"{child.pid} cat"
    assert "no Python stack" not in text


def test_process_that_has_ended_is_left_out(sleeper: ProcessInfo) -> None:
    gone = ProcessInfo(max(list_pids()) + 10_000, b"0 (x) S 1 1 1" + b" 0" * 20)

    assert len(dump_stacks([gone, sleeper])) == 1


def test_of_many_processes_the_first_are_told(sleeper: ProcessInfo, spy: Callable[[str], None]) -> None:
    spy("echo Thread")

    texts = dump_stacks([sleeper] * (MOST_PROCESSES + 3))

    assert (len(texts), texts[-1]) == (MOST_PROCESSES + 1, "and 3 more processes")
