"""GPUs: CUDA's rule for CUDA_VISIBLE_DEVICES, what NVML says, and the real driver's answer."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fgvalidate.gpu import (
    Gpu,
    GpuProcess,
    build_gpu_variables,
    find_gpus,
    measure_used_share,
    read_gpus,
    select_visible,
)

GIB = 1 << 30


def make_gpu(index: int, uuid: str, board_uuid: str = "", legacy_name: str = "") -> Gpu:
    return Gpu(
        name=uuid if board_uuid else str(index),
        uuid=uuid,
        index=index,
        board_uuid=board_uuid or uuid,
        model="",
        memory_bytes=80 * GIB,
        used_bytes=0,
        legacy_name=legacy_name,
    )


WHOLE = (make_gpu(0, "GPU-aaaa-1"), make_gpu(1, "GPU-aabb-2"), make_gpu(2, "GPU-cccc-3"))
DIVIDED = (
    make_gpu(0, "GPU-aaaa-1"),
    make_gpu(1, "MIG-eeee-1", "GPU-bbbb-2", "MIG-GPU-bbbb-2/1/0"),
    make_gpu(1, "MIG-eeee-2", "GPU-bbbb-2", "MIG-GPU-bbbb-2/2/0"),
)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0,1,2", {"0": "GPU-aaaa-1", "1": "GPU-aabb-2", "2": "GPU-cccc-3"}),
        ("2", {"2": "GPU-cccc-3"}),
        (" 1 , 00 ", {"1": "GPU-aabb-2", "00": "GPU-aaaa-1"}),
        ("", {}),
        ("-1", {}),
        ("0,-1,1", {"0": "GPU-aaaa-1"}),
        ("0,7,1", {"0": "GPU-aaaa-1"}),
        ("9" * 5000, {}),
        ("NoDevFiles", {}),
        ("0,0", {}),
        ("0,GPU-aaaa-1", {}),
        ("GPU-aaaa,0", {}),
        ("GPU-aabb,GPU-cccc-3", {"GPU-aabb": "GPU-aabb-2", "GPU-cccc-3": "GPU-cccc-3"}),
        ("GPU-aa", {}),
        ("GPU-dddd", {}),
        ("MIG-eeee-1", {}),
    ],
)
def test_visible_devices_are_named_as_in_the_variable_and_known_by_uuid(visible: str, expected: dict[str, str]) -> None:
    selected = select_visible(visible, WHOLE)

    assert {gpu.name: gpu.uuid for gpu in selected} == expected
    assert [gpu.name for gpu in selected] == list(expected)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("MIG-eeee-2,MIG-eeee-1", ("MIG-eeee-2", "MIG-eeee-1")),
        ("MIG-GPU-bbbb-2/2/0", ("MIG-eeee-2",)),
        ("0,1", ("0", "MIG-eeee-1")),
        ("GPU-bb", ("MIG-eeee-1",)),
        ("GPU-bb,1", ()),
        ("MIG-eeee", ()),
        ("MIG-ffff-1,0", ()),
    ],
)
def test_a_divided_gpu_stands_for_its_first_part(visible: str, expected: tuple[str, ...]) -> None:
    assert tuple(gpu.name for gpu in select_visible(visible, DIVIDED)) == expected


def test_a_program_counts_gpus_as_the_driver_does() -> None:
    expected = {"CUDA_VISIBLE_DEVICES": "0,GPU-cccc", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}

    assert build_gpu_variables(("0", "GPU-cccc")) == expected


@pytest.mark.parametrize(
    ("when", "code", "reason"),
    [
        ("init_error", 12, "no NVIDIA driver answers (NVML Shared Library Not Found)"),
        ("count_error", 15, "the NVIDIA driver does not answer (GPU is lost)"),
    ],
)
def test_machine_whose_driver_fails_has_no_gpus_and_says_so(
    when: str, code: int, reason: str, simulated_gpus: Callable[[int], Any]
) -> None:
    gpus = simulated_gpus(2)
    gpus.state[when] = code
    gpus.save()

    pool = find_gpus()

    assert (pool.devices, pool.reason) == ((), reason)


def test_largest_share_of_used_memory_is_of_the_gpus_that_are_named(simulated_gpus: Callable[[int], Any]) -> None:
    gpus = simulated_gpus(4)
    gpus.change(0, used=8 * GIB)
    gpus.change(1, used=20 * GIB)
    gpus.change(2, used=80 * GIB)
    gpus.change(3, total=None)

    assert measure_used_share(gpus.uuids[:2]) == 0.25
    assert measure_used_share(gpus.uuids[3:]) is None
    assert measure_used_share([]) is None


def test_gpu_says_its_model_its_memory_and_its_processes(simulated_gpus: Callable[[int], Any]) -> None:
    gpus = simulated_gpus(2)
    processes = [[7, GIB], [8, None]]
    gpus.change(1, name="Other GPU", total=24 * GIB, reserved=GIB, used=3 * GIB, processes=processes)

    pool = find_gpus()

    assert (pool.devices, pool.reason) == (("0", "1"), "this machine has 2")
    assert pool.gpus[1] == Gpu(
        name="1",
        uuid=gpus.uuids[1],
        index=1,
        board_uuid=gpus.uuids[1],
        model="Other GPU",
        memory_bytes=23 * GIB,
        used_bytes=3 * GIB,
        processes=(GpuProcess(pid=7, used_bytes=GIB), GpuProcess(pid=8, used_bytes=None)),
    )


def test_older_driver_counts_what_is_reserved_as_used(simulated_gpus: Callable[[int], Any]) -> None:
    simulated_gpus(1).change(0, total=24 * GIB, reserved=None, used=3 * GIB)

    (gpu,) = find_gpus().gpus

    assert (gpu.memory_bytes, gpu.used_bytes) == (24 * GIB, 3 * GIB)


def test_gpu_without_memory_and_processes_of_its_own_has_zero_of_both(simulated_gpus: Callable[[int], Any]) -> None:
    simulated_gpus(1).change(0, total=None, processes=None)

    (gpu,) = find_gpus().gpus

    assert (gpu.memory_bytes, gpu.used_bytes, gpu.processes) == (0, 0, ())


def test_divided_gpu_is_its_parts(simulated_gpus: Callable[[int], Any]) -> None:
    gpus = simulated_gpus(2)
    part = {"name": "Part", "total": 10 * GIB, "reserved": 0, "used": 0, "processes": []}
    parts = [{**part, "uuid": "MIG-1", "place": [3, 0]}, None, {**part, "uuid": "MIG-2", "place": [4, 1]}]
    gpus.change(1, parts=parts)

    pool = find_gpus()

    assert pool.devices == ("0", "MIG-1", "MIG-2")
    assert [gpu.label for gpu in pool.gpus] == ["GPU 0", "GPU 1 (MIG-1)", "GPU 1 (MIG-2)"]
    assert [gpu.is_part for gpu in pool.gpus] == [False, True, True]
    assert pool.gpus[2].legacy_name == f"MIG-{gpus.uuids[1]}/4/1"
    assert pool.gpus[2].memory_bytes == 10 * GIB


def test_inherited_variable_narrows_the_pool_and_not_what_is_read(
    simulated_gpus: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = simulated_gpus(3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")

    pool = find_gpus()

    assert (pool.devices, [gpu.uuid for gpu in pool.gpus]) == (("2", "0"), [gpus.uuids[2], gpus.uuids[0]])
    assert pool.reason == "this machine has 3, and CUDA_VISIBLE_DEVICES=2,0 shows 2"
    assert [gpu.name for gpu in read_gpus()[0]] == ["0", "1", "2"]


def test_the_simulation_has_every_name_that_the_package_uses() -> None:
    import pynvml  # noqa: PLC0415 - the real one

    fake = Path(__file__).parent / "fakes/nvml/pynvml.py"
    names = [word.split("(")[0] for word in fake.read_text(encoding="utf-8").split() if word.startswith("nvmlDevice")]

    assert {name for name in names if name.isidentifier()} - set(dir(pynvml)) == set()


def test_counting_does_not_import_torch() -> None:
    code = "import sys, fgvalidate.gpu; fgvalidate.gpu.find_gpus(); print('torch' in sys.modules)"

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "False"


@pytest.mark.gpu
def test_real_gpus_are_counted_as_torch_counts_them() -> None:
    import torch  # noqa: PLC0415 - slow, and needed here alone

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")

    assert len(find_gpus().devices) == torch.cuda.device_count()
