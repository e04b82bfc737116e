"""The shipped specs on the built-in trainer with ten seeds each: none may be red. About 16 minutes on 2 cores.

    python benchmarks/seeds.py
    python benchmarks/seeds.py --seeds 3 --folder outputs/seeds tiny_llama      # keeps the runs' folders

A seed draws the initial weights and the order of the data. For each bound on what is measured (and not counted), the
range of what was observed is printed, and the smallest margin: how far the worst run stayed away from the bound, as a
share of the bound.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from fgvalidate.report import Report

SPECS = ("tiny_experiment", "tiny_llama", "tiny_llama_inference")
BOUND = re.compile(r"(<=|>=) (-?[\d.]+(?:e[+-]?\d+)?)")


def run(spec: str, seed: int, folder: Path) -> Report:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    run_dir = folder / f"{spec}-{seed}"
    argv = [
        sys.executable,
        "-m",
        "fgvalidate",
        f"+spec={spec}",
        f"+dynamic_args.seed={seed}",
        f"hydra.run.dir={run_dir}",
    ]
    subprocess.run(argv, env=env, check=False, stdout=subprocess.DEVNULL)
    return Report.read(run_dir / "report.json")


def list_bounded(report: Report) -> dict[str, tuple[float, str, float]]:
    """Returns what was observed, the operator and the bound, by check."""
    bounded = {}
    for verdict in report.verdicts:
        match = BOUND.fullmatch(verdict.expected)
        if match and isinstance(verdict.actual, float):
            bounded[verdict.name] = (verdict.actual, match[1], float(match[2]))
    return bounded


def print_margins(reports: list[Report]) -> None:
    rows = [list_bounded(report) for report in reports]
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name][0] for row in rows if name in row]
        _, operator, bound = next(row[name] for row in rows if name in row)
        slack = bound - max(values) if operator == "<=" else min(values) - bound
        margin = f"{slack / abs(bound):.0%}" if bound else f"{slack:g}"
        print(f"  {name:16} {operator} {bound:<8g} observed {min(values):.4g} to {max(values):.4g}, margin {margin}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("specs", nargs="*", default=SPECS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    num_red = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).absolute()
        for spec in options.specs:
            reports = []
            for seed in range(options.seeds):
                reports.append(run(spec, seed, folder))
                if reports[-1].outcome != "passed":
                    num_red += 1
                    print(f"{spec}, seed {seed}: {reports[-1].outcome}: {reports[-1].reason}", flush=True)
            passed = sum(report.outcome == "passed" for report in reports)
            print(f"{spec}: {passed} of {len(reports)} seeds passed", flush=True)
            print_margins(reports)
    return 1 if num_red else 0


if __name__ == "__main__":
    sys.exit(main())
