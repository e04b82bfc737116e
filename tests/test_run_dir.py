"""A run's folder: never one that is in use."""

from pathlib import Path

import pytest

from fgvalidate.errors import RunDirError
from fgvalidate.run_dir import RunDir


def test_new_folder_is_made_and_dated_by_its_file_system(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "a/b")

    written_after = run_dir.create()

    assert run_dir.train_dir.is_dir()
    assert written_after == run_dir.train_dir.stat().st_mtime


@pytest.mark.parametrize("left", ["report.json", ".hydra", "notes.txt"])
def test_used_folder_is_refused_and_left_alone(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("old", encoding="utf-8")

    with pytest.raises(RunDirError, match="is not empty"):
        RunDir(tmp_path).create()

    assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [(left, "old")]


def test_folder_that_cannot_be_made_is_one_readable_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(RunDirError, match=r"cannot write the run's folder \(Not a directory\)"):
        RunDir(tmp_path / "file/run").create()


def test_discarding_removes_empty_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "x/empty").mkdir(parents=True)
    (tmp_path / "y/full/more").mkdir(parents=True)

    RunDir(tmp_path / "x/empty").discard_if_empty()
    RunDir(tmp_path / "y/full").discard_if_empty()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["y"]
    assert (tmp_path / "y/full/more").is_dir()
