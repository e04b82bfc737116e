"""Progress: the step table on stdout is followed as it grows."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from fgvalidate.progress import LARGEST_READ_BYTES, Follower, Progress
from fgvalidate.steps import RecordArray, Step, StepTable
from fgvalidate.watch import Rules, Watcher

HEADER = "2026-11-22 15:25:17       step     epoch      loss      grad      maxg          lr      tokens   total_tok\n"
ROW = "2026-11-22 15:25:17        {step}    0.0004   {loss}    1.6310    1.6310    4.00e-06         366         793\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        (HEADER, None),
        (HEADER + ROW.format(step=2, loss="6.94874"), Step(2, 6.94874)),
        (ROW.format(step="1,200", loss="0.5"), Step(1200, 0.5)),
        (ROW.format(step=2, loss="6.9") + "2026-11-22 15:25:24         10  0.0    eval-loss: 6.89761\n", Step(2, 6.9)),
        (ROW.format(step=2, loss="6.9") + ROW.format(step=3, loss="5.0")[:40], Step(2, 6.9)),
        ("loss 3 of nothing\n\x00\xff\n", None),
    ],
)
def test_last_whole_row_counts(tmp_path: Path, text: str, expected: Step | None) -> None:
    (tmp_path / "out").write_text(text, encoding="utf-8")

    assert Follower(tmp_path / "out").read() == expected


def test_file_that_is_begun_anew_is_followed_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text(HEADER + ROW.format(step=200, loss="0.5"), encoding="utf-8")
    follower = Follower(path)
    follower.read()

    path.write_text(HEADER, encoding="utf-8")
    begun = follower.read()
    path.write_text(HEADER + ROW.format(step=2, loss="6.9"), encoding="utf-8")

    assert begun is None
    assert follower.read() == Step(2, 6.9)


def test_nan_is_shown_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "out").write_text(ROW.format(step=2, loss="nan"), encoding="utf-8")

    last = Follower(tmp_path / "out").read()

    assert last is not None
    assert (last.step, str(last.loss)) == (2, "nan")


def test_row_that_comes_in_two_parts_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    row = ROW.format(step=7, loss="2.5")
    path.write_text(row[:30], encoding="utf-8")
    follower = Follower(path)

    before = follower.read()
    with path.open("a", encoding="utf-8") as file:
        file.write(row[30:])

    assert (before, follower.read()) == (None, Step(7, 2.5))


def test_of_a_flood_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("x" * (3 * LARGEST_READ_BYTES) + "\n" + ROW.format(step=9, loss="1.5"), encoding="utf-8")

    assert Follower(path).read() == Step(9, 1.5)


def test_missing_file_is_no_step_yet(tmp_path: Path) -> None:
    assert Follower(tmp_path / "absent").read() is None


def watch(folder: Path, *rows: str) -> Watcher:
    """Watches a run that has printed some rows."""
    (folder / "out").write_text("".join(rows), encoding="utf-8")
    watcher = Watcher(
        Rules(fail_fast=False, nonfinite=True),
        stdout=folder / "out",
        stderr=folder / "err",
        find_log=lambda: None,
        make_stdout_steps=StepTable,
        make_log_steps=RecordArray,
        stacks=folder / "stacks.txt",
    )
    watcher.look(1.0, list)
    return watcher


def test_plain_lines_come_now_and_then(tmp_path: Path) -> None:
    watcher, out = watch(tmp_path, ROW.format(step=2, loss="6.94874")), io.StringIO()

    with Progress(Console(file=out, width=100), 200) as progress:
        for elapsed in (1.0, 10.2, 10.7, 21.0):
            progress.show(elapsed, watcher)

    assert out.getvalue() == ("training  10 s  step 2 of 200, loss 6.949\ntraining  21 s  step 2 of 200, loss 6.949\n")


def test_terminal_shows_one_live_line(tmp_path: Path) -> None:
    watcher, out = watch(tmp_path, ROW.format(step=2, loss="6.94874")), io.StringIO()

    with Progress(Console(file=out, width=100, force_terminal=True), None) as progress:
        progress.show(1.0, watcher)

    assert "step 2, loss 6.949" in out.getvalue()


def test_alarm_is_shown_once(tmp_path: Path) -> None:
    watcher, out = watch(tmp_path, ROW.format(step=2, loss="nan")), io.StringIO()

    with Progress(Console(file=out, width=100), 200) as progress:
        for elapsed in (1.0, 1.5, 2.0):
            progress.show(elapsed, watcher)

    assert out.getvalue() == "noted     1 s  loss is nan at step 2\n"
