"""`docs/your-trainer.md`: its commands do what the page says, and its tables name every setting."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from test_new_spec import find_missing

from fgvalidate.schema import build_schema
from fgvalidate.spec import Backend, Flags

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/your-trainer.md").read_text(encoding="utf-8")
STEPS, REFERENCE = PAGE.split("\n## The command line\n", 1)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_commands_of_the_page_lead_to_a_green_spec_and_a_red_one(workplace: Any) -> None:
    (workplace.folder / "my_trainer").mkdir()
    shutil.copy(ROOT / "tests/trainers/plain_loop.py", workplace.folder / "my_trainer/train.py")
    (path,) = re.findall(r"`(my_specs/spec/\S+\.yaml)`", STEPS)
    spec = workplace.folder / path
    spec.parent.mkdir(parents=True)
    path_variable = f"{Path(sys.executable).parent}{os.pathsep}{workplace.env['PATH']}"
    codes: list[int] = []
    printed = ""
    for kind, text in BLOCK.findall(STEPS):
        if kind == "console":
            done = subprocess.run(
                ["bash", "-c", text],
                cwd=workplace.folder,
                env=workplace.env | {"PATH": path_variable, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=300,
                check=False,
            )
            codes, printed = [*codes, done.returncode], done.stdout
        elif kind == "yaml":
            if suggested := re.search(r"loss\.final_max=([\d.]+)", printed):
                assert yaml.safe_load(text)["loss"]["final_max"] == pytest.approx(float(suggested[1]), rel=0.1)
            with spec.open("a", encoding="utf-8") as file:
                file.write(text)
        else:
            assert find_missing(text, printed) == [], printed

    assert codes == [0, 0, 0, 1, 1, 2]
    assert workplace.find_processes() == []


@pytest.mark.parametrize("text", [text for kind, text in BLOCK.findall(REFERENCE) if kind == "yaml"])
def test_yaml_of_the_page_is_a_part_of_a_valid_spec(text: str) -> None:
    errors = list(Draft202012Validator(build_schema(flat=False)).iter_errors(yaml.safe_load(text)))

    assert [error for error in errors if "required" not in error.schema_path] == []


@pytest.mark.parametrize(("schema", "heading"), [(Backend, "The command line"), (Flags, "Flags")])
def test_every_setting_is_in_a_table(schema: type, heading: str) -> None:
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
    named = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}

    assert {field.name for field in dataclasses.fields(schema)} - named == set()


def test_every_ready_made_backend_is_in_the_table() -> None:
    section = PAGE.split("\n## Ready-made\n", 1)[1]
    shipped = {path.stem for path in (ROOT / "conf/backend").glob("*.yaml")} - {"builtin", "forgather", "command"}

    assert set(re.findall(r"^\| `backend=(\w+)`", section, re.MULTILINE)) == shipped
