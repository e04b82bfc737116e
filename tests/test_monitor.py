"""What a multirun shows while it runs."""

import io
import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any

from rich.console import Console

from fgvalidate.monitor import Monitor
from fgvalidate.report import Report
from fgvalidate.suite import Job, Plan

ROW = "2026-11-22 15:25:17         20    0.0004   6.94874    1.6310    1.6310    4.00e-06         366         793\n"


def make_plan(*names: str, gpus: int = 0) -> Plan:
    jobs = [
        Job(
            num=num, spec=name, test_id=name, name=name, overrides=(), run_dir=name, gpu_requirement=gpus, max_steps=200
        )
        for num, name in enumerate(names)
    ]
    return Plan(command="", started_at=0.0, jobs=tuple(jobs))


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def watch(root: Path, plan: Plan, *, is_terminal: bool = False) -> tuple[Monitor, io.StringIO, Clock]:
    output, clock = io.StringIO(), Clock()
    console = Console(file=output, force_terminal=is_terminal, width=100, color_system=None, highlight=False)
    return Monitor(console, root, plan, clock=clock), output, clock


def test_stage_step_and_loss_are_read_from_the_folder(tmp_path: Path) -> None:
    plan = make_plan("one", gpus=1)
    monitor, output, clock = watch(tmp_path, plan)

    with monitor:
        monitor.start(plan.jobs[0])
        for name, content in {"": "", "train.stdout": ROW, "server.log": "", "facts.json": "{}"}.items():
            (tmp_path / "one").mkdir(exist_ok=True)
            if name:
                (tmp_path / "one" / name).write_text(content, encoding="utf-8")
            clock.now += 30
            monitor.update()

    assert output.getvalue().splitlines() == [
        "started  one  (1 of 1)",
        "running  one  waiting for GPUs  30 s",
        "running  one  training  step 20 of 200, loss 6.949  60 s",
        "running  one  serving  step 20 of 200, loss 6.949  90 s",
        "running  one  judging  step 20 of 200, loss 6.949  120 s",
    ]


def test_plain_lines_come_every_half_minute_and_not_more_often(tmp_path: Path) -> None:
    plan = make_plan("one")
    monitor, output, clock = watch(tmp_path, plan)

    with monitor:
        monitor.start(plan.jobs[0])
        for _ in range(100):
            clock.now += 1
            monitor.update()

    assert [line.split()[-2] for line in output.getvalue().splitlines()[1:]] == ["30", "60", "90"]


def test_end_of_a_spec_is_a_line_with_its_first_cause(tmp_path: Path) -> None:
    plan = make_plan("one", "two")
    monitor, output, _ = watch(tmp_path, plan)

    with monitor:
        monitor.start(plan.jobs[0])
        report = Report(test_id="one", outcome="failed", reason="why [bold]\x1b[31m", command="", duration_s=1.25)
        monitor.finish(plan.jobs[0], report)
        monitor.start(plan.jobs[1])

    assert output.getvalue().splitlines()[1:] == [
        "FAILED   one in 1.2 s: why [bold]\\x1b[31m",
        "started  two  (2 of 2)",
    ]


def test_terminal_shows_a_table(tmp_path: Path) -> None:
    plan = make_plan("one", "two")
    monitor, output, _ = watch(tmp_path, plan, is_terminal=True)

    with monitor:
        monitor.start(plan.jobs[0])
        monitor.update()

    text = output.getvalue()
    assert "0 of 2 specs ended, 0 s" in text
    assert re.search(r"spec +stage +step +loss +elapsed", text)
    assert re.search(r"one +starting +0 s", text)


def test_real_terminal_shows_the_table_and_then_the_verdict(specs: Any, workplace: Any) -> None:
    specs.write("slow", "step_s=0.1")
    main, side = pty.openpty()
    argv = workplace.argv(*specs.multirun("slow"))
    app = subprocess.Popen(
        argv, cwd=workplace.folder, env={**workplace.env, "TERM": "xterm"}, stdin=side, stdout=side, stderr=side
    )
    os.close(side)
    shown = b""
    while chunk := read_terminal(main):
        shown += chunk
    os.close(main)

    assert app.wait(timeout=60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"slow +training +\d+ of 20 +\d", text)
    assert "PASSED 1 spec: 1 passed in " in text


def read_terminal(fd: int) -> bytes:
    """Reads on; nothing when the other side is closed, which Linux reports as an error."""
    try:
        return os.read(fd, 65536)
    except OSError:
        return b""
