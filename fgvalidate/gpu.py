"""GPUs: which there are, and what is on them. NVML and CUDA_VISIBLE_DEVICES come in; torch is not imported."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
DEVICE_ORDER = "CUDA_DEVICE_ORDER"


@dataclass(frozen=True, kw_only=True)
class GpuProcess:
    """A process that uses a GPU."""

    pid: int
    used_bytes: int | None
    """GPU memory that it uses; None: the driver does not say."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A device that CUDA can use: a GPU, or a part of one that MIG makes a device of its own."""

    name: str
    """As CUDA_VISIBLE_DEVICES names it: an index or a UUID, which may be shortened."""
    uuid: str
    """Its full UUID, however it is named: `GPU-...` or `MIG-...`."""
    index: int
    """The driver's number, as nvidia-smi shows it, of the GPU that it is or is a part of."""
    board_uuid: str
    """The full UUID of the GPU that it is or is a part of."""
    model: str
    """The name that the driver gives it."""
    memory_bytes: int
    """Memory that programs can have; 0: the driver does not say."""
    used_bytes: int
    """Memory that programs have; 0 also where the driver does not say."""
    processes: tuple[GpuProcess, ...] = ()
    """Those that the driver shows: in a container perhaps none."""
    foreign_bytes: int = 0
    """Memory in use by others than the holders of leases; known to `lease.read_leases` alone."""
    legacy_name: str = ""
    """How drivers before R470 name a MIG device."""

    @property
    def is_part(self) -> bool:
        """Whether it is a MIG device; a program can use one such device only."""
        return self.uuid != self.board_uuid

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"GPU {self.index} ({self.uuid[:12]})" if self.is_part else f"GPU {self.index}"


@dataclass(frozen=True)
class GpuPool:
    """The GPUs that a run may be given."""

    gpus: tuple[Gpu, ...]
    """In the order of CUDA_VISIBLE_DEVICES, else of the driver."""
    reason: str
    """Where the number comes from, for reports."""

    @property
    def devices(self) -> tuple[str, ...]:
        """Their names for CUDA_VISIBLE_DEVICES."""
        return tuple(gpu.name for gpu in self.gpus)


def find_gpus() -> GpuPool:
    """Finds this machine's GPUs, narrowed by an inherited CUDA_VISIBLE_DEVICES."""
    present, reason = read_gpus()
    visible = os.environ.get(VISIBLE_DEVICES)
    if visible is None or not present:
        return GpuPool(present, reason)
    gpus = select_visible(visible, present)
    return GpuPool(gpus, f"{reason}, and {VISIBLE_DEVICES}={visible} shows {len(gpus)}")


