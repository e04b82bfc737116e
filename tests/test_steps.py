"""Training steps are found in output that comes in any pieces."""

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fgvalidate.steps import (
    LONGEST_RECORD_CHARACTERS,
    LONGEST_ROW_BYTES,
    RecordArray,
    Row,
    Step,
    StepSource,
    StepTable,
    Tally,
    find_least_loss,
)

DATE = "2026-11-22 15:25:17"
HEADER = f"{DATE}       step     epoch      loss      grad      maxg          lr      tokens   total_tok       tok/s\n"


def make_row(step: object, loss: object, *, grad: object = "1.6310", end: str = "\n") -> str:
    return f"{DATE} {step:>10}    0.0004   {loss}    {grad}    {grad}    4.00e-06         366         793{end}"


def read_rows(source: StepSource, *pieces: bytes) -> list[Row]:
    return [*(row for piece in pieces for row in source.read(piece)), *source.finish()]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", []),
        (HEADER, []),
        (HEADER + make_row(2, 6.94874), [(b"2", b"6.94874")]),
        (make_row("1,200", "0.5") + make_row("1,300", "-0.25"), [(b"1,200", b"0.5"), (b"1,300", b"-0.25")]),
        (make_row(3, "nan", end="\r\n"), [(b"3", b"nan")]),
        (make_row(3, "NaN"), [(b"3", b"NaN")]),
        (make_row(3, "inf") + make_row(4, "-Infinity"), [(b"3", b"inf"), (b"4", b"-Infinity")]),
        (make_row(3, "1.5e+08"), [(b"3", b"1.5e+08")]),
        (make_row(3, "4.5", grad="nan"), [(b"3", b"4.5")]),
        (make_row(3, "4.5", grad="inf"), [(b"3", b"4.5")]),
        (f"{DATE}         10  0.0    eval-loss: nan\n", []),
        (f"{DATE}         10  0.0    eval-loss: 6.89761\n", []),
        (make_row(3, "info"), []),
        (make_row(3, "nano"), []),
        (f"epoch {make_row(3, 'nan')}", []),
        ("nan\nloss: nan\nloss 3 of nothing\n\0\n", []),
        (make_row(3, "4.5", end=""), [(b"3", b"4.5")]),
        (f"{DATE}          3    0.0004   4", []),  # 4.5, or 4e-5
        (f"{DATE}          3    0.0004\nnan 1\n", []),
        ("x" * 3 * LONGEST_ROW_BYTES + "\n" + make_row(3, "4.5"), [(b"3", b"4.5")]),
        (make_row(3, "4.5", end=" " + "x" * 3 * LONGEST_ROW_BYTES + "\n"), [(b"3", b"4.5")]),
    ],
)
def test_rows_of_the_step_table(text: str, rows: list[Row]) -> None:
    content = text.encode()
    bytewise = [content[at : at + 1] for at in range(len(content))]

    assert read_rows(StepTable(), content) == rows
    assert read_rows(StepTable(), *bytewise) == rows


TRAINING = {"global_step": 10, "epoch": 0.5, "loss": 4.5}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", []),
        ("[\n", []),
        ("[" + json.dumps(TRAINING), [(b"10", b"4.5")]),
        (
            '[{"global_step": 10, "loss": NaN},\n{"global_step": 20, "loss": -Infinity}\n]',
            [(b"10", b"nan"), (b"20", b"-inf")],
        ),
        ('[{"global_step": 10, "loss": null}, {"loss": "4"}]', [(b"10", b"nan"), (b"", b"nan")]),
        ('[{"global_step": 10, "eval_loss": NaN, "grad_norm": NaN}]', []),
        ('[{"global_step": 10, "train_runtime": 3, "loss": NaN}]', [(b"10", b"nan")]),
        ('[{"note": "{\\"loss\\": NaN}, \u00e9"}, {"global_step": 1, "loss": 2}]', [(b"1", b"2.0")]),
        ('[{"global_step": 10, "loss": 4.5}, {"global_step": 20, "lo', [(b"10", b"4.5")]),
        ('[{"global_step": 10, "loss": 4.5} {"global_step": 20, "loss": 1}', [(b"10", b"4.5"), (b"20", b"1.0")]),
        ('[{"loss": 1}, nonsense, {"loss": NaN}]', [(b"", b"1.0")]),
        ("[1, 2, [3], {}]", []),
        ("[" * 100_000, []),
        (f'[{{"loss": 1{400 * "0"}}}]', [(b"", b"inf")]),
        (f'[{{"loss": 1{5000 * "0"}}}]', []),
    ],
)
def test_records_of_a_growing_array(text: str, rows: list[Row]) -> None:
    content = text.encode()
    sevens = [content[at : at + 7] for at in range(0, min(len(content), 500), 7)] + [content[504:]]

    assert read_rows(RecordArray(), content) == rows
    if len(content) < 500:
        assert read_rows(RecordArray(), *sevens) == rows


