"""The JSON Schema of a spec file, for editors: the dataclasses come in, a document of dialect 2020-12 goes out.

    python -m fgvalidate.schema           of a spec in a config group: defaults and interpolations are allowed
    python -m fgvalidate.schema --flat    of a spec that stands alone

It is made of the fields, their types, defaults and docstrings, and of `RULES`, which repeats those rules of the spec
that a JSON Schema can say. It is stricter than the spec in two points: a value of another type, such as the text "300"
for a number, is refused, where the spec would convert it; and so is a section that is null, which in a flat spec is
like an absent one. It is milder where several fields have to fit each other, and takes 3.0 for a whole number.
"""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from omegaconf import MISSING
from pydantic import ConfigDict, TypeAdapter, with_config
from pydantic.json_schema import GenerateJsonSchema

from fgvalidate.spec import (
    CONDITIONS,
    FAULTS,
    FORM_PATTERN,
    INTERNAL_FIELDS,
    KEEP,
    LISTS,
    LOG_KEYS,
    LOG_READERS,
    SAVE_STRATEGIES,
    SAVES_MODEL,
    UNKNOWN_KEYS,
    WHEN_PATTERN,
    Backend,
    Finished,
    Flags,
    Inference,
    Log,
    Loss,
    Mutations,
    Retries,
    Scorer,
    Server,
    Spec,
    Stderr,
    Watch,
)

Document = dict[str, Any]

CLASSES = (Spec, Loss, Stderr, Inference, Watch, Retries, Mutations, Server, Scorer, Backend, Flags, Log, Finished)

_SCALAR = {"type": ["string", "number", "boolean", "null"]}
_POSITIVE_SIZE = {"exclusiveMinimum": 0}
_POSITIVE_COUNT = {"minimum": 1}
_REASONS = {"additionalProperties": {"type": "string", "pattern": r"\S"}}
_PATTERN = {"type": "string", "minLength": 1, "format": "regex"}
_SIGNATURES = {
    "additionalProperties": {
        "type": ["object", "null"],
        "properties": {
            "pattern": _PATTERN,
            "hint": {"type": "string"},
            "is_fatal": {"type": "boolean"},
            "unless": _PATTERN | {"type": ["string", "null"]},
            "condition": {"enum": [*CONDITIONS, None]},
        },
        "required": ["pattern"],
        "additionalProperties": False,
    }
}
_BELOW_OUTPUT = r"^(?!/)(?!(.*/)?\.\.(/|$))(?!\.?(/\.?)*$)"

RULES: dict[type, dict[str, Document]] = {
    Spec: {
        "test_id": {"pattern": r"^(?!\.{1,2}$)[^/]+$"},
        "project_dir": {"pattern": r"\S"},
        "config": {"pattern": r"\S"},
        "max_steps": _POSITIVE_COUNT,
        "dynamic_args": {
            "properties": {
                "max_steps": {"type": ["integer", "null"], **_POSITIVE_COUNT},
                "save_strategy": {"enum": [*SAVE_STRATEGIES, None]},
            },
            "propertyNames": {"pattern": "^[^-]*$"},
            "additionalProperties": _SCALAR,
        },
        "expected_files": {"items": {"type": "string", "pattern": "^[^/]"}},
        "min_steps_logged": {"minimum": 0},
        "gpu_requirement": {"minimum": 0},
        "gpu_memory": _POSITIVE_SIZE,
        "specs_per_gpu": _POSITIVE_COUNT,
        "memory": _POSITIVE_SIZE,
        "timeout": _POSITIVE_COUNT,
        "checks": {"additionalProperties": {"type": ["string", "null"], "pattern": r"^\$\{[\s\S]*\}$"}},
        "xfail": {"pattern": r"\S"},
        "xfail_checks": _REASONS,
        "signatures": _SIGNATURES,
        "keep": {"enum": list(KEEP)},
        "unknown_keys": {"enum": list(UNKNOWN_KEYS)},
    },
    Loss: {"drop_min": {"maximum": 1}},
    Stderr: {
        "forbidden_patterns": {"items": {"type": "string", "minLength": 1}},
        "warn_patterns": {"items": {"type": "string", "minLength": 1}},
    },
    Inference: {
        "prompt": {"minLength": 1},
        "max_tokens": _POSITIVE_COUNT,
        "temperature": {"minimum": 0},
        "num_samples": _POSITIVE_COUNT,
        "perplexity_max": {"minimum": 0},
        "perplexity_min": {"minimum": 0},
        "distinct_2_min": {"minimum": 0, "maximum": 1},
        "server_timeout": _POSITIVE_COUNT,
        "request_timeout": _POSITIVE_COUNT,
    },
    Watch: {"stall_timeout": _POSITIVE_SIZE},
    Retries: {"infrastructure": {"minimum": 0}},
    Mutations: {"waive": {"propertyNames": {"enum": list(FAULTS)}, **_REASONS}},
    Backend: {
        "checkpoints": {"items": {"type": "string", "pattern": _BELOW_OUTPUT}},
        "num_processes": _POSITIVE_COUNT,
        "saves_model": {"enum": list(SAVES_MODEL)},
        "model_dir": {"pattern": _BELOW_OUTPUT},
    },
    Flags: {
        "form": {"pattern": f"^{FORM_PATTERN}$"},
        "when_true": {"pattern": f"^{WHEN_PATTERN}$"},
        "when_false": {"pattern": f"^{WHEN_PATTERN}$"},
        "lists": {"enum": [*LISTS, None]},
        "names": {"additionalProperties": {"type": ["string", "null"], "minLength": 1}},
    },
    Log: {
        "reader": {"enum": list(LOG_READERS)},
        "path": {"pattern": _BELOW_OUTPUT},
        "keys": {"additionalProperties": {"enum": list(LOG_KEYS)}},
        "first_step": {"enum": [0, 1]},
    },
    Finished: {
        "key": {"minLength": 1},
        "file": {"pattern": _BELOW_OUTPUT},
        "line": {"minLength": 1},
    },
}
"""What holds of a field beside its type; the `__post_init__` methods of the dataclasses have the last word."""

