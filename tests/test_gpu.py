"""GPUs: CUDA's rule for CUDA_VISIBLE_DEVICES, and the real driver's answer."""

import subprocess
import sys

import pynvml
import pytest

from fgvalidate.gpu import find_gpus, select_visible

UUIDS = ["GPU-aaaa-1", "GPU-bbbb-2", "GPU-cccc-3"]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0,1,2", ("0", "1", "2")),
        ("2", ("2",)),
        (" 1 , 0 ", ("1", "0")),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", ("0",)),
        ("0,7,1", ("0",)),
        ("NoDevFiles", ()),
        ("0,0", ()),
        ("GPU-bbbb", ("GPU-bbbb",)),
        ("GPU-dddd", ()),
        ("MIG-1234", ("MIG-1234",)),
    ],
)
def test_visible_devices(visible: str, expected: tuple[str, ...]) -> None:
    assert select_visible(visible, UUIDS) == expected


def test_machine_without_a_driver_has_no_gpus_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)

    pool = find_gpus()

    assert (pool.devices, pool.reason.startswith("no NVIDIA driver answers")) == ((), True)


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
