"""Our own time: `python -m fgvalidate` on a trainer that exits at once, against a bare Hydra app with the same config.

    python benchmarks/overhead.py

Both are whole processes, measured alternately in one run; the median counts. The bare application composes the same
spec from the same folder and does nothing with it. Bound: 1.7.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NUM_RUNS = 11
BARE = """
import hydra
from omegaconf import DictConfig

from fgvalidate.composition import find_config_dir, register_schema

register_schema()


@hydra.main(version_base="1.3", config_path=str(find_config_dir()), config_name="config")
def main(cfg: DictConfig) -> None:
    pass


main()
"""


def measure(argv: list[str], cwd: Path, env: dict[str, str], returncode: int) -> float:
    """Returns the wall time of one process, in seconds."""
    began = time.perf_counter()
    answer = subprocess.run(argv, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    took = time.perf_counter() - began
    assert answer.returncode == returncode, f"{argv} returned {answer.returncode}"
    return took


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bare.py").write_text(BARE, encoding="utf-8")
        trainer = folder / "trainer"
        trainer.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
        trainer.chmod(0o755)
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        spec = "+spec=tiny_llama"
        # A trainer that leaves nothing is red: exit code 1.
        ours = [sys.executable, "-m", "fgvalidate", spec, f"backend.program={trainer}"]
        bare = [sys.executable, str(folder / "bare.py"), spec]
        times: dict[str, list[float]] = {"ours": [], "bare": []}
        for run in range(NUM_RUNS + 1):
            pair = {"ours": measure(ours, folder, env, 1), "bare": measure(bare, folder, env, 0)}
            if run > 0:  # the first run fills the caches
                for key, took in pair.items():
                    times[key].append(took)
    ours_s, bare_s = (statistics.median(times[key]) for key in ("ours", "bare"))
    print(f"fgvalidate {ours_s:.3f} s, bare Hydra {bare_s:.3f} s, ratio {ours_s / bare_s:.2f} (bound 1.7)")


if __name__ == "__main__":
    main()
