"""The project's checkout: what a run leaves in it is seen."""

import subprocess
from pathlib import Path

import pytest

from fgvalidate.checkout import find_checkout, list_changed_files


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "project").mkdir(parents=True)
    (root / "project/config.yaml").write_text("a: 1\n", encoding="utf-8")
    (root / ".gitignore").write_text("output_models/\n*.log\n", encoding="utf-8")
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    return root


def test_created_ignored_and_modified_files_are_listed(checkout: Path) -> None:
    (checkout / "tokenizers/a b").mkdir(parents=True)
    (checkout / "tokenizers/a b/é.json").touch()
    (checkout / "output_models/x").mkdir(parents=True)
    (checkout / "output_models/x/weights").touch()
    (checkout / "project/config.yaml").write_text("a: 2\n", encoding="utf-8")

    changed = list_changed_files(checkout, apart=())

    assert changed == frozenset({"tokenizers/a b/é.json", "output_models/", "project/config.yaml"})


def test_clean_checkout_has_none(checkout: Path) -> None:
    assert list_changed_files(checkout, apart=()) == frozenset()


def test_own_outputs_and_bytecode_do_not_count(checkout: Path) -> None:
    (checkout / "outputs/x").mkdir(parents=True)
    (checkout / "outputs/x/report.json").touch()
    (checkout / "project/__pycache__").mkdir()
    (checkout / "project/__pycache__/a.pyc").touch()

    assert list_changed_files(checkout, apart=(checkout / "outputs",)) == frozenset()


def test_checkout_is_found_from_any_of_its_folders(checkout: Path) -> None:
    assert find_checkout(checkout / "project") == checkout


def test_folder_outside_any_checkout_has_none(tmp_path: Path) -> None:
    assert find_checkout(tmp_path) is None


def test_checkout_that_git_cannot_read_is_none(tmp_path: Path) -> None:
    assert list_changed_files(tmp_path, apart=()) is None