def test_record_that_never_ends_is_given_up() -> None:
    source = RecordArray()

    source.read(b'[{"note": "' + b"x" * (LONGEST_RECORD_CHARACTERS + 1))
    rows = source.read(b'"}, {"loss": NaN}]')

    assert rows == []
    assert len(source._text) < 2 * LONGEST_RECORD_CHARACTERS


def test_rest_of_an_endless_line_is_bounded() -> None:
    table = StepTable()

    for _ in range(10):
        table.read(b"x" * 100_000)

    assert len(table._lines.rest) == LONGEST_ROW_BYTES


@pytest.mark.parametrize(
    ("loss", "least"),
    [(b"6.94874", 6.948735), (b"12", 11.5), (b"1.2e+05", 115000.0), (b"-0.5", -0.55), (b"inf", math.inf)],
)
def test_least_loss_that_is_printed_so(loss: bytes, least: float) -> None:
    assert find_least_loss((b"1", loss)) == pytest.approx(least)


def add_up(rows: list[tuple[str, str]], ceiling: float | None = None) -> Tally:
    tally = Tally(ceiling)
    tally.add([(step.encode(), loss.encode()) for step, loss in rows])
    return tally


def test_steps_are_added_up() -> None:
    tally = add_up([("10", "4.5"), ("20", "nan"), ("30", "inf"), ("40", "3.5")], 4.0)

    assert (tally.num_steps, tally.last, tally.num_nonfinite) == (4, Step(40, 3.5), 2)
    assert [step.step for step in tally.nonfinite] == [20, 30]
    assert tally.highest == Step(30, math.inf)


def test_step_that_is_told_of_again_is_not_counted_again() -> None:
    tally = add_up([("10", "nan"), ("10", "nan"), ("5", "nan"), ("20", "nan"), ("", "nan")])

    assert tally.num_nonfinite == 3


@pytest.mark.parametrize(
    ("loss", "ceiling", "is_high"),
    [
        ("5.00001", 5.0, True),
        ("5.00000", 5.0, False),
        ("6.94874", 6.948738, False),  # 6.948737, rounded
        ("7", 6.9, False),  # 6.6, rounded
        ("8", 6.9, True),
        ("inf", 1e300, True),
        ("nan", 5.0, False),
        ("-inf", 5.0, False),
        ("9.0", None, False),
    ],
)
def test_loss_above_the_ceiling_is_so_whatever_was_not_printed(loss: str, ceiling: float | None, is_high: bool) -> None:
    assert (add_up([("1", "nan"), ("2", loss)], ceiling).highest is not None) is is_high


LINES = st.one_of(
    st.builds(
        make_row,
        st.integers(0, 999),
        st.sampled_from(["4.50000", "nan", "NaN", "inf", "-inf", "99.50000", "10.00000", "1e+400", "nanny"]),
        grad=st.sampled_from(["1.5", "nan"]),
        end=st.sampled_from(["\n", "\r\n", "   extra\n", "\n\n"]),
    ),
    st.just(f"{DATE}         10  0.0    eval-loss: nan\n"),
    st.just(HEADER),
    st.text(max_size=30),
)


def find_reference(text: bytes) -> list[Any]:
    """Returns what a simple program finds that reads the whole output, word by word."""
    found = []
    for line in text.split(b"\n"):
        if not line.startswith(DATE.encode() + b" "):
            continue
        words = line.decode(errors="replace").split()
        loss = words[4] if len(words) > 5 else ""
        if words[2].isdecimal() and loss.lower() in {"nan", "inf", "-inf", "1e+400", "99.50000"}:
            found.append((int(words[2]), loss))
    return found


@given(lines=st.lists(LINES, max_size=25), cuts=st.lists(st.integers(0, 3000), max_size=12))
@example(lines=["x\n", make_row(1, "nan")], cuts=[2, 30, 60])
def test_alarms_are_those_of_the_whole_output_however_it_is_cut(lines: list[str], cuts: list[int]) -> None:
    content = "".join(lines).encode()
    places = [0, *sorted(cuts), len(content)]
    pieces = [content[start:end] for start, end in zip(places, [*places[1:], len(content)], strict=True)]

    rows = read_rows(StepTable(), *pieces)

    found = [(int(step), loss.decode()) for step, loss in rows if not float(loss) <= 10.0 or loss == b"-inf"]
    assert found == find_reference(content)
