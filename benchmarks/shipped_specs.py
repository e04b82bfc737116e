"""The shipped specs on the built-in trainer: whole runs, and what they add to the bare training command.

    python benchmarks/shipped_specs.py

Bounds on 2 cores: tiny_experiment 30 s, tiny_llama 45 s, tiny_llama_inference 120 s, most of it the trainer's.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPECS = {"tiny_experiment": 30, "tiny_llama": 45, "tiny_llama_inference": 120}


def main() -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    for spec, bound in SPECS.items():
        with tempfile.TemporaryDirectory() as folder:
            argv = [sys.executable, "-m", "fgvalidate", f"+spec={spec}", "hydra.run.dir=run"]
            began = time.perf_counter()
            subprocess.run(argv, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
            took = time.perf_counter() - began
            facts = json.loads((Path(folder) / "run/facts.json").read_text(encoding="utf-8"))["values"]
        trainer_s = facts["train.duration_s"]
        print(f"{spec}: {took:.1f} s (bound {bound}), the trainer's {trainer_s:.1f} s, ratio {took / trainer_s:.2f}")


if __name__ == "__main__":
    main()
