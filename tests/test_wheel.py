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


def test_wheel_holds_the_package_its_configs_and_its_plugins_alone(unpacked: Path) -> None:
    names = sorted(path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info"))

    assert names == ["fgvalidate", "hydra_plugins"]
    assert (unpacked / "fgvalidate/conf/spec/tiny_llama.yaml").is_file()
    # A file in this folder would hide other packages' plugins.
    assert [path.name for path in (unpacked / "hydra_plugins").iterdir() if path.is_file()] == []


def test_wheel_brings_its_plugins(unpacked: Path) -> None:
    answer = run(unpacked, "fgvalidate", "+spec=tiny_llama", "hydra/launcher=fgvalidate_slurm", "--cfg", "hydra")

    assert (answer.returncode, answer.stderr) == (0, "")
    assert "_target_: hydra_plugins.fgvalidate_slurm.launcher.SlurmLauncher" in answer.stdout


def test_wheel_composes_its_own_specs(unpacked: Path) -> None:
    answer = run(unpacked, "fgvalidate", "+spec=tiny_llama", "--cfg", "job", "--resolve")

    assert (answer.returncode, answer.stderr) == (0, "")
    assert f"root: {unpacked}/fgvalidate/builtin" in answer.stdout


def test_wheel_trains_and_judges(unpacked: Path) -> None:
    bounds = ["loss.final_max=null", "loss.drop_min=null"]
    answer = run(unpacked, "fgvalidate", "+spec=tiny_experiment", "max_steps=10", *bounds)

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "PASSED tiny_experiment_smoke" in answer.stdout


def test_wheel_writes_the_page(unpacked: Path, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from fgvalidate.page import write_run_page
from fgvalidate.report import Report
write_run_page(Path({str(tmp_path / "x.html")!r}), Report(test_id="x", outcome="passed", reason="", command="x"), None)
"""
    argv = [sys.executable, "-P", "-c", code]

    subprocess.run(argv, cwd=unpacked.parent, env={**os.environ, "PYTHONPATH": str(unpacked)}, check=True)

    assert "<title>Passed: x</title>" in (tmp_path / "x.html").read_text(encoding="utf-8")


def test_wheel_lists_its_configs(unpacked: Path) -> None:
    project = unpacked / "fgvalidate/builtin/examples/tutorials/tiny_llama"

    answer = run(unpacked, "fgvalidate.builtin", "-p", str(project), "ls")

    assert "train_tiny_llama.yaml" in answer.stdout
