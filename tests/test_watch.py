"""A run is watched while it runs: alarms end it, a slow run is left alone, and the verdict is the same either way."""

import dataclasses
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fgvalidate.growing_file import CHUNK_BYTES, GrowingFile
from fgvalidate.steps import RecordArray, Step, StepTable
from fgvalidate.supervisor import ProcessInfo, read_process
from fgvalidate.watch import LONGEST_PASSED_S, Rules, StallTimer, TextFinder, Watched, Watcher, find_stall_limit

Validate = Callable[..., Any]

ALL = Rules(nonfinite=True, ceiling=10.0, high_loss=True, forbidden=("CUDA error",), stall=True)
ROW = "2026-11-22 15:25:17        {step}    0.0004   {loss}    1.6310    1.6310    4.00e-06         366         793\n"
FAST = 60.0
"""Seconds within which a run has ended that would go on for three minutes."""


@pytest.mark.parametrize(
    ("timeout_s", "num_steps", "gap_s", "limit_s"),
    [
        (None, 0, 0.0, None),
        (None, 1, 0.0, None),
        (None, 2, 0.0, 300.0),
        (None, 2, 60.0, 300.0),
        (None, 9, 61.0, 305.0),
        (7.5, 0, 0.0, 7.5),
        (7.5, 9, 61.0, 7.5),
    ],
)
def test_stall_limit(timeout_s: float | None, num_steps: int, gap_s: float, limit_s: float | None) -> None:
    assert find_stall_limit(timeout_s, num_steps=num_steps, longest_gap_s=gap_s) == limit_s


def find_stalls(timeout_s: float | None, looks: dict[float, tuple[int, bool]], *, until_s: float) -> list[float]:
    """Returns the seconds at which a run counts as stalled that is looked at every second.

    Args:
        timeout_s: What the spec says.
        looks: By second: the steps so far, and whether there was output; at all others nothing new was seen.
        until_s: The last second.
    """
    timer, steps, stalled = StallTimer(timeout_s), 0, []
    for second in range(1, int(until_s) + 1):
        steps, has_output = looks.get(second, (steps, False))
        timer.note(float(second), num_steps=steps, has_output=has_output)
        if timer.is_stalled:
            stalled.append(float(second))
    return stalled


@pytest.mark.parametrize(
    ("timeout_s", "looks", "first"),
    [
        pytest.param(None, {}, None, id="nothing was ever seen"),
        pytest.param(None, {20: (1, True)}, None, id="one step"),
        pytest.param(None, {20: (1, True), 30: (2, True)}, 330.0, id="steps every ten seconds"),
        pytest.param(None, {20: (1, True), 120: (2, True)}, 620.0, id="steps every hundred seconds"),
        pytest.param(None, {20: (1, True), 30: (2, True), 329: (2, True)}, 629.0, id="output is life"),
        pytest.param(None, {20: (1, True), 30: (2, True), 329: (3, False)}, 1824.0, id="a step is life and a gap"),
        pytest.param(None, {200: (75, True)}, 1200.0, id="steps that came at once from a buffer"),
        pytest.param(5.0, {}, 5.0, id="own limit from the start"),
        pytest.param(5.0, {4: (0, True), 8: (1, True)}, 13.0, id="own limit after output"),
        pytest.param(5.0, dict.fromkeys(range(2000), (0, True)), None, id="own limit, output all the time"),
    ],
)
def test_stall_is_told_from_a_slow_run(
    timeout_s: float | None, looks: dict[float, tuple[int, bool]], first: float | None
) -> None:
    stalls = find_stalls(timeout_s, looks, until_s=1999)

    assert (stalls[0] if stalls else None) == first


def test_nothing_stalls_in_a_machine_that_stood_still() -> None:
    timer = StallTimer(60.0)

    timer.note(1.0, num_steps=1, has_output=True)
    timer.note(3601.0, num_steps=1, has_output=False)

    assert (timer.silent_s, timer.is_stalled) == (LONGEST_PASSED_S, False)


def test_texts_are_found_once_however_they_are_cut() -> None:
    finder = TextFinder(["CUDA error", "aa", "\u00e9"])

    found = [finder.read(piece) for piece in (b"a", b"CUDA er", b"ror CUDA error", b"\xc3", b"\xa9", b"a", b"a", b"aa")]

    assert found == [[], [], ["CUDA error"], [], ["\u00e9"], [], ["aa"], []]


