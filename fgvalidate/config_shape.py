"""What merging plain values into a config does, as far as it can be told from types alone.

In: a config, then the content of the files that are merged into it. Out: the shape of what comes of it. It is so much
less work than merging that it can be done for every spec there is. Where the outcome depends on more than types, or an
error is possible, `UncertainError` is raised: then OmegaConf has to merge, and has the last word.
"""

import dataclasses
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from omegaconf import (
    AnyNode,
    BooleanNode,
    DictConfig,
    FloatNode,
    IntegerNode,
    ListConfig,
    Node,
    OmegaConf,
    StringNode,
)

_SCALARS: frozenset[type] = frozenset({str, int, float, bool})
_ANYTHING = _SCALARS | {type(None)}
_ACCEPTED: dict[type[Node], frozenset[type]] = {
    AnyNode: _SCALARS,
    BooleanNode: frozenset({bool}),
    FloatNode: frozenset({float, int}),
    IntegerNode: frozenset({int}),
    StringNode: frozenset({str}),
}


_TEXT: frozenset[type] = frozenset({str})
_TEXT_OR_NULL = _TEXT | {type(None)}


class UncertainError(Exception):
    """The types do not tell what merging does."""


@dataclass(frozen=True)
class Scalar:
    """A place for one value."""

    accepts: frozenset[type]
    """Types that need no conversion."""
    is_interpolation: bool = False
    """Whether its value is one now: merging would look at what it stands for."""


@dataclass(frozen=True)
class Items:
    """A place for a list; merging replaces it."""

    accepts: frozenset[type] | None
    """Types of its items; None: any plain value."""


@dataclass(frozen=True)
class Mapping:
    """A place for a mapping; merging goes into it."""

    fields: dict[str, "Shape"]
    others: "Scalar | Literal['any'] | None"
    """The place under any other key; any: whatever the first value there makes of it. None: there are no other keys."""


@dataclass(frozen=True)
class Absent:
    """A place for a mapping, with null in it now."""

    initial: Mapping
    """What it becomes as soon as a mapping is merged into it."""


Shape = Scalar | Items | Mapping | Absent | None
"""None: nothing is certain."""

_ITEMS: dict[object, Items] = {Any: Items(None), str: Items(_TEXT)}
_OTHERS: dict[object, Scalar | Literal["any"]] = {
    Any: "any",
    str: Scalar(_TEXT),
    str | None: Scalar(_TEXT_OR_NULL),
}


def find_shape(node: Node | None) -> Shape:
    """Says what a place in a config takes."""
    if node is None or node._get_flag("readonly") or node._get_flag("struct"):
        return None
    accepted = _ACCEPTED.get(type(node))
    if accepted is not None:
        return Scalar(accepted | {type(None)} if node._is_optional() else accepted, node._is_interpolation())
    if node._is_interpolation() or node._is_missing():
        return None
    if isinstance(node, ListConfig):
        items = _ITEMS.get(node._metadata.element_type)
        return None if node._is_none() else items
    return _find_mapping(node) if isinstance(node, DictConfig) else None


def _find_mapping(node: DictConfig) -> Shape:
    if node._is_none():
        kind = node._metadata.ref_type
        initial = find_shape(OmegaConf.structured(kind)) if dataclasses.is_dataclass(kind) else None
        return Absent(initial) if isinstance(initial, Mapping) else None
    fields = {str(key): find_shape(node._get_node(key)) for key in node}
    if node._is_typed():
        return Mapping(fields, None)
    others = _OTHERS.get(node._metadata.element_type)
    return Mapping(fields, others) if others and node._metadata.key_type in {Any, str} else None


def merge(value: Any, shape: Shape) -> Shape:
    """Merges a plain value, as read from YAML.

    Returns:
        What the place takes then.

    Raises:
        UncertainError: Merging might fail, convert the value, or depend on what is in the place.
    """
    match shape:
        case Absent() if value is None:
            return shape
        case Absent() if type(value) is dict:
            return merge(value, shape.initial)
        case Mapping() if type(value) is dict:
            return replace(shape, fields=shape.fields | {k: _merge_field(k, v, shape) for k, v in value.items()})
        case Items(accepts=accepts) if type(value) is list and is_plain(value):
            if accepts is None or all(type(item) in accepts for item in value):
                return shape
        case Scalar(is_interpolation=False):
            return assign(value, shape)
    raise UncertainError


def _merge_field(key: object, value: Any, shape: Mapping) -> Shape:
    if type(key) is not str:
        raise UncertainError
    if key in shape.fields:
        return merge(value, shape.fields[key])
    return _find_plain_shape(value) if shape.others == "any" else merge(value, shape.others)


def assign(value: Any, shape: Shape) -> Scalar:
    """Puts a value into a place for one value, whatever is in it.

    Returns:
        What the place takes then.

    Raises:
        UncertainError: As `merge`.
    """
    # An interpolation may stand anywhere; its type is looked at when it is resolved.
    is_interpolation = _is_interpolation(value)
    if isinstance(shape, Scalar) and is_plain(value) and (is_interpolation or type(value) in shape.accepts):
        return replace(shape, is_interpolation=is_interpolation)
    raise UncertainError


def override_value(keys: list[str], value: Any, shape: Shape, *, is_new: bool) -> Shape:
    """Sets one value in a merged config, as a word on the command line does.

    Args:
        keys: Where, from the outside in.
        value: What is set.
        shape: The config's.
        is_new: Whether the key has to be a new one, or else one that is there.

    Raises:
        UncertainError: As `merge`.
    """
    key, *inner = keys
    if not isinstance(shape, Mapping) or (key in shape.fields) == (is_new and not inner):
        raise UncertainError
    if inner:
        new = override_value(inner, value, shape.fields[key], is_new=is_new)
    elif not is_new:
        new = assign(value, shape.fields[key])
    elif shape.others is not None and type(value) in _ANYTHING:
        new = _merge_field(key, value, shape)
    else:
        raise UncertainError
    return replace(shape, fields=shape.fields | {key: new})


def _find_plain_shape(value: Any) -> Shape:
    """Says what comes of a plain value where any value may stand."""
    if not is_plain(value):
        raise UncertainError
    if isinstance(value, dict):
        return Mapping({key: _find_plain_shape(item) for key, item in value.items()}, "any")
    return Items(None) if isinstance(value, list) else Scalar(_ANYTHING, _is_interpolation(value))


def is_plain(value: object) -> bool:
    """Says whether OmegaConf takes a value as it stands, wherever any value may stand."""
    if type(value) is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    if type(value) is list:
        return all(map(is_plain, value))
    if type(value) is str:
        return value != "???" and (not _is_interpolation(value) or _can_parse(value))
    return type(value) in _ANYTHING


def is_literal(value: object) -> bool:
    """Says whether a value is a text that means itself."""
    return type(value) is str and value != "???" and not _is_interpolation(value)


def _is_interpolation(value: object) -> bool:
    return isinstance(value, str) and "${" in value


@lru_cache(maxsize=10_000)
def _can_parse(text: str) -> bool:
    try:
        OmegaConf.create({"value": text})
    except Exception:
        return False
    return True
