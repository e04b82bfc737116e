"""Watches a multirun's jobs in Slurm until each has a result: its own, or an error row that says how it was lost.

A job's own row in the multirun's results is what counts, whatever Slurm says. Where it is missing, the queue is asked
what has become of the job; accounting is asked last, and nothing waits for it.
"""

import contextlib
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from hydra.core.utils import JobReturn, JobStatus

from fgvalidate.interruption import Terminated
from fgvalidate.monitor import Monitor
from fgvalidate.report import Report
from fgvalidate.suite import RESULTS_NAME, Job, append_result, read_results, report_error
from hydra_plugins.fgvalidate_slurm._guard import SUBMITTED, SUBMITTING, Guard
from hydra_plugins.fgvalidate_slurm._queue import (
    ENDED,
    WAITING,
    Entry,
    ask_accounting,
    cancel_jobs,
    describe_job,
    list_jobs,
)
from hydra_plugins.fgvalidate_slurm._submission import (
    SubmitError,
    Task,
    compute_limit_min,
    name_job,
    submit,
)
from hydra_plugins.fgvalidate_slurm.launcher import Settings

TICK_S = 0.5
CANCEL_AGAIN_S = 5.0
SILENT_CANCEL_S = 30.0
"""How long an interrupted launcher tries to reach a Slurm that does not answer, in seconds; its guard goes on."""

LOG_TAIL_BYTES = 4096
_NO_NEWS = re.compile(r"submitit INFO |\[[^]]*\]\[submitit\]\[INFO\] ")

SIGNAL_CODE_LIMIT = 53
"""Slurm gives as the 53rd signal that it could not open the job's output."""


@dataclass(kw_only=True)
class _Tracked:
    """A job on its way; times are seconds of the monotonic clock."""

    job: Job
    job_id: str = ""
    """Slurm's; empty: not submitted."""
    log: Path | None = None
    submitted_at: float = 0.0
    refused_since: float | None = None
    """When sbatch first failed to take it for a reason that may pass; None: it did not."""
    entry: Entry | None = None
    """As the queue last showed it; None: it does not."""
    ran_s: float = 0.0
    """For how long it was seen to run."""
    over_since: float | None = None
    """When Slurm first said that it has ended, or no longer knew it."""
    was_seen_running: bool = False
    result: Report | None = None
    unwanted_since: float | None = None
    """When it will have had, or had, its time to leave the queue; None: it may stay."""
    cancelled_at: float = float("-inf")
    is_abandoned: bool = False
    """Whether it is no longer waited for, though Slurm may still have it."""

    @property
    def is_in_queue(self) -> bool:
        return bool(self.job_id) and self.over_since is None and not self.is_abandoned


class Interrupts:
    """Lets the first SIGINT or SIGTERM through to whoever handled it before, and those after it to nobody.

    The first one is what has the jobs cancelled, which nothing shall interrupt. A context manager.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._first: tuple[int, FrameType | None] | None = None
        self._is_deferring = False

    def __enter__(self) -> Self:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        # What is ignored stays ignored, and what another language handles is not ours to call.
        self._handlers = {n: handler for n, handler in handlers.items() if handler not in {None, signal.SIG_IGN}}
        for number in self._handlers:
            signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Holds an interrupt back until the block is left."""
        before = self._first
        self._is_deferring = True
        try:
            yield
        finally:
            self._is_deferring = False
            if self._first is not None and before is None:
                self._deliver(*self._first)

    def insist(self) -> None:
        """Delivers an interrupt again whose exception something has swallowed."""
        if self._first is not None:
            self._deliver(*self._first)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._first is None:
            self._first = number, frame
            if not self._is_deferring:
                self._deliver(number, frame)

    def _deliver(self, number: int, frame: FrameType | None) -> None:
        handler = self._handlers[number]
        if callable(handler):
            handler(number, frame)
        else:
            signal.signal(number, handler)
            signal.raise_signal(number)


