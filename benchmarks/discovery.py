"""Fast discovery: the names of 1,000 specs, as whole processes, against composing each spec by Hydra.

    python benchmarks/discovery.py

| specs | |
|---|---|
| flat | Forgather's own: flat files that say everything themselves |
| literal | say their test_id and markers themselves |
| tier | choose one of 30 projects, one of the tiers, and whether there is inference; the markers stand in the tier |
| interpolated | as `tier`, with a test_id that is an interpolation, so that each has to be composed |
| unshared | as `tier`, but each chooses a project that no other one has |

Bounds, process start included: 5 s for the flat and the literal ones, 15 s for the others. Composing is measured on a
sample. Wall time and CPU time are printed, since other work may share the cores; the bounds are held against CPU time.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

NUM_SPECS = 1_000
NUM_SAMPLES = 10
BOUNDS_S = {"flat": 5, "literal": 5, "tier": 15, "interpolated": 15, "unshared": 15}
SPEC = """\
# @package _global_
# Generated.
defaults:
{defaults}
  - _self_

test_id: {test_id}
{names}dynamic_args:
  max_steps: {number}
  learning_rate: 0.0{number}
bounds:
  builtin: {{final_max: 2.{number}, drop_min: 0.5}}
  forgather: {{final_max: 6.{number}, drop_min: null}}
loss:
  final_max: ${{oc.select:bounds.${{backend.name}}.final_max,null}}
  drop_min: ${{oc.select:bounds.${{backend.name}}.drop_min,null}}
stderr:
  forbidden_patterns: [RuntimeError, CUDA error, Traceback]
min_steps_logged: 2
"""
FLAT = """\
test_id: id_{number}
project_dir: p/{number}
config: c.yaml
dynamic_args:
  max_steps: {number}
  save_strategy: "no"
loss:
  final_max: 6.{number}
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
"""
PROJECT = "# @package _global_\nproject_dir: p/{number}\nconfig: c.yaml\ndynamic_args: {{save_strategy: steps}}\n"
READ = """
import json, sys, time
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from fgvalidate.composition import find_config_dir, register_schema
from fgvalidate.discovery import Discovery

how, folder, *options = sys.argv[1:]
register_schema()
base = [f"hydra.searchpath=[{folder}]"]
with initialize_config_dir(str(find_config_dir()), version_base="1.3"):
    loader = GlobalHydra.instance().config_loader()
    began = time.process_time()
    if how == "compose":
        for option in options:
            loader.load_configuration("config", [*base, f"+spec={option}"], RunMode.RUN)
        names, asked = [], len(options)
    else:
        discovery = Discovery(loader, base)
        if how == "names":
            names = [discovery.read_names([f"+spec={option}"]).test_id for option in options]
        else:
            names = [discovery.compose_task([f"+spec={option}"]).test_id for option in options]
        asked = discovery.num_composed_by_hydra
print(json.dumps([time.process_time() - began, asked, names]))
"""
# The time of a whole process, and of what it is for.
MEASURE = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
answer = subprocess.run([sys.executable, "-c", *sys.argv[1:]], capture_output=True, text=True, check=True).stdout
wall_s = time.perf_counter() - began
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, *json.loads(answer)]))
"""


def write_flat_specs(folder: Path) -> list[str]:
    """Writes the flat specs; returns their options."""
    for number in range(NUM_SPECS):
        (folder / f"s{number}.yaml").write_text(FLAT.format(number=number), encoding="utf-8")
    return [f"s{number}" for number in range(NUM_SPECS)]


def write_specs(folder: Path, kind: str) -> list[str]:
    """Writes the specs of one kind and what they choose; returns their options."""
    (folder / "spec").mkdir(parents=True)
    (folder / "project").mkdir()
    num_projects = NUM_SPECS if kind == "unshared" else 30
    for number in range(num_projects):
        (folder / f"project/p{number}.yaml").write_text(PROJECT.format(number=number), encoding="utf-8")
    options = [f"s{number}" for number in range(NUM_SPECS)]
    for number, option in enumerate(options):
        tier = ("smoke", "standard", "full")[number // num_projects % 3]
        inference = ("none", "completion")[number // num_projects % 2]
        choices = [f"/project: p{number % num_projects}", f"/tier: {tier}", f"/inference: {inference}"]
        text = SPEC.format(
            defaults="\n".join(f"  - override {choice}" for choice in choices),
            test_id=f"id_{number}" if kind != "interpolated" else "id_${dynamic_args.max_steps}",
            names=f"markers: [integration, m{number % 7}]\n" if kind == "literal" else "",
            number=number,
        )
        (folder / f"spec/{option}.yaml").write_text(text, encoding="utf-8")
    return options


def measure(how: str, folder: str, options: list[str]) -> tuple[float, float, float, float, int, list[str]]:
    """Returns wall and CPU seconds and peak bytes of a process, then CPU seconds, fallbacks and names of its work."""
    argv = [sys.executable, "-c", MEASURE, READ, how, folder, *options]
    wall_s, cpu_s, peak, work_s, asked, names = json.loads(
        subprocess.run(argv, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent).stdout
    )
    return wall_s, cpu_s, peak, work_s, asked, names


def main() -> None:
    for kind, bound_s in BOUNDS_S.items():
        with tempfile.TemporaryDirectory() as name:
            is_flat = kind == "flat"
            options = write_flat_specs(Path(name)) if is_flat else write_specs(Path(name), kind)
            folder = f"{'forgather' if is_flat else 'file'}://{name}"
            sample = options[:: NUM_SPECS // NUM_SAMPLES]
            composing_s = measure("compose", folder, sample)[3] / len(sample) * NUM_SPECS
            for how in ("names", "tasks"):
                wall_s, cpu_s, peak, _, asked, names = measure(how, folder, options)
                assert names == [f"id_{number}" for number in range(NUM_SPECS)]
                assert asked == 0, f"{asked} of {NUM_SPECS} were composed by Hydra"
                bound = f" (bound {bound_s})" if how == "names" else ""
                print(
                    f"{how} of {NUM_SPECS:,} {kind} specs: {wall_s:.1f} s, {cpu_s:.1f} s of CPU{bound}, "
                    f"{peak / 1e6:.0f} MB; composing each: {composing_s:.0f} s of CPU"
                )


if __name__ == "__main__":
    main()
