"""Watching: the time from the first NaN on stdout to an empty process tree, and what it costs to watch a flood.

    python benchmarks/watch.py

The trainer of the first figure goes on for an hour, in two processes that ignore SIGTERM; bound: 5 s. That of the
second prints 50,000 lines a second for half a minute: in one run rows of the step table, in another any other lines.
What watching costs is user and system time of the fgvalidate process, less that of the same run of a trainer that
prints nothing, as a share of the run's duration; bound: 10 % of a core. The memory is the kernel's figure for that
process at its highest, for 10 and for 30 seconds of the flood; bound: 1.05 times as much.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROW = "2026-11-22 15:25:17 %10d    0.0004   %s    1.6310    1.6310    4.00e-06         366         793       2,944"
STUBBORN = """#!{python} -S
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child == 0:
    os.setsid()
    time.sleep(3600)
for step in range(1, 4):
    print({row!r} % (step, "4.50000"), flush=True)
    time.sleep(0.3)
print({row!r} % (4, "nan"), flush=True)
open(sys.argv[sys.argv.index("--output-dir") + 1] + "/nan", "w").write(repr(time.time()))
time.sleep(3600)
"""
FLOOD = """#!{python} -S
import os, time
block = ({line!r} + chr(10)).encode() * 2500
start = time.monotonic()
for number in range(1, {seconds} * 20 + 1):
    if {is_loud}:
        os.write(1, block)
    time.sleep(max(0.0, start + number / 20 - time.monotonic()))
"""
LINES_A_SECOND = 50_000


@dataclass(frozen=True)
class Cost:
    """What the fgvalidate process took."""

    cpu_s: float
    memory_bytes: int
    duration_s: float
    """The training command's."""


def write_program(path: Path, text: str, **values: Any) -> Path:
    """Writes a trainer."""
    path.write_text(text.format(python=sys.executable, **values), encoding="utf-8")
    path.chmod(0o755)
    return path


def run(trainer: Path, run_dir: Path, *overrides: str) -> Cost:
    """Validates the trainer; its verdict is red, since it leaves no log."""
    argv = [sys.executable, "-m", "fgvalidate", "+spec=tiny_llama", f"backend.program={trainer}", *overrides]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(sys.executable, [*argv, f"hydra.run.dir={run_dir}"], env, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    return Cost(
        cpu_s=usage.ru_utime + usage.ru_stime,
        memory_bytes=usage.ru_maxrss * 1024,
        duration_s=read_facts(run_dir)["train.duration_s"],
    )


def read_facts(run_dir: Path) -> dict[str, Any]:
    """Returns what was observed."""
    facts: dict[str, Any] = json.loads((run_dir / "facts.json").read_text(encoding="utf-8"))["values"]
    return facts


def measure_stop(folder: Path) -> float:
    """Returns the seconds from the first NaN to the end of its process tree."""
    trainer = write_program(folder / "stubborn", STUBBORN, row=ROW)
    run(trainer, folder / "stop")
    facts = read_facts(folder / "stop")
    assert facts["watch.alarms"] == ["loss is nan at step 4"]
    left = subprocess.run(["pgrep", "-f", str(trainer)], capture_output=True, text=True, check=False)
    for pid in left.stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    assert not left.stdout, "something was left"
    ended_at = facts["train.started_at"] + facts["train.duration_s"] + facts["train.cleanup_s"]
    return float(ended_at - float((folder / "stop/train/nan").read_text(encoding="utf-8")))


def measure_flood(folder: Path, name: str, line: str, seconds: int, *, is_loud: bool = True) -> Cost:
    """Returns what a run costs whose trainer prints that line for that long."""
    trainer = write_program(folder / name, FLOOD, line=line, seconds=seconds, is_loud=is_loud)
    cost = run(trainer, folder / f"{name}.run", "loss.ceiling=10", "stderr.forbidden_patterns=[CUDA error]")
    (folder / f"{name}.run/train.stdout").unlink()
    return cost


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        stop_s = measure_stop(folder)
        print(f"from the first NaN to an empty process tree: {stop_s:.1f} s (bound 5)")
        assert stop_s < 5
        silent = measure_flood(folder, "silent", "", 30, is_loud=False)
        for kind, line in {"rows": ROW % (7, "4.50000"), "other lines": "a word " * 16}.items():
            short = measure_flood(folder, f"short_{kind[:4]}", line, 10)
            long = measure_flood(folder, f"long_{kind[:4]}", line, 30)
            share = (long.cpu_s - silent.cpu_s) / long.duration_s
            whole = long.cpu_s / long.duration_s
            growth = long.memory_bytes / short.memory_bytes
            print(
                f"{LINES_A_SECOND:,} {kind} a second for {long.duration_s:.0f} s: {share:.1%} of a core (bound 10 %; "
                f"the whole run, starting included, {whole:.1%}), {long.memory_bytes / 1e6:.0f} MB, "
                f"{growth:.2f} times that of 10 s"
            )
            assert share < 0.10
            assert growth < 1.05
        print(f"measured in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
