"""Leases: nobody has what another has, every turn comes, and what is over leaves nothing behind."""

import contextlib
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fgvalidate import claim_dir
from fgvalidate.errors import LeaseError
from fgvalidate.gpu import GpuPool, build_gpu_variables, find_gpus
from fgvalidate.lease import ABSENT_S, lease_gpus, read_leases
from fgvalidate.placement import GIB, Request

ROOT = Path(__file__).parents[1]
HOLDER = Path(__file__).parent / "fakes/lease_holder.py"
NOBODY = 65534
ONE = {"num_gpus": 1}
TWO = {"num_gpus": 2}

Simulate = Callable[[int], Any]


class Holder:
    """A process that leases GPUs, see `fakes/lease_holder.py`."""

    def __init__(
        self, folder: Path, *requests: dict[str, Any], env: dict[str, str] | None = None, **options: Any
    ) -> None:
        self.folder = folder / f"holder-{uuid.uuid4().hex}"
        self.folder.mkdir()
        self._errors = self.folder / "errors"
        with (self.folder / "events").open("w") as events, self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(HOLDER), json.dumps({"requests": requests, **options})],
                cwd=self.folder,
                env={**os.environ, **(env or {})},
                stdin=subprocess.PIPE,
                stdout=events,
                stderr=errors,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    def read(self, name: str) -> list[dict[str, Any]]:
        """The events of one name, so far."""
        lines = (self.folder / "events").read_text().splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in events if event["event"] == name]

    def wait_for(self, name: str, text: str = "") -> dict[str, Any]:
        """Waits for the first event of one name, with a text in it."""
        deadline = time.monotonic() + 60
        while True:
            found = [event for event in self.read(name) if text in event.get("text", "")]
            if found:
                return found[0]
            assert self.process.poll() is None, self.errors
            assert time.monotonic() < deadline, f"waited in vain for {name} {text!r} in {self.read('waiting')[-1:]}"
            time.sleep(0.01)

    @property
    def has_leased(self) -> bool:
        return bool(self.read("leased"))

    def finish(self) -> int:
        """Lets it give back what it holds."""
        self.process.communicate(timeout=60)
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


Start = Callable[..., Holder]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts holders: `start(request, ..., option=...)`; ends those that still run."""
    holders: list[Holder] = []

    def begin(*requests: dict[str, Any], **options: Any) -> Holder:
        holders.append(Holder(tmp_path, *requests, **options))
        return holders[-1]

    yield begin
    for holder in holders:
        holder.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the claims are, once someone has leased."""
    return tmp_path / "leases"


class Waits(Exception):  # noqa: N818 - no error: it ends a wait
    """What a request waits for."""


def read_wait(request: Request, pool: GpuPool | None = None) -> str:
    """Returns what a request has to wait for, and stops waiting; an empty text: for nothing."""

    def stop(text: str) -> None:
        raise Waits(text)

    try:
        with lease_gpus(pool or find_gpus(), request, on_wait=stop):
            return ""
    except Waits as wait:
        return str(wait)


def list_claims(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("claim-*"))


