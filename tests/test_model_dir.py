import json
import os
import struct
import zipfile
from pathlib import Path

import pytest

from fgvalidate.model_dir import ModelDirProblem, find_model_dir, has_weights

HEADER = json.dumps({"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})
SAFETENSORS = struct.pack("<Q", len(HEADER)) + HEADER.encode() + bytes(16)


def write(path: Path, content: bytes | str = "{}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def save_model(folder: Path, weights: bytes = SAFETENSORS) -> Path:
    write(folder / "config.json")
    write(folder / "model.safetensors", weights)
    return folder


def save_index(folder: Path, *shards: str, name: str = "model.safetensors.index.json") -> None:
    write(folder / name, json.dumps({"weight_map": {f"layer.{shard}": shard for shard in shards}}))


def save_pickle(path: Path) -> bytes:
    """Writes a file as torch.save does, and returns its content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    return path.read_bytes()


def test_root_with_the_config_is_what_a_server_is_given_that_finds_checkpoints_itself(tmp_path: Path) -> None:
    write(tmp_path / "config.json")
    save_model(tmp_path / "checkpoints" / "checkpoint-10")

    assert find_model_dir(tmp_path, needs_weights=False) == tmp_path


def test_config_may_lie_one_level_down(tmp_path: Path) -> None:
    write(tmp_path / "runs" / "log")
    write(tmp_path / "my_model" / "config.json")
    newest = save_model(tmp_path / "my_model" / "checkpoints" / "checkpoint-10")

    assert find_model_dir(tmp_path, needs_weights=False) == tmp_path / "my_model"
    assert find_model_dir(tmp_path, needs_weights=True) == newest


def test_model_beside_its_checkpoints_comes_before_them(tmp_path: Path) -> None:
    save_model(tmp_path / "checkpoint-10")
    final = save_model(tmp_path / "final")

    assert find_model_dir(tmp_path, needs_weights=False) == final
    assert find_model_dir(tmp_path, needs_weights=True) == final


@pytest.mark.parametrize("parent", ["checkpoints", "."])
@pytest.mark.parametrize("has_root_config", [True, False])
def test_newest_checkpoint_is_that_of_the_highest_step(tmp_path: Path, parent: str, has_root_config: bool) -> None:
    if has_root_config:
        write(tmp_path / "config.json")
    for step in (100, 20, 3):
        save_model(tmp_path / parent / f"checkpoint-{step}")
    write(tmp_path / parent / "checkpoint-last" / "trainer_state.json")
    os.utime(tmp_path / parent / "checkpoint-100", (1, 1))

    assert find_model_dir(tmp_path, needs_weights=True) == tmp_path / parent / "checkpoint-100"


def test_of_two_checkpoints_of_one_step_the_newer_counts(tmp_path: Path) -> None:
    write(tmp_path / "config.json")
    older = save_model(tmp_path / "checkpoints" / "checkpoint-10")
    newer = save_model(tmp_path / "checkpoint-10")
    os.utime(older, (1, 1))

    assert find_model_dir(tmp_path, needs_weights=True) == newer


def test_whole_weights_at_the_root_are_what_was_saved_last(tmp_path: Path) -> None:
    save_model(tmp_path)
    save_model(tmp_path / "checkpoints" / "checkpoint-10")

    assert find_model_dir(tmp_path, needs_weights=True) == tmp_path


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(b"", id="empty"),
        pytest.param(SAFETENSORS[:5], id="cut in its first bytes"),
        pytest.param(SAFETENSORS[:30], id="cut in its header"),
        pytest.param(SAFETENSORS[:-1], id="cut in its tensors"),
        pytest.param(b"x" * 100, id="nonsense"),
        pytest.param(struct.pack("<Q", 2) + b"[]", id="header is a list"),
        pytest.param(struct.pack("<Q", 2) + b"{}", id="no tensors"),
        pytest.param(struct.pack("<Q", 7) + b'{"a":1}', id="tensor is a number"),
    ],
)
def test_damaged_weights_do_not_count(tmp_path: Path, weights: bytes) -> None:
    write(tmp_path / "config.json")
    older = save_model(tmp_path / "checkpoints" / "checkpoint-10")
    damaged = save_model(tmp_path / "checkpoints" / "checkpoint-20", weights)

    assert not has_weights(damaged)
    assert find_model_dir(tmp_path, needs_weights=True) == older


def test_divided_weights_need_all_of_their_files(tmp_path: Path) -> None:
    save_index(tmp_path, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    write(tmp_path / "model-00001-of-00002.safetensors", SAFETENSORS)
    assert not has_weights(tmp_path)

    write(tmp_path / "model-00002-of-00002.safetensors", SAFETENSORS[:-1])
    assert not has_weights(tmp_path)

    write(tmp_path / "model-00002-of-00002.safetensors", SAFETENSORS)
    assert has_weights(tmp_path)


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": ["a"]}', '{"weight_map": '])
def test_index_without_files_does_not_count(tmp_path: Path, index: str) -> None:
    write(tmp_path / "model.safetensors.index.json", index)
    write(tmp_path / "a", SAFETENSORS)

    assert not has_weights(tmp_path)


def test_pytorch_weights_count_when_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    content = save_pickle(path)
    assert has_weights(tmp_path)

    path.write_bytes(content[:-10])
    assert not has_weights(tmp_path)

    path.write_bytes(b"")
    assert not has_weights(tmp_path)

    path.write_bytes(b"\x80\x02older format")
    assert has_weights(tmp_path)


def test_pytorch_shard_counts_through_its_index_alone(tmp_path: Path) -> None:
    """This is how Forgather saves."""
    save_pickle(tmp_path / "pytorch_model-00001-of-00001.bin")
    assert not has_weights(tmp_path)

    save_index(tmp_path, "pytorch_model-00001-of-00001.bin", name="pytorch_model.bin.index.json")
    assert has_weights(tmp_path)


@pytest.mark.parametrize("needs_weights", [True, False])
@pytest.mark.parametrize("exists", [True, False])
def test_empty_output_holds_no_model(tmp_path: Path, needs_weights: bool, exists: bool) -> None:
    folder = tmp_path if exists else tmp_path / "missing"

    problem = find_model_dir(folder, needs_weights=needs_weights)

    assert isinstance(problem, ModelDirProblem)
    assert str(folder) in problem.reason


def test_config_alone_names_the_setting_that_saves_weights(tmp_path: Path) -> None:
    write(tmp_path / "config.json")

    assert find_model_dir(tmp_path, needs_weights=True) == ModelDirProblem(
        f"no weights were saved in {tmp_path}; let dynamic_args.save_strategy be steps or epoch, so that the run saves "
        f"a checkpoint"
    )


def test_damaged_weights_alone_are_named(tmp_path: Path) -> None:
    write(tmp_path / "config.json")
    damaged = save_model(tmp_path / "checkpoints" / "checkpoint-20", b"")

    problem = find_model_dir(tmp_path, needs_weights=True)

    assert isinstance(problem, ModelDirProblem)
    expected = f"no weights were saved whole in {tmp_path}: {damaged / 'model.safetensors'} is empty, cut short"
    assert problem.reason.startswith(expected)
    assert "dynamic_args.save_strategy" in problem.reason


def test_weights_without_a_config_beside_them_cannot_be_served_alone(tmp_path: Path) -> None:
    write(tmp_path / "config.json")
    checkpoint = tmp_path / "checkpoints" / "checkpoint-20"
    write(checkpoint / "model.safetensors", SAFETENSORS)

    problem = find_model_dir(tmp_path, needs_weights=True)

    assert isinstance(problem, ModelDirProblem)
    assert problem.reason.startswith(f"{checkpoint} holds weights, but no config.json beside them")


def test_output_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    assert isinstance(find_model_dir(write(tmp_path / "file"), needs_weights=True), ModelDirProblem)


def test_output_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    name = "x" * 300  # longer than file systems allow: works for root, too

    problem = find_model_dir(tmp_path / name, needs_weights=False)

    assert isinstance(problem, ModelDirProblem)
    assert "cannot be searched for a model" in problem.reason


@pytest.mark.parametrize(
    ("pattern", "names", "newest"),
    [
        ("checkpoint-*", ["checkpoint-9", "checkpoint-10"], "checkpoint-10"),
        ("step_*", ["step_200", "step_30"], "step_200"),
        ("*/hf", ["a/hf"], "a/hf"),
        ("final", ["checkpoint-10", "final"], "final"),
        ("*", ["epoch=3-step=20", "epoch=9-step=10"], "epoch=3-step=20"),
        ("*", ["checkpoint-10", "final"], "final"),
    ],
)
def test_newest_of_what_a_pattern_names_is_found(tmp_path: Path, pattern: str, names: list[str], newest: str) -> None:
    for name in names:
        save_model(tmp_path / name)

    assert find_model_dir(tmp_path, needs_weights=True, pattern=pattern) == tmp_path / newest


def test_newest_of_a_pattern_that_is_whole_is_found(tmp_path: Path) -> None:
    whole = save_model(tmp_path / "step_1")
    save_model(tmp_path / "step_2", SAFETENSORS[:-1])
    write(tmp_path / "step_3" / "model.safetensors", SAFETENSORS)

    assert find_model_dir(tmp_path, needs_weights=True, pattern="step_*") == whole
    assert find_model_dir(tmp_path, needs_weights=False, pattern="step_*") == tmp_path / "step_2"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("model_*", "no folder model_* in {0}, which has bare, cut, empty; correct backend.model_dir"),
        ("file", "no folder file in {0}, which has bare, cut, empty; correct backend.model_dir"),
        ("cut", "no weights were saved whole in cut: {0}/cut/model.safetensors is empty, cut short or incomplete"),
        ("bare", "no config.json in {0}/bare: no model was saved there that could be served"),
        ("empty", "no weights were saved in {0}/empty"),
    ],
)
def test_pattern_that_names_no_model_says_why(tmp_path: Path, pattern: str, reason: str) -> None:
    write(tmp_path / "file")
    save_model(tmp_path / "cut", SAFETENSORS[:-1])
    write(tmp_path / "bare" / "model.safetensors", SAFETENSORS)
    (tmp_path / "empty").mkdir()

    problem = find_model_dir(tmp_path, needs_weights=True, pattern=pattern)

    assert problem == ModelDirProblem(reason.format(tmp_path))
