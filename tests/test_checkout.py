"""The project's checkout: what a run leaves in it is seen."""

import subprocess
from pathlib import Path

import pytest

from fgvalidate.checkout import find_checkout, list_changed_files, read_commit


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


def read_head(checkout: Path) -> str:
    argv = ["git", "rev-parse", "HEAD"]
    return subprocess.run(argv, cwd=checkout, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_is_the_whole_hash_whatever_tag_it_has(checkout: Path) -> None:
    subprocess.run(["git", "tag", "v1"], cwd=checkout, check=True)
    (checkout / "untracked").touch()

    commit = read_commit(checkout)

    assert commit == read_head(checkout)
    assert len(commit) == 40


def test_commit_is_dirty_when_a_tracked_file_differs(checkout: Path) -> None:
    (checkout / "project/config.yaml").write_text("a: 2\n", encoding="utf-8")

    assert read_commit(checkout) == f"{read_head(checkout)}-dirty"


def test_checkout_without_a_commit_has_none(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)

    assert read_commit(tmp_path) is None


def test_folder_outside_any_checkout_has_none(tmp_path: Path) -> None:
    assert find_checkout(tmp_path) is None


def test_checkout_that_git_cannot_read_is_none(tmp_path: Path) -> None:
    assert list_changed_files(tmp_path, apart=()) is None