@contextlib.contextmanager
def sleeper(*argv: str) -> Iterator[int]:
    """A process of ours that does nothing."""
    with subprocess.Popen(argv or ["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def test_lease_names_its_gpus_and_gives_them_back(simulated_gpus: Simulate, folder: Path) -> None:
    simulated_gpus(3)
    pool = find_gpus()

    with lease_gpus(pool, Request(num_gpus=2, test_id="a")) as lease:
        assert (lease.devices, lease.gpus) == (("0", "1"), pool.gpus[:2])
        (name,) = list_claims(folder)
        claim = json.loads((folder / name).read_text())
        assert (claim["gpus"], claim["pid"]) == ([gpu.uuid for gpu in pool.gpus[:2]], os.getpid())
        assert claim["request"] == {"num_gpus": 2, "gpu_memory": None, "specs_per_gpu": 1, "test_id": "a"}
        (fd,) = lease.fds
        assert os.path.samestat(os.fstat(fd), (folder / name).stat())
    assert list_claims(folder) == []
    assert not lease.fds
    lease.end()


def test_asking_for_no_gpus_touches_nothing(simulated_gpus: Simulate, folder: Path) -> None:
    simulated_gpus(1)

    with lease_gpus(find_gpus(), Request(num_gpus=0)) as lease:
        assert (lease.gpus, lease.devices, lease.fds) == ((), (), ())

    assert not folder.exists()


def test_what_can_never_be_had_is_refused_at_once(simulated_gpus: Simulate, folder: Path) -> None:
    simulated_gpus(1)

    with pytest.raises(LeaseError) as caught:
        lease_gpus(find_gpus(), Request(num_gpus=2))

    assert str(caught.value) == "no lease can be had: it needs 2 GPUs, 1 is available (this machine has 1)"
    assert not folder.exists()


def test_default_folder_is_the_same_for_all_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FGVALIDATE_LEASES", raising=False)
    monkeypatch.setenv("TMPDIR", "/elsewhere")

    code = "from fgvalidate.claim_dir import find_folder; print(find_folder())"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert answer.stdout == "/tmp/fgvalidate-gpus\n"


REQUESTS: dict[str, list[dict[str, Any]]] = {
    "one or two each": [ONE, TWO],
    "two share": [{"num_gpus": 1, "specs_per_gpu": 2}, {"num_gpus": 2, "specs_per_gpu": 2}],
    "by memory": [{"num_gpus": 1 + (size == 10), "gpu_memory": size} for size in (10, 25, 40, 60)],
    "all kinds": [ONE, {"num_gpus": 1, "specs_per_gpu": 3}, {"num_gpus": 2, "gpu_memory": 20}],
}


@pytest.mark.parametrize("kind", list(REQUESTS))
def test_twenty_racing_processes_never_have_too_much_of_a_gpu(
    kind: str, simulated_gpus: Simulate, start: Start, folder: Path
) -> None:
    gpus = simulated_gpus(4)
    chooser = random.Random(kind)
    rounds = [[chooser.choice(REQUESTS[kind]) for _ in range(3)] for _ in range(20)]
    holders = [start(*requests, hold_s=0.05) for requests in rounds]

    codes = [holder.finish() for holder in holders]

    assert [holder.errors for holder in holders if holder.errors] == []
    assert codes == [0] * 20
    leased = [pair for holder in holders for pair in zip(holder.read("leased"), holder.read("ending"), strict=True)]
    assert len(leased) == 60
    for gpu in gpus.uuids:
        periods = [(begin["at"], end["at"], begin["request"]) for begin, end in leased if gpu in begin["gpus"]]
        assert periods
        for moment, _, _ in periods:
            together = [request for begin, end, request in periods if begin <= moment <= end]
            sizes = [request["gpu_memory"] for request in together if "gpu_memory" in request]
            places = [request.get("specs_per_gpu", 1) for request in together if "gpu_memory" not in request]
            assert not (sizes and places)
            assert sum(sizes) <= 80
            assert len(places) <= min(places, default=0)
    assert list_claims(folder) == []


def test_two_that_share_have_one_gpu_at_the_same_time(simulated_gpus: Simulate) -> None:
    simulated_gpus(1)
    request = Request(num_gpus=1, specs_per_gpu=2)

    with lease_gpus(find_gpus(), request) as first, lease_gpus(find_gpus(), request) as second:
        assert first.devices == second.devices == ("0",)
        assert "held by a run" in read_wait(request)
    assert read_wait(request) == ""


def test_memory_is_shared_up_to_its_total(simulated_gpus: Simulate) -> None:
    simulated_gpus(1)
    request = Request(num_gpus=1, gpu_memory=40, test_id="half")

    with lease_gpus(find_gpus(), request), lease_gpus(find_gpus(), request):
        assert read_wait(Request(num_gpus=1, gpu_memory=0.1)) == (
            f"waiting for 1 GPU with 0.1 GiB: GPU 0 is held by half (pid {os.getpid()}) with 40 GiB for 0 s"
            f" and half (pid {os.getpid()}) with 40 GiB for 0 s"
        )


def test_who_waits_is_told_who_has_what(simulated_gpus: Simulate, start: Start) -> None:
    simulated_gpus(2)
    first = start({**ONE, "test_id": "tiny_llama"})
    first.wait_for("leased")

    text = read_wait(Request(num_gpus=2))

    before, _, after = text.partition(" for 0 s") if " for 0 s" in text else text.partition(" for 1 s")
    assert before == f"waiting for 2 GPUs: GPU 0 is held by tiny_llama (pid {first.pid})"
    assert after == "; GPU 1 is free"


def test_two_gpus_are_not_starved_by_requests_for_one(simulated_gpus: Simulate, start: Start) -> None:
    simulated_gpus(2)
    first, second = start(ONE), start(ONE)
    for holder in (first, second):
        holder.wait_for("leased")
    both = start({**TWO, "test_id": "both"})
    both.wait_for("waiting")
    later = [start(ONE, hold_s=0.01) for _ in range(5)]
    for holder in later:
        holder.wait_for("waiting", "is kept for both")

    assert first.finish() == 0
    freed = first.read("leased")[0]["gpus"]
    for holder in later:
        holder.wait_for("waiting", f"GPU {int(freed[0][4:8])} is kept for both (pid {both.pid}), waiting for ")
    assert not any(holder.has_leased for holder in [both, *later])
    assert second.finish() == 0
    begin = both.wait_for("leased")["at"]
    assert not any(holder.has_leased for holder in later)
    assert both.finish() == 0
    end = both.read("ending")[0]["at"]

    assert [holder.finish() for holder in later] == [0] * 5
    assert all(begin < end < holder.read("leased")[0]["at"] for holder in later)


def test_a_whole_gpu_is_not_starved_by_those_who_share(simulated_gpus: Simulate, start: Start) -> None:
    simulated_gpus(1)
    shared = {"num_gpus": 1, "gpu_memory": 10}
    first = start(shared)
    first.wait_for("leased")
    large = start({"num_gpus": 1, "gpu_memory": 75, "test_id": "large"})
    large.wait_for("waiting")

    later = start(shared)
    later.wait_for("waiting", "is kept for large")
    assert first.finish() == 0
    large.wait_for("leased")
    assert not later.has_leased
    assert large.finish() == 0
    later.wait_for("leased")


def test_gpus_that_an_earlier_one_cannot_use_go_to_later_ones(simulated_gpus: Simulate, start: Start) -> None:
    simulated_gpus(2)
    first = start(ONE)
    first.wait_for("leased")
    second = start(ONE, env={"CUDA_VISIBLE_DEVICES": "0"})
    second.wait_for("waiting")

    third = start(ONE)

    assert third.wait_for("leased")["devices"] == ["1"]
    assert not second.has_leased


def test_index_and_uuids_of_one_gpu_are_one_lock(simulated_gpus: Simulate, start: Start) -> None:
    gpus = simulated_gpus(2)
    names = ["1", gpus.uuids[1], "GPU-0001"]
    for name in names:
        first = start(ONE, env={"CUDA_VISIBLE_DEVICES": name})
        assert first.wait_for("leased")["devices"] == [name]
        others = [start(ONE, env={"CUDA_VISIBLE_DEVICES": other}) for other in names]
        for other in others:
            assert f"GPU 1 is held by a run (pid {first.pid})" in other.wait_for("waiting")["text"]
        for other in others:
            other.kill()
        assert first.finish() == 0


def test_parts_of_one_gpu_are_locks_of_their_own(simulated_gpus: Simulate) -> None:
    part = {"name": "Part", "total": 10 * GIB, "reserved": 0, "used": 0, "processes": []}
    parts = [{**part, "uuid": f"MIG-{number}", "place": [number, 0]} for number in (1, 2)]
    simulated_gpus(1).change(0, parts=parts)

    with lease_gpus(find_gpus(), Request(num_gpus=1)) as first, lease_gpus(find_gpus(), Request(num_gpus=1)) as second:
        assert (first.devices, second.devices) == (("MIG-1",), ("MIG-2",))
        assert "GPU 0 (MIG-1) is held by" in read_wait(Request(num_gpus=1))


def test_killed_holder_keeps_its_gpu_until_its_process_tree_is_gone(
    simulated_gpus: Simulate, start: Start, wait_until: Callable[..., None]
) -> None:
    simulated_gpus(1)
    mark = uuid.uuid4().hex
    first = start(ONE, mark=mark)
    first.wait_for("tree")
    wait_until(lambda: "ready" in (first.folder / "stdout").read_text())
    second = start(ONE, watch=f"{mark} stubborn")
    second.wait_for("waiting")

    first.kill()  # its tree ignores SIGTERM for the 2 s of its grace time

    assert second.wait_for("leased")["alive"] == []


def test_gpu_of_a_killed_holder_and_supervisor_is_free_once_its_memory_is(
    simulated_gpus: Simulate, start: Start, wait_until: Callable[..., None]
) -> None:
    gpus = simulated_gpus(1)
    first = start(ONE, mark="tree")
    tree = first.wait_for("tree")
    wait_until(lambda: "ready" in (first.folder / "stdout").read_text())
    gpus.change(0, used=50 * GIB, processes=[[tree["pid"], 50 * GIB]])
    try:
        second = start(ONE)
        assert "is held by" in second.wait_for("waiting")["text"]

        first.process.kill()
        os.kill(tree["supervisor"], signal.SIGKILL)

        second.wait_for("waiting", f": GPU 0 has 50.0 of 80.0 GiB in use by pid {tree['pid']} ")
        assert not second.has_leased
    finally:
        os.kill(tree["pid"], signal.SIGKILL)
    gpus.change(0, used=0, processes=[])
    second.wait_for("leased")


def test_our_end_does_not_end_what_a_supervisor_holds(simulated_gpus: Simulate, folder: Path) -> None:
    simulated_gpus(1)
    lease = lease_gpus(find_gpus(), Request(num_gpus=1))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=lease.fds) as supervisor:
        lease.end()

        assert "is held by a run" in read_wait(Request(num_gpus=1))
        assert len(list_claims(folder)) == 1
        supervisor.communicate()

    assert read_wait(Request(num_gpus=1)) == ""
    assert list_claims(folder) == []


def test_children_that_are_not_handed_a_lease_hold_none(simulated_gpus: Simulate) -> None:
    simulated_gpus(1)
    lease = lease_gpus(find_gpus(), Request(num_gpus=1))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        lease.end()

        assert read_wait(Request(num_gpus=1)) == ""
        child.communicate()


def test_fork_of_a_holder_holds_nothing_and_ends_nothing(simulated_gpus: Simulate) -> None:
    simulated_gpus(1)
    lease = lease_gpus(find_gpus(), Request(num_gpus=1))
    read_end, write_end = os.pipe()
    done_read, done_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_end)
        fds = lease.fds
        lease.end()
        os.write(done_write, b"." if fds == () else b"!")
        os.read(read_end, 1)
        os._exit(0)
    assert os.read(done_read, 1) == b"."
    held = read_wait(Request(num_gpus=1))
    lease.end()

    free = read_wait(Request(num_gpus=1))  # while the child lives
    os.close(write_end)
    os.waitpid(child, 0)
    for fd in (read_end, done_read, done_write):
        os.close(fd)

    assert ("is held by a run" in held, free) == (True, "")


