"""What a report says beyond its checks."""

import math

import pytest

from fgvalidate.conclusion import advise, name_band, quote_text
from fgvalidate.facts import Facts
from fgvalidate.inference import find_median
from fgvalidate.spec import Backend, Loss, Spec


@pytest.mark.parametrize(
    ("perplexity", "band"),
    [
        (20, "well-written English"),
        (60, "well-written English"),
        (199, "acceptable"),
        (1000, "poorly trained"),
        (1001, "random tokens"),
        (math.inf, "random tokens"),
        (math.nan, "random tokens"),
    ],
)
def test_band_of_a_perplexity_under_gpt2(perplexity: float, band: str) -> None:
    assert name_band(perplexity) == band


@pytest.mark.parametrize(("scorer", "end"), [("gpt2", "under gpt2, acceptable)"), ("builtin", "under builtin)")])
def test_text_is_quoted_with_its_perplexity_and_for_gpt2_with_its_band(scorer: str, end: str) -> None:
    values = {"inference.text": " there\nwas", "inference.perplexity": 100.0, "inference.scorer": scorer}

    (line,) = quote_text(Facts(values=values))

    assert line == f"Text    there was (perplexity 100.0 {end}"


@pytest.mark.parametrize(
    ("values", "median"),
    [([3.0, 1.0, 2.0], 2.0), ([1.0, 2.0], 1.5), ([1.0, None], None), ([], None), ([math.inf, 1.0, 2.0], 2.0)],
)
def test_median_needs_every_value(values: list[float | None], median: float | None) -> None:
    assert find_median(values) == median


def test_median_with_nan_is_nan() -> None:
    assert math.isnan(find_median([1.0, math.nan, 2.0]) or 0.0)


NONE_SET = "No loss bound is set. This run ended at 2; with 25 % of headroom: loss.final_max=2.5"
FLAT = "The loss did not fall, and no bound demands it: loss.drop_min=0.1 would be red."
FOREIGN = "The spec's bounds are for a, b; for backend=fake there are none."


@pytest.mark.parametrize(
    ("loss", "bounds", "drop", "words"),
    [
        (Loss(), {}, 0.5, [NONE_SET]),
        (Loss(), {}, 0.0, [NONE_SET, FLAT]),
        (Loss(final_max=9), {}, 0.0, [FLAT]),
        (Loss(final_max=9), {}, 0.5, []),
        (Loss(drop_min=0.1), {}, 0.0, []),
        (Loss(final_max=9), {"a": 1, "b": 2}, 0.5, [FOREIGN]),
        (Loss(final_max=9), {"fake": {}}, 0.5, []),
    ],
)
def test_advice(loss: Loss, bounds: dict[str, object], drop: float, words: list[str]) -> None:
    backend = Backend(name="fake")
    spec = Spec(test_id="x", project_dir="p", config="c", loss=loss, bounds=bounds, backend=backend)

    assert advise(spec, Facts(values={"loss.final": 2.0, "loss.drop": drop})) == words
