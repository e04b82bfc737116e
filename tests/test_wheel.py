"""A wheel built from the checkout works outside it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(unpacked: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    # -P: not the checkout that the tests run in.
    return subprocess.run(
        [sys.executable, "-P", "-m", *arguments],
        cwd=unpacked.parent,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_wheel_holds_the_package_and_its_configs_alone(unpacked: Path) -> None:
    assert sorted(path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")) == ["fgvalidate"]
    assert (unpacked / "fgvalidate/conf/spec/tiny_llama.yaml").is_file()


def test_wheel_composes_its_own_specs(unpacked: Path) -> None:
    answer = run(unpacked, "fgvalidate", "+spec=tiny_llama", "--cfg", "job", "--resolve")

    assert (answer.returncode, answer.stderr) == (0, "")
    assert f"root: {unpacked}/fgvalidate/builtin" in answer.stdout


def test_wheel_trains_and_judges(unpacked: Path) -> None:
    bounds = ["loss.final_max=null", "loss.drop_min=null"]
    answer = run(unpacked, "fgvalidate", "+spec=tiny_experiment", "max_steps=10", *bounds)

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "PASSED tiny_experiment_smoke" in answer.stdout


def test_wheel_lists_its_configs(unpacked: Path) -> None:
    project = unpacked / "fgvalidate/builtin/examples/tutorials/tiny_llama"

    answer = run(unpacked, "fgvalidate.builtin", "-p", str(project), "ls")

    assert "train_tiny_llama.yaml" in answer.stdout
