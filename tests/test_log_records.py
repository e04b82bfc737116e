"""Records of training logs: what they come to, in whatever order and spelling they arrive."""

import math
from typing import Any

import pytest

from fgvalidate.log_records import MAX_PACE_POINTS, KeyMap, Pace, Records, parse_number, to_float, to_step, to_time


def add(*records: dict[str, Any], **settings: Any) -> Records:
    made = Records(**settings)
    for record in records:
        made.add(record)
    return made


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12),
        (" -3 ", -3),
        ("2.50", 2.5),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("5.", 5.0),
        ("+inf", math.inf),
        ("-Infinity", -math.inf),
        ("1" * 30, float("1" * 30)),
        ("1e999", math.inf),
        ("", None),
        ("1_000", None),
        ("1,000", None),
        ("0x10", None),
        ("tensor(2.)", None),
        ("٣", None),
        ("infinite", None),
    ],
)
def test_texts_that_are_numbers(text: str, number: float | None) -> None:
    assert parse_number(text) == number
    assert math.isnan(parse_number("NaN") or 0)


@pytest.mark.parametrize(
    ("value", "number"),
    [(2, 2.0), (2.5, 2.5), (10**400, math.inf), (-(10**400), -math.inf)],
)
def test_numbers(value: Any, number: float) -> None:
    assert to_float(value) == number


@pytest.mark.parametrize("value", [None, True, "2.5", [2.5], {}, math.nan])
def test_what_is_no_number_is_nan(value: Any) -> None:
    assert math.isnan(to_float(value))


@pytest.mark.parametrize(
    ("value", "step"),
    [
        (0, 0),
        (7, 7),
        (7.0, 7),
        (-1, None),
        (math.nan, None),
        (math.inf, None),
        (1 << 63, None),
        (True, None),
        ("7", None),
    ],
)
def test_steps(value: Any, step: int | None) -> None:
    assert to_step(value) == step


@pytest.mark.parametrize(
    ("value", "time_s"),
    [
        (12, 12.0),
        (12.5, 12.5),
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01 00:01:00.5+00:00", 60.5),
        (1795543677000.0, None),  # milliseconds
        (1795543677000, None),
        ("noon", None),
        ("9999-99-99", None),
        (math.nan, None),
        (None, None),
        (False, None),
    ],
)
def test_timestamps(value: Any, time_s: float | None) -> None:
    assert to_time(value) == time_s


def measure(*points: tuple[float, float]) -> float | None:
    pace = Pace()
    for time_s, amount in points:
        pace.add(time_s, amount)
    return pace.per_second()


def test_pace_leaves_the_first_tenth_out() -> None:
    # Record 0 took 100 s, record 1 took 50, the other eighteen one each.
    slow = [(100.0, 10.0), (150.0, 20.0)]
    fast = [(150.0 + number, 20.0 + 10 * number) for number in range(1, 19)]

    assert measure(*slow, *fast) == 10.0
    assert measure(*slow, *fast[:1]) == pytest.approx(20 / 51)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], None),
        ([(1.0, 10.0)], None),
        ([(1.0, 10.0), (3.0, 14.0)], 2.0),
        ([(1.0, 10.0), (1.0, 14.0)], None),
        ([(3.0, 10.0), (1.0, 14.0)], None),
        ([(1.0, 0.0), (2.0, 0.0), (3.0, 0.0)], None),
        # What is said again at the end, or was done before a restart, does not count.
        ([(1.0, 10.0), (3.0, 14.0), (9.0, 14.0)], 2.0),
        ([(0.0, 10.0), (1.0, 99.0), (50.0, 20.0), (52.0, 30.0)], 5.0),
    ],
)
def test_pace_between_few_points(points: list[tuple[float, float]], expected: float | None) -> None:
    assert measure(*points) == expected


def test_pace_of_many_points_is_kept_in_few() -> None:
    pace = Pace()
    for number in range(100_000):
        # The first tenth is ten times as slow.
        pace.add(float(number * 10 if number < 10_000 else 90_000 + number), float(number))

    assert pace.per_second() == pytest.approx(1.0, rel=0.02)
    assert len(pace._points) <= MAX_PACE_POINTS


def test_a_record_supersedes_all_from_its_step_on() -> None:
    records = add(*({"global_step": step, "loss": float(number)} for number, step in enumerate([10, 20, 25, 15, 25])))

    assert (list(records.steps), list(records.losses)) == ([10, 15, 25], [0.0, 3.0, 4.0])
    assert (list(records.superseded_steps), list(records.superseded_losses)) == ([20, 25], [1.0, 2.0])


def test_records_without_a_step_stay_unless_they_lie_among_superseded_ones() -> None:
    steps = [None, 10, None, 20, None, 10]
    records = add(*({"global_step": step, "loss": float(number)} for number, step in enumerate(steps)))

    assert (list(records.steps), list(records.losses)) == ([-1, 10], [0.0, 5.0])
    assert list(records.superseded_losses) == [1.0, 2.0, 3.0, 4.0]


def test_a_run_that_goes_back_again_and_again_is_read_in_time() -> None:
    records = Records()
    for number in range(100_000):
        records.add({"global_step": number % 1000, "loss": 1.0})

    assert (len(records.losses), len(records.superseded_losses)) == (1000, 99_000)


def test_tokens_are_totals_or_are_added_up() -> None:
    totals = add(*({"timestamp": 1.0 * n, "loss": 1.0, "total_tokens": 100 * n} for n in range(1, 4)))
    parts = add(*({"timestamp": 1.0 * n, "loss": 1.0, "tokens": 100} for n in range(1, 4)))

    assert (totals.tokens_pace.per_second(), parts.tokens_pace.per_second()) == (100.0, 100.0)


def test_the_highest_memory_and_gradient_norm_of_any_record() -> None:
    records = add(
        {"loss": 1.0, "grad_norm": 3.0, "peak_mem_allocated": 5}, {"grad_norm": 2.0, "peak_mem_allocated": None}
    )

    assert (records.max_grad_norm, records.peak_memory_bytes) == (3.0, 5.0)


def test_a_record_may_be_of_training_and_of_evaluation() -> None:
    records = add({"global_step": 1, "loss": 2.0, "eval_loss": 3.0})

    assert (list(records.losses), records.last_eval_loss) == ([2.0], 3.0)


def test_names_are_the_declared_ones_then_ours_then_the_usual_ones() -> None:
    def read(record: dict[str, Any], **keys: str) -> Any:
        return KeyMap(keys, {"step": "global_step"}).apply(record).get("global_step")

    assert read({"step": 3}) == 3
    assert read({"step": 3, "global_step": 4}) == 4
    assert read({"step": 3, "global_step": 4, "iter": 5}, iter="global_step") == 5
    assert read({"step": 3}, iter="global_step") is None


def test_final_record_holds_only_without_a_loss_and_until_training_goes_on() -> None:
    end, step = {"global_step": 1, "end": 1}, {"global_step": 2, "loss": 1.0}

    assert add(step, end, final_key="end").final == end
    assert add(end, step, final_key="end").final is None
    assert add({**step, **end}, final_key="end").final is None
    assert add(step, end).final is None
    assert add(step, {"end": [1]}, final_key="end").final == {"end": [1]}
