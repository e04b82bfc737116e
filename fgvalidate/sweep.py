"""A multirun: the words of the command line come in, every chosen spec runs, and one exit code goes out.

Which specs are chosen is asked without composing them all; how they are started is the launcher's business.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from fgvalidate.candidates import Settings, choose_candidates, explain_choice, find_candidates, show_candidate
from fgvalidate.command_line import write_command
from fgvalidate.discovery import Discovery
from fgvalidate.errors import SpecError
from fgvalidate.gpu import find_gpus
from fgvalidate.interruption import Terminated
from fgvalidate.overview import Row, print_list, print_suite
from fgvalidate.placement import build_request, explain_skip
from fgvalidate.planning import LostJob, plan_jobs, set_aside
from fgvalidate.recall import find_recalled, find_recalled_candidates
from fgvalidate.recording import is_multirun
from fgvalidate.report import escape_controls
from fgvalidate.suite import Ending, Job, Plan, append_error, read_results, read_suite, record_ending, start_suite
from fgvalidate.suite_reports import write_reports
from fgvalidate.terminal import get_console

exit_codes: list[int] = []
"""Of the multiruns of this process: Hydra has no other way to hand one on."""


def run_sweep(
    words: Sequence[str], settings: Settings, *, config: DictConfig, context: HydraContext, launcher: Launcher
) -> None:
    """Runs the chosen specs and reports; the exit code is appended to `exit_codes`.

    Args:
        words: The overrides of the command line that are not Hydra's own.
        settings: What to choose, and how to go on.
        config: The composed config of the sweep.
        context: Hydra's.
        launcher: Starts the jobs.

    Raises:
        SpecError: No spec is chosen, the selection cannot be read, two specs have one test_id, or the launcher cannot
            stop early.
    """
    root = Path(str(config.hydra.sweep.dir)).absolute()
    launcher_name = str(config.hydra.launcher._target_)
    if settings.fail_fast and "fgvalidate_pool" not in launcher_name:
        raise SpecError("fail_fast: this launcher starts everything at once; use hydra/launcher=fgvalidate_pool")
    discovery = Discovery(context.config_loader, list(config.hydra.overrides.hydra))
    sources = config.hydra.runtime.config_sources
    recorded = find_recalled(words) if not settings.params else None
    if recorded is not None and is_multirun(recorded):
        candidates = find_recalled_candidates(
            words, recorded, context=context, config_sources=sources, discovery=discovery
        )
    else:
        candidates = find_candidates(words, settings, context=context, config_sources=sources, discovery=discovery)
    if not any(candidate.spec or candidate.names for candidate in candidates):
        known = context.config_loader.get_group_options("spec")
        raise SpecError(f"no spec is chosen: say +spec=NAME, one of {', '.join(known)}")
    chosen = choose_candidates(candidates, settings, root.parent)
    if not chosen:
        print(f"fgvalidate: nothing is selected{explain_choice(settings)}; there are:", file=sys.stderr)
        for candidate in candidates:
            print(f"  {show_candidate(candidate)}", file=sys.stderr)
        exit_codes.append(3)
        return
    jobs, lost = plan_jobs(chosen, discovery, folder=root.parent, config_sources=sources)
    if settings.list:
        exit_codes.append(list_jobs(jobs, lost, num_left_out=len(candidates) - len(chosen)))
        return
    if "fgvalidate" not in launcher_name:
        # Hydra's other launchers lose every result when one job cannot be composed.
        jobs, lost = set_aside(jobs, lost, context=context, config_sources=sources)
    plan = Plan(
        command=write_command(sys.argv[1:], ()),
        started_at=time.time(),
        jobs=(*jobs, *(job for job, _ in lost)),
        selection=settings.select or "",
        deselected=len(candidates) - len(chosen),
    )
    start_suite(root, plan)
    OmegaConf.save(config, root / "multirun.yaml")
    for job, problem in lost:
        append_error(root, job, "spec", problem)
        print(f"fgvalidate: {job.name}: {problem}", file=sys.stderr)
    exit_codes.append(run_jobs(root, plan, jobs, launcher, fail_fast=settings.fail_fast))


def run_jobs(root: Path, plan: Plan, jobs: list[Job], launcher: Launcher, *, fail_fast: bool) -> int:
    """Launches the jobs, writes and prints the reports of what came of them, and returns the exit code."""
    began = time.monotonic()
    ending: Ending = "completed"
    try:
        if jobs:
            launcher.launch([list(job.overrides) for job in jobs], initial_job_idx=0)
    except KeyboardInterrupt:
        ending = "interrupted"
    except Terminated:
        ending = "terminated"
    except Exception as error:
        reason = f"lost: the launcher failed: {error}"
        print(f"fgvalidate: {escape_controls(reason)}", file=sys.stderr)
        results = read_results(root)
        for job in jobs:
            if job.num not in results:
                append_error(root, job, "launch", reason)
    if fail_fast and ending == "completed" and len(read_results(root)) < len(plan.jobs):
        ending = "stopped"
    record_ending(root, ending, time.monotonic() - began)
    suite = read_suite(root)
    for problem in write_reports(suite):
        print(f"fgvalidate: {escape_controls(problem)}", file=sys.stderr)
    print_suite(suite, get_console())
    return suite.exit_code


def list_jobs(jobs: list[Job], lost: list[LostJob], *, num_left_out: int) -> int:
    """Prints what would run, running nothing; returns the exit code that the selection deserves."""
    pool = find_gpus()
    rows = [Row(job=job, why_not=explain_skip(build_request(job), pool, cpu_ok=job.cpu_ok)) for job in jobs]
    print_list([*rows, *(Row(job=job, why_not=problem) for job, problem in lost)], num_left_out, get_console())
    return 2 if lost else 0 if jobs else 3