def run_jobs(
    jobs: Sequence[Job],
    task: Task,
    root: Path,
    settings: Settings,
    monitor: Monitor,
) -> list[JobReturn]:
    """Submits jobs and waits until each has a result in the multirun's folder.

    An interrupt cancels the jobs, waits until they have left the queue, and is raised.

    Args:
        jobs: What to run.
        task: What runs in each.
        root: The multirun's folder.
        settings: The launcher's.
        monitor: Is told what happens.

    Returns:
        One a job, in their order; its value is the outcome.
    """
    tracked = [_Tracked(job=job) for job in jobs]
    prefix = f"fgvalidate-{uuid.uuid4().hex[:12]}"
    with Guard(prefix, settings.patience) as guard, Interrupts() as interrupts:
        watch = _Watch(tracked, task, root, settings, monitor, guard, interrupts, prefix)
        try:
            watch.run()
        except BaseException as error:
            watch.cancel_everything()
            watch.note_cancelled("terminated" if isinstance(error, Terminated) else "interrupted")
            raise
        if watch.leftovers:
            report_leftovers(watch.leftovers)
        else:
            guard.dismiss()
    return [
        JobReturn(
            overrides=one.job.overrides,
            status=JobStatus.COMPLETED,
            _return_value=one.result and one.result.outcome,
        )
        for one in tracked
    ]


