"""A training run as it is watched: what is new in its output comes in, alarms and evidence go out.

An alarm is what a declared check will be red for, whatever comes after it; `Rules` says what is one. The same evidence
is gathered whether or not an alarm ends the run, so that the verdict is the same. Memory is constant, every new byte of
stdout and stderr is looked at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fgvalidate.growing_file import GrowingFile
from fgvalidate.stacks import dump_stacks
from fgvalidate.steps import Row, Step, StepSource, Tally
from fgvalidate.supervisor import ProcessInfo

Kind = Literal["nonfinite", "ceiling", "forbidden", "stall"]

SHORTEST_STALL_S = 300.0
STALL_GAPS = 5
"""A stall is as many of the longest gap between two steps."""
LONGEST_PASSED_S = 10.0
"""Of the seconds between two looks, as many count at most: in a machine that stood still, nothing stalled."""
LOG_BYTES_A_LOOK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is an alarm, and what an alarm does."""

    fail_fast: bool = True
    """Whether an alarm ends the run."""
    nonfinite: bool = False
    """Whether a loss that is not finite is an alarm."""
    ceiling: float | None = None
    """The loss that no step may exceed; None: there is none."""
    high_loss: bool = False
    """Whether a loss above it is an alarm."""
    forbidden: tuple[str, ...] = ()
    """Texts in stderr that are alarms, not empty."""
    stall: bool = False
    """Whether a stall is an alarm."""
    stall_timeout_s: float | None = None
    """Seconds; see `find_stall_limit`."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """Something that a check will be red for."""

    kind: Kind
    text: str
    """What was seen, for a reader: `loss is nan at step 40`."""
    elapsed_s: float
    """When it was seen, seconds since the start."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What was seen of a run while it ran."""

    alarms: tuple[Alarm, ...] = ()
    stopped_after_s: float | None = None
    """When it was to be ended because of them, seconds since the start; None: it was not."""
    num_steps: int = 0
    last_step: int | None = None
    """None: no step was seen."""
    longest_gap_s: float | None = None
    """Between two steps; None: there were no two."""
    num_nonfinite: int = 0
    """Steps whose loss was not finite."""
    nonfinite: tuple[Step, ...] = ()
    """The first of them."""
    highest: Step | None = None
    """The step with the highest loss above the ceiling; None: none was above it, or there is no ceiling."""
    max_loss: float | None = None
    """The highest loss, less what its printed digits may be rounded up by; None: no loss was a number."""
    is_stalled: bool = False
    """Whether it went without step and output for longer than it may."""
    stacks: tuple[str, ...] = ()
    """Where its processes then stood, a text each."""


def find_stall_limit(stall_timeout_s: float | None, *, num_steps: int, longest_gap_s: float) -> float | None:
    """Returns the seconds without step and output that are a stall; None: not known yet, so nothing is.

    Args:
        stall_timeout_s: What the spec says, which holds from the start; None: the larger of 300 s and five times the
            longest gap, once two steps were seen.
        num_steps: Steps seen.
        longest_gap_s: Between two of them, seconds.
    """
    if stall_timeout_s is not None:
        return stall_timeout_s
    return max(SHORTEST_STALL_S, STALL_GAPS * longest_gap_s) if num_steps >= 2 else None


class StallTimer:
    """Tells a stall from a slow run.

    Attributes:
        silent_s: Seconds since the last step or output.
        longest_gap_s: Between two steps as they were seen, seconds; 0 until there were two.
    """

    def __init__(self, stall_timeout_s: float | None) -> None:
        self._stall_timeout_s = stall_timeout_s
        self._now_s = 0.0
        self._num_steps = 0
        self._step_s: float | None = None
        self.silent_s = 0.0
        self.longest_gap_s = 0.0

    def note(self, now_s: float, *, num_steps: int, has_output: bool) -> None:
        """Takes in a look.

        Args:
            now_s: When, seconds since the start.
            num_steps: Steps seen so far.
            has_output: Whether there was any output since the look before.
        """
        passed_s = min(now_s - self._now_s, LONGEST_PASSED_S)
        self._now_s = now_s
        has_step = num_steps > self._num_steps
        self.silent_s = 0.0 if has_step or has_output else self.silent_s + passed_s
        if not has_step:
            return
        if self._step_s is not None:
            self.longest_gap_s = max(self.longest_gap_s, now_s - self._step_s)
        elif num_steps >= 2:
            # They came at once, from a buffer that took as long to fill: the next may take as long.
            self.longest_gap_s = now_s
        self._step_s, self._num_steps = now_s, num_steps

    @property
    def limit_s(self) -> float | None:
        """See `find_stall_limit`."""
        return find_stall_limit(self._stall_timeout_s, num_steps=self._num_steps, longest_gap_s=self.longest_gap_s)

    @property
    def is_stalled(self) -> bool:
        """Whether the silence is a stall."""
        return self.limit_s is not None and self.silent_s >= self.limit_s


