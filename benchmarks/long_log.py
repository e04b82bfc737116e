"""A training log of 1,000,000 records: found, read, turned into facts and judged. Bound: 15 s.

    python benchmarks/long_log.py

Against it stands `json.load` of the whole file in a process of its own: time and peak memory.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from omegaconf import OmegaConf

from fgvalidate.checks import judge
from fgvalidate.composition import find_config_dir, register_schema
from fgvalidate.observation import Observation, collect_facts
from fgvalidate.process import ProcessResult
from fgvalidate.training_log import FORGATHER, find_training_log

NUM_RECORDS = 1_000_000
RECORD = (
    '{{"timestamp": {time:.6f}, "global_step": {step}, "epoch": {epoch:.4f}, "loss": {loss:.6f}, "grad_norm": 1.1, '
    '"max_grad_norm": 1.3, "tokens": 306485, "total_tokens": {step}, "total_flos": 21247795929600.0, '
    '"learning_rate": 0.0002}}'
)
LOAD = """
import json, resource, sys, time
began = time.perf_counter()
json.load(open(sys.argv[1]))
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def write_log(path: Path) -> None:
    """Writes a log in the trainer's format."""
    path.parent.mkdir(parents=True)
    began = time.time()
    with path.open("w", encoding="utf-8") as file:
        file.write("[\n")
        for step in range(1, NUM_RECORDS):
            record = RECORD.format(time=began + step, step=step, epoch=step / NUM_RECORDS, loss=7 - step / NUM_RECORDS)
            file.write(record + ",\n")
        file.write(f'{{"timestamp": {began + NUM_RECORDS}, "global_step": {step}, "train_runtime": 1.0}}\n]')


def main() -> None:
    register_schema()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "runs/log/trainer_logs.json"
        write_log(path)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        log = find_training_log(
            folder, FORGATHER, stdout=folder / "stdout", written_after=0, started_at=0, requested_steps=None
        )
        process = ProcessResult(
            argv=("trainer",),
            returncode=0,
            timed_out=False,
            started_at=0,
            duration_s=1,
            cleanup_s=0,
            peak_memory_bytes=0,
            orphans=(),
            survivors=(),
        )
        facts = collect_facts(
            Observation(
                process=process,
                timeout=300,
                log=log,
                requested_steps=None,
                findings={},
                stderr_bytes=0,
                files={"trainer_logs.json": True},
                created_files=frozenset(),
                commit=None,
                num_gpus_available=0,
                gpu_names=(),
                host="here",
                num_cores=2,
                inference="there is no inference stage",
            )
        )
        config = OmegaConf.create(
            {
                "max_steps": None,
                "dynamic_args": {},
                "stderr": {"forbidden_patterns": [], "warn_patterns": []},
                "expected_files": ["trainer_logs.json"],
                "min_steps_logged": NUM_RECORDS - 1,
                "loss": {"final_max": 6.1, "final_min": None, "drop_min": 0.1, "no_nan": True},
                "inference": None,
                "checks": OmegaConf.load(find_config_dir() / "checks/default.yaml"),
            }
        )
        verdicts = judge(config.checks, facts)
        took = time.perf_counter() - began
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        assert not any(verdict.is_red for verdict in verdicts), verdicts
        argv = [sys.executable, "-c", LOAD, str(path)]
        answer = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
        load_s, load_bytes = (json.loads(word) for word in answer)
        size = path.stat().st_size
    print(
        f"{NUM_RECORDS:,} records ({size / 1e6:.0f} MB) judged in {took:.1f} s (bound 15) with {grown / 1e6:.0f} MB; "
        f"json.load alone: {load_s:.1f} s and {load_bytes / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
