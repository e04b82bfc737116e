"""What the inference stage adds to a run, beyond the bare server start and the completion's own latency. Bound: 1.0 s.

    python benchmarks/inference_stage.py

The same short training is run twice, without the stage and with it. Whatever a run takes beyond its parts (the training
command, the server until it is healthy, the first completion) is overhead; the stage's is the difference of the two.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NUM_RUNS = 3
UNBOUNDED = ["max_steps=100", "loss.final_max=null", "loss.drop_min=null", "inference.perplexity_max=null"]
PARTS = ("train.duration_s", "inference.server_startup_s", "inference.latency_s")


def measure(*overrides: str) -> tuple[float, dict[str, Any]]:
    """Runs the spec; returns what it took beyond its parts, in seconds, and its facts."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-m", "fgvalidate", "+spec=tiny_llama_inference", "hydra.run.dir=run", *overrides]
        began = time.perf_counter()
        subprocess.run(argv, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        took = time.perf_counter() - began
        facts = json.loads((Path(folder) / "run/facts.json").read_text(encoding="utf-8"))["values"]
    return took - sum(facts.get(part, 0.0) for part in PARTS), facts


def main() -> None:
    added = []
    for _ in range(NUM_RUNS):
        without, _ = measure(*UNBOUNDED[:3], "inference=none")
        with_stage, facts = measure(*UNBOUNDED)
        added.append(with_stage - without)
    parts = ", ".join(f"{part} {facts[part]:.2f}" for part in PARTS)
    print(f"the inference stage adds {statistics.median(added):.2f} s (bound 1.0) beyond {parts}")


if __name__ == "__main__":
    main()
