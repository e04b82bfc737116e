"""A thinned curve keeps what a reader must see."""

import math
from array import array

import pytest

from fgvalidate.curve import MAX_POINTS, thin_curve


def make_curve(losses: list[float]) -> list[list[float]]:
    steps = array("q", range(10, 10 + 10 * len(losses), 10))
    return thin_curve(steps, array("d", losses))


def test_short_curve_is_whole() -> None:
    assert make_curve([3.0, math.inf, 2.0]) == [[10, 3.0], [20, math.inf], [30, 2.0]]


def test_no_record_makes_no_curve() -> None:
    assert make_curve([]) == []


def test_curve_of_the_largest_size_is_whole() -> None:
    assert len(make_curve([1.0] * MAX_POINTS)) == MAX_POINTS


def test_record_without_a_step_is_left_out() -> None:
    assert thin_curve(array("q", [10, -1, 30]), array("d", [3.0, 2.5, 2.0])) == [[10, 3.0], [30, 2.0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_long_curve_keeps_its_ends_its_extremes_and_what_is_not_finite(bad: float) -> None:
    losses = [5.0 - index / 100_000 for index in range(100_000)]
    losses[33_333], losses[44_444], losses[55_555] = 90.0, -90.0, bad

    curve = make_curve(losses)

    assert len(curve) <= MAX_POINTS
    assert (curve[0], curve[-1]) == ([10, 5.0], [1_000_000, losses[-1]])
    assert [333_340, 90.0] in curve
    assert [444_450, -90.0] in curve
    assert [step for step, loss in curve if not math.isfinite(loss)] == [555_560]
    assert [step for step, _ in curve] == sorted(step for step, _ in curve)


def test_long_curve_of_nothing_finite_stays_short() -> None:
    curve = make_curve([math.nan] * 10_000)

    assert 2 <= len(curve) <= MAX_POINTS
    assert not any(math.isfinite(loss) for _, loss in curve)


def test_finite_losses_whose_sum_is_not_keep_their_extremes() -> None:
    curve = make_curve([1e308] * 999 + [-1e308] + [1e307] * 1000)

    assert {loss for _, loss in curve} == {1e308, -1e308, 1e307}