class TextFinder:
    """Looks for texts in a growing output; each is found once."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._wanted = {text: text.encode() for text in texts}
        self._overlap = max((len(needle) for needle in self._wanted.values()), default=1) - 1
        self._tail = b""

    def read(self, new: bytes) -> list[str]:
        """Takes in what is new; returns the texts that are in it for the first time."""
        if not self._wanted:
            return []
        window = self._tail + new
        found = [text for text, needle in self._wanted.items() if needle in window]
        for text in found:
            del self._wanted[text]
        self._tail = window[-self._overlap :] if self._overlap else b""
        return found


class Watcher:
    """Watches one run.

    Args:
        rules: What is an alarm.
        stdout: The file that takes the run's stdout, as for `stderr`.
        stderr: See `stdout`.
        find_log: Returns the training log, None as long as there is none.
        make_stdout_steps: Returns what finds the steps in stdout from its beginning; None: nothing does.
        make_log_steps: Likewise, in the log.
        stacks: File that takes the stacks when the run stalls.

    Attributes:
        alarms: Those so far, in the order in which they were seen.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        stdout: Path,
        stderr: Path,
        find_log: Callable[[], Path | None],
        make_stdout_steps: Callable[[], StepSource | None],
        make_log_steps: Callable[[], StepSource | None],
        stacks: Path,
    ) -> None:
        self._rules = rules
        self._stdout, self._stderr = GrowingFile(stdout), GrowingFile(stderr)
        self._find_log = find_log
        self._log: GrowingFile | None = None
        self._stdout_steps = make_stdout_steps()
        self._make_log_steps, self._log_steps = make_log_steps, make_log_steps()
        self._stdout_tally, self._log_tally = Tally(rules.ceiling), Tally(rules.ceiling)
        self._finder = TextFinder(rules.forbidden)
        self._timer = StallTimer(rules.stall_timeout_s)
        self._stacks_path = stacks
        self._stacks: tuple[str, ...] = ()
        self._is_stalled = False
        self._stopped_after_s: float | None = None
        self._elapsed_s = 0.0
        self.alarms: list[Alarm] = []

    @property
    def last(self) -> Step | None:
        """The last step that was seen."""
        seen = [tally.last for tally in (self._stdout_tally, self._log_tally) if tally.last is not None]
        return max(seen, key=lambda step: -1 if step.step is None else step.step, default=None)

    def look(self, elapsed_s: float, list_processes: Callable[[], list[ProcessInfo]]) -> bool:
        """Takes in what is new; to be called about twice a second.

        Args:
            elapsed_s: Seconds since the start.
            list_processes: Returns the processes of the run's tree.

        Returns:
            Whether the run is to be ended.
        """
        self._elapsed_s = elapsed_s
        has_output = any([self._read_stdout(), self._read_stderr(), self._read_log()])
        num_steps = max(self._stdout_tally.num_steps, self._log_tally.num_steps)
        self._timer.note(elapsed_s, num_steps=num_steps, has_output=has_output)
        if self._timer.is_stalled and not self._is_stalled:
            self._note_stall(list_processes)
        if self._rules.fail_fast and any(self._is_due(alarm) for alarm in self.alarms):
            self._stopped_after_s = elapsed_s
            return True
        return False

    def finish(self, duration_s: float | None = None) -> Watched:
        """Takes in what came after the last look; to be called when the run has ended.

        Args:
            duration_s: Seconds that it ran; None: up to the last look.
        """
        # Stderr is read as a whole after it.
        has_output = any([self._read_stdout(), self._read_log()])
        if self._stdout_steps is not None:
            self._add_steps(self._stdout_tally, self._stdout_steps.finish())
        tallies = self._stdout_tally, self._log_tally
        nonfinite = max(tallies, key=lambda tally: tally.num_nonfinite)
        above = [tally.highest for tally in tallies if tally.highest is not None]
        num_steps = max(tally.num_steps for tally in tallies)
        self._timer.note(duration_s or self._elapsed_s, num_steps=num_steps, has_output=has_output)
        last = self.last
        return Watched(
            alarms=tuple(self.alarms),
            stopped_after_s=self._stopped_after_s,
            num_steps=num_steps,
            last_step=last and last.step,
            longest_gap_s=self._timer.longest_gap_s if num_steps >= 2 else None,
            num_nonfinite=nonfinite.num_nonfinite,
            nonfinite=tuple(nonfinite.nonfinite),
            highest=max(above, key=lambda step: step.loss, default=None),
            max_loss=max((tally.max_loss for tally in tallies if tally.max_loss is not None), default=None),
            is_stalled=self._is_stalled,
            stacks=self._stacks,
        )

    def _is_due(self, alarm: Alarm) -> bool:
        # A program that says why it gives up is given until the next look to say all of it, and to end by itself.
        return alarm.kind != "forbidden" or alarm.elapsed_s < self._elapsed_s

    def _read_stdout(self) -> bool:
        has_output = False
        for chunk in self._stdout.read():
            has_output = True
            if self._stdout_steps is not None:
                self._add_steps(self._stdout_tally, self._stdout_steps.read(chunk))
        return has_output

    def _read_stderr(self) -> bool:
        has_output = False
        for chunk in self._stderr.read():
            has_output = True
            for text in self._finder.read(chunk):
                self._note("forbidden", f"stderr says {text!r}")
        return has_output

    def _read_log(self) -> bool:
        if self._log is None and (path := self._find_log()) is not None:
            self._log = GrowingFile(path)
        if self._log is None:
            return False
        has_output, num_restarts = False, self._log.num_restarts
        for chunk in self._log.read(LOG_BYTES_A_LOOK):
            has_output = True
            if self._log.num_restarts > num_restarts:
                self._log_steps, num_restarts = self._make_log_steps(), self._log.num_restarts
            if self._log_steps is not None:
                self._add_steps(self._log_tally, self._log_steps.read(chunk))
        return has_output

    def _add_steps(self, tally: Tally, rows: list[Row]) -> None:
        tally.add(rows)
        if self._rules.nonfinite and tally.nonfinite:
            self._note("nonfinite", f"loss is {tally.nonfinite[0].loss}{show_step(tally.nonfinite[0])}")
        if self._rules.high_loss and tally.highest is not None:
            high = f"loss is {tally.highest.loss:.6g}{show_step(tally.highest)}"
            self._note("ceiling", f"{high}, above loss.ceiling={self._rules.ceiling:g}")

    def _note(self, kind: Kind, text: str) -> None:
        # Of a kind, the first one says it; every forbidden text is one of its own.
        if kind == "forbidden" or all(alarm.kind != kind for alarm in self.alarms):
            self.alarms.append(Alarm(kind=kind, text=text, elapsed_s=self._elapsed_s))

    def _note_stall(self, list_processes: Callable[[], list[ProcessInfo]]) -> None:
        self._is_stalled = True
        if not self._rules.stall:
            return
        after = show_step(self.last, "after") if self.last is not None else " from its start"
        self._note("stall", f"no step and no output for {self._timer.silent_s:.0f} s{after}")
        self._stacks = dump_stacks(list_processes())
        self._stacks_path.write_text("\n\n".join(self._stacks) + "\n", encoding="utf-8", errors="replace")


def show_step(step: Step, word: str = "at") -> str:
    """Returns where a step is, for the end of a sentence; "" when it does not say."""
    return "" if step.step is None else f" {word} step {step.step}"
