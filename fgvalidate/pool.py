"""The pool: the jobs of a multirun come in, each runs in a process of its own, as many at a time as the machine holds.

A job is a fork of this process: it needs no second start of Python, and shares nothing that it could spoil. What it
prints goes to a file, its result to the multirun's `results.jsonl`; one that ends without a result gets one here, which
says how it ended. When this process is killed, the kernel kills the jobs, and their supervisors end what they started.
"""

import gc
import importlib.metadata  # noqa: F401 - loaded once here, and not once in each fork
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

import rich.table  # noqa: F401 - likewise

from fgvalidate.gpu import GpuPool, find_gpus
from fgvalidate.interruption import Terminated
from fgvalidate.monitor import Monitor
from fgvalidate.placement import Claim, build_request, choose_gpus, explain_shortage, reserve_gpus
from fgvalidate.process import die_with_parent
from fgvalidate.suite import Job, Results, append_result, read_plan, report_error
from fgvalidate.terminal import get_console
from fgvalidate.text_search import read_tail

if TYPE_CHECKING:
    from fgvalidate.report import Report

TICK_S = 0.25
"""How often the display is brought up to date, in seconds."""

CLUSTER_S = 0.02
"""How long nothing must have ended before the next job is prepared, in seconds."""

END_LIMIT_S = 60.0
"""How long a job that was told to end may take to put everything away before it is killed, in seconds."""

Prepare = Callable[[Job], Callable[[], object]]

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_fork = multiprocessing.get_context("fork")