def test_claims_of_the_dead_are_removed(simulated_gpus: Simulate, start: Start, folder: Path) -> None:
    simulated_gpus(2)
    first = start(TWO)
    first.wait_for("leased")
    second = start(ONE)
    second.wait_for("waiting")
    second.kill()
    first.kill()
    assert len(list_claims(folder)) == 2

    with lease_gpus(find_gpus(), Request(num_gpus=2)):
        (name,) = list_claims(folder)
        assert name.startswith(f"claim-{os.getpid()}-")


def test_a_waiting_one_that_is_killed_keeps_nobody_waiting(simulated_gpus: Simulate, start: Start) -> None:
    simulated_gpus(2)
    first = start(ONE)
    first.wait_for("leased")
    both = start(TWO)
    both.wait_for("waiting")
    last = start(ONE)
    last.wait_for("waiting", "is kept for")

    both.kill()

    last.wait_for("leased")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_suspended_or_dead_waiting_ones_do_not_keep_gpus_for_ever(
    number: signal.Signals, simulated_gpus: Simulate, start: Start, folder: Path
) -> None:
    simulated_gpus(2)
    first = start(ONE)
    first.wait_for("leased")
    both = start(TWO)
    both.wait_for("waiting")
    both.process.send_signal(signal.SIGSTOP)
    last = start(ONE)
    last.wait_for("waiting", f"is kept for a run (pid {both.pid})")
    (name,) = [path for path in folder.iterdir() if path.name.startswith(f"claim-{both.pid}-")]

    long_ago = time.time() - ABSENT_S - 1
    os.utime(name, (long_ago, long_ago))

    last.wait_for("leased")
    both.process.send_signal(number)
    both.process.send_signal(signal.SIGCONT)
    both.finish()
    assert not both.has_leased