def test_growing_file_is_read_once_and_anew_when_it_has_shrunk(tmp_path: Path) -> None:
    path = tmp_path / "out"
    file = GrowingFile(path)

    assert list(file.read()) == []
    path.write_bytes(b"a" * (CHUNK_BYTES + 1))
    assert [len(chunk) for chunk in file.read()] == [CHUNK_BYTES, 1]
    assert list(file.read()) == []
    path.write_bytes(b"bcd")
    assert list(file.read(2)) == [b"bc"]
    assert list(file.read()) == [b"d"]


class Scene:
    """A run's files, written by hand, and its watcher."""

    def __init__(self, folder: Path, rules: Rules) -> None:
        self.folder = folder
        self.log = folder / "log.json"
        self.watcher = Watcher(
            rules,
            stdout=folder / "stdout",
            stderr=folder / "stderr",
            find_log=lambda: self.log if self.log.exists() else None,
            make_stdout_steps=StepTable,
            make_log_steps=RecordArray,
            stacks=folder / "stacks.txt",
        )
        self.now_s = 0.0
        self.processes: list[ProcessInfo] = []

    def look(self, **added: str) -> bool:
        """Adds to the files, and looks half a second after the last time."""
        for name, text in added.items():
            with (self.log if name == "log" else self.folder / name).open("a", encoding="utf-8") as file:
                file.write(text)
        self.now_s += 0.5
        return self.watcher.look(self.now_s, lambda: self.processes)

    def finish(self) -> Watched:
        return self.watcher.finish()


@pytest.fixture
def scene(tmp_path: Path) -> Callable[..., Scene]:
    return lambda **changes: Scene(tmp_path, dataclasses.replace(ALL, **changes))


@pytest.mark.parametrize(
    ("added", "text"),
    [
        ({"stdout": ROW.format(step=40, loss="nan")}, "loss is nan at step 40"),
        ({"stdout": ROW.format(step=40, loss="-inf")}, "loss is -inf at step 40"),
        ({"log": '[{"global_step": 40, "loss": NaN}'}, "loss is nan at step 40"),
        ({"log": '[{"loss": NaN}'}, "loss is nan"),
        ({"stdout": ROW.format(step=40, loss="10.50000")}, "loss is 10.5 at step 40, above loss.ceiling=10"),
        ({"log": '[{"global_step": 40, "loss": 10.5}'}, "loss is 10.5 at step 40, above loss.ceiling=10"),
    ],
)
def test_alarm_ends_the_run_at_once(scene: Callable[..., Scene], added: dict[str, str], text: str) -> None:
    run = scene()

    assert run.look(stdout=ROW.format(step=30, loss="4.5"), stderr="WARNING\n", log="") is False
    assert run.look(**added) is True
    seen = run.finish()
    assert [alarm.text for alarm in seen.alarms] == [text]
    assert seen.stopped_after_s == 1.0


def test_forbidden_text_ends_the_run_at_the_next_look(scene: Callable[..., Scene]) -> None:
    run = scene()

    assert [run.look(stderr="a CUDA er"), run.look(stderr="ror\n"), run.look()] == [False, False, True]
    assert [alarm.text for alarm in run.finish().alarms] == ["stderr says 'CUDA error'"]


@pytest.mark.parametrize(
    "added",
    [
        {"stdout": ROW.format(step=40, loss="9.5").replace("1.6310", "nan")},
        {"stdout": "2026-11-22 15:25:17         10  0.0    eval-loss: nan\n"},
        {"stdout": "CUDA error\nloss: nan\n", "stderr": "loss is nan\n"},
        {"stdout": ROW.format(step=40, loss="10.00000")},
        {"log": '[{"global_step": 40, "eval_loss": NaN, "grad_norm": NaN}, {"loss": 10}'},
    ],
    ids=["grad norm", "evaluation", "other words", "at the ceiling", "in the log"],
)
def test_what_no_check_is_red_for_is_no_alarm(scene: Callable[..., Scene], added: dict[str, str]) -> None:
    run = scene()

    assert [run.look(**added), run.look()] == [False, False]
    seen = run.finish()
    assert (seen.alarms, seen.num_nonfinite, seen.highest) == ((), 0, None)


