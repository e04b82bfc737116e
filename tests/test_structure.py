"""The package keeps its shape: imports go one way, every config file says how to run it, nothing heavy is imported."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
ORDER = (
    ("errors",),
    ("spec", "supervisor", "interruption", "terminal", "config_shape", "selection", "yaml_text"),
    ("log_records",),
    ("steps", "json_records"),
    ("log_reader",),
    ("log_csv", "log_forgather", "log_jsonl", "log_stdout", "log_tensorboard", "log_trainer_state"),
    (
        "process",
        "run_dir",
        "training_log",
        "text_search",
        "gpu",
        "perplexity",
        "completion",
        "model_dir",
        "curve",
        "flat_spec",
        "growing_file",
        "flags",
    ),
    (
        "stacks",
        "signatures",
        "command",
        "command_line",
        "checkout",
        "server",
        "placement",
        "discovery",
        "flat_folder",
        "schema",
        "purpose",
    ),
    ("facts", "inference", "watch", "claim_dir", "spec_folder", "faults"),
    ("observation", "operators", "lease"),
    ("checks",),
    ("expectations", "report"),
    ("composition", "causes", "watch_rules"),
    ("search_path", "conclusion", "suite", "chart", "progress"),
    ("validate", "diagnosis", "spec_run", "recording", "attempts"),
    ("page", "junit", "summary", "monitor", "overview", "candidates", "spec_names", "pytest_items", "comparison"),
    ("suite_reports", "planning", "judgement", "recall", "hydra_job", "pool"),
    ("mutation",),
    ("task",),
    ("sweep", "tab_completion", "pytest_plugin"),
    ("app",),
    ("__main__",),
)
MODULES = sorted((ROOT / "fgvalidate").glob("*.py"))
YAML_FILES = sorted((ROOT / "conf").rglob("*.yaml"))


def list_imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    own = {node.module.partition(".")[2] for node in imports if node.module and node.module.startswith("fgvalidate.")}
    return own | {alias.name for node in imports if node.module == "fgvalidate" for alias in node.names}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_modules_import_only_from_modules_above_them(path: Path) -> None:
    if path.stem == "__init__":
        assert list_imports(path) == set()
        return
    level = next(number for number, names in enumerate(ORDER) if path.stem in names)

    above = {name for names in ORDER[:level] for name in names}

    assert list_imports(path) - above == set()


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(ROOT / "conf")))
def test_config_files_begin_with_their_package_and_say_how_to_run_them(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert path.name == "config.yaml" or text.startswith("# @package ")
    assert "#   python -m fgvalidate " in text
    assert isinstance(yaml.safe_load(text), dict)


def test_running_without_inference_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "requests", "psutil", "jinja2", "pygal", "junitparser"}
    code = f"import sys, fgvalidate.app, fgvalidate.suite_reports; print(sorted({heavy} & set(sys.modules)))"

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"


def test_package_imports_nothing() -> None:
    code = "import sys; before = set(sys.modules); import fgvalidate; print(set(sys.modules) - before)"

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "{'fgvalidate'}"


@pytest.mark.parametrize("path", sorted((ROOT / "hydra_plugins").glob("*/[!_]*.py")), ids=lambda path: path.parent.name)
def test_hydra_plugins_cost_other_applications_nothing(path: Path) -> None:
    """Hydra imports them in every application of the environment."""
    heavy = {"torch", "transformers", "submitit", "rich", "jinja2", "pygal", "fgvalidate.sweep", "fgvalidate.pool"}
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert answer.stdout.strip() == "[]"


def test_hydra_plugins_share_their_namespace() -> None:
    assert not (ROOT / "hydra_plugins/__init__.py").exists()