def select_visible(visible: str, present: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Applies CUDA's rule for CUDA_VISIBLE_DEVICES: the first entry that names no GPU hides it and all after it.

    Args:
        visible: The variable's value: indices, or UUIDs (`GPU-...`, which may be shortened; `MIG-...`). The index or
            UUID of a GPU that is divided into MIG devices means the first of them.
        present: The devices there are.

    Returns:
        Those that are visible, each under the name it has in the variable; MIG devices under their UUID.
    """
    selected: list[Gpu] = []
    for entry in (part.strip() for part in visible.split(",")):
        gpu = _find_entry(entry, present)
        if gpu is None:
            break
        if any(gpu.uuid == other.uuid for other in selected):
            # CUDA shows nothing at all when a device is named twice.
            return ()
        selected.append(gpu if gpu.is_part else replace(gpu, name=entry))
    return tuple(selected)


def _find_entry(entry: str, present: Sequence[Gpu]) -> Gpu | None:
    if entry.isascii() and entry.isdecimal():
        found = [gpu for gpu in present if str(gpu.index) == (entry.lstrip("0") or "0")]
    elif entry.startswith("MIG-"):
        found = [gpu for gpu in present if entry in (gpu.uuid, gpu.legacy_name)]
    elif entry.startswith("GPU-"):
        found = [gpu for gpu in present if gpu.board_uuid.startswith(entry)]
        if len({gpu.board_uuid for gpu in found}) > 1:
            return None  # shortened too much
    else:
        return None
    return found[0] if found else None


def build_gpu_variables(devices: Sequence[str]) -> dict[str, str]:
    """Returns the environment variables that show a program some GPUs and no others.

    Args:
        devices: Their names; empty: no GPU is shown.
    """
    # Left to itself CUDA counts the fastest GPU first; leases, like nvidia-smi, count as the driver does.
    return {VISIBLE_DEVICES: ",".join(devices), DEVICE_ORDER: "PCI_BUS_ID"}


def read_gpus() -> tuple[tuple[Gpu, ...], str]:
    """Reads what the driver says of every device, whatever CUDA_VISIBLE_DEVICES shows.

    Returns:
        The devices, and how many they are in words; none, and the reason, when the driver does not answer.
    """
    import pynvml  # noqa: PLC0415 - needed only when a spec asks for GPUs

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return (), f"no NVIDIA driver answers ({error})"
    try:
        gpus = tuple(gpu for index in range(pynvml.nvmlDeviceGetCount()) for gpu in _read_board(pynvml, index))
    except pynvml.NVMLError as error:
        return (), f"the NVIDIA driver does not answer ({error})"
    finally:
        pynvml.nvmlShutdown()
    return gpus, f"this machine has {len(gpus)}"


def measure_used_share(uuids: Sequence[str]) -> float | None:
    """Measures the largest share, from 0 to 1, of the memory of a GPU among some that is in use now.

    Args:
        uuids: Full UUIDs of the devices.

    Returns:
        None when there is none among them of which the driver says it.
    """
    present, _ = read_gpus() if uuids else ((), "")
    shares = [gpu.used_bytes / gpu.memory_bytes for gpu in present if gpu.uuid in uuids and gpu.memory_bytes]
    return max(shares, default=None)


def _read_board(nvml: Any, index: int) -> list[Gpu]:
    """Reads one GPU: itself, or the MIG devices that it is divided into, which then stand for it."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    board_uuid = str(nvml.nvmlDeviceGetUUID(handle))
    if not _is_divided(nvml, handle):
        return [_read_device(nvml, handle, index, board_uuid, name=str(index))]
    parts = []
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except nvml.NVMLError:
            continue  # there may be fewer than there is room for
        place = f"{nvml.nvmlDeviceGetGpuInstanceId(part)}/{nvml.nvmlDeviceGetComputeInstanceId(part)}"
        device = _read_device(nvml, part, index, board_uuid, name=str(nvml.nvmlDeviceGetUUID(part)))
        parts.append(replace(device, legacy_name=f"MIG-{board_uuid}/{place}"))
    return parts


def _is_divided(nvml: Any, handle: Any) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:
        return False  # most GPUs cannot be
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _read_device(nvml: Any, handle: Any, index: int, board_uuid: str, *, name: str) -> Gpu:
    memory_bytes, used_bytes = _read_memory(nvml, handle)
    return Gpu(
        name=name,
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
        index=index,
        board_uuid=board_uuid,
        model=str(nvml.nvmlDeviceGetName(handle)),
        memory_bytes=memory_bytes,
        used_bytes=used_bytes,
        processes=_read_processes(nvml, handle),
    )


def _read_memory(nvml: Any, handle: Any) -> tuple[int, int]:
    # The second version keeps apart what the driver itself needs, which no program can have.
    for version in (nvml.nvmlMemory_v2, None):
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle, version)
        except nvml.NVMLError:
            continue  # an older driver, or one that shares the host's memory
        return memory.used + memory.free, memory.used
    return 0, 0


def _read_processes(nvml: Any, handle: Any) -> tuple[GpuProcess, ...]:
    used: dict[int, int | None] = {}
    for read in (nvml.nvmlDeviceGetGraphicsRunningProcesses, nvml.nvmlDeviceGetComputeRunningProcesses):
        try:
            used |= {process.pid: process.usedGpuMemory for process in read(handle)}
        except nvml.NVMLError:
            continue  # not to be had here; the used memory counts all the same
    return tuple(GpuProcess(pid=pid, used_bytes=num_bytes) for pid, num_bytes in sorted(used.items()))
