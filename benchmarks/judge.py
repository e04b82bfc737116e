"""A recorded run judged again: by the whole command line, and by a new pattern on a log of 100,000 records.

    python benchmarks/judge.py

The run is recorded first, with a trainer that leaves at once what a run leaves; it is then judged in a process of its
own, by another bound and by a pattern that is looked for anew. The median of several counts. Bounds: 1.5 s, and 3 s
with 100,000 records.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from long_log import RECORD

NUM_RUNS = 5
SIZES = {20: 1.5, 100_000: 3.0}
"""Records of the log, and within how many seconds it is to be judged."""
TRAINER = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --output-dir ] && output=$2; shift; done
mkdir -p "$output/runs/log"
{python} {script} "$output/runs/log/trainer_logs.json"
"""
BOUNDS = ["loss.drop_min=null", "min_steps_logged=1", "max_steps=1"]


def write_log(path: Path, num_records: int) -> None:
    """Writes a log in the trainer's format."""
    began = time.time()
    with path.open("w", encoding="utf-8") as file:
        file.write("[\n")
        for step in range(1, num_records):
            loss = 7 - step / num_records
            file.write(RECORD.format(time=began, step=step, epoch=step / num_records, loss=loss) + ",\n")
        file.write(f'{{"timestamp": {began}, "global_step": {num_records}, "train_runtime": 1.0}}\n]')
    for _ in range(num_records):
        sys.stderr.write("WARNING: a line about nothing, as there are many in a long run\n")


def run(folder: Path, *words: str) -> float:
    """Runs the command line; returns its wall time, in seconds."""
    argv = [sys.executable, "-m", "fgvalidate", *words]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    began = time.perf_counter()
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    assert done.returncode == 0, done.stdout + done.stderr
    return took


def measure(num_records: int) -> list[float]:
    """Returns how long it took to judge a run with so many records, each time, in seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trainer = folder / "trainer"
        script = f"{Path(__file__).resolve()} {num_records}"
        trainer.write_text(TRAINER.format(python=sys.executable, script=script), encoding="utf-8")
        trainer.chmod(0o755)
        run(folder, "+spec=tiny_llama", f"backend.program={trainer}", "loss.final_max=9", *BOUNDS)
        (recorded,) = folder.glob("outputs/*/*")
        new = [f"judge={recorded}", "loss.final_max=8", "stderr.forbidden_patterns=[Killed,Traceback]"]
        return [run(folder, *new) for _ in range(NUM_RUNS)]


def main() -> None:
    for num_records, bound_s in SIZES.items():
        times = measure(num_records)
        print(
            f"{num_records:,} records judged again in {statistics.median(times):.2f} s "
            f"({min(times):.2f} to {max(times):.2f}; bound {bound_s} s)"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_log(Path(sys.argv[2]), int(sys.argv[1]))
    else:
        main()
