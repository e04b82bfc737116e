"""Runs on simulated GPUs, through the real command line: each has its GPUs to itself, whoever else is running."""

import itertools
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from fgvalidate.gpu import find_gpus
from fgvalidate.lease import read_leases

HANGING = "hang_at=15"
SLOW = "step_s=0.05"


def read_spans(root: Path) -> list[tuple[float, float]]:
    """Returns begin and end of every training stage in a multirun."""
    rows = [json.loads(line)["facts"]["values"] for line in (root / "results.jsonl").read_text("utf-8").splitlines()]
    return [(row["train.started_at"], row["train.started_at"] + row["train.duration_s"]) for row in rows]


def count_leases() -> int:
    return len(read_leases(find_gpus())[1])


def test_run_sees_the_gpu_that_it_leased_and_says_so(simulated_gpus: Any, specs: Any, fgvalidate: Any) -> None:
    simulated_gpus(2)
    specs.write("one", gpu_requirement=1)

    run = fgvalidate("--config-dir", str(specs.folder), "+spec=one")

    assert (run.code, run.facts["values"]["gpu.num_used"], len(run.facts["values"]["gpu.names"])) == (0, 1, 1)
    assert "20 steps on GPU 0 (forgather)" in run.stdout
    assert count_leases() == 0


def test_two_multiruns_on_one_gpu_never_overlap(simulated_gpus: Any, specs: Any, workplace: Any) -> None:
    simulated_gpus(1)
    for name in ("a", "b", "c"):
        specs.write(name, SLOW, gpu_requirement=1)
    argv = workplace.argv(*specs.multirun("a", "b", "c"))

    apps = [
        subprocess.Popen(
            argv, cwd=workplace.folder, env=workplace.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(2)
    ]
    said = [app.communicate(timeout=240)[0] for app in apps]

    assert [app.returncode for app in apps] == [0, 0], said
    roots = list(workplace.folder.glob("outputs/multirun/*"))
    spans = sorted(span for root in roots for span in read_spans(root))
    assert (len(roots), len(spans)) == (2, 6)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))


def test_multirun_fills_the_gpus_and_shares_none(simulated_gpus: Any, specs: Any, fgvalidate: Any) -> None:
    simulated_gpus(3)
    needs = {"a": 2, "b": 1, "c": 1, "d": 2, "e": 1}
    for name, number in needs.items():
        specs.write(name, SLOW, gpu_requirement=number)

    run = fgvalidate(*specs.multirun(*needs))

    rows = [json.loads(line) for line in (run.run_dir / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    facts = {row["report"]["test_id"]: row["facts"]["values"] for row in rows}
    starts = {name: values["train.started_at"] for name, values in facts.items()}
    ends = {name: values["train.started_at"] + values["train.duration_s"] for name, values in facts.items()}
    in_use = [sum(needs[two] for two in needs if starts[two] <= at < ends[two]) for at in starts.values()]
    assert (run.code, max(in_use)) == (0, 3), run.stdout + run.stderr
    assert {name: values["gpu.num_used"] for name, values in facts.items()} == needs


def test_specs_share_a_gpu_when_they_say_so(simulated_gpus: Any, specs: Any, fgvalidate: Any) -> None:
    simulated_gpus(1)
    for name in ("a", "b"):
        specs.write(name, "step_s=0.2", gpu_requirement=1, specs_per_gpu=2)

    run = fgvalidate(*specs.multirun("a", "b"))

    (_, first_end), (second_begin, _) = sorted(read_spans(run.run_dir))
    assert run.code == 0
    assert second_begin < first_end


def test_waiting_for_a_gpu_is_no_part_of_the_timeout(
    simulated_gpus: Any, specs: Any, workplace: Any, wait_until: Callable[..., None]
) -> None:
    gpus = simulated_gpus(1)
    gpus.change(0, used=60 << 30, processes=[[1, 60 << 30]])
    specs.write("late", gpu_requirement=1, timeout=2)
    argv = workplace.argv("--config-dir", str(specs.folder), "+spec=late")
    log = workplace.folder / "log"
    with log.open("w") as file:
        app = subprocess.Popen(argv, cwd=workplace.folder, env=workplace.env, stdout=file, stderr=file)
    began = psutil.Process(app.pid).create_time()
    wait_until(lambda: "late: waiting for 1 GPU: GPU 0 has " in log.read_text(encoding="utf-8"))
    wait_until(lambda: time.time() > began + 4)

    gpus.change(0, used=0, processes=[])

    assert app.wait(timeout=120) == 0, log.read_text(encoding="utf-8")


def test_spec_that_no_gpu_here_can_hold_is_skipped(simulated_gpus: Any, specs: Any, fgvalidate: Any) -> None:
    simulated_gpus(1)
    specs.write("huge", gpu_requirement=1, gpu_memory=500)

    run = fgvalidate("--config-dir", str(specs.folder), "+spec=huge", "backend.cpu_ok=false")

    assert run.code == 3
    assert "SKIPPED huge: it needs 1 GPU with 500 GiB, 0 of 1 can serve it" in run.stdout


@pytest.mark.parametrize("stubborn", [False, True])
def test_lease_of_a_killed_run_lasts_as_long_as_its_tree(
    simulated_gpus: Any, specs: Any, workplace: Any, wait_until: Callable[..., None], stubborn: bool
) -> None:
    simulated_gpus(1)
    faults = f"{HANGING};workers=2;ignore_sigterm" if stubborn else HANGING
    specs.write("killed", faults, gpu_requirement=1)
    argv = workplace.argv("--config-dir", str(specs.folder), "+spec=killed")
    app = subprocess.Popen(argv, cwd=workplace.folder, env=workplace.env, stdout=subprocess.DEVNULL)
    wait_until(lambda: list(workplace.folder.glob("outputs/*/*/train/runs/*")))
    assert count_leases() == 1

    app.kill()
    app.wait(timeout=30)

    while workplace.find_processes():
        # As long as anything of it runs, nobody else is given its GPU.
        held = count_leases()
        assert held == 1 or not workplace.find_processes()
    wait_until(lambda: count_leases() == 0)