def test_what_others_than_claimants_block_is_not_kept_for_ever(
    simulated_gpus: Simulate, start: Start, folder: Path, wait_until: Callable[..., None]
) -> None:
    gpus = simulated_gpus(2)
    gpus.change(0, used=40 * GIB, processes=[[os.getpid(), 40 * GIB]])
    both = start(TWO)
    both.wait_for("waiting")
    last = start(ONE)
    last.wait_for("waiting", f"GPU 1 is kept for a run (pid {both.pid})")
    (claim,) = [path for path in folder.iterdir() if path.name.startswith(f"claim-{both.pid}-")]

    long_ago = time.time() - ABSENT_S - 1
    os.utime(claim, (long_ago, long_ago))
    num_reports = len(both.read("waiting"))

    last.wait_for("leased")
    wait_until(lambda: len(both.read("waiting")) > num_reports + 1)
    assert claim.stat().st_mtime == pytest.approx(long_ago)
    gpus.change(0, used=0, processes=[])
    wait_until(lambda: claim.stat().st_mtime > long_ago + 1)
    assert last.finish() == 0
    both.wait_for("leased")


def test_interrupt_while_waiting_leaves_no_trace(simulated_gpus: Simulate, start: Start, folder: Path) -> None:
    simulated_gpus(1)
    with lease_gpus(find_gpus(), Request(num_gpus=1)):
        waiting = start(ONE)
        waiting.wait_for("waiting")
        assert len(list_claims(folder)) == 2

        waiting.process.send_signal(signal.SIGINT)
        waiting.process.wait(60)

        assert waiting.errors.endswith("KeyboardInterrupt\n")
        (name,) = list_claims(folder)
        assert name.startswith(f"claim-{os.getpid()}-")


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(143), ValueError("on_wait is wrong")])
def test_whatever_is_raised_while_waiting_leaves_no_trace(
    raised: BaseException, simulated_gpus: Simulate, folder: Path
) -> None:
    simulated_gpus(1)
    before = len(list(Path("/proc/self/fd").iterdir()))

    def fail(_: str) -> None:
        raise raised

    with lease_gpus(find_gpus(), Request(num_gpus=1)):
        with pytest.raises(type(raised)):
            lease_gpus(find_gpus(), Request(num_gpus=1), on_wait=fail)
        assert len(list_claims(folder)) == 1
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_memory_of_others_counts_until_it_is_given_back(simulated_gpus: Simulate, start: Start) -> None:
    gpus = simulated_gpus(1)
    with sleeper() as pid:
        gpus.change(0, used=61 * GIB, processes=[[pid, 61 * GIB]])
        waiting = start(ONE)
        text = waiting.wait_for("waiting")["text"]
        assert text == f"waiting for 1 GPU: GPU 0 has 61.0 of 80.0 GiB in use by pid {pid} sleep 60"

        gpus.change(0, used=8 * GIB)  # a tenth may be in use

        waiting.wait_for("leased")


