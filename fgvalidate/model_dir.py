"""Finds the model that a training run has saved.

In: the run's output directory, and whether a server needs weights and config in one folder. Out: that folder, or a
`ModelDirProblem` that says what is missing and which setting to change.
"""

import contextlib
import glob
import json
import re
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CHECKPOINT_NAME = re.compile(r"checkpoint-(\d+)")
_SHARD_NAME = re.compile(r"-\d+-of-\d+\.bin$")
_MAX_HEADER_BYTES = 100_000_000
"""The longest header of a safetensors file that its own reader accepts."""


@dataclass(frozen=True)
class ModelDirProblem:
    """Why there is no model to serve."""

    reason: str
    """One line, with what to do next."""


def find_model_dir(output_dir: Path, *, needs_weights: bool, pattern: str | None = None) -> Path | ModelDirProblem:
    """Returns the folder to give to an inference server.

    Args:
        output_dir: The output directory of a training run.
        needs_weights: True: a folder with config.json and whole weights, the root's if it has both, else the newest
            checkpoint's, in `checkpoints/` or beside the config. False: the folder with config.json, for servers that
            look for the checkpoint themselves.
        pattern: Where the trainer leaves models, below the output directory; of several that are whole the newest is
            returned, by the last number in their names, and one without a number is the last. None: as above.
    """
    try:
        if pattern is not None:
            return _find_declared(output_dir, pattern, needs_weights=needs_weights)
        root = _find_root(output_dir)
        if needs_weights:
            return _find_weights(output_dir if root is None or _read_step(root) is not None else root)
        return root or ModelDirProblem(f"no config.json in {output_dir}, nor one level down: no model was saved")
    except OSError as error:
        return ModelDirProblem(f"{output_dir} cannot be searched for a model: {error}")


def _find_declared(output_dir: Path, pattern: str, *, needs_weights: bool) -> Path | ModelDirProblem:
    found = [path for match in glob.glob(pattern, root_dir=output_dir) if (path := output_dir / match).is_dir()]
    if not found:
        there = ", ".join(path.name for path in _list_folders(output_dir)) or "no folder"
        return ModelDirProblem(f"no folder {pattern} in {output_dir}, which has {there}; correct backend.model_dir")
    newest_first = sorted(found, key=_place_in_time, reverse=True)
    usable = [folder for folder in newest_first if has_weights(folder)] if needs_weights else newest_first
    for folder in usable:
        if _has_config(folder):
            return folder
    if usable:
        return ModelDirProblem(f"no config.json in {usable[0]}: no model was saved there that could be served")
    damaged = [path for folder in newest_first for path in _list_weight_files(folder)]
    if damaged:
        broken = f"{damaged[0]} is empty, cut short or incomplete"
        return ModelDirProblem(f"no weights were saved whole in {pattern}: {broken}")
    return ModelDirProblem(f"no weights were saved in {newest_first[0]}")


def _place_in_time(folder: Path) -> tuple[bool, int, float]:
    numbers = re.findall(r"\d+", folder.name)
    return not numbers, int(numbers[-1]) if numbers else 0, folder.stat().st_mtime


def _find_root(output_dir: Path) -> Path | None:
    if _has_config(output_dir):
        return output_dir
    folders = [folder for folder in _list_folders(output_dir) if _has_config(folder)]
    # A model beside its checkpoints is what was saved last.
    ordered = sorted(folders, key=lambda folder: (_read_step(folder) is None, *_age(folder)))
    return ordered[-1] if ordered else None


def _find_weights(root: Path) -> Path | ModelDirProblem:
    checkpoints = [
        folder
        for parent in (root / "checkpoints", root)
        for folder in _list_folders(parent)
        if _read_step(folder) is not None
    ]
    found = [root, *sorted(checkpoints, key=_age, reverse=True)]
    whole = [folder for folder in found if has_weights(folder)]
    for folder in whole:
        if _has_config(folder):
            return folder
    if whole:
        return ModelDirProblem(
            f"{whole[0]} holds weights, but no config.json beside them; use a server that is given the model's folder "
            f"and finds the checkpoint itself"
        )
    setting = "let dynamic_args.save_strategy be steps or epoch, so that the run saves a checkpoint"
    damaged = [path for folder in found for path in _list_weight_files(folder)]
    if damaged:
        return ModelDirProblem(
            f"no weights were saved whole in {root}: {damaged[0]} is empty, cut short or incomplete; {setting} and has "
            f"the time and the disk space to finish it"
        )
    return ModelDirProblem(f"no weights were saved in {root}; {setting}")


def has_weights(folder: Path) -> bool:
    """Returns whether a folder holds all of a model's weights, in safetensors or PyTorch's own format.

    A file that is empty or cut short does not count, nor an index one of whose files does not.

    Raises:
        OSError: The folder cannot be read.
    """
    return any(_is_whole(path) for path in _list_weight_files(folder))


def _list_weight_files(folder: Path) -> list[Path]:
    """Returns the single files of weights and the indices of divided ones, whole or not."""
    patterns = ("model.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.bin.index.json")
    paths = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
    return [path for path in paths if not _SHARD_NAME.search(path.name)]


def _is_whole(path: Path) -> bool:
    if path.name.endswith(".index.json"):
        shards = list(_list_shards(path))
        return bool(shards) and all(_is_whole(shard) for shard in shards)
    if not path.is_file():
        return False
    return _is_whole_safetensors(path) if path.suffix == ".safetensors" else _is_whole_pickle(path)


def _list_shards(index: Path) -> Iterator[Path]:
    with contextlib.suppress(ValueError, RecursionError):
        match json.loads(index.read_bytes()):
            case {"weight_map": {**weight_map}}:
                yield from (index.parent / str(name) for name in sorted({str(name) for name in weight_map.values()}))


def _is_whole_safetensors(path: Path) -> bool:
    """Compares the size with what the header asks for: its length in 8 bytes, the header as JSON, then the tensors."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        prefix = file.read(8)
        if len(prefix) < 8:
            return False
        (header_size,) = struct.unpack("<Q", prefix)
        if header_size > min(size - 8, _MAX_HEADER_BYTES):
            return False
        try:
            header = json.loads(file.read(header_size))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            return bool(ends) and size == 8 + header_size + max(ends)
        except (ValueError, RecursionError, AttributeError, LookupError, TypeError):
            return False


def _is_whole_pickle(path: Path) -> bool:
    # The directory of a zip file is its end. Of the older format, a bare pickle, only emptiness is seen.
    with path.open("rb") as file:
        start = file.read(2)
    return zipfile.is_zipfile(path) if start == b"PK" else bool(start)


def _has_config(folder: Path) -> bool:
    path = folder / "config.json"
    return path.is_file() and path.stat().st_size > 0


def _list_folders(parent: Path) -> list[Path]:
    return [path for path in sorted(parent.iterdir()) if path.is_dir()] if parent.is_dir() else []


def _read_step(folder: Path) -> int | None:
    match = _CHECKPOINT_NAME.fullmatch(folder.name)
    return int(match[1]) if match else None


def _age(folder: Path) -> tuple[int, float]:
    """Orders by step, then by time of change."""
    return _read_step(folder) or 0, folder.stat().st_mtime
