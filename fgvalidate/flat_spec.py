"""Forgather's own spec files: a flat YAML file comes in, the content of a spec of ours goes out.

A flat file is what the body of a spec is, without a header and a `defaults` list. What is done to it on the way:

- Its backend is Forgather's, unless the command line says another one.
- Text is taken literally: a `${` in it means itself, except in `checks`, which are expressions.
- A section that is null (`loss:`, `stderr:`, `dynamic_args:`) is like one that is not there.
- Keys that the schema does not know are set aside under `unknown`, each with the place where it stands.

All else, types and defaults included, is the schema's business.
"""

import dataclasses
import json
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from fgvalidate.errors import SpecError, show_path, suggest
from fgvalidate.spec import INTERNAL_FIELDS, Spec
from fgvalidate.yaml_text import explain_yaml_error, find_line, parse_yaml, read_text

HEADER: dict[str, str | None] = {"package": "_global_"}
"""What the first line of such a spec would say, for Hydra."""
DEFAULTS: list[Any] = [{"override /backend": "forgather"}, "_self_"]
"""Its defaults list."""

_OWN_TEXTS = {"checks"}
"""Fields whose texts are expressions."""


@dataclass(frozen=True)
class _Unknown:
    """A key that the schema does not know."""

    keys: tuple[str, ...]
    """From the outside in."""
    value: Any
    known: tuple[str, ...]
    """What might have been meant."""


def read_flat_spec(path: Path) -> dict[str, Any]:
    """Reads a flat spec.

    Returns:
        Its content as that of a spec of ours, with its defaults list.

    Raises:
        SpecError: It cannot be read, is not YAML, or holds no spec.
    """
    text = read_text(path)
    document = _parse(path, text)
    if not isinstance(document, dict):
        what = "it is empty" if document is None else f"it holds a {_name_kind(document)}"
        raise SpecError(f"{show_path(path)}:1: {what}; a spec is a mapping with test_id, project_dir and config")
    if "defaults" in document:
        place = f"{show_path(path)}:{find_line(text, ['defaults']) or 1}"
        raise SpecError(f"{place}: defaults: this is a Hydra spec, not a flat one: name its folder by --config-dir")
    fields = {field.name for field in dataclasses.fields(Spec)}
    if not fields & document.keys():
        raise SpecError(f"{show_path(path)}:1: holds no spec: a spec has at least test_id, project_dir and config")
    try:
        unknown: list[_Unknown] = []
        content = _translate(document, Spec, (), unknown)
        if unknown:
            content["unknown"] = dict(_describe_unknown(path, text, unknown))
    except (RecursionError, ValueError) as error:  # the latter by json
        raise SpecError(f"{show_path(path)}:1: an anchor stands inside of what it names") from error
    return {"defaults": DEFAULTS, **content}


def _parse(path: Path, text: str) -> Any:
    try:
        return parse_yaml(text)
    except Exception as error:  # a tag that does not fit its value raises anything
        line, problem = explain_yaml_error(error, text)
        raise SpecError(f"{show_path(path)}:{line}: not valid YAML: {problem}") from error


def _name_kind(value: object) -> str:
    return {list: "list", str: "text", bool: "boolean", int: "number", float: "number"}.get(type(value), "value")


def _translate(values: Mapping[Any, Any], schema: type, above: tuple[str, ...], unknown: list[_Unknown]) -> Any:
    fields = [field for field in dataclasses.fields(schema) if field.name not in INTERNAL_FIELDS]
    types_by_name = {field.name: field.type for field in fields}
    content = {}
    for key, value in values.items():
        if key not in types_by_name:
            unknown.append(_Unknown((*above, str(key)), value, tuple(types_by_name)))
            continue
        kind, is_optional = _unwrap(types_by_name[key])
        is_section = dataclasses.is_dataclass(kind)
        if value is None and not is_optional and (is_section or get_origin(kind) is dict):
            continue
        if is_section and isinstance(value, dict):
            assert isinstance(kind, type)
            content[key] = _translate(value, kind, (*above, key), unknown)
        else:
            content[key] = value if key in _OWN_TEXTS else escape_texts(value)
    return content


def _unwrap(annotation: Any) -> tuple[Any, bool]:
    """Returns the type of a field, and whether None is another value that it takes."""
    if not isinstance(annotation, types.UnionType):
        return annotation, False
    kinds = get_args(annotation)
    return next(kind for kind in kinds if kind is not type(None)), type(None) in kinds


def escape_texts(value: Any) -> Any:
    """Writes every text in a value so that OmegaConf takes it literally; keys are left as they are."""
    if isinstance(value, str):
        # Backslashes mean themselves, except before an interpolation.
        return re.sub(r"(\\*)\$\{", lambda match: f"{match[1] * 2}\\${{", value)
    if isinstance(value, dict):
        return {key: escape_texts(item) for key, item in value.items()}
    return [escape_texts(item) for item in value] if isinstance(value, list) else value


def _describe_unknown(path: Path, text: str, unknown: list[_Unknown]) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in unknown:
        # What a merge key brings along stands elsewhere: then its section is named.
        shorter = (each.keys[:count] for count in range(len(each.keys), 0, -1))
        line = next(filter(None, (find_line(text, keys) for keys in shorter)), 1)
        hint = suggest(each.keys[-1], each.known) or f" There are: {', '.join(each.known)}"
        # As a text it is a value that OmegaConf holds, whatever it is.
        value = escape_texts(json.dumps(each.value, default=str, skipkeys=True))
        yield ".".join(each.keys), {"file": escape_texts(str(path)), "line": line, "hint": hint.strip(), "value": value}
