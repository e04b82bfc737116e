"""Signs of trouble of the machine: found in what ended a program, and nowhere else."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fgvalidate.signatures import NUM_LAST_LINES, Sign, find_exception, find_signs
from fgvalidate.spec import Signature, Spec
from fgvalidate.text_search import CHUNK_BYTES

ROOT = Path(__file__).parent.parent
SHIPPED: dict[str, Signature] = Spec(
    test_id="x",
    project_dir="p",
    config="c",
    signatures=yaml.safe_load((ROOT / "conf/signatures/default.yaml").read_text(encoding="utf-8")),
).signatures
MINE = {"mine": Signature(pattern="moon is full", hint="wait a week"), "off": None}
FRAMES = 'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\n    main()\n'
LAUNCHER = (
    f"{FRAMES}torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
    "============\ntrain.py FAILED\n  exitcode  : 1 (pid: 7)\n"
)
CRASH = f"{FRAMES}RuntimeError: shape '[32, 512]' is invalid\n"


def find(tmp_path: Path, text: str, signatures: Any = MINE, *, share: float | None = None) -> tuple[Sign, ...]:
    path = tmp_path / "train.stderr"
    path.write_text(text, encoding="utf-8")
    return find_signs([path, tmp_path / "gone"], signatures, foreign_share=share, taken_share=0.1)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "nccl_timeout",
            "[rank1]:[E1124 ProcessGroupNCCL.cpp:629] [Rank 1] Watchdog caught collective operation timeout: "
            "WorkNCCL(SeqNum=12, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600026 milliseconds before timing out.",
        ),
        ("nccl_connection", "ncclSystemError: System call (e.g. socket, malloc) or external library call failed"),
        ("nccl_connection", "ncclRemoteError: A call failed possibly due to a network error or a remote process"),
        (
            "nccl_connection",
            "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer",
        ),
        ("nccl_connection", "ConnectionResetError: [Errno 104] Connection reset by peer"),
        ("gpu_fault", "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered"),
        ("gpu_fault", "NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, GPU has fallen off the bus."),
        ("gpu_fault", "RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
        ("disk_full", "OSError: [Errno 28] No space left on device"),
        ("disk_full", "OSError: [Errno 122] Disk quota exceeded: '/scratch/x'"),
        (
            "port_taken",
            "[E socket.cpp:1024] [c10d] The server socket has failed to bind to [::]:29500 "
            "(errno: 98 - Address already in use).",
        ),
        ("port_taken", "[Errno 98] error while attempting to bind on address ('0.0.0.0', 80): address already in use"),
        (
            "hub_unreachable",
            "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries "
            "exceeded with url: /gpt2/resolve/main/config.json",
        ),
        ("hub_unreachable", "httpx.ConnectError: [Errno -3] Temporary failure in name resolution"),
        (
            "hub_unreachable",
            "requests.exceptions.HTTPError: 503 Server Error: Service Unavailable for url: https://huggingface.co/api/x",
        ),
        (
            "hub_unreachable",
            "httpx.HTTPStatusError: Client error '429 Too Many Requests' for url 'https://cdn-lfs.hf.co/x'",
        ),
        ("hub_unreachable", "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and"),
        (
            "hub_unreachable",
            "LocalEntryNotFoundError: An error happened while trying to locate the file on the Hub and we cannot find",
        ),
    ],
)
@pytest.mark.parametrize("way", ["raised", "said_last"])
def test_shipped_signature_is_found(tmp_path: Path, name: str, line: str, way: str) -> None:
    found = find(tmp_path, f"noise\n{FRAMES if way == 'raised' else ''}{line}\n", SHIPPED)

    assert [(sign.signature, sign.line) for sign in found] == [(name, line)]


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        "NVRM: Xid (PCI:0000:3b:00): 31, pid=1234, MMU Fault",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "requests.exceptions.HTTPError: 404 Client Error: Not Found for url: https://huggingface.co/nobody/nothing",
        "requests.exceptions.HTTPError: 503 Server Error: Service Unavailable for url: https://example.org/data",
        "OSError: nobody/nothing is not a local folder and is not a valid model identifier",
        "RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed.",
        "FileNotFoundError: [Errno 2] No such file or directory: 'data.bin'",
        "RuntimeError: NCCL error in: ProcessGroupNCCL.cpp:1, invalid usage, NCCL version 2.21.5",
    ],
)
def test_what_a_subject_does_wrong_is_no_sign(tmp_path: Path, line: str) -> None:
    assert find(tmp_path, f"{FRAMES}{line}\n", SHIPPED) == ()
    assert find(tmp_path, f"{line}\n", SHIPPED) == ()


@pytest.mark.parametrize(("share", "num"), [(None, 0), (0.0, 0), (0.1, 0), (0.11, 1)])
def test_out_of_memory_is_the_machines_when_others_had_the_memory(
    tmp_path: Path, share: float | None, num: int
) -> None:
    text = f"{FRAMES}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"

    assert len(find(tmp_path, text, SHIPPED, share=share)) == num


def test_sign_says_where_it_stands(tmp_path: Path) -> None:
    (sign,) = find(tmp_path, f"one\n{FRAMES}OSError: the moon is full\n")

    assert sign == Sign(
        signature="mine",
        hint="wait a week",
        file="train.stderr",
        line_number=5,
        line="OSError: the moon is full",
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"WARNING: the moon is full, trying again\n{CRASH}", id="a_trouble_that_was_overcome"),
        pytest.param(f"{CRASH}{FRAMES}OSError: the moon is full\n", id="another_ranks_complaint_after_the_crash"),
        pytest.param(f"[rank0]: {FRAMES}[rank0]: KeyError: 3\n[rank1]: the moon is full\n", id="another_ranks_words"),
        pytest.param("the moon is full\n" + NUM_LAST_LINES * "step\n", id="long_before_the_end"),
        pytest.param("", id="nothing"),
        pytest.param(f'{FRAMES}  print("the moon is full")\nKeyError: 3\n', id="source_line"),
        # Which of them the program handled, nobody knows.
        pytest.param(f"{FRAMES}OSError: the moon is full\n{CRASH}", id="before_another_crash"),
    ],
)
def test_passing_word_is_no_sign(tmp_path: Path, text: str) -> None:
    assert find(tmp_path, text) == ()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"{FRAMES}OSError: broken\nLast error:\nthe moon is full\n", id="on_a_later_line_of_the_message"),
        pytest.param(
            f"{FRAMES}OSError: the moon is full\n\n"
            f"During handling of the above exception, another exception occurred:\n\n{CRASH}",
            id="in_a_chain",
        ),
        pytest.param(
            f"{CRASH}\nThe above exception was the direct cause of the following exception:\n\n"
            f"{FRAMES}OSError: the moon is full\n",
            id="at_the_end_of_a_chain",
        ),
        pytest.param(f"{LAUNCHER}{FRAMES}OSError: the moon is full\n", id="after_the_launchers"),
        pytest.param(f"the moon is full\n{LAUNCHER}", id="without_an_exception_but_the_launchers"),
        pytest.param(
            "[default0]:" + FRAMES.replace("\n", "\n[default0]:") + "OSError: the moon is full\n", id="prefixed"
        ),
        pytest.param("the moon is full\n" + (NUM_LAST_LINES - 1) * "step\n", id="among_the_last_lines"),
        pytest.param("the moon is full", id="without_a_line_end"),
    ],
)
def test_word_in_what_ended_the_program_is_a_sign(tmp_path: Path, text: str) -> None:
    assert [sign.signature for sign in find(tmp_path, text)] == ["mine"]


def test_fatal_signature_counts_anywhere_before_the_exception(tmp_path: Path) -> None:
    fatal = {"mine": Signature(pattern="moon is full", is_fatal=True)}
    long = NUM_LAST_LINES * "step\n"

    assert [sign.line_number for sign in find(tmp_path, f"a\nthe moon is full\n{long}{CRASH}", fatal)] == [2]
    assert [sign.line_number for sign in find(tmp_path, f"the moon is full\n{long}", fatal)] == [1]
    assert find(tmp_path, f"{CRASH}{long}the moon is full\n", fatal) == ()


def test_broken_connection_of_a_crashed_rank_is_no_sign(tmp_path: Path) -> None:
    said = f"{FRAMES}RuntimeError: [gloo/transport/tcp/pair.cc:534] Connection closed by peer\n"

    for code, num in ((1, 1), (-6, 1), (-15, 1), (-11, 0), (-9, 0), (3, 0), (13, 0)):
        ended = LAUNCHER.replace("exitcode  : 1 ", f"exitcode  : {code} ")
        assert len(find(tmp_path, said + ended, SHIPPED)) == num, code


def test_unknown_exception_in_one_output_explains_all(tmp_path: Path) -> None:
    stderr, stdout = tmp_path / "train.stderr", tmp_path / "train.stdout"
    stdout.write_text(CRASH, encoding="utf-8")
    stderr.write_text("the moon is full\n", encoding="utf-8")

    assert find_signs([stderr, stdout], MINE, foreign_share=None, taken_share=0.1) == ()
    assert len(find_signs([stderr], MINE, foreign_share=None, taken_share=0.1)) == 1


def test_first_exception_of_a_long_output_is_found(tmp_path: Path) -> None:
    path = tmp_path / "train.stderr"
    line = "a long line about nothing, as there are many in a long run\n"
    path.write_text(150_000 * line + CRASH + 150_000 * line, encoding="utf-8")

    first = find_exception(path)
    assert first is not None

    assert (first.line_number, first.line) == (150_004, "RuntimeError: shape '[32, 512]' is invalid")


def test_exception_across_two_pieces_of_a_long_output_is_found(tmp_path: Path) -> None:
    path = tmp_path / "train.stderr"
    filler = (CHUNK_BYTES - 60) // 10 * "123456789\n"
    path.write_text(filler + CRASH, encoding="utf-8")

    first = find_exception(path)
    assert first is not None

    assert first.line == "RuntimeError: shape '[32, 512]' is invalid"