def test_memory_of_others_leaves_room_for_declared_memory(simulated_gpus: Simulate) -> None:
    simulated_gpus(1).change(0, used=60 * GIB)

    assert read_wait(Request(num_gpus=1, gpu_memory=20)) == ""
    assert read_wait(Request(num_gpus=1, gpu_memory=21)) == (
        "waiting for 1 GPU with 21 GiB: GPU 0 has 60.0 of 80.0 GiB in use by processes that are hidden from us,"
        " or use more than they declared"
    )


def test_memory_of_a_holders_processes_is_not_that_of_others(simulated_gpus: Simulate, start: Start) -> None:
    gpus = simulated_gpus(1)
    first = start({"num_gpus": 1, "specs_per_gpu": 2}, mark="tree")
    tree = first.wait_for("tree")

    gpus.change(0, used=60 * GIB, processes=[[first.pid, 20 * GIB], [tree["pid"], 40 * GIB]])

    request = Request(num_gpus=1, specs_per_gpu=2)
    assert read_wait(request) == ""
    assert first.finish() == 0
    assert "has 60.0 of 80.0 GiB in use by" in read_wait(request)


def test_memory_of_a_holder_of_another_gpu_is_that_of_others(simulated_gpus: Simulate, start: Start) -> None:
    gpus = simulated_gpus(2)
    first = start(ONE)
    first.wait_for("leased")

    gpus.change(1, used=20 * GIB, processes=[[first.pid, 20 * GIB]])

    assert f"GPU 1 has 20.0 of 80.0 GiB in use by pid {first.pid} " in read_wait(Request(num_gpus=1))