@dataclass
class _Watch:
    """The jobs of one launch, until all have a result and have left the queue."""

    tracked: list[_Tracked]
    task: Task
    root: Path
    settings: Settings
    monitor: Monitor
    guard: Guard
    interrupts: Interrupts
    prefix: str
    silent_since: float | None = None
    """Since when Slurm has not answered; None: it does."""
    asked_at: float = field(default=float("-inf"))
    accounting_answers: bool = True
    size_read: int = 0
    """Of the results, bytes."""
    leftovers: list[str] = field(default_factory=list)
    """Jobs that Slurm was not seen to end; the guard goes on trying."""

    def run(self) -> None:
        while self._is_busy():
            self.interrupts.insist()
            has_submitted = self._submit_next()
            self._ask_slurm()
            # After Slurm was asked: a job that has ended has written its row before.
            self._read_rows()
            self._settle()
            self.monitor.update()
            if not has_submitted:
                time.sleep(min(TICK_S, self.settings.poll_interval))

    def _is_busy(self) -> bool:
        return any(one.result is None or one.is_in_queue for one in self.tracked)

    def _submit_next(self) -> bool:
        """Submits one job where there is room; whether it did."""
        room = self.settings.max_parallel
        in_queue = sum(one.is_in_queue for one in self.tracked)
        waiting = next((one for one in self.tracked if not one.job_id and one.result is None), None)
        if waiting is None or self.silent_since is not None or (room is not None and in_queue >= room):
            return False
        name = name_job(self.prefix, waiting.job)
        # An interrupt between the submission and its answer would lose sight of the job.
        with self.interrupts.deferred():
            self.guard.tell(SUBMITTING)
            try:
                waiting.job_id, waiting.log = submit(waiting.job, self.task, name, self.settings)
            except SubmitError as error:
                now = time.monotonic()
                waiting.refused_since = waiting.refused_since or now
                if error.is_transient and now < waiting.refused_since + self.settings.patience:
                    # No further try before Slurm has answered a question.
                    self._note_silence(now)
                else:
                    self._lose(waiting, f"Slurm did not take the job: {error}")
            self.guard.tell(SUBMITTED)
        waiting.submitted_at = time.monotonic()
        if waiting.job_id:
            self.monitor.submit(waiting.job, waiting.job_id)
        return True

    def _ask_slurm(self) -> None:
        """Asks for all jobs at once, not more often than is set."""
        now = time.monotonic()
        passed_s = now - self.asked_at
        if passed_s < self.settings.poll_interval:
            return
        entries = list_jobs(self.prefix)
        self.asked_at = time.monotonic()
        if entries is None:
            self._note_silence(now)
            return
        self.silent_since = None
        for one in self.tracked:
            if one.job_id:
                self._update(one, entries.get(one.job_id), passed_s)
        # What a submission has left whose answer was lost: it would wait for its task in vain.
        known = {one.job_id for one in self.tracked}
        cancel_jobs([job_id for job_id, entry in entries.items() if job_id not in known and not entry.is_over])

    def _note_silence(self, since: float) -> None:
        if self.silent_since is None:
            self.silent_since = since
            print(f"fgvalidate: Slurm does not answer; it has {self.settings.patience} s to do so", file=sys.stderr)

    def _update(self, one: _Tracked, entry: Entry | None, passed_s: float) -> None:
        one.entry = entry
        if entry is None or entry.is_over:
            one.over_since = one.over_since or time.monotonic()
            return
        one.over_since = None
        if entry.state in {"RUNNING", "COMPLETING"}:
            one.ran_s += passed_s if one.was_seen_running else 0.0
            self._note_start(one)

    def _note_start(self, one: _Tracked) -> None:
        if not one.was_seen_running:
            one.was_seen_running = True
            self.monitor.start(one.job)

    def _read_rows(self) -> None:
        try:
            # Opened, and not only looked at: a shared file system is then asked anew.
            with (self.root / RESULTS_NAME).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
            if size == self.size_read:
                return
            rows = read_results(self.root)
        except OSError:
            return  # nothing is written yet, or the file system has lost its server for a moment
        self.size_read = size
        for one in self.tracked:
            row = rows.get(one.job.num)
            if row is not None and one.result is None:
                self._note_start(one)
                one.result = row.report
                one.unwanted_since = time.monotonic() + self.settings.grace
                self.monitor.finish(one.job, row.report)

    def _settle(self) -> None:
        """Gives up what cannot come to a result any more, and sees to it that nothing stays in the queue."""
        now = time.monotonic()
        if self.silent_since is not None and now >= self.silent_since + self.settings.patience:
            self._give_up()
            return
        for one in self.tracked:
            if one.is_in_queue and one.result is None and one.entry is not None:
                self._check_limits(one, one.entry, now)
            if one.is_in_queue and one.unwanted_since is not None:
                self._remove(one, one.unwanted_since, now)
            if one.result is None and one.over_since is not None and now >= one.over_since + self.settings.grace:
                self._conclude(one, now - one.over_since)

    def _check_limits(self, one: _Tracked, entry: Entry, now: float) -> None:
        """Gives up a job that waits or runs for longer than it may."""
        waited_s, most_s = now - one.submitted_at, self.settings.queue_timeout
        limit_s = compute_limit_min(one.job, self.settings.time_slack) * 60
        if entry.is_hopeless:
            self._lose(one, f"{entry.state} for a reason that does not pass ({entry.reason}); cancelled")
        elif entry.state in WAITING and most_s is not None and waited_s >= most_s:
            self._lose(one, f"still {entry.state} ({entry.reason}) after {waited_s:.0f} s; cancelled")
        elif one.ran_s >= limit_s + self.settings.patience:
            self._lose(one, f"still {entry.state} after {one.ran_s:.0f} s, its limit is {limit_s} s; cancelled")

    def _remove(self, one: _Tracked, unwanted_since: float, now: float) -> None:
        """Cancels a job that has its result and does not leave the queue; not forever, where Slurm cannot end it."""
        if now >= unwanted_since + self.settings.patience:
            self._leave_behind(one)
        elif now >= max(unwanted_since, one.cancelled_at + CANCEL_AGAIN_S):
            cancel_jobs([one.job_id])
            one.cancelled_at = now

    def _leave_behind(self, one: _Tracked) -> None:
        if one.is_in_queue:
            self.leftovers.append(one.job_id)
            one.is_abandoned = True

    def _give_up(self) -> None:
        silence_s = self.settings.patience
        for one in self.tracked:
            if one.result is None and one.job_id:
                self._lose(one, f"Slurm has not answered for {silence_s} s, and it may still run: scancel {one.job_id}")
            elif one.result is None:
                self._lose(one, f"Slurm has not answered for {silence_s} s, and it was not submitted")
            self._leave_behind(one)

    def _lose(self, one: _Tracked, what: str, *, is_wanted: bool = False) -> None:
        """Writes the row of a job that has none; that it ends is wanted, or the fault of the cluster."""
        name = f"Slurm job {one.job_id}: " if one.job_id else ""
        reason = f"{name}{what}{describe_log(one.log)}"
        report = report_error(one.job, "" if is_wanted else "infrastructure", reason)
        try:
            append_result(self.root, one.job.num, report, None)
        except OSError as error:
            print(f"fgvalidate: {self.root}: {error.strerror}: this result is not kept: {reason}", file=sys.stderr)
        one.result = report
        one.unwanted_since = time.monotonic()
        self.monitor.finish(one.job, report)

    def _conclude(self, one: _Tracked, missing_s: float) -> None:
        """Writes the row of a job that has ended without one, unless Slurm knows better on a closer look."""
        limit_min = compute_limit_min(one.job, self.settings.time_slack)
        fields = describe_job(one.job_id)
        if "JobState" in fields and fields["JobState"] not in ENDED:
            one.ran_s += missing_s
            if one.ran_s < limit_min * 60 + self.settings.patience:
                one.over_since = None
                return
        if not fields and self.accounting_answers:
            fields = ask_accounting(one.job_id)
            self.accounting_answers = bool(fields)
        if not fields and one.entry is not None:
            fields = {"JobState": one.entry.state, "Reason": one.entry.reason}
        self._lose(one, explain_end(fields, limit_min))
        # Should Slurm still have it in spite of what it says.
        cancel_jobs([one.job_id])

    def note_cancelled(self, how: str) -> None:
        """Writes the rows of jobs that were running; those that had not begun get none, since they were not run."""
        self._read_rows()
        for one in self.tracked:
            if one.result is None and one.was_seen_running:
                self._lose(one, f"ended: the multirun was {how}", is_wanted=True)

    def cancel_everything(self) -> None:
        """Cancels the jobs and waits until none is in the queue; what cannot be cancelled is left to the guard."""
        start = answered_at = time.monotonic()
        cancelled_at = float("-inf")
        while True:
            entries = list_jobs(self.prefix)
            left = [job_id for job_id, entry in (entries or {}).items() if not entry.is_over]
            now = time.monotonic()
            if entries is not None:
                answered_at = now
                # One that has begun since the last question is not to be taken for one that never did.
                for one in self.tracked:
                    if one.job_id and one.result is None:
                        self._update(one, entries.get(one.job_id), 0.0)
                if not left:
                    self.guard.dismiss()
                    return
            if now >= answered_at + SILENT_CANCEL_S or now >= start + self.settings.patience:
                break
            if now >= cancelled_at + CANCEL_AGAIN_S:
                cancel_jobs(left)
                cancelled_at = now
            self.monitor.update()
            time.sleep(min(TICK_S, self.settings.poll_interval))
        report_leftovers(left or [one.job_id for one in self.tracked if one.is_in_queue])


