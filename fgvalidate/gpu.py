"""GPUs: how many a run may use. NVML and CUDA_VISIBLE_DEVICES come in; torch is not imported."""

import os
from dataclasses import dataclass

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class GpuPool:
    """The GPUs that a run may be given."""

    devices: tuple[str, ...]
    """As CUDA_VISIBLE_DEVICES names them: indices or UUIDs, in its order."""
    reason: str
    """Where the number comes from, for reports."""


def find_gpus() -> GpuPool:
    """Finds this machine's GPUs, narrowed by an inherited CUDA_VISIBLE_DEVICES."""
    present, reason = _read_nvml()
    visible = os.environ.get(VISIBLE_DEVICES)
    if visible is None or not present:
        return GpuPool(tuple(str(index) for index in range(len(present))), reason)
    devices = select_visible(visible, present)
    return GpuPool(devices, f"{reason}, and {VISIBLE_DEVICES}={visible} shows {len(devices)}")


def select_visible(visible: str, uuids: list[str]) -> tuple[str, ...]:
    """Applies CUDA's rule for CUDA_VISIBLE_DEVICES: the first entry that names no GPU hides it and all after it.

    Args:
        visible: The variable's value: indices, or UUIDs (`GPU-...`, which may be shortened; `MIG-...`).
        uuids: The UUIDs of the GPUs present, by index.
    """
    devices: list[str] = []
    for entry in (part.strip() for part in visible.split(",")):
        is_index = entry.isdecimal() and int(entry) < len(uuids)
        is_uuid = entry.startswith("MIG-") or (entry.startswith("GPU-") and any(u.startswith(entry) for u in uuids))
        if not (is_index or is_uuid):
            break
        if entry in devices:
            # CUDA shows nothing at all when a device is named twice.
            return ()
        devices.append(entry)
    return tuple(devices)


def _read_nvml() -> tuple[list[str], str]:
    import pynvml  # noqa: PLC0415 - needed only when a spec asks for GPUs

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [], f"no NVIDIA driver answers ({error})"
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        uuids = [str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    except pynvml.NVMLError as error:
        return [], f"the NVIDIA driver does not answer ({error})"
    finally:
        pynvml.nvmlShutdown()
    return uuids, f"this machine has {len(uuids)}"