@pytest.mark.parametrize(
    ("used", "processes", "room"),
    [
        pytest.param(30, [30], 40, id="what is used of what was declared is not counted twice"),
        pytest.param(50, [50], 30, id="what is used beyond it is taken"),
        pytest.param(50, [30], 20, id="so is what another uses"),
        pytest.param(30, None, 10, id="and what a hidden process uses, whoever it is"),
        pytest.param(30, ["unknown"], 10, id="and what the driver cannot assign"),
    ],
)
def test_holder_has_what_it_declared(
    used: int, processes: list[Any] | None, room: int, simulated_gpus: Simulate, start: Start
) -> None:
    gpus = simulated_gpus(1)
    first = start({"num_gpus": 1, "gpu_memory": 40})
    first.wait_for("leased")

    sizes = {"unknown": None}
    shown = processes and [[first.pid, sizes.get(size, size) and size * GIB] for size in processes]
    gpus.change(0, used=used * GIB, processes=shown)

    assert read_wait(Request(num_gpus=1, gpu_memory=room)) == ""
    assert read_wait(Request(num_gpus=1, gpu_memory=room + 0.01)) != ""


def test_gpu_that_does_not_say_its_memory_is_taken_while_others_are_on_it(simulated_gpus: Simulate) -> None:
    gpus = simulated_gpus(1)
    with sleeper() as pid:
        gpus.change(0, total=None, processes=[[pid, None]])
        assert read_wait(Request(num_gpus=1)) == f"waiting for 1 GPU: GPU 0 is in use by pid {pid} sleep 60"

        gpus.change(0, processes=[])

        assert read_wait(Request(num_gpus=1)) == ""


def test_driver_that_fails_meanwhile_is_waited_for(simulated_gpus: Simulate, start: Start) -> None:
    gpus = simulated_gpus(1)
    with lease_gpus(find_gpus(), Request(num_gpus=1)):
        waiting = start(ONE)
        waiting.wait_for("waiting", "is held by")
        gpus.state["count_error"] = 15
        gpus.save()
        waiting.wait_for("waiting", "waiting for 1 GPU: the NVIDIA driver does not answer (GPU is lost)")
    assert not waiting.has_leased
    del gpus.state["count_error"]
    gpus.save()
    waiting.wait_for("leased")


def test_gpu_that_is_no_longer_there_is_not_given(simulated_gpus: Simulate) -> None:
    gpus = simulated_gpus(2)
    pool = find_gpus()
    del gpus.state["gpus"][1]
    gpus.save()

    text = read_wait(Request(num_gpus=2), pool)

    assert text == f"waiting for 2 GPUs: GPU 0 is free; {gpus.uuids[1]} is no longer there"


def test_leases_can_be_looked_at(simulated_gpus: Simulate, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = simulated_gpus(2)
    gpus.change(1, used=20 * GIB)
    first = start({**ONE, "test_id": "first"})
    first.wait_for("leased")
    second = start({**ONE, "test_id": "second"})
    second.wait_for("waiting")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-0001")

    seen, claims = read_leases(find_gpus())

    assert [(gpu.name, gpu.foreign_bytes) for gpu in seen] == [("GPU-0001", 20 * GIB)]
    found = {claim.request.test_id: (claim.pid, claim.gpus) for claim in claims}
    assert found == {"first": (first.pid, (gpus.uuids[0],)), "second": (second.pid, ())}


SOUND: dict[str, Any] = {
    "schema": 1,
    "request": {"num_gpus": 1, "gpu_memory": None, "specs_per_gpu": 1, "test_id": "x"},
    "gpus": ["GPU-0000-simulated"],
    "pool": ["GPU-0000-simulated"],
    "ticket": 1,
    "pid": 1,
    "start_ticks": 1,
    "since": 0.0,
}


def spoil(**changes: Any) -> bytes:
    return json.dumps({**SOUND, **changes}).encode()


def spoil_request(**changes: Any) -> bytes:
    return spoil(request={**SOUND["request"], **changes})


SPOILT = {
    "nothing": b"",
    "half": spoil()[:40],
    "no text": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "another schema": spoil(schema=2),
    "a key too many": spoil(more=1),
    "a key too few": json.dumps({"schema": 1}).encode(),
    "no list": spoil(gpus=3),
    "no texts": spoil(gpus=[[]]),
    "a ticket that is a text": spoil(ticket="1"),
    "a number of GPUs that is none": spoil_request(num_gpus=True),
    "negative": spoil_request(num_gpus=-1),
    "no places": spoil_request(specs_per_gpu=0),
    "no memory": spoil_request(gpu_memory=0),
    "infinite memory": spoil_request(gpu_memory=float("inf")),
    "memory that is a text": spoil_request(gpu_memory="9"),
    "since never": spoil(since=float("nan")),
}


@pytest.fixture
def planted(simulated_gpus: Simulate, folder: Path) -> Path:
    """The name of a claim that nobody of us has made."""
    simulated_gpus(1)
    folder.mkdir()
    return folder / "claim-1-0123456789abcdef.json"


def test_a_sound_claim_of_another_program_counts(planted: Path) -> None:
    planted.write_bytes(spoil())
    with planted.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        assert "is held by x (pid 1) for" in read_wait(Request(num_gpus=1))


def test_process_that_got_a_holders_pid_later_is_not_the_holder(planted: Path, simulated_gpus: Simulate) -> None:
    gpus = simulated_gpus(1)
    gpus.change(0, used=60 * GIB, processes=[[os.getpid(), 60 * GIB]])
    planted.write_bytes(spoil_request(specs_per_gpu=2).replace(b'"pid": 1', b'"pid": %d' % os.getpid()))
    with planted.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        text = read_wait(Request(num_gpus=1, specs_per_gpu=2))

    assert f"and has 60.0 of 80.0 GiB in use by pid {os.getpid()} " in text


@pytest.mark.parametrize("content", SPOILT.values(), ids=SPOILT)
def test_spoilt_claim_that_is_locked_is_passed_over(content: bytes, planted: Path) -> None:
    planted.write_bytes(content)
    with planted.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        assert read_wait(Request(num_gpus=1)) == ""
    assert planted.read_bytes() == content


@pytest.mark.parametrize("content", [b"", spoil()], ids=["spoilt", "sound"])
def test_claim_that_is_not_locked_is_removed(content: bytes, planted: Path) -> None:
    planted.write_bytes(content)

    assert read_wait(Request(num_gpus=1)) == ""

    assert not planted.exists()


@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(os.mkfifo, id="a pipe"),
        pytest.param(os.mkdir, id="a folder"),
        pytest.param(lambda path: path.symlink_to("/etc/passwd"), id="a link"),
        pytest.param(lambda path: path.symlink_to("nowhere"), id="a dead link"),
    ],
)
def test_what_is_no_file_is_passed_over(plant: Callable[[Path], object], planted: Path) -> None:
    plant(planted)

    assert read_wait(Request(num_gpus=1)) == ""

    assert os.path.lexists(planted)


