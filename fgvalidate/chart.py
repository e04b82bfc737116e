"""A chart of the training loss: points and bounds come in, the text of an inline SVG without any script goes out."""

import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pygal

# The library's hook for map plugins makes Python 3.11 warn whenever something that is not there is imported later on.
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

TITLE = "Training loss by global step"
NOT_SHOWN = "not finite"
LARGEST_SHOWN = 1e15
"""A loss beyond it is marked like one that is not finite: next to it nothing else could be seen."""
LOGARITHMIC_FROM = 1000.0
"""The axis is logarithmic when the highest shown value is so many times the lowest."""
_SMALLEST_SPAN = 1e-9
_MOST_DOTS = 40
_MOST_DECADES = 8
_WIDTH, _HEIGHT = 760, 300
_UNWANTED_TAGS = {"script", "style", "defs"}
_UNWANTED_CLASSES = ("plot tooltip-overlay", "plot text-overlay", "x ", "y ")
_NUMBERS = {"d", "x", "y", "cx", "cy"}


class _Chart(pygal.XY):  # type: ignore[misc]
    """The library fills each series up to the length of the longest, which costs a page of many charts its time."""

    def prepare_values(self, raw: list[Any], offset: int = 0) -> list[Any]:
        prepared = []
        for number, series in enumerate(raw):
            prepared += super().prepare_values([series], offset + number)
        return prepared


def draw_losses(points: Iterable[Sequence[float]], bounds: Mapping[str, float]) -> str | None:
    """Draws the curve, a line for each bound, and a mark at the top for each loss that cannot be shown.

    Args:
        points: [global step, loss], in order; a loss may be NaN or infinite.
        bounds: Finite losses by the name of the bound.

    Returns:
        The `<svg>` element, to be styled by the page; None when no loss can be shown.
    """
    points = [(float(step), float(loss)) for step, loss in points]
    shown = [loss for _, loss in points if _is_shown(loss)]
    if not shown:
        return None
    bounds = {name: bound for name, bound in bounds.items() if _is_shown(bound)}
    losses = [*shown, *bounds.values()]
    # The library's own logarithmic chart has both axes so.
    is_logarithmic = min(losses) > 0 and max(losses) / min(losses) > LOGARITHMIC_FROM
    scale: Callable[[float], float] = math.log10 if is_logarithmic else float
    lowest, highest = _widen(scale(min(losses)), scale(max(losses)))
    first, last = _widen(min(step for step, _ in points), max(step for step, _ in points))
    chart = _Chart(
        strict=True,
        width=_WIDTH,
        height=_HEIGHT,
        range=(lowest, highest),
        xrange=(first, last),
        y_labels=_list_decades(lowest, highest) if is_logarithmic else None,
        allow_interruptions=True,
        dots_size=2.5,
        show_dots=len(points) <= _MOST_DOTS,
        show_x_guides=False,
        legend_at_bottom=True,
        legend_at_bottom_columns=1 + len(bounds) + (len(shown) < len(points)),
        truncate_legend=-1,
        x_title="global step",
        y_title="loss",
        value_formatter=lambda height: f"{10**height if is_logarithmic else height:.4g}",
        # A short run gets ticks between its steps.
        x_value_formatter=lambda step: f"{step:,.0f}" if step == round(step) else "",
        margin=10,
        js=(),
        css=(),
        no_prefix=True,
        disable_xml_declaration=True,
    )
    chart.add("loss", [(step, scale(loss) if _is_shown(loss) else None) for step, loss in points])
    for name, bound in bounds.items():
        chart.add(f"{name} {bound:.4g}", [(first, scale(bound)), (last, scale(bound))], show_dots=False)
    marks = [
        {"value": (step, highest), "label": f"{loss} at step {step:,.0f}"}
        for step, loss in points
        if not _is_shown(loss)
    ]
    if marks:
        chart.add(NOT_SHOWN, marks, stroke=False, show_dots=True, dots_size=4)
    chart.add_xml_filter(partial(_clean, kinds=["loss", *["bound"] * len(bounds), "unshown"]))
    return str(chart.render())


def _is_shown(loss: float) -> bool:
    return abs(loss) <= LARGEST_SHOWN  # which NaN is not


def _list_decades(lowest: float, highest: float) -> list[int]:
    first, last = math.floor(lowest), math.ceil(highest)
    return list(range(first, last + 1, 1 + (last - first) // _MOST_DECADES))


def _widen(low: float, high: float) -> tuple[float, float]:
    """Returns a range that is wide enough, by the numbers in it, to have ticks."""
    span = max(high - low, _SMALLEST_SPAN, 1e-6 * max(abs(low), abs(high)))
    if high - low >= span:
        return low, high
    middle = (low + high) / 2
    return middle - span, middle + span


def _clean(root: Any, kinds: Sequence[str]) -> Any:
    """Leaves what is drawn: no script, no style, no comment with the date, no digits that nobody sees.

    Args:
        root: The `<svg>` element.
        kinds: The class of each series, in its order, by which a page styles it.
    """
    for parent in list(root.iter()):
        for child in list(parent):
            # The tag of a comment is a function.
            is_wanted = isinstance(child.tag, str) and child.tag not in _UNWANTED_TAGS
            if not is_wanted or child.get("class", "").startswith(_UNWANTED_CLASSES):
                parent.remove(child)
    for element in root.iter():
        for name in ("id", "style"):
            element.attrib.pop(name, None)
        if classes := element.get("class"):
            element.set("class", re.sub(r"\bcolor-(\d+)", lambda match: kinds[int(match[1])], classes))
        if element.tag == "desc":
            # What a script would show; a title is shown by the browser itself.
            element.tag = "title"
        for name in set(element.keys()) & _NUMBERS:
            element.set(name, re.sub(r"(\.\d)\d+", r"\1", element.get(name)))
    root.set("role", "img")
    root.set("aria-label", TITLE)
    root.find("title").text = TITLE
    return root
