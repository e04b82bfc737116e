"""However fgvalidate is interrupted in mid-training, nothing is left running, and nothing is judged."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TRAINING = "hang_at=15;workers=2"
STUBBORN = f"{TRAINING};dataloader;ignore_sigterm"
NUM_PROCESSES = {TRAINING: 6, STUBBORN: 8}
"""fgvalidate, its supervisor, forgather, torchrun, two workers; and a data loader of each worker."""

Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start(workplace: Any, forgather_args: Callable[..., list[str]], wait_until: Callable[..., None]) -> Iterator[Start]:
    """Starts a validation as a terminal does, in a process group of its own, and waits until training has begun."""
    started: list[subprocess.Popen[str]] = []

    def has_trained(num_processes: int) -> bool:
        assert started[-1].poll() is None, started[-1].communicate()
        printed = [path.read_text(encoding="utf-8") for path in workplace.folder.glob("outputs/*/*/train.stdout")]
        return any("  0.0160 " in text for text in printed) and len(workplace.find_processes()) == num_processes

    def run(faults: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                workplace.argv(*forgather_args(faults)),
                cwd=workplace.folder,
                env=workplace.env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        wait_until(lambda: has_trained(NUM_PROCESSES[faults]))
        return started[-1]

    yield run
    for app in started:
        app.kill()
        app.communicate()


def list_reports(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("outputs/*/*/*.json")]


@pytest.mark.parametrize(
    ("signals", "code", "said"),
    [
        pytest.param([signal.SIGINT], 130, "fgvalidate: interrupted:", id="SIGINT"),
        pytest.param([signal.SIGINT, signal.SIGINT], 130, "fgvalidate: interrupted:", id="SIGINT_twice"),
        pytest.param([signal.SIGTERM], 143, "fgvalidate: terminated:", id="SIGTERM"),
        pytest.param([signal.SIGKILL], -9, "", id="SIGKILL"),
    ],
)
def test_nothing_outlives_an_interrupted_run(
    start: Start, workplace: Any, signals: list[signal.Signals], code: int, said: str
) -> None:
    app = start(STUBBORN)

    for number in signals:
        app.send_signal(number)

    workplace.wait_until_empty()
    stdout, stderr = app.communicate(timeout=30)
    assert app.returncode == code
    assert stderr.startswith(said)
    assert "Traceback" not in stdout + stderr
    assert "PASSED" not in stdout
    assert "FAILED" not in stdout
    assert list_reports(workplace.folder) == []


def test_nothing_outlives_ctrl_c_in_a_terminal(start: Start, workplace: Any) -> None:
    app = start(TRAINING)

    os.killpg(app.pid, signal.SIGINT)

    workplace.wait_until_empty()
    stdout, stderr = app.communicate(timeout=30)
    assert app.returncode == 130
    assert stderr == "fgvalidate: interrupted: what was running has been ended, and nothing was judged\n"
    assert "Traceback" not in stdout
    assert list_reports(workplace.folder) == []