@pytest.mark.parametrize(
    ("off", "added"),
    [
        ({"nonfinite": False}, {"stdout": ROW.format(step=40, loss="nan")}),
        ({"high_loss": False}, {"stdout": ROW.format(step=40, loss="11.5")}),
        ({"forbidden": ()}, {"stderr": "CUDA error"}),
    ],
    ids=["nonfinite", "ceiling", "forbidden"],
)
def test_what_is_not_judged_is_no_alarm(
    scene: Callable[..., Scene], off: dict[str, Any], added: dict[str, str]
) -> None:
    run = scene(**off)

    assert [run.look(**added), run.look()] == [False, False]
    assert run.finish().alarms == ()


def test_without_fail_fast_alarms_are_noted_and_the_run_goes_on(scene: Callable[..., Scene]) -> None:
    run = scene(fail_fast=False)
    rows = "".join(ROW.format(step=step, loss=loss) for step, loss in [(10, "nan"), (20, "nan"), (30, "11.5")])

    looks = [run.look(stdout=rows, stderr="CUDA error"), run.look(stdout=ROW.format(step=40, loss="12.5"))]

    seen = run.finish()
    assert looks == [False, False]
    assert [alarm.kind for alarm in seen.alarms] == ["nonfinite", "ceiling", "forbidden"]
    assert (seen.num_steps, seen.last_step, seen.num_nonfinite, seen.highest) == (4, 40, 2, Step(40, 12.5))
    assert seen.stopped_after_s is None


def test_what_comes_after_the_last_look_is_seen(scene: Callable[..., Scene]) -> None:
    run = scene()
    run.look()
    (run.folder / "stdout").write_text(ROW.format(step=40, loss="nan").rstrip("\n"), encoding="utf-8")

    seen = run.finish()

    assert (seen.num_nonfinite, seen.nonfinite[0].step, len(seen.alarms)) == (1, 40, 1)


def test_two_sources_that_tell_of_the_same_step_count_once(scene: Callable[..., Scene]) -> None:
    run = scene(fail_fast=False)

    run.look(stdout=ROW.format(step=40, loss="nan"), log='[{"global_step": 40, "loss": NaN}')

    seen = run.finish()
    assert (seen.num_steps, seen.num_nonfinite, len(seen.alarms)) == (1, 1, 1)


def test_row_in_a_flood_is_not_skipped(scene: Callable[..., Scene]) -> None:
    run = scene()
    flood = "a line about nothing\n" * 100_000

    assert run.look(stdout=flood + ROW.format(step=40, loss="nan") + flood) is True


def test_stall_is_noted_once_with_the_stacks(scene: Callable[..., Scene]) -> None:
    run = scene(stall_timeout_s=2.0, fail_fast=False)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        process = read_process(child.pid)
        assert process is not None
        run.processes = [process]
        looks = [run.look(stdout=ROW.format(step=30, loss="4.5")), *(run.look() for _ in range(10))]
    finally:
        child.kill()
        child.wait()

    seen = run.finish()
    assert not any(looks)
    assert [alarm.text for alarm in seen.alarms] == ["no step and no output for 2 s after step 30"]
    assert (seen.is_stalled, len(seen.stacks)) == (True, 1)
    assert (run.folder / "stacks.txt").read_text(encoding="utf-8") == seen.stacks[0] + "\n"


def test_stall_that_is_not_judged_is_observed_and_nothing_more(scene: Callable[..., Scene]) -> None:
    run = scene(stall_timeout_s=1.0, stall=False)

    assert [run.look() for _ in range(4)] == [False] * 4
    seen = run.finish()
    assert (seen.is_stalled, seen.alarms, seen.stacks) == (True, (), ())


def cut(text: bytes, rng: random.Random) -> Iterator[bytes]:
    """Cuts a text into pieces of all sizes."""
    at = 0
    while at < len(text):
        size = rng.choice([1, 2, 7, 50, 117, 1000, 20_000])
        yield text[at : at + size]
        at += size


