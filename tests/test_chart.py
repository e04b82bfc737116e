"""The chart of the loss: it shows what it was given, and no number makes it fail or hang."""

import math
import re
import subprocess
import sys
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest

from fgvalidate.chart import draw_losses

SVG = "{http://www.w3.org/2000/svg}"


def draw(points: Sequence[tuple[float, float]], bounds: dict[str, float] | None = None) -> ElementTree.Element:
    drawn = draw_losses(points, bounds or {})
    assert drawn is not None
    return ElementTree.fromstring(drawn)


def list_lines(chart: ElementTree.Element, kind: str) -> list[list[tuple[float, float]]]:
    """Returns the points of each line of a series."""
    paths = chart.findall(f".//{SVG}g[@class='series serie-0 {kind}']/{SVG}path")
    paths += chart.findall(f".//{SVG}g[@class='series serie-1 {kind}']/{SVG}path")
    found = []
    for path in paths:
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.attrib["d"])]
        found.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return found


def test_curve_has_a_point_for_each_loss() -> None:
    ((first, second, third),) = list_lines(draw([(10, 7.0), (20, 5.0), (30, 3.0)]), "loss")

    assert first[0] < second[0] < third[0]
    assert first[1] < second[1] < third[1]
    assert second[0] - first[0] == pytest.approx(third[0] - second[0], abs=0.2)
    assert second[1] - first[1] == pytest.approx(third[1] - second[1], abs=0.2)


def test_bound_is_a_level_line_at_its_loss() -> None:
    chart = draw([(10, 7.0), (20, 3.0)], {"loss.final_max": 5.0})

    ((left, right),), ((start, end),) = list_lines(chart, "bound"), list_lines(chart, "loss")
    assert (left[0], right[0]) == (start[0], end[0])
    assert left[1] == right[1] == pytest.approx((start[1] + end[1]) / 2, abs=0.2)
    assert "loss.final_max 5" in [text.text for text in chart.iter(f"{SVG}text")]


def test_bound_far_from_the_curve_is_within_the_chart() -> None:
    chart = draw([(10, 3.0), (20, 2.0)], {"loss.final_max": 9.0})

    ((left, _),) = list_lines(chart, "bound")
    assert 0 <= left[1] <= 300


def test_losses_that_are_not_finite_interrupt_the_curve_and_are_marked() -> None:
    points = [(10, 7.0), (20, 6.0), (30, math.nan), (40, 5.0), (50, 4.0), (60, -math.inf), (70, 1e300)]

    chart = draw(points)

    marks = chart.findall(f".//{SVG}g[@class='series serie-1 unshown']/{SVG}g[@class='dots']")
    assert [len(line) for line in list_lines(chart, "loss")] == [2, 2]
    assert [mark.findtext(f"{SVG}title") for mark in marks] == [
        "nan at step 30",
        "-inf at step 60",
        "1e+300 at step 70",
    ]


def test_curve_that_is_all_finite_has_no_marks() -> None:
    assert "unshown" not in (draw_losses([(10, 7.0), (20, 6.0)], {}) or "")


@pytest.mark.parametrize("points", [[], [(10, math.nan), (20, math.inf)]])
def test_nothing_finite_is_no_chart(points: list[tuple[float, float]]) -> None:
    assert draw_losses(points, {"loss.final_max": 2.0}) is None


def test_long_curve_of_great_range_is_drawn_on_a_logarithmic_axis() -> None:
    chart = draw([(0, 1000.0), (1, 10.0), (2, 0.1)], {"loss.final_max": 10.0})

    ((first, second, third),), ((left, _),) = list_lines(chart, "loss"), list_lines(chart, "bound")
    texts = [text.text for text in chart.iter(f"{SVG}text")]
    assert texts[:5] == ["0.1", "1", "10", "100", "1000"]
    assert left[1] == second[1]
    assert second[1] - first[1] == pytest.approx(third[1] - second[1], abs=0.2)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "points",
    [
        [(5, 2.0)],
        [(0, 0.0)],
        [(5, 2.0), (6, 2.0)],
        [(1, 1e-320), (2, 5e-324)],
        [(2**62, 1.0), (2**62 + 1, 1 + 2e-16)],
        [(0, -1e15), (1, 1e15), (2, -1.7e308)],
        [(0, 1e15), (1, 1e-12), (2, 0.0)],
        [(0, 1e15), (1, 2e-9)],
        [(0, -3.0), (1, 3.0)],
        [(30, 7.0), (20, 6.0), (20, 5.0)],
        [(step, 7.0 - step / 100) for step in range(400)],
    ],
)
def test_any_numbers_make_a_chart(points: list[tuple[float, float]]) -> None:
    chart = draw(points, {"loss.final_max": 2.0, "loss.final_min": -1e308})

    assert "nan" not in ElementTree.tostring(chart, encoding="unicode").replace("nan at", "")
    assert len(list(chart.iter(f"{SVG}text"))) > 3


def test_same_curve_makes_the_same_chart_without_script_style_or_id() -> None:
    points = [(10, 7.0), (20, math.nan), (30, 3.0)]

    first, second = (draw_losses(points, {"loss.final_max": 5.0}) for _ in range(2))

    assert first == second
    elements = list(draw(points, {"loss.final_max": 5.0}).iter())
    tags = {element.tag.removeprefix(SVG) for element in elements}
    assert tags == {"svg", "title", "g", "rect", "path", "text", "circle"}
    assert {name for element in elements for name in element.attrib} & {"id", "style", "href", "onclick"} == set()
    assert "<!--" not in str(first)


def test_import_of_what_is_not_there_warns_of_nothing_when_the_chart_is_loaded() -> None:
    code = "import contextlib, fgvalidate.chart\nwith contextlib.suppress(ImportError): import not_there"
    argv = [sys.executable, "-W", "error::ImportWarning", "-c", code]

    answer = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert (answer.returncode, answer.stderr) == (0, "")


def test_ticks_between_steps_are_not_named() -> None:
    texts = [text.text for text in draw([(0, 3.0), (1, 2.0), (2, 1.0)]).iter(f"{SVG}text")]

    assert [text for text in texts[-14:] if text in {"0", "1", "2"}] == ["0", "1", "2"]
