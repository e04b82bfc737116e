"""The reports of a multirun of 1,000 finished specs, built from its folder. Bounds: 20 s, 300 MB.

    python benchmarks/suite_reports.py

Against it stands `json.load` of every result line: time and peak memory. Each runs in a process of its own.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from fgvalidate.checks import Status, Verdict
from fgvalidate.curve import MAX_POINTS
from fgvalidate.facts import Facts
from fgvalidate.report import Report
from fgvalidate.spec import Inference, Loss, Spec
from fgvalidate.suite import RESULTS_NAME, Job, Plan, append_result, record_ending, start_suite

NUM_SPECS = 1000
TEXT = "there was a little fox who lived in the woods with her mother. One day she found a red ball. " * 3
MEASURE = """
import json, resource, sys, time
from pathlib import Path
began = time.perf_counter()
{code}
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
WRITE = """
from fgvalidate.suite import read_suite
from fgvalidate.suite_reports import write_reports
assert write_reports(read_suite(Path(sys.argv[1]))) == []
"""
LOAD = f"rows = [json.loads(line) for line in (Path(sys.argv[1]) / {RESULTS_NAME!r}).open()]"


def make_report(num: int) -> Report:
    """Returns the report of a spec, every tenth of which failed."""
    is_red = num % 10 == 0
    verdicts = [
        Verdict(name=f"check_{number}", status="passed", actual=1.5, expected="<= 2.0", message="")
        for number in range(19)
    ]
    status: Status = "failed" if is_red else "passed"
    verdicts.append(Verdict(name="final_loss_max", status=status, actual=2.5, expected="<= 2.0", message="at the last"))
    spec = Spec(
        test_id=f"spec_{num}",
        project_dir="examples/tutorials/tiny_llama",
        config="train_tiny_llama.yaml",
        loss=Loss(final_max=2.0, final_min=0.5),
        dynamic_args={"max_steps": 4000, "save_strategy": "steps"},
        inference=Inference(),
        checks={verdict.name: f"${{fact:loss.final}} {verdict.expected}" for verdict in verdicts},
    )
    return Report(
        test_id=spec.test_id,
        outcome="failed" if is_red else "passed",
        reason="final_loss_max is 2.5, expected <= 2.0" if is_red else "",
        command=f"python -m fgvalidate +spec=spec_{num}",
        verdicts=tuple(verdicts),
        stderr_tail=tuple(f"step {step}: loss 2.5, learning rate 0.0003" for step in range(20)) if is_red else (),
        run_dir=Path("/runs") / str(num),
        duration_s=120.5,
        spec=asdict(spec),
        versions={"python": "3.11.7", "fgvalidate": "0.1.0", "hydra-core": "1.3.8", "omegaconf": "2.3.1"},
    )


def make_facts(num: int) -> Facts:
    """Returns facts with a curve as long as curves get."""
    losses = (7 * math.exp(-step / 99) + 0.1 * math.sin(step * (num + 1)) for step in range(MAX_POINTS))
    curve = [[10 * step, loss] for step, loss in enumerate(losses, 1)]
    return Facts(
        values={
            "loss.curve": curve,
            "loss.first": curve[0][1],
            "loss.final": curve[-1][1],
            "loss.num_nonfinite": 0,
            "train.argv": ["/usr/bin/python3", "-m", "trainer", "--max-steps", "4000"],
            "train.started_at": 1795360010.0,
            "train.duration_s": 110.5,
            "train.peak_memory_bytes": 3_000_000_000,
            "train.global_step": 4000,
            "train.max_steps": 4000,
            "train.num_steps_logged": MAX_POINTS,
            "inference.texts": [TEXT] * 3,
            "inference.perplexities": [31.5, 42.5, 53.5],
            "inference.perplexity": 42.5,
            "inference.scorer": "builtin",
            "gpu.num_used": 1,
            "gpu.num_available": 4,
            "host.name": "node-3",
            "host.num_cores": 64,
            "repo.commit": "0123456789abcdef0123456789abcdef01234567",
        }
    )


def make_suite(root: Path) -> None:
    """Leaves the folder of a multirun that has ended."""
    jobs = tuple(
        Job(
            num=num,
            spec=f"spec_{num}",
            test_id=f"spec_{num}",
            name=f"spec_{num}[max_steps=4000]",
            overrides=(f"+spec=spec_{num}", "max_steps=4000"),
            run_dir=f"{num}-spec_{num}",
            markers=("integration",),
            command=f"python -m fgvalidate +spec=spec_{num}",
        )
        for num in range(NUM_SPECS)
    )
    start_suite(root, Plan(command="python -m fgvalidate -m '+spec=glob(*)'", started_at=time.time(), jobs=jobs))
    for num in range(NUM_SPECS):
        append_result(root, num, make_report(num), make_facts(num))
    record_ending(root, "completed", 3600.0)


def measure(code: str, root: Path) -> tuple[float, float]:
    """Runs the code in a process of its own; returns its seconds and its peak memory in bytes."""
    argv = [sys.executable, "-c", MEASURE.format(code=code), str(root)]
    words = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    took_s, peak_bytes = (json.loads(word) for word in words)
    return took_s, peak_bytes


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "suite"
        make_suite(root)
        size = (root / RESULTS_NAME).stat().st_size
        took_s, peak_bytes = measure(WRITE, root)
        load_s, load_bytes = measure(LOAD, root)
        sizes = ", ".join(
            f"{name} {(root / name).stat().st_size / 1e6:.1f} MB"
            for name in ("report.html", "report.json", "junit.xml", "summary.md")
        )
    print(
        f"{NUM_SPECS:,} specs ({size / 1e6:.0f} MB of results) reported in {took_s:.1f} s (bound 20) with "
        f"{peak_bytes / 1e6:.0f} MB (bound 300); json.load alone: {load_s:.1f} s and {load_bytes / 1e6:.0f} MB; {sizes}"
    )
    assert took_s < 20
    assert peak_bytes < 300e6


if __name__ == "__main__":
    main()
