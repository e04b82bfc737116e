"""Loading a project: the shipped ones load, a wrong one is refused with file and key."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from builtin_projects import EXAMPLES, write_project

from fgvalidate.builtin.project import ProjectError, config_path, default_config_name, dump_config, load_config

SHIPPED = sorted(EXAMPLES.glob("*/*/templates/configs/*.yaml"))
VALID = yaml.safe_load(SHIPPED[0].read_text(encoding="utf-8"))


def test_two_projects_are_shipped() -> None:
    assert [path.parents[2].name for path in SHIPPED] == ["tiny_experiment", "tiny_llama"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_survives_being_printed(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    copied = tmp_path / "copy.yaml"
    copied.write_text(dump_config(config), encoding="utf-8")

    assert load_config(copied) == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_default_config_exists(path: Path) -> None:
    project_dir = path.parents[2]

    assert config_path(project_dir, default_config_name(project_dir)).is_file()


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("trainer", {"learning_rate": "1e-3"}, "trainer.learning_rate: expected float, got '1e-3' (YAML reads 1e-3"),
        ("trainer", {"learning_rate": float("inf")}, "trainer.learning_rate: expected a finite number of at least 0.0"),
        ("trainer", {"max_steps": 0}, "trainer.max_steps: expected a finite number of at least 1, got 0"),
        ("trainer", {"max_steps": True}, "trainer.max_steps: expected int, got True"),
        ("trainer", {"save_strategy": False}, "trainer.save_strategy: expected str, got False"),
        ("trainer", {"save_strategy": "best"}, "trainer.save_strategy: expected one of no, steps, epoch, got 'best'"),
        ("trainer", {"lerning_rate": 1.0}, "unknown key trainer.lerning_rate"),
        ("corpus", {"vocab_size": 10}, "corpus.vocab_size: expected a finite number of at least 300, got 10"),
        ("model", {"options": []}, "model.options: expected dict, got []"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_value_is_refused_with_file_and_key(
    tmp_path: Path, section: str, change: dict[str, Any], message: str
) -> None:
    config = copy.deepcopy(VALID)
    config[section] |= change
    write_project(tmp_path, config)
    path = config_path(tmp_path, "quick")

    with pytest.raises(ProjectError) as caught:
        load_config(path)

    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_missing_key_is_refused(tmp_path: Path) -> None:
    config = copy.deepcopy(VALID)
    del config["corpus"]["seed"]
    write_project(tmp_path, config)

    with pytest.raises(ProjectError, match=r"quick\.yaml: missing key corpus\.seed"):
        load_config(config_path(tmp_path, "quick"))


def test_a_file_that_is_not_yaml_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("model: [", encoding="utf-8")

    with pytest.raises(ProjectError, match=r"^\S+broken\.yaml is not YAML: [^\n]+$"):
        load_config(path)
