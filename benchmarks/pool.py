"""The pool: how long a multirun takes, against how long it must take at least, and whether GPUs are ever shared.

    python benchmarks/pool.py              the first two; about a minute
    python benchmarks/pool.py --suites 100 also random suites of 1- and 2-GPU specs on 4 simulated GPUs

The trainers are shell scripts that sleep, and note when they had which GPUs. Bounds: 1.15 times the packing bound for
30 specs of 2 s, 4 at a time; 1.2 times max(longest, GPU-seconds / GPUs) on the GPUs; no GPU given twice at a time. What
one would otherwise do, one spec after another in a loop, takes the sum of all.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
NUM_GPUS = 4
TRAINER = """#!/bin/sh
# Sleeps for $NAP_S seconds, and leaves a log.
while [ "$1" != --output-dir ]; do shift; done
begun=$(date +%s.%N)
mkdir -p "$2/runs/log"
sleep "$NAP_S"
now=$(date +%s.%N)
printf '{"gpus": "%s", "begun": %s, "ended": %s}\\n' "$CUDA_VISIBLE_DEVICES" "$begun" "$now" >> "$NAP_LOG"
log="$2/runs/log/trainer_logs.json"
printf '[{"timestamp": %s, "global_step": 1, "epoch": 0.1, "loss": 1.0},\\n' "$now" > "$log"
printf ' {"timestamp": %s, "train_runtime": 1.0, "step": 0, "global_step": 1}]' "$now" >> "$log"
"""


@dataclass(frozen=True)
class Nap:
    """One spec: how long it sleeps, and on how many GPUs."""

    seconds: float
    num_gpus: int = 0


def write_specs(folder: Path, naps: list[Nap]) -> None:
    """Writes a spec a nap, and the trainer."""
    trainer = folder / "trainer"
    trainer.write_text(TRAINER, encoding="utf-8")
    trainer.chmod(0o755)
    (folder / "configs/spec").mkdir(parents=True)
    for number, nap in enumerate(naps):
        body = {
            "test_id": f"nap{number}",
            "project_dir": ".",
            "config": "none",
            "gpu_requirement": nap.num_gpus,
            "timeout": math.ceil(nap.seconds * 10),  # the larger, the sooner it is started
            "checks": {"repo_clean": None},
            "backend": {
                "root": str(folder),
                "program": str(trainer),
                "config_files": [],
                "env": {"NAP_S": str(nap.seconds), "NAP_LOG": str(folder / "naps.jsonl")},
            },
        }
        text = f"# @package _global_\n{yaml.safe_dump(body)}"
        (folder / f"configs/spec/nap{number}.yaml").write_text(text, encoding="utf-8")


def run_suite(naps: list[Nap], *words: str) -> tuple[float, list[dict[str, Any]]]:
    """Returns the wall time of the whole multirun in seconds, and who slept when on which GPUs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_specs(folder, naps)
        gpu = {"name": "Simulated", "total": 80 << 30, "reserved": 0, "used": 0, "processes": []}
        gpus = [{"uuid": f"GPU-{number:08x}", **gpu} for number in range(NUM_GPUS)]
        (folder / "gpus.json").write_text(json.dumps({"gpus": gpus}), encoding="utf-8")
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "tests/fakes/nvml"), str(ROOT)]),
            "SIMULATED_GPUS": str(folder / "gpus.json"),
            "FGVALIDATE_LEASES": str(folder / "leases"),
        }
        env.pop("CUDA_VISIBLE_DEVICES", None)
        argv = [
            sys.executable,
            "-m",
            "fgvalidate",
            "--config-dir",
            str(folder / "configs"),
            "-m",
            "+spec=glob(nap*)",
            *words,
        ]
        began = time.perf_counter()
        answer = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
        took = time.perf_counter() - began
        assert answer.returncode == 0, answer.stdout + answer.stderr
        lines = (folder / "naps.jsonl").read_text(encoding="utf-8").splitlines()
        return took, [json.loads(line) for line in lines]


def count_shared(spans: list[dict[str, Any]]) -> int:
    """Returns how many pairs of runs had a GPU in common at one time."""
    shared = 0
    for number, one in enumerate(spans):
        for other in spans[:number]:
            overlap = min(one["ended"], other["ended"]) - max(one["begun"], other["begun"])
            common = set(one["gpus"].split(",")) & set(other["gpus"].split(",")) - {""}
            shared += bool(common) and overlap > 0
    return shared


def find_lower_bound(naps: list[Nap]) -> float:
    """Returns the seconds that any schedule on the GPUs needs at least."""
    longest = max(nap.seconds for nap in naps)
    return max(longest, sum(nap.seconds * nap.num_gpus for nap in naps) / NUM_GPUS)


def draw_suite(generator: random.Random, num_specs: int, shortest: float, longest: float) -> list[Nap]:
    """Returns random specs, a third of which need 2 GPUs."""
    return [Nap(round(generator.uniform(shortest, longest), 2), generator.choice((1, 1, 2))) for _ in range(num_specs)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--suites", type=int, default=0)
    num_suites = parser.parse_args().suites
    naps = [Nap(2.0)] * 30
    took, _ = run_suite(naps, "hydra.launcher.max_parallel=4")
    ideal = math.ceil(len(naps) / 4) * 2.0
    alone = sum(nap.seconds for nap in naps)
    print(
        f"30 specs of 2 s, 4 at a time: {took:.1f} s, ratio {took / ideal:.2f} of the packing bound {ideal:.0f} s",
        end="",
    )
    print(f" (bound 1.15); one after another {alone:.0f} s")
    naps = draw_suite(random.Random(0), 24, 1.0, 5.0)
    took, spans = run_suite(naps)
    bound = find_lower_bound(naps)
    print(f"24 specs of 1 and 2 GPUs on {NUM_GPUS}: {took:.1f} s, ratio {took / bound:.2f} of {bound:.1f} s", end="")
    print(f" (bound 1.2), {count_shared(spans)} times a GPU was shared")
    if num_suites:
        shared = sum(
            count_shared(run_suite(draw_suite(random.Random(seed), 10, 0.1, 0.6))[1]) for seed in range(num_suites)
        )
        print(f"{num_suites} random suites of 10 specs: {shared} times a GPU was shared (bound 0)")


if __name__ == "__main__":
    main()
