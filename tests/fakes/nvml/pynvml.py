"""Stands for NVML: says what a JSON file says, whose path is in SIMULATED_GPUS and which may change at any time.

    {"gpus": [{"uuid", "name", "total", "reserved", "used", "processes": [[pid, bytes or null], ...],
               "parts": [<the same, and "place": [GPU instance, compute instance]>, ...]}, ...],
     "init_error": <code>, "count_error": <code>}

Sizes are in bytes. "parts" makes a GPU one that MIG divides; a part may be null, where there is room for one. A total
of null: the driver does not say; "reserved": null: it is too old to keep that apart; "processes": null: it tells none.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

NVML_ERROR_UNINITIALIZED = 1
NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_NOT_FOUND = 6
NVML_ERROR_DRIVER_NOT_LOADED = 9
NVML_ERROR_LIBRARY_NOT_FOUND = 12
NVML_ERROR_FUNCTION_NOT_FOUND = 13
NVML_ERROR_GPU_IS_LOST = 15
NVML_DEVICE_MIG_DISABLE = 0
NVML_DEVICE_MIG_ENABLE = 1
nvmlMemory_v2 = 0x02000028

_TEXTS = {
    NVML_ERROR_UNINITIALIZED: "Uninitialized",
    NVML_ERROR_NOT_SUPPORTED: "Not Supported",
    NVML_ERROR_NOT_FOUND: "Not Found",
    NVML_ERROR_DRIVER_NOT_LOADED: "Driver Not Loaded",
    NVML_ERROR_LIBRARY_NOT_FOUND: "NVML Shared Library Not Found",
    NVML_ERROR_FUNCTION_NOT_FOUND: "Function Not Found",
    NVML_ERROR_GPU_IS_LOST: "GPU is lost",
}
_num_users = 0


class NVMLError(Exception):
    """What the driver refuses, by number."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return _TEXTS[self.value]


@dataclass(frozen=True)
class Memory:
    """Memory of a device, in bytes."""

    total: int
    used: int
    free: int


@dataclass(frozen=True)
class ProcessInfo:
    """A process on a device."""

    pid: int
    usedGpuMemory: int | None


def _read() -> dict[str, Any]:
    if not _num_users:
        raise NVMLError(NVML_ERROR_UNINITIALIZED)
    return _load()


def _load() -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(Path(os.environ["SIMULATED_GPUS"]).read_text(encoding="utf-8")))


def nvmlInit() -> None:
    """Begins a use of the driver; uses are counted."""
    global _num_users  # noqa: PLW0603 - so does the real one
    if "init_error" in _load():
        raise NVMLError(_load()["init_error"])
    _num_users += 1


def nvmlShutdown() -> None:
    """Ends a use of the driver."""
    global _num_users  # noqa: PLW0603
    if not _num_users:
        raise NVMLError(NVML_ERROR_UNINITIALIZED)
    _num_users -= 1


def nvmlDeviceGetCount() -> int:
    """Returns how many GPUs there are."""
    found = _read()
    if "count_error" in found:
        raise NVMLError(found["count_error"])
    return len(found["gpus"])


def nvmlDeviceGetHandleByIndex(index: int) -> dict[str, Any]:
    """Returns a GPU."""
    return cast("dict[str, Any]", _read()["gpus"][index])


def nvmlDeviceGetUUID(handle: dict[str, Any]) -> str:
    """Returns a device's UUID."""
    return cast("str", handle["uuid"])


def nvmlDeviceGetName(handle: dict[str, Any]) -> str:
    """Returns a device's model."""
    return cast("str", handle["name"])


def nvmlDeviceGetMigMode(handle: dict[str, Any]) -> list[int]:
    """Returns whether MIG divides a GPU, and whether it will after the next reset."""
    if "parts" not in handle:
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return [NVML_DEVICE_MIG_ENABLE, NVML_DEVICE_MIG_ENABLE]


def nvmlDeviceGetMaxMigDeviceCount(handle: dict[str, Any]) -> int:
    """Returns for how many MIG devices a GPU has room."""
    return len(handle["parts"])


def nvmlDeviceGetMigDeviceHandleByIndex(handle: dict[str, Any], index: int) -> dict[str, Any]:
    """Returns a MIG device."""
    part = handle["parts"][index]
    if part is None:
        raise NVMLError(NVML_ERROR_NOT_FOUND)
    return cast("dict[str, Any]", part)


def nvmlDeviceGetGpuInstanceId(handle: dict[str, Any]) -> int:
    """Returns the number of a MIG device's GPU instance."""
    return cast("int", handle["place"][0])


def nvmlDeviceGetComputeInstanceId(handle: dict[str, Any]) -> int:
    """Returns the number of a MIG device's compute instance."""
    return cast("int", handle["place"][1])


def nvmlDeviceGetMemoryInfo(handle: dict[str, Any], version: int | None = None) -> Memory:
    """Returns a device's memory; the first version counts what is reserved as used, and is all that some have."""
    if handle["total"] is None:
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    if version is not None and handle["reserved"] is None:
        raise NVMLError(NVML_ERROR_FUNCTION_NOT_FOUND)
    reserved = handle["reserved"] or 0
    free = handle["total"] - reserved - handle["used"]
    return Memory(handle["total"], handle["used"] + (0 if version else reserved), free)


def nvmlDeviceGetComputeRunningProcesses(handle: dict[str, Any]) -> list[ProcessInfo]:
    """Returns the processes that compute on a device."""
    if handle["processes"] is None:
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return [ProcessInfo(pid, used) for pid, used in handle["processes"]]


def nvmlDeviceGetGraphicsRunningProcesses(handle: dict[str, Any]) -> list[ProcessInfo]:
    """Returns the processes that draw on a device: none, or not to be had."""
    return nvmlDeviceGetComputeRunningProcesses(handle)[:0]
