"""What is said about merging from types alone is what OmegaConf does."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from fgvalidate.config_shape import Mapping, UncertainError, find_shape, is_literal, merge, override_value


@dataclass
class Inner:
    number: float | None = None
    flag: bool = True


@dataclass
class Outer:
    text: str = "???"
    count: int | None = None
    names: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    anything: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str | None] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None


SCALARS = ["text", "???", "${text}", "${", "${env.a}", "a${text}", "", True, 0, 1.5, float("inf"), None, b"bytes"]
KEYS = ["a", "b", "text", "number", "flag", 1]
FIELDS = ["text", "count", "names", "numbers", "anything", "env", "inner", "maybe", "other"]


def draw_values() -> st.SearchStrategy[Any]:
    scalars = st.sampled_from(SCALARS)
    return st.recursive(
        scalars,
        lambda values: st.lists(values, max_size=2) | st.dictionaries(st.sampled_from(KEYS), values, max_size=2),
        max_leaves=3,
    )


DOCUMENTS = st.lists(st.dictionaries(st.sampled_from(FIELDS), draw_values(), max_size=3), min_size=1, max_size=3)


@settings(max_examples=600, derandomize=True, deadline=None, database=None)
@given(documents=DOCUMENTS)
def test_what_is_certain_to_merge_merges_into_just_that_shape(documents: list[dict[str, Any]]) -> None:
    config = OmegaConf.structured(Outer)
    shape = find_shape(config)
    for document in documents:
        try:
            shape = merge(document, shape)
        except UncertainError:
            return

        config.merge_with(OmegaConf.create(document))
        assert find_shape(config) == shape
        for key, value in document.items():
            if not isinstance(value, dict):
                assert OmegaConf.to_container(config, resolve=False)[key] == value  # type: ignore[index,call-overload]


WORDS = st.tuples(
    st.sampled_from(
        ["text", "count", "names", "anything.a", "anything.b.a", "env.a", "inner.number", "maybe.flag", "x"]
    ),
    st.sampled_from([*SCALARS, [1], {"a": 1}]),
    st.booleans(),
)


@settings(max_examples=600, derandomize=True, deadline=None, database=None)
@given(document=st.dictionaries(st.sampled_from(FIELDS), draw_values(), max_size=3), words=st.lists(WORDS, max_size=2))
def test_what_is_certain_to_be_overridden_is(document: dict[str, Any], words: list[tuple[str, Any, bool]]) -> None:
    config = OmegaConf.structured(Outer)
    try:
        shape = merge(document, find_shape(config))
        config.merge_with(OmegaConf.create(document))
        for key, value, is_new in words:
            shape = override_value(key.split("."), value, shape, is_new=is_new)

            # Hydra looks before it adds.
            assert not is_new or OmegaConf.select(config, key) is None
            OmegaConf.set_struct(config, value=True)
            OmegaConf.update(config, key, value, merge=True, force_add=is_new)
            OmegaConf.set_struct(config, value=None)
            assert find_shape(config) == shape
    except UncertainError:
        return


@pytest.mark.parametrize(
    "document",
    [
        {"text": 5},
        {"text": "???"},
        {"text": None},
        {"text": "${"},
        {"text": {"a": 1}},
        {"count": True},
        {"count": 1.0},
        {"names": "a"},
        {"names": None},
        {"names": ["a", 1]},
        {"numbers": [1]},
        {"env": {"a": 1}},
        {"env": {1: "a"}},
        {"anything": None},
        {"anything": {"a": {1: 2}}},
        {"inner": None},
        {"inner": {"nix": 1}},
        {"maybe": {"nix": 1}},
        {"maybe": 1},
        {"other": 1},
        {1: 1},
    ],
    ids=str,
)
def test_what_converts_or_fails_is_uncertain(document: dict[Any, Any]) -> None:
    with pytest.raises(UncertainError):
        merge(document, find_shape(OmegaConf.structured(Outer)))


def test_what_fits_is_certain() -> None:
    documents: list[dict[str, Any]] = [
        {"text": "a", "count": 3, "names": ["a", "${text}"], "inner": {"number": 3, "flag": False}},
        {"anything": {"a": [1, {"b": None}], "c": {"d": 1}}, "env": {"A": "b", "C": None}, "maybe": None},
        {"anything": {"c": {"d": 2, "e": "${text}"}}, "count": None, "maybe": {"number": "${inner.number}"}},
    ]
    shape = find_shape(OmegaConf.structured(Outer))
    for document in documents:
        shape = merge(document, shape)

    assert isinstance(shape, Mapping)
    assert isinstance(shape.fields["maybe"], Mapping)


def test_a_place_that_holds_an_interpolation_is_uncertain_to_merge_into_and_certain_to_be_overridden() -> None:
    shape = merge({"text": "${inner.number}"}, find_shape(OmegaConf.structured(Outer)))

    with pytest.raises(UncertainError):
        merge({"text": "a"}, shape)
    assert override_value(["text"], "a", shape, is_new=False) == find_shape(OmegaConf.structured(Outer))


@pytest.mark.parametrize("flag", ["readonly", "struct"])
def test_a_config_that_is_closed_or_readonly_is_uncertain(flag: str) -> None:
    config = OmegaConf.create({"a": {"b": 1}})
    assert isinstance(config, DictConfig)
    config._set_flag(flag, values=True)

    with pytest.raises(UncertainError):
        merge({"a": {"b": 2}}, find_shape(config))


@pytest.mark.parametrize(
    ("value", "expected"), [("a", True), ("", True), ("???", False), ("${a}", False), (1, False), (None, False)]
)
def test_a_literal_is_a_text_that_means_itself(value: object, expected: bool) -> None:
    assert is_literal(value) is expected
