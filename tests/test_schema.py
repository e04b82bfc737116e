"""The JSON Schemas of spec files: editors refuse with them what the program refuses, and nothing else."""

import copy
import dataclasses
import subprocess
import sys
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvalidate.errors import SpecError
from fgvalidate.schema import CLASSES, build_schema
from fgvalidate.spec import INTERNAL_FIELDS, Backend, Finished, Flags, Log, Spec

ROOT = Path(__file__).parent.parent
HYDRA, FLAT = (Draft202012Validator(build_schema(flat=flat)) for flat in (False, True))
BASE: dict[str, Any] = {
    "test_id": "mine",
    "project_dir": "examples/mine",
    "config": "train.yaml",
    "backend": {"name": "b", "log": {"reader": "forgather", "path": "runs/*/log.json"}},
    "server": {"name": "s", "program": "p"},
    "scorer": {"name": "s", "model": "m"},
}
PLACES: dict[type, tuple[str, ...]] = {
    Spec: (),
    Flags: ("backend", "flags"),
    Log: ("backend", "log"),
    Finished: ("backend", "log", "finished"),
}
"""By class: the keys down to its section, where they are not its name."""
SAVING = {"dynamic_args": {"save_strategy": "steps"}}


def set_value(document: Any, path: tuple[str, ...], value: object) -> Any:
    """Returns a copy of the document with one value set."""
    changed = copy.deepcopy(document)
    node = changed
    for key in path[:-1]:
        node = node.setdefault(key, {})
    node[path[-1]] = value
    return changed


def find_place(kind: type) -> tuple[str, ...]:
    """Returns the keys down to the section of a class."""
    return PLACES.get(kind, (kind.__name__.lower(),))


def list_fields(kind: type) -> list[Any]:
    """Returns the fields that a spec may set."""
    return [field for field in dataclasses.fields(kind) if field.name not in INTERNAL_FIELDS]


def read(text: str) -> Any:
    return yaml.safe_load(text)


@pytest.mark.parametrize("name", ["spec.schema.json", "flat-spec.schema.json"])
def test_shipped_schema_is_the_one_that_the_command_prints(name: str) -> None:
    argv = [sys.executable, "-m", "fgvalidate.schema", *(["--flat"] if name.startswith("flat") else [])]

    answer = subprocess.run(argv, capture_output=True, text=True, check=True)

    assert answer.stdout == (ROOT / "docs" / name).read_text(encoding="utf-8"), (
        f"write it anew: python -m fgvalidate.schema {' '.join(argv[3:])} > docs/{name}"
    )


@pytest.mark.parametrize("flat", [False, True])
def test_schema_is_one_of_its_dialect_and_has_every_field_with_its_docstring(flat: bool) -> None:
    schema = build_schema(flat=flat)
    in_spec = {"loss", "stderr", "watch", "retries", "mutations", "server", "scorer", "backend"}
    sections: dict[type, set[str]] = {Spec: in_spec, Backend: {"flags", "log"}, Log: {"finished"}}

    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for kind in CLASSES:
        properties = (schema if kind is Spec else schema["$defs"][kind.__name__])["properties"]
        fields = {field.name for field in list_fields(kind)}
        assert set(properties) - fields == ({"defaults", "hydra"} if kind is Spec and not flat else set())
        mute = {name for name in fields if "description" not in properties[name]}
        assert mute == sections.get(kind, set())
    assert schema["properties"]["gpu_memory"]["description"].endswith("as it holds them. null: see specs_per_gpu.")