def choose_parallel(requested: int | None, num_cores: int, num_places: int) -> int:
    """Returns how many jobs may run at a time.

    Args:
        requested: What was asked for, 1 or more; None: half the cores (a trainer on the CPU keeps two busy), or as many
            as the GPUs hold if those are more.
        num_cores: Cores that this process may use.
        num_places: How many specs the GPUs hold.
    """
    return requested if requested is not None else max(1, num_cores // 2, num_places)


def order_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Puts the largest first: those that need most GPUs, then those that are expected to take longest."""
    return sorted(jobs, key=lambda job: (-job.gpu_requirement, -job.expected_s, job.num))


def run_pool(
    sweep_dir: str, nums: Iterable[int], prepare: Prepare, *, max_parallel: int | None, fail_fast: bool
) -> None:
    """Runs planned jobs of a multirun.

    Args:
        sweep_dir: The multirun's folder, which holds its plan.
        nums: The numbers of the jobs to run.
        prepare: Prepares one job; what it returns runs it in the process that is made for it, and appends its result.
        max_parallel: See `choose_parallel`.
        fail_fast: Whether the first job that is red ends the others.

    Raises:
        SpecError: There is no plan.
    """
    root = Path(sweep_dir).absolute()
    plan = read_plan(root)
    wanted = set(nums)
    jobs = [job for job in plan.jobs if job.num in wanted]
    gpus = find_gpus() if any(job.gpu_requirement for job in jobs) else GpuPool((), "none is asked for")
    places = len(gpus.devices) * max(job.specs_per_gpu for job in jobs)
    parallel = choose_parallel(max_parallel, len(os.sched_getaffinity(0)), places)
    with Monitor(get_console(), root, plan) as monitor:
        Pool(root, prepare, monitor, gpus=gpus, max_parallel=parallel, fail_fast=fail_fast).run(jobs)


@dataclass
class _Running:
    job: Job
    process: BaseProcess
    console_path: Path
    claim: Claim | None
    began: float


class Pool:
    """Runs jobs, and knows which are running.

    Args:
        root: The multirun's folder.
        prepare: Prepares one job; what it returns runs it in the process that is made for it.
        monitor: Is told what happens.
        gpus: The GPUs that jobs are planned on; each job takes its own lease.
        max_parallel: Jobs at a time.
        fail_fast: Whether the first job that is red ends the others.
    """

    def __init__(
        self,
        root: Path,
        prepare: Prepare,
        monitor: Monitor,
        *,
        gpus: GpuPool,
        max_parallel: int,
        fail_fast: bool,
    ) -> None:
        self._root = root
        self._prepare = prepare
        self._prepared: dict[int, Callable[[], object]] = {}
        self._monitor = monitor
        self._gpus = gpus
        self._max_parallel = max_parallel
        self._fail_fast = fail_fast
        self._results = Results(root)
        self._reports: dict[int, Report] = {}
        self._running: dict[int, _Running] = {}

    def run(self, jobs: Sequence[Job]) -> None:
        """Runs the jobs, the largest first; when it returns or raises, none of them is running."""
        queue = order_jobs(jobs)
        # What there is now lives as long as we do: a fork's garbage collector need not look at, and so copy, it.
        gc.freeze()
        try:
            while queue or self._running:
                self._start_what_fits(queue)
                unprepared = self._find_unprepared(queue)
                ended = wait(list(self._running), timeout=TICK_S if unprepared is None else CLUSTER_S)
                if unprepared is not None and not ended:
                    self._prepared[unprepared.num] = self._prepare(unprepared)
                is_red = [self._finish(self._running.pop(sentinel)) for sentinel in ended]  # type: ignore[arg-type]
                if self._fail_fast and any(is_red):
                    self._end_all("ended: fail_fast stopped the multirun after another spec was red")
                    return
                self._monitor.update()
        except BaseException as error:
            how = {KeyboardInterrupt: "interrupted", Terminated: "terminated"}.get(type(error), "broken off")
            self._end_all(f"ended: the multirun was {how}")
            raise

    def _find_unprepared(self, queue: list[Job]) -> Job | None:
        """Returns one of those that come next, to be prepared while others run."""
        return next((job for job in queue[: self._max_parallel] if job.num not in self._prepared), None)

    def _start_what_fits(self, queue: list[Job]) -> None:
        held = [running.claim for running in self._running.values() if running.claim is not None]
        for job in list(queue):
            if len(self._running) >= self._max_parallel:
                return
            claim = None
            request = build_request(job)
            # What can never be served runs on the CPU, or says that it is skipped.
            if job.gpu_requirement and not explain_shortage(self._gpus, request):
                gpus = choose_gpus(self._gpus.gpus, held, request)
                if gpus is None:
                    # What comes behind it must not take what it is waiting for.
                    held += reserve_gpus(self._gpus.gpus, held, request)
                    continue
                claim = Claim(request=request, gpus=tuple(gpu.uuid for gpu in gpus))
                held.append(claim)
            queue.remove(job)
            self._start(job, claim)

    def _start(self, job: Job, claim: Claim | None) -> None:
        console_path = self._root / f"{job.run_dir}.console"
        run = self._prepared.pop(job.num, None) or self._prepare(job)
        process = _fork.Process(target=self._work, args=(run, console_path, os.getpid()))
        # An interrupt waits until the process is known, or it would not be ended.
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
        try:
            process.start()
            self._running[process.sentinel] = _Running(job, process, console_path, claim, time.monotonic())
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
        self._monitor.start(job)

    def _work(self, run: Callable[[], object], console_path: Path, parent_pid: int) -> None:
        """What the process of a job does; it never returns."""
        code = 1
        try:
            die_with_parent(parent_pid)
            # Ctrl-C reaches a terminal's whole process group, and it is the pool that decides.
            os.setpgid(0, 0)
            fd = os.open(console_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            for standard_fd in (1, 2):
                os.dup2(fd, standard_fd)
            get_console.cache_clear()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
            run()
            code = 0
        except (KeyboardInterrupt, Terminated):
            code = 143
        except Exception:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)  # Python would take a second to put a scorer's libraries away

    def _finish(self, running: _Running, how: str = "") -> bool:
        """Puts down how a job ended; returns whether that is red."""
        running.process.join()
        for row in self._results.read_new():
            self._reports.setdefault(row.num, row.report)
        report = self._reports.pop(running.job.num, None)
        if report is None:
            # It has ended, so nobody else will write this row.
            took_s = time.monotonic() - running.began
            if how:
                report = report_error(running.job, "", how, duration_s=took_s)
            else:
                what = self._explain_loss(running)
                report = report_error(running.job, "infrastructure", what, duration_s=took_s)
            append_result(self._root, running.job.num, report, None)
        if report.outcome != "error":
            running.console_path.unlink(missing_ok=True)
        self._monitor.finish(running.job, report)
        return report.outcome in {"failed", "error"}

    def _explain_loss(self, running: _Running) -> str:
        code = running.process.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        lines = read_tail(running.console_path, num_lines=1) if running.console_path.is_file() else []
        said = f"; the last it printed, in {running.console_path}: {lines[0]}" if lines else ""
        return f"lost: its process {how}{said}"

    def _end_all(self, how: str) -> None:
        """Ends the running jobs; what they started is put away by themselves, or by their supervisors."""
        ignored = {number: signal.signal(number, signal.SIG_IGN) for number in _INTERRUPTS}
        try:
            for running in self._running.values():
                running.process.terminate()
            deadline = time.monotonic() + END_LIMIT_S
            while self._running:
                if time.monotonic() > deadline:
                    for running in self._running.values():
                        running.process.kill()
                for sentinel in wait(list(self._running), timeout=TICK_S):
                    self._finish(self._running.pop(sentinel), how)  # type: ignore[arg-type]
                self._monitor.update()
        finally:
            for number, handler in ignored.items():
                signal.signal(number, handler)