def report_leftovers(job_ids: Sequence[str]) -> None:
    """Says which jobs Slurm was not seen to end; the guard goes on trying for a while."""
    if job_ids:
        print(f"fgvalidate: Slurm has not ended these jobs yet: scancel {' '.join(job_ids)}", file=sys.stderr)


def explain_end(fields: dict[str, str], limit_min: int) -> str:
    """Says how a job ended that has left no result.

    Args:
        fields: What Slurm knows of it, by Slurm's names; empty: nothing.
        limit_min: Its time limit, minutes.
    """
    if not fields:
        return "Slurm no longer knows it, and it left no result"
    state, reason = fields.get("JobState", "UNKNOWN"), fields.get("Reason", "None")
    code, number = _read_exit_code(fields.get("ExitCode", ""))
    words = [state]
    if state == "TIMEOUT":
        words.append(f"its limit is {limit_min} min")
    elif state == "COMPLETED":
        words.append("but it left no result")
    elif state == "FAILED" and number >= SIGNAL_CODE_LIMIT:
        words.append(f"its batch script could not be started ({reason})")
    elif state == "FAILED":
        words.append(f"killed by {_name_signal(number)}" if number else f"exit code {code}")
    elif reason != "None" and state != "CANCELLED":
        # Of a cancelled job it says what it was waiting for before.
        words.append(reason)
    if "RunTime" in fields:
        words.append(f"after {_show_duration(fields['RunTime'])}")
    return ", ".join(words)


def _read_exit_code(text: str) -> tuple[int, int]:
    """Returns exit code and signal of Slurm's `code:signal`; 0 for what it does not say."""
    code, _, number = text.partition(":")
    return (int(code) if code.isdecimal() else 0), (int(number) if number.isdecimal() else 0)


def _name_signal(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _show_duration(text: str) -> str:
    """Returns Slurm's [days-]hours:minutes:seconds in seconds, or as it is."""
    days, _, clock = text.rpartition("-")
    try:
        hours, minutes, seconds = (int(part) for part in clock.split(":"))
        return f"{int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds} s"
    except ValueError:
        return text


def describe_log(log: Path | None) -> str:
    """Returns where a job's log is and the last line in it, to be put behind a reason; "": it was not submitted."""
    if log is None:
        return ""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return f"; it left no log ({log})"
    last = next((line.strip() for line in reversed(lines) if line.strip() and not _NO_NEWS.match(line)), None)
    return f"; its log is {log}" + (f", and ends: {last}" if last else ", and is empty")