@pytest.mark.parametrize("path", sorted((ROOT / "conf/spec").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_spec_is_valid(path: Path) -> None:
    assert list(HYDRA.iter_errors(read(path.read_text(encoding="utf-8")))) == []


FLAT_SPEC = """
test_id: my_project_inference
project_dir: examples/my_category/my_project
config: my_config.yaml
dynamic_args: {max_steps: 500, save_strategy: steps}
loss: {final_max: 5.0, no_nan: true}
stderr: {forbidden_patterns: [RuntimeError, "${"], warn_patterns: []}
expected_files: [trainer_logs.json]
min_steps_logged: 5
inference: {prompt: Once upon a time, max_tokens: 50, temperature: 0.7, perplexity_max: 500.0, server_timeout: 60}
timeout: 900
gpu_requirement: 1
markers: [integration, slow]
"""


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("forgather_*/*.yaml")), ids=lambda path: path.stem)
def test_documented_flat_spec_is_valid(path: Path) -> None:
    assert list(FLAT.iter_errors(read(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("validator", [HYDRA, FLAT], ids=["hydra", "flat"])
def test_flat_spec_with_every_documented_field_is_valid(validator: Draft202012Validator) -> None:
    assert list(validator.iter_errors(read(FLAT_SPEC))) == []


def test_every_value_of_a_hydra_spec_may_be_an_interpolation() -> None:
    for kind in CLASSES:
        for field in list_fields(kind):
            document = set_value(BASE, (*find_place(kind), field.name), "${oc.select:bounds.x,null}")

            assert list(HYDRA.iter_errors(document)) == [], field.name


@pytest.mark.parametrize(
    ("body", "at"),
    [
        pytest.param("tmeout: 3", "", id="typo"),
        pytest.param("loss: {finl_max: 3}", "loss", id="typo_inside"),
        pytest.param("inference: {max_tokns: 3}", "inference", id="typo_in_the_stage"),
        pytest.param("loss: {final_max: low}", "loss", id="text_for_a_number"),
        pytest.param("timeout: 3.5", "timeout", id="fraction_for_a_whole_number"),
        pytest.param("timeout: true", "timeout", id="truth_for_a_number"),
        pytest.param("markers: smoke", "markers", id="text_for_a_list"),
        pytest.param("loss: 4", "loss", id="number_for_a_mapping"),
        pytest.param("loss: null", "loss", id="null_for_a_mapping"),
        pytest.param("keep: some", "keep", id="no_such_choice"),
        pytest.param("mutations: {waive: {nan_frist: x}}", "mutations", id="no_such_fault"),
        pytest.param("dynamic_args: {save_strategy: no}", "dynamic_args", id="bare_no"),
        pytest.param("dynamic_args: {max_steps: many}", "dynamic_args", id="steps_as_text"),
        pytest.param("dynamic_args: {max-steps: 3}", "dynamic_args", id="dash_in_a_flag"),
        pytest.param("checks: {x: passed}", "checks", id="check_that_is_no_expression"),
        pytest.param("[]", "", id="no_mapping"),
    ],
)
@pytest.mark.parametrize("validator", [HYDRA, FLAT], ids=["hydra", "flat"])
def test_wrong_spec_is_refused_where_it_is_wrong(validator: Draft202012Validator, body: str, at: str) -> None:
    document = read(body)
    if isinstance(document, dict):
        document = BASE | SAVING | document

    places = [str(error.absolute_path[0]) if error.absolute_path else "" for error in validator.iter_errors(document)]

    assert places == [at]


@pytest.mark.parametrize(
    "word",
    [
        "defaults: [_self_]",
        "hydra: {run: {dir: x}}",
        "timeout: ${oc.env:LIMIT}",
        "dynamic_args: {lr: [1]}",
        "dynamic_args: {training: {steps: 3}}",
    ],
)
def test_what_is_hydras_is_no_part_of_a_flat_spec(word: str) -> None:
    document = BASE | read(word)

    assert (HYDRA.is_valid(document), FLAT.is_valid(document)) == (True, False)


@pytest.mark.parametrize("name", ["test_id", "project_dir", "config"])
def test_required_field_is_missed_in_a_flat_spec_alone(name: str) -> None:
    document = {key: value for key, value in BASE.items() if key != name}

    assert (HYDRA.is_valid(document), FLAT.is_valid(document)) == (True, False)


@pytest.mark.parametrize("dynamic_args", [None, {}, {"save_strategy": "no"}])
def test_flat_spec_with_inference_has_to_save(dynamic_args: Any) -> None:
    document = BASE | {"inference": {}} | ({} if dynamic_args is None else {"dynamic_args": dynamic_args})

    assert (FLAT.is_valid(document), FLAT.is_valid(document | SAVING)) == (False, True)


VALUES: list[object] = [
    -1, 0, 1, 2, -0.5, 0.5, 1.5, True, False, None,
    "", " ", ".", "..", "a", "a/b", "/a", "../a", "a/..", "./", "no", "steps", "failed", "all", "3",
    [], [""], ["a"], ["/a"], ["../a"], [1], {}, {"a": 1}, {"a": None}, {"a": ""}, {"a-b": "x"}, {"a": [1]},
    {"max_steps": 0}, {"max_steps": 0.5}, {"max_steps": True}, {"max_steps": None},
    {"save_strategy": False}, {"save_strategy": "never"}, {"save_strategy": "epoch"},
]  # fmt: skip
ELSEWHERE = {
    "checks",  # expressions are looked at when they are resolved
    "env",  # a list in it is found when the environment is built
    "path",  # what it may be depends on the reader
    "pattern",  # likewise
}


def is_taken_as_it_is(base: DictConfig | ListConfig, name: str, given: object) -> bool:
    """Says whether the program takes a value, and without making another one of it."""
    try:
        made = OmegaConf.to_object(OmegaConf.merge(base, {name: given}))
    except (SpecError, OmegaConfBaseException, AssertionError, ValueError):
        return False
    taken = getattr(made, name)
    if isinstance(given, dict) and dataclasses.is_dataclass(taken):
        return True
    is_fraction = type(given) is int and type(taken) is float
    return bool(given == taken) and (type(given) is type(taken) or is_fraction)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_schema_takes_exactly_what_the_program_takes_unconverted(kind: type) -> None:
    schema = build_schema(flat=True)
    part = schema if kind is Spec else schema["$defs"][kind.__name__] | {"$defs": schema["$defs"]}
    validator = Draft202012Validator(part)
    base: dict[str, Any] = reduce(lambda section, key: section.get(key, {}), find_place(kind), BASE)
    config = OmegaConf.merge(OmegaConf.structured(kind), base)
    fields = [field.name for field in list_fields(kind) if field.name not in ELSEWHERE]

    different = [
        (name, value)
        for name in fields
        for value in VALUES
        if validator.is_valid(base | {name: value}) != is_taken_as_it_is(config, name, value)
    ]

    assert different == []