_INTERPOLATION: Document = {
    "title": "interpolation",
    "description": "A value that is looked up when the spec is composed.",
    "type": "string",
    "pattern": r"\$\{",
}
_DEFAULTS: Document = {
    "description": "What is composed before and after the file itself: `override /GROUP: OPTION`, and `_self_` last.",
    "type": "array",
    "items": {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 2,
                "additionalProperties": {
                    "anyOf": [{"type": ["string", "boolean", "null"]}, {"type": "array", "items": {"type": "string"}}]
                },
            },
        ]
    },
}
_HYDRA: Document = {"description": "Settings of Hydra itself.", "type": "object"}
_SAVES: Document = {
    "if": {
        "properties": {
            "inference": {"type": "object"},
            "backend": {"properties": {"saves_model": {"const": "by_strategy"}}},
        },
        "required": ["inference"],
    },
    "then": {
        "properties": {
            "dynamic_args": {
                "properties": {"save_strategy": {"enum": [name for name in SAVE_STRATEGIES if name != "no"]}},
                "required": ["save_strategy"],
            }
        },
        "required": ["dynamic_args"],
    },
}


class _Generator(GenerateJsonSchema):
    """pydantic's generator, without titles that only repeat the key."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the base class's signature
        return False


def build_schema(*, flat: bool) -> Document:
    """Builds the JSON Schema of a spec file.

    Args:
        flat: Of a file that stands alone, where every value is literal and nothing is inherited; else of an option of
            the config group `spec`.
    """
    for kind in CLASSES:
        # An attribute that pydantic alone looks at.
        with_config(ConfigDict(extra="forbid", use_attribute_docstrings=True))(kind)
    document = TypeAdapter(Spec).json_schema(schema_generator=_Generator)
    parts = {kind: document if kind is Spec else document["$defs"][kind.__name__] for kind in CLASSES}
    for kind, part in parts.items():
        part.update(_speak_yaml(part))
        for field in dataclasses.fields(kind):
            part["properties"][field.name] = _refine(part["properties"][field.name], kind, field)
    for name in INTERNAL_FIELDS:
        del document["properties"][name]
    if flat:
        required = [field.name for field in dataclasses.fields(Spec) if field.default == MISSING]
        document |= {"required": required, **_SAVES}
    else:
        # Lists and mappings, for the backends that say how they are written.
        document["properties"]["dynamic_args"]["additionalProperties"] = {}
        for part in parts.values():
            part["properties"] = {name: _allow_interpolation(schema) for name, schema in part["properties"].items()}
        document["$defs"]["Interpolation"] = _INTERPOLATION
        document["properties"] |= {"defaults": _DEFAULTS, "hydra": _HYDRA}
    return {"$schema": _Generator.schema_dialect, **document, "title": "flat spec" if flat else "spec"}


def _refine(schema: Document, kind: type, field: "dataclasses.Field[Any]") -> Document:
    """Adds to what pydantic says of a field."""
    refined = _speak_yaml(schema | RULES.get(kind, {}).get(field.name, {}))
    if refined.get("default") == MISSING:
        del refined["default"]
    if field.default_factory is not dataclasses.MISSING and isinstance(default := field.default_factory(), list):
        refined["default"] = default
    return refined


def _speak_yaml(schema: Document) -> Document:
    """Puts a docstring on one line, for readers who write YAML."""
    if "description" not in schema:
        return schema
    return schema | {"description": re.sub(r"\bNone\b", "null", schema["description"]).replace("\n", " ")}


def _allow_interpolation(schema: Document) -> Document:
    """Lets a text such as `${oc.env:HOME}` stand for a value, and for those in a mapping that are named."""
    if schema.get("type") == "string" and not {"enum", "pattern"} & set(schema):
        return schema  # any text will do
    outside = {key: value for key, value in schema.items() if key in {"description", "default"}}
    inside = {key: value for key, value in schema.items() if key not in outside}
    if "properties" in inside:
        inside["properties"] = {name: _allow_interpolation(inner) for name, inner in inside["properties"].items()}
    return {"anyOf": [inside, {"$ref": "#/$defs/Interpolation"}], **outside}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a schema; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fgvalidate.schema", description="Print the JSON Schema of a spec.")
    parser.add_argument("--flat", action="store_true", help="of a file that stands alone, without defaults")
    print(json.dumps(build_schema(flat=parser.parse_args(arguments).flat), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
