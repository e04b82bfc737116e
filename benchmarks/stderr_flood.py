"""Memory: a trainer that prints 2 GB to stderr, with a forbidden pattern at the very end.

    python benchmarks/stderr_flood.py

Our own peak memory is the kernel's figure for the fgvalidate process. Bounds: 150 MB, nothing lost, the pattern found.
Against it stands what a harness does that captures the output: `subprocess.run(capture_output=True)`, on a tenth of it.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LINE = "0123456789abcdef" * 4
NUM_BYTES = 2_000_000_000
TRAINER = """#!{python} -S
import os, sys
block = (({line!r} + chr(10)) * 16000).encode()
written = 0
while written < {num_bytes}:
    os.write(2, block)
    written += len(block)
os.write(2, b"the end: CUDA error")
"""
CAPTURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], capture_output=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def write_trainer(path: Path, num_bytes: int) -> Path:
    """Writes a program that prints that much to stderr."""
    path.write_text(TRAINER.format(python=sys.executable, line=LINE, num_bytes=num_bytes), encoding="utf-8")
    path.chmod(0o755)
    return path


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flood = write_trainer(folder / "flood", NUM_BYTES)
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        began = time.perf_counter()
        pid = os.posix_spawn(
            sys.executable,
            [
                *(sys.executable, "-m", "fgvalidate", "+spec=tiny_llama", f"backend.program={flood}"),
                *(f"hydra.run.dir={folder}/run", "stderr.forbidden_patterns=[CUDA error, absent one, another]"),
            ],
            env,
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
        )
        _, _, usage = os.wait4(pid, 0)
        took = time.perf_counter() - began
        facts = json.loads((folder / "run/facts.json").read_text(encoding="utf-8"))["values"]
        finding = facts["stderr.findings"]["CUDA error"]
        assert finding["line"] == "the end: CUDA error", finding
        assert facts["stderr.num_bytes"] >= NUM_BYTES
        (folder / "run/train.stderr").unlink()

        tenth = write_trainer(folder / "tenth", NUM_BYTES // 10)
        argv = [sys.executable, "-c", CAPTURE, str(tenth)]
        captured = int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    own = usage.ru_maxrss * 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < own * 10
    print(
        f"{facts['stderr.num_bytes'] / 1e9:.1f} GB of stderr in {took:.1f} s: peak {own / 1e6:.0f} MB (bound 150), "
        f"found at line {finding['line_number']}; capturing a tenth of it in memory takes {captured / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