def test_files_of_other_names_are_left_alone(planted: Path, folder: Path) -> None:
    other = planted.with_name("notes.txt")
    other.write_text("mine")

    assert read_wait(Request(num_gpus=1)) == ""

    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_folder_that_another_process_keeps_locked_is_waited_for(planted: Path, start: Start) -> None:
    folder_fd = os.open(planted.parent, os.O_RDONLY)
    fcntl.flock(folder_fd, fcntl.LOCK_EX)
    try:
        waiting = start(ONE)
        text = waiting.wait_for("waiting")["text"]
        assert text == f"waiting for the GPU leases: another process keeps {planted.parent} locked"
    finally:
        os.close(folder_fd)
    waiting.wait_for("leased")


def test_folder_that_is_replaced_while_it_is_locked_is_not_used(
    simulated_gpus: Simulate, start: Start, folder: Path
) -> None:
    simulated_gpus(1)
    claim_dir._make_folder(folder)
    folder_fd = os.open(folder, os.O_RDONLY)
    fcntl.flock(folder_fd, fcntl.LOCK_EX)
    waiting = start(ONE)
    waiting.wait_for("waiting", "keeps")

    folder.rename(folder.with_name("gone"))
    claim_dir._make_folder(folder)
    os.close(folder_fd)

    waiting.wait_for("leased")
    assert len(list_claims(folder)) == 1


def test_folder_that_is_cleared_away_is_made_anew(simulated_gpus: Simulate, start: Start, folder: Path) -> None:
    simulated_gpus(1)
    first = start(ONE)
    first.wait_for("leased")
    waiting = start(ONE)
    waiting.wait_for("waiting")

    folder.rename(folder.with_name("gone"))

    waiting.wait_for("leased")
    (name,) = list_claims(folder)
    assert name.startswith(f"claim-{waiting.pid}-")
    assert waiting.finish() == 0
    assert list_claims(folder) == []


def test_folder_that_another_process_has_just_made_is_not_replaced(simulated_gpus: Simulate, folder: Path) -> None:
    simulated_gpus(1)
    claim_dir._make_folder(folder)
    before, beside = folder.stat(), set(folder.parent.iterdir())

    claim_dir._make_folder(folder)

    assert os.path.samestat(folder.stat(), before)
    assert (before.st_mode & 0o7777, set(folder.parent.iterdir())) == (0o1777, beside)
    assert read_wait(Request(num_gpus=1)) == ""


