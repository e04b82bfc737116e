"""Folders of specs: what is meant by a folder's name, and the words that choose each file."""

from pathlib import Path

import pytest

from fgvalidate.errors import SpecError
from fgvalidate.spec_folder import SpecFolder

HYDRA = "# @package _global_\n"
FLAT = "test_id: a\n"


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_folder_of_config_groups_means_its_specs(tmp_path: Path) -> None:
    file = write(tmp_path / "conf/spec", "a.yaml", HYDRA)
    write(tmp_path / "conf", "config.yaml", "")

    found = [SpecFolder.find(tmp_path / name) for name in ("conf", "conf/spec", "conf/../conf")]

    assert [folder.files for folder in found] == [[file]] * 3
    assert found[0].build_words(file) == (f"--config-dir={tmp_path / 'conf'}", "+spec=a")


def test_files_are_sorted_and_others_left_out(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", ".hidden.yaml", "c.yml", "readme.md"):
        write(tmp_path, name, FLAT)
    (tmp_path / "folder.yaml").mkdir()

    assert [path.name for path in SpecFolder.find(tmp_path).files] == ["a.yaml", "b.yaml"]


def test_flat_file_is_found_by_the_search_path(tmp_path: Path) -> None:
    folder = tmp_path / "it's mine"
    file = write(folder, "a.yaml", FLAT)

    option, choice = SpecFolder.find(folder).build_words(file)

    assert (option, choice) == (f"hydra.searchpath=['forgather://{tmp_path}/it\\'s mine']", "+spec=a")


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("tiny-llama_2", "+spec=tiny-llama_2"),
        ("7", "+spec='7'"),
        ("true", "+spec='true'"),
        ("NaN", "+spec='NaN'"),
        ("trueish", "+spec=trueish"),
        ("a,b (c)", "+spec='a,b (c)'"),
        ("it's", "+spec='it\\'s'"),
    ],
)
def test_names_that_hydra_would_misread_are_quoted(tmp_path: Path, name: str, choice: str) -> None:
    file = write(tmp_path, f"{name}.yaml", FLAT)

    assert SpecFolder.find(tmp_path).build_words(file)[1] == choice


def test_hydra_file_outside_of_the_group_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "mine", "a.yaml", HYDRA)

    with pytest.raises(SpecError, match=r"mine/a.yaml:1: it begins with `# @package`.* move it to .*mine/spec"):
        SpecFolder.find(tmp_path / "mine").build_words(file)


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such folder: "):
        SpecFolder.find(tmp_path / "nowhere")
