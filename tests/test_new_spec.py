"""`docs/new-spec.md`: its commands do what the page says, and the program prints what the page quotes."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from fgvalidate.schema import build_schema

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/new-spec.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SPECS = {yaml.safe_load(text)["test_id"]: text for kind, text in BLOCKS if kind == "yaml"}

Call = Callable[..., Any]


def match_line(quoted: str, printed: str) -> bool:
    """Says whether a printed line is the quoted one: dots stand for any text, blanks and figures may differ."""
    parts = [re.escape(part) for part in quoted.strip().split("...")]
    pattern = ".*".join(re.sub(r"(\\ )+", r"\\s+", re.sub(r"\d+(\\\.\d+)?", r"[\\d.]+", part)) for part in parts)
    return re.fullmatch(pattern, printed.strip()) is not None


def find_missing(quoted: str, printed: str) -> list[str]:
    """Returns the quoted lines that were not printed."""
    lines = printed.splitlines()
    return [line for line in quoted.splitlines() if not any(match_line(line, other) for other in lines)]


@pytest.mark.parametrize(
    ("quoted", "printed", "same"),
    [
        ("a  1.5 s", "a 12.75 s   ", True),
        ("a ... b", "a and b", True),
        ("a", "a b", False),
        ("x passed 3 >= 1", "x failed 3 >= 1", False),
    ],
)
def test_quoted_and_printed_lines_are_told_apart(quoted: str, printed: str, same: bool) -> None:
    assert match_line(quoted, printed) == same


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout, with everything committed."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("fgvalidate", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in (".gitignore", "outputs/.gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for command in ("git init -q", "git config user.name me", "git config user.email me@example.org", "git add -A"):
        subprocess.run(command.split(), cwd=folder, check=True)
    subprocess.run(["git", "commit", "-qm", "Everything"], cwd=folder, check=True)
    return folder


def run_command(command: str, checkout: Path) -> "subprocess.CompletedProcess[str]":
    """Runs a line of the page as a reader would paste it."""
    env = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "FORGATHER_ROOT"}}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=checkout,
        env=env | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )


def find_path(name: str) -> str:
    """Returns where the page says that a spec is to be written."""
    (path,) = re.findall(rf"`(\S+/{name}\.yaml)`", PAGE)
    return str(path)


def test_commands_of_the_page_lead_to_a_committed_spec(checkout: Path) -> None:
    steps = PAGE.split("\n## With an inference stage", 1)[0]
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", steps, re.MULTILINE | re.DOTALL)
    printed, num_commands = "", 0
    for kind, text in blocks:
        if kind == "console":
            assert text.count("\n") == 1
            done = run_command(text, checkout)
            printed, num_commands = done.stdout, num_commands + 1
            assert done.returncode == 0, printed
        elif kind == "text":
            assert find_missing(text, printed) == [], printed
        else:
            suggested = re.search(r"loss\.final_max=([\d.]+)", printed)
            assert suggested is not None, printed
            assert yaml.safe_load(text)["loss"]["final_max"] == pytest.approx(float(suggested[1]), rel=0.1)
            path = checkout / find_path("my_llama")
            path.parent.mkdir(parents=True)
            path.write_text(text, encoding="utf-8")

    committed = run_command("git status --short && git show --stat --format=%s", checkout)
    untrained = run_command(
        "python -m fgvalidate --config-dir my_specs +spec=my_llama +dynamic_args.learning_rate=0", checkout
    )

    assert num_commands == 6  # five, and the commit
    assert committed.stdout.startswith("Validate that my_llama begins to learn\n\n my_specs/spec/my_llama.yaml |")
    assert untrained.returncode == 1
    assert "also red: loss_drop" in untrained.stdout
    assert "final_loss_max is " in untrained.stdout


@pytest.mark.parametrize("name", SPECS)
def test_specs_of_the_page_hold(fgvalidate: Call, workplace: Any, name: str) -> None:
    path = workplace.folder / f"my_specs/spec/{name}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(SPECS[name], encoding="utf-8")

    # More GPUs than there are: it is composed, looked at, and not run.
    answer = fgvalidate("--config-dir", "my_specs", f"+spec={name}", "gpu_requirement=64")

    assert (answer.code, answer.stderr) == (3, "")
    assert f"SKIPPED {name}: " in answer.stdout
    assert list(Draft202012Validator(build_schema(flat=False)).iter_errors(yaml.safe_load(SPECS[name]))) == []


def test_commands_of_the_page_run_on_forgather(fgvalidate: Call, workplace: Any, forgather_root: Any) -> None:
    path = workplace.folder / find_path("my_llama")
    path.parent.mkdir(parents=True)
    lines = [text.split(" && ")[0].split() for kind, text in BLOCKS if kind == "console"]
    once, listing, finished = (words[3:] for words in lines if words[:3] == ["python", "-m", "fgvalidate"])
    on_forgather = ["backend=forgather", f"backend.root={forgather_root.root}", "backend.cpu_ok=true"]

    first = fgvalidate(*once, *on_forgather)
    (bound,) = re.findall(r"loss\.final_max=([\d.]+)", first.stdout)
    path.write_text(SPECS["my_llama"].replace("final_max: 4.51", f"final_max: {bound}"), encoding="utf-8")
    second, third = fgvalidate(*listing, *on_forgather), fgvalidate(*finished, *on_forgather)

    assert [answer.code for answer in (first, second, third)] == [0, 0, 0]
    assert "1 selected, 3 left out by the selection; nothing was run" in second.stdout
    assert "PASSED my_llama in " in third.stdout
    assert third.check("final_loss_max")["expected"] == f"<= {float(bound)}"
    assert [call["argv"][5] for call in forgather_root.calls()] == ["train", "train"]


TROUBLES = dict(re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def find_quotes(start: str) -> list[str]:
    """Returns what is quoted in the entry of that name."""
    (section,) = (section for name, section in TROUBLES.items() if name.startswith(start))
    return re.findall(r"^```text\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def test_every_entry_on_what_does_not_work_is_tested_here() -> None:
    assert [name.split(":")[0].split(" (")[0] for name in TROUBLES] == [
        "Code of the model is out of date",
        "No training record",
        "No model.safetensors",
    ]


def test_code_of_an_earlier_model_is_nowhere_to_be_found_by_the_server(validate: Call) -> None:
    server = [
        f"server.program={sys.executable}",
        """server.arguments=[-c,"import os; print('cache', os.environ['HF_MODULES_CACHE'])"]""",
    ]

    first = validate("", "+spec=tiny_llama_inference", "scorer=builtin", *server)
    second = validate("", "+spec=tiny_llama_inference", "scorer=builtin", *server)

    assert first.run_dir != second.run_dir
    assert f"  cache {first.run_dir / 'hf_modules'}\n" in first.stdout
    assert f"  cache {second.run_dir / 'hf_modules'}\n" in second.stdout


def test_too_few_steps_for_a_record_are_named(validate: Call) -> None:
    (quote,) = find_quotes("No training record")

    run = validate("logging_steps=10", "max_steps=5")

    assert run.code == 1
    assert find_missing(quote, run.stdout) == []


def test_inference_without_saved_weights_is_refused_before_anything_starts(validate: Call, forgather_root: Any) -> None:
    quote, _ = find_quotes("No model.safetensors")

    run = validate("", "inference=completion")

    assert (run.code, forgather_root.calls()) == (2, [])
    assert find_missing(quote, run.stderr) == []


def test_weights_that_are_not_there_after_training_are_named(validate: Call) -> None:
    _, quote = find_quotes("No model.safetensors")

    run = validate("", "+spec=tiny_llama_inference", "server=transformers", "scorer=builtin")

    assert run.code == 1
    assert find_missing(quote, run.stdout) == []
    assert not (run.run_dir / "server.log").exists()
