"""The pytest plugin: collecting 1,000 specs, and what it adds to the sessions of everybody else.

    python benchmarks/pytest_collection.py

| specs | |
|---|---|
| hydra | choose a project and a tier, and say their test_id and markers themselves |
| flat | Forgather's own files, complete |

Bounds: 5 s for `pytest --collect-only` of each kind, as a whole process; 5 ms in a session without specs.
Wall time and CPU time are printed, since other work may share the cores; the bounds are held against CPU time, of all
processes together.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

NUM_SPECS = 1_000
NUM_SESSIONS = 9
BOUND_S = 5.0
BOUND_INACTIVE_S = 0.005
HYDRA = """\
# @package _global_
defaults:
  - override /project: tiny_llama
  - override /tier: {tier}
  - _self_

test_id: id_{number}
markers: [integration, m{marker}]
dynamic_args:
  max_steps: {steps}
loss:
  final_max: ${{oc.select:bounds.${{backend.name}}.final_max,null}}
stderr:
  forbidden_patterns: [RuntimeError, CUDA error, Traceback]
min_steps_logged: 2
"""
FLAT = """\
test_id: id_{number}
project_dir: examples/tutorials/tiny_llama
config: train_tiny_llama.yaml
dynamic_args:
  max_steps: {steps}
  save_strategy: "no"
loss:
  final_max: 6.0
  no_nan: true
stderr:
  forbidden_patterns:
    - "RuntimeError"
    - "CUDA error"
    - "Traceback"
  warn_patterns: []
expected_files:
  - trainer_logs.json
min_steps_logged: 2
timeout: 300
gpu_requirement: 1
markers:
  - integration
  - m{marker}
"""
# The time of a whole process, and of all below it.
MEASURE = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
answer = subprocess.run(sys.argv[1:], capture_output=True, text=True, check=True).stdout
wall_s = time.perf_counter() - began
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([wall_s, usage.ru_utime + usage.ru_stime, answer.splitlines()[-1]]))
"""
# A session of pytest in which all that is done for our plugin is timed.
INACTIVE = """
import functools, importlib.metadata, json, sys, time
import pytest

spent_s = 0.0

def time_ours(function, is_ours):
    @functools.wraps(function)
    def timed(*args, **kwargs):
        global spent_s
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent_s += is_ours(*args, **kwargs) * (time.perf_counter() - began)
    return timed

load = importlib.metadata.EntryPoint.load

def load_ours(entry_point):
    module = load(entry_point)
    if entry_point.name == "fgvalidate":
        module.pytest_configure = time_ours(module.pytest_configure, lambda *_args, **_kwargs: True)
    return module

Manager = pytest.PytestPluginManager
importlib.metadata.EntryPoint.load = time_ours(load_ours, lambda entry_point: entry_point.name == "fgvalidate")
Manager.register = time_ours(Manager.register, lambda self, plugin, name=None: name == "fgvalidate")
code = pytest.main(["-q", "-p", "no:hydra_pytest", "-p", "no:cacheprovider", "test_nothing.py"])
heavy = sorted({"hydra", "omegaconf", "torch", "rich"} & set(sys.modules))
print(json.dumps([int(code), "fgvalidate.pytest_plugin" in sys.modules, heavy, spent_s]))
"""


def write_specs(folder: Path, template: str) -> None:
    folder.mkdir(parents=True)
    for number in range(NUM_SPECS):
        tier = ("smoke", "standard", "full")[number % 3]
        text = template.format(number=number, tier=tier, marker=number % 7, steps=number + 10)
        (folder / f"s{number}.yaml").write_text(text, encoding="utf-8")


def collect(root: Path, folder: str) -> None:
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "--fg-specs",
        folder,
        "--collect-only",
        "-q",
        "-m",
        "m0",
        "--strict-markers",
    ]
    answer = subprocess.run(
        [sys.executable, "-c", MEASURE, *argv], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    wall_s, cpu_s, last = json.loads(answer)
    expected = f"{len(range(0, NUM_SPECS, 7))}/{NUM_SPECS} tests collected"
    assert last.startswith(expected), last
    print(f"{folder}: {NUM_SPECS} specs collected in {wall_s:.1f} s, CPU {cpu_s:.1f} s (bound {BOUND_S:.0f} s)")
    assert cpu_s < BOUND_S, f"{folder}: {cpu_s:.1f} s"


def measure_inactive(root: Path) -> None:
    (root / "test_nothing.py").write_text("def test_nothing():\n    pass\n", encoding="utf-8")
    times = []
    for _ in range(NUM_SESSIONS):
        argv = [sys.executable, "-c", INACTIVE]
        answer = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=True).stdout
        code, is_loaded, heavy, spent_s = json.loads(answer.splitlines()[-1])
        assert (code, is_loaded, heavy) == (0, True, []), answer
        times.append(spent_s)
    median_s = statistics.median(times)
    bound = f"bound {1000 * BOUND_INACTIVE_S:.0f} ms"
    print(f"other sessions: {1000 * median_s:.2f} ms more, at most {1000 * max(times):.2f} ms ({bound})")
    assert median_s < BOUND_INACTIVE_S, times


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_specs(root / "hydra/spec", HYDRA)
        write_specs(root / "flat", FLAT)
        collect(root, "hydra")
        collect(root, "flat")
        measure_inactive(root)


if __name__ == "__main__":
    main()