@pytest.mark.parametrize("what", ["a file", "a dead link", "nowhere"])
def test_folder_that_cannot_be_used_is_said_in_one_line(
    what: str, planted: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted.parent.rmdir()
    reason = "Not a directory"
    if what == "a file":
        folder.write_text("")
    elif what == "a dead link":
        folder.symlink_to("/dev/null/nowhere")
        folder = Path("/dev/null/nowhere")
    else:
        folder /= "below"
        monkeypatch.setenv("FGVALIDATE_LEASES", str(folder))
        reason = "No such file or directory"

    with pytest.raises(LeaseError) as caught:
        read_wait(Request(num_gpus=1))

    assert str(caught.value) == (
        f"{folder}: the folder of GPU leases cannot be used ({reason});"
        " set FGVALIDATE_LEASES to one that all users of these GPUs can write"
    )


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


@needs_root
def test_folder_that_cannot_be_written_is_said_in_one_line(planted: Path, start: Start, tmp_path: Path) -> None:
    open_ways(tmp_path)
    planted.parent.chmod(0o755)

    refused = start(ONE, user=NOBODY)

    assert refused.process.wait(60) == 1
    assert refused.errors.splitlines()[-1] == (
        f"fgvalidate.errors.LeaseError: {planted.parent}: the folder of GPU leases cannot be used (Permission denied);"
        " set FGVALIDATE_LEASES to one that all users of these GPUs can write"
    )


def open_ways(path: Path) -> None:
    """Lets other users into pytest's folders."""
    for folder in (path, *path.parents):
        if folder.owner() == "root" and folder.stat().st_mode & 0o077 == 0:
            folder.chmod(0o755)


@needs_root
def test_two_users_share_the_gpus_and_not_the_files(
    simulated_gpus: Simulate, start: Start, folder: Path, tmp_path: Path
) -> None:
    simulated_gpus(2)
    open_ways(tmp_path)
    mask = os.umask(0o077)
    try:
        with lease_gpus(find_gpus(), Request(num_gpus=1)) as lease:
            other = start(ONE, user=NOBODY)
            assert other.wait_for("leased")["devices"] == ["1"]
            assert "GPU 1 is held by a run" in read_wait(Request(num_gpus=1))
            another = start(ONE, user=NOBODY - 1)
            another.wait_for("waiting", f"GPU 0 is held by a run (pid {os.getpid()})")
            lease.end()
            assert another.wait_for("leased")["devices"] == ["0"]
            other.kill()
            left = {name.split("-")[1] for name in list_claims(folder)}
            assert left == {str(other.pid), str(another.pid)}
            third = start(ONE, user=NOBODY - 1)  # may not remove the file of the dead, nor be kept by it
            assert third.wait_for("leased")["devices"] == ["1"]
            assert {name.split("-")[1] for name in list_claims(folder)} == left | {str(third.pid)}
    finally:
        os.umask(mask)
    assert folder.stat().st_mode & 0o7777 == 0o1777


@pytest.mark.gpu
def test_real_gpu_is_leased_seen_busy_and_given_back(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch  # noqa: PLC0415 - slow, and needed here alone

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    monkeypatch.setenv("FGVALIDATE_LEASES", str(tmp_path / "leases"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pool = GpuPool(find_gpus().gpus[:1], "the first")
    (gpu,) = pool.gpus
    env = build_gpu_variables([gpu.name])
    assert gpu.model in {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
    occupy = f"import sys, torch; x = torch.empty({gpu.memory_bytes // 4}, dtype=torch.uint8, device='cuda')"
    argv = [sys.executable, "-c", f"{occupy}; print('ready', flush=True); sys.stdin.read()"]

    with lease_gpus(pool, Request(num_gpus=1, test_id="mine")) as lease:
        assert lease.gpus[0].uuid == gpu.uuid
        second = start(ONE, env=env)
        second.wait_for("waiting", f"{gpu.label} is held by mine (pid {os.getpid()})")
        user = subprocess.Popen(argv, env={**os.environ, **env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert user.stdout is not None
        assert user.stdout.readline() == b"ready\n"
    with user:
        # Given back, yet a quarter of its memory is in use: by others, as far as leases know.
        second.wait_for("waiting", f": {gpu.label} has ")
        assert not second.has_leased
        user.communicate()
    assert second.wait_for("leased")["devices"] == [gpu.name]
    assert second.finish() == 0

    assert list_claims(tmp_path / "leases") == []