@pytest.mark.parametrize("seed", range(10))
def test_random_streams_in_random_pieces_give_what_the_whole_gives(
    scene: Callable[..., Scene], seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    losses = [rng.choice([f"{rng.uniform(0, 10):.5f}", "4.50000", "nan", "11.50000"]) for _ in range(200)]
    lines = [ROW.format(step=step, loss=loss) for step, loss in enumerate(losses)]
    noise = ["a CUDA err\n", "or\n", "nan\n", ROW.format(step=1, loss="4.5").replace("1.6310", "inf"), "x" * 9000]
    text = "".join(rng.choice([line, line + rng.choice(noise)]) for line in lines).encode()
    run = scene(fail_fast=False)

    with (tmp_path / "stdout").open("ab") as stdout, (tmp_path / "stderr").open("ab") as stderr:
        for piece in cut(text, rng):
            for file in (stdout, stderr):
                file.write(piece)
                file.flush()
            run.look()

    seen = run.finish()
    own_lines = [line.split() for line in text.decode().splitlines() if line.startswith("2026")]
    steps = [(int(words[2]), float(words[4])) for words in own_lines]
    bad = {step for step, loss in steps if not math.isfinite(loss)}
    assert (seen.num_steps, seen.num_nonfinite) == (len(steps), len(bad))
    assert (seen.highest is not None) is any(loss > 10 for _, loss in steps)
    assert {alarm.kind for alarm in seen.alarms} == (
        ({"nonfinite"} if bad else set())
        | ({"ceiling"} if seen.highest else set())
        | ({"forbidden"} if b"CUDA error" in text else set())
    )


STREAMS = [
    pytest.param(
        ("loss=40:NaN;hang_at=60",),
        "finite_loss",
        "numerics: loss is nan at step 40; stopped at step 50 of 200 after ",
        id="a NaN row on stdout",
    ),
    pytest.param(
        ("loss=40:99.0;hang_at=60", "loss.ceiling=50"),
        "loss_ceiling",
        "convergence: loss is 99 at step 40, above loss.ceiling=50; stopped at step 50 of 200 after ",
        id="a loss above the ceiling",
    ),
    pytest.param(
        ("stderr_at=45:RuntimeError: out of luck;hang_at=60",),
        "forbidden_stderr",
        "crash: stderr says 'RuntimeError'; stopped at step 50 of 200 after ",
        id="forbidden text on stderr",
    ),
    pytest.param(
        ("hang_at=60", "watch.stall_timeout=6"),
        "not_stalled",
        "crash: no step and no output for 6 s after step 50; stopped at step 50 of 200 after ",
        id="a stall",
    ),
    pytest.param(
        ("loss=40:NaN;hang_at=60;ignore_sigterm;workers=2;dataloader",),
        "finite_loss",
        "numerics: loss is nan at step 40; stopped at step 50 of 200 after ",
        id="a NaN row of workers that ignore SIGTERM",
    ),
    pytest.param(
        ("loss=40:NaN;hang_at=60;stdout_flood=20000",),
        "finite_loss",
        "numerics: loss is nan at step 40; stopped at step ",
        id="a NaN row in a flood",
    ),
]


@pytest.mark.parametrize(("words", "check", "reason"), STREAMS)
def test_trouble_ends_the_run_and_is_the_first_thing_that_is_said(
    validate: Validate, workplace: Any, words: tuple[str, ...], check: str, reason: str
) -> None:
    began = time.monotonic()

    run = validate(*words)

    took = time.monotonic() - began
    workplace.wait_until_empty()
    assert (run.code, run.report["outcome"]) == (1, "failed"), run.stdout + run.stderr
    assert took < FAST
    assert run.report["reason"].startswith(reason)
    assert run.report["reason"].endswith(" s, which saves the rest")
    assert run.check(check)["status"] == "failed"
    values, notes = run.facts["values"], run.facts["notes"]
    assert values["watch.stopped"] is True
    assert notes["train.returncode"] == f"ended by fgvalidate: {values['watch.alarms'][0]}"
    assert run.stdout.count(f" s  {values['watch.alarms'][0]}\n") == 1


@pytest.mark.parametrize(
    ("words", "check", "actual", "reason"),
    [
        (("loss=40:NaN;hang_at=60;hang_s=2",), "finite_loss", 1, "numerics: loss is nan at step 40"),
        (("loss=40:99.0;hang_at=60;hang_s=2", "loss.ceiling=50"), "loss_ceiling", 99.0, "convergence: loss_ceiling"),
        (("hang_at=60;hang_s=4", "watch.stall_timeout=1.5"), "not_stalled", True, "crash: not_stalled is true"),
    ],
    ids=["nonfinite", "ceiling", "stall"],
)
def test_without_fail_fast_the_run_goes_on_and_is_as_red(
    validate: Validate, words: tuple[str, ...], check: str, actual: Any, reason: str
) -> None:
    run = validate(*words, "watch.fail_fast=false", "stderr.forbidden_patterns=[]")

    assert (run.code, run.red) == (1, {check}), run.stdout
    assert run.check(check)["actual"] == actual
    assert run.stdout.count("noted ") == 1
    assert run.facts["values"]["train.global_step"] == 200
    assert run.facts["values"]["watch.stopped"] is False
    assert run.report["reason"].startswith(reason)


def test_what_was_seen_counts_although_the_log_is_empty(validate: Validate) -> None:
    run = validate("loss=40:NaN;log=empty", "watch.fail_fast=false")

    assert (run.check("finite_loss")["status"], run.check("finite_loss")["actual"]) == ("failed", 1)
    assert run.check("finite_loss")["message"] == "the first is nan at step 40, as seen while it ran"
    assert run.facts["values"]["loss.nonfinite_steps"] == [40]
    assert "loss.final" not in run.facts["values"]


def test_what_was_seen_counts_for_nothing_when_the_log_is_empty(validate: Validate) -> None:
    run = validate("log=empty", "loss.ceiling=50")

    assert {"finite_loss", "loss_ceiling"} <= run.red
    assert {run.check(name)["status"] for name in ("finite_loss", "loss_ceiling")} == {"error"}


@pytest.mark.parametrize("fail_fast", ["true", "false"])
def test_good_run_is_as_green_as_ever(validate: Validate, fail_fast: str) -> None:
    run = validate("step_s=0.01;eval_steps=50", "loss.ceiling=7.0", f"watch.fail_fast={fail_fast}")

    assert (run.code, run.red, run.warned) == (0, set(), set())
    values = run.facts["values"]
    assert (values["watch.stopped"], values["watch.stalled"], values["watch.alarms"]) == (False, False, [])
    assert (values["watch.num_steps"], values["watch.global_step"]) == (20, 200)


@pytest.mark.parametrize(
    "faults",
    ["hang_at=60;hang_s=7;chatter", "step_s=0.5;logging_steps=1;stop_after=12"],
    ids=["output without steps", "steps, slowly"],
)
def test_slow_run_that_is_alive_is_no_stall(validate: Validate, faults: str) -> None:
    run = validate(
        faults, "watch.stall_timeout=5", "max_steps=100", "checks.all_steps=null", "checks.final_loss_max=null"
    )

    assert run.check("not_stalled")["status"] == "passed", run.stdout
    assert run.facts["values"]["watch.stopped"] is False


def test_trouble_that_no_check_is_red_for_does_not_end_the_run(validate: Validate) -> None:
    soft = "${warn:${check.eq:${fact:loss.num_nonfinite},0}}"

    run = validate("loss=40:NaN;hang_at=60;hang_s=2", f"checks.finite_loss='{soft}'")

    assert (run.code, run.warned) == (0, {"finite_loss"})
    assert (run.facts["values"]["watch.stopped"], run.facts["values"]["watch.alarms"]) == (False, [])


def test_stacks_of_a_stall_are_in_the_report_and_in_the_folder(validate: Validate) -> None:
    run = validate("hang_at=60;workers=2", "watch.stall_timeout=5")

    text = (run.run_dir / "stacks.txt").read_text(encoding="utf-8")
    assert text.count("forgather_worker.py") >= 2
    assert run.report["stacks"][0] in text
    assert "Where the stalled processes stood:" in run.stdout
    assert "Where the stalled processes stood" in (run.run_dir / "report.html").read_text(encoding="utf-8")
    assert "State: S (sleeping)" in text
