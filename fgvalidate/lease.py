"""GPU leases: a run has its GPUs to itself, among all runs on this host. A request comes in, a `Lease` comes out.

A lease is a claim (see `fgvalidate.claim_dir`) that was given GPUs. Its descriptor is handed to the supervisors of the
run's commands, so that it ends when their process trees have ended, whoever was killed before.

Requests are served in the order of arrival, except that GPUs which earlier ones cannot use go to later ones.
"""

import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

from fgvalidate import supervisor
from fgvalidate.claim_dir import ClaimFile, StandingClaim, find_folder, lock_folder, read_claims
from fgvalidate.errors import LeaseError
from fgvalidate.gpu import Gpu, GpuPool, read_gpus
from fgvalidate.placement import (
    GIB,
    Claim,
    Request,
    can_get_its_turn,
    choose_gpus,
    explain_shortage,
    is_taken_by_others,
    reserve_gpus,
)

ABSENT_S = 60.0
"""Seconds after which a waiting run no longer keeps GPUs from later ones, when all that time it could not have used
them: its process is suspended, or others than claimants have what it still lacks."""

_DESCRIPTION_LENGTH = 60

_Identity = tuple[int, int]
"""A process: its pid, and its start in clock ticks since boot."""


class Lease:
    """GPUs that are ours; a context manager whose end gives them back.

    It lasts until its end and the end of every supervisor that holds a duplicate of its descriptor. Children that this
    process forks hold nothing.

    Attributes:
        gpus: The GPUs.
    """

    def __init__(self, gpus: tuple[Gpu, ...], claim_file: ClaimFile | None = None) -> None:
        self.gpus = gpus
        self._claim_file = claim_file

    @property
    def devices(self) -> tuple[str, ...]:
        """Their names for CUDA_VISIBLE_DEVICES."""
        return tuple(gpu.name for gpu in self.gpus)

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors to hand to supervisors as `held_fds`; () when there is nothing to hold, or after the end."""
        return () if self._claim_file is None else self._claim_file.fds

    def end(self) -> None:
        """Gives the GPUs back, as far as this process holds them."""
        if self._claim_file is not None:
            self._claim_file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()


def lease_gpus(
    pool: GpuPool,
    request: Request,
    *,
    avoid: Collection[str] = (),
    on_wait: Callable[[str], None] | None = None,
    tick_s: float = 0.5,
    report_s: float = 10.0,
) -> Lease:
    """Waits until a request can be served, and takes its GPUs. Whatever is raised meanwhile leaves no trace.

    Args:
        pool: The GPUs that it may be given.
        request: What is asked for; with 0 GPUs the lease is empty, and nothing is touched.
        avoid: Full UUIDs of GPUs that it is given only where no others are free.
        on_wait: Called at once and every `report_s` while the request waits, with one line that says for what. The
            line quotes other programs' names: show it as hostile text.
        tick_s: Seconds between two looks at what is free.
        report_s: Seconds between two calls of `on_wait`.

    Raises:
        LeaseError: The folder of leases cannot be used, or the pool can never serve the request.
    """
    if request.num_gpus == 0:
        return Lease(())
    if shortage := explain_shortage(pool, request):
        raise LeaseError(f"no lease can be had: {shortage}")
    reporter = _Reporter(on_wait, report_s)
    claim_file = ClaimFile(find_folder())
    try:
        while True:
            # Before the lock: the driver may take its time, and whoever comes on a GPU meanwhile has a claim.
            present, reason = read_gpus()
            with lock_folder(claim_file.folder, reporter.report) as folder_fd:
                queue = _Queue(present, read_claims(folder_fd))
                claim = queue.find(claim_file.name)
                if claim is None:
                    claim_file.close()  # there was one if someone has cleared the folder away
                    claim = _make_claim(pool, request, queue.next_ticket)
                    claim_file.write(folder_fd, claim)
                elif queue.can_get_its_turn(claim):
                    claim_file.touch()
                gpus = queue.serve(claim, avoid)
                if gpus is not None:
                    given = tuple(gpu.uuid for gpu in gpus)
                    claim_file.write(folder_fd, replace(claim, gpus=given, since=time.time()))
                    return Lease(tuple(gpu for gpu in pool.gpus if gpu.uuid in given), claim_file)
                text = queue.explain(claim) if present else reason
            reporter.report(f"waiting for {request.describe()}: {text}")
            time.sleep(tick_s)
    except BaseException:
        claim_file.close()
        raise


def _make_claim(pool: GpuPool, request: Request, ticket: int) -> Claim:
    own = supervisor.read_process(os.getpid())
    return Claim(
        request=request,
        pool=tuple(gpu.uuid for gpu in pool.gpus),
        ticket=ticket,
        pid=os.getpid(),
        start_ticks=own.start_ticks if own else 0,
        since=time.time(),
    )


def read_leases(pool: GpuPool) -> tuple[tuple[Gpu, ...], tuple[Claim, ...]]:
    """Looks at who has and who waits for what on this host, now.

    Returns:
        The pool's GPUs as they are now, with the memory that others have in use (one that the driver no longer shows is
        left out), and the claims that stand; one without GPUs is waiting.

    Raises:
        LeaseError: The folder of leases cannot be used.
    """
    present, _ = read_gpus()
    with lock_folder(find_folder(), _Reporter(None, math.inf).report) as folder_fd:
        queue = _Queue(present, read_claims(folder_fd))
    names = {gpu.uuid: gpu.name for gpu in pool.gpus}
    gpus = tuple(replace(queue.gpus[name], name=names[name]) for name in names if name in queue.gpus)
    return gpus, queue.claims


class _Reporter:
    """Passes on what is waited for, now and then."""

    def __init__(self, on_wait: Callable[[str], None] | None, report_s: float) -> None:
        self._on_wait = on_wait
        self._report_s = report_s
        self._due_at = time.monotonic()

    def report(self, text: str) -> None:
        if self._on_wait is not None and time.monotonic() >= self._due_at:
            self._due_at = time.monotonic() + self._report_s
            self._on_wait(text)


class _Queue:
    """All claims that stand, and the GPUs as they are: what decides who is served.

    Args:
        present: The GPUs as they are.
        standing: The claims, by the name of their file.

    Attributes:
        claims: The claims.
        gpus: By UUID; with the memory in use by processes that are no claim's.
    """

    def __init__(self, present: Iterable[Gpu], standing: Mapping[str, StandingClaim]) -> None:
        self._standing = standing
        self.claims = tuple(entry.claim for entry in standing.values())
        self._held = [claim for claim in self.claims if claim.gpus]
        self._foreign_pids: dict[str, list[int]] = {}
        self.gpus = {gpu.uuid: self._measure_foreign(gpu) for gpu in present}

    def _measure_foreign(self, gpu: Gpu) -> Gpu:
        declared: dict[_Identity, float] = {}
        for claim in self._held:
            if gpu.uuid in claim.gpus:
                num_bytes = math.inf if claim.request.memory_bytes is None else claim.request.memory_bytes
                declared[claim.holder] = declared.get(claim.holder, 0) + num_bytes
        used = dict.fromkeys(declared, 0)
        self._foreign_pids[gpu.uuid] = []
        for process in gpu.processes:
            holder = _find_holder(process.pid, declared)
            if holder is None:
                self._foreign_pids[gpu.uuid].append(process.pid)
            else:
                used[holder] += process.used_bytes or 0
        ours = sum(min(used[holder], declared[holder]) for holder in declared)
        # Not the sum over the others: a container may hide them, and a holder may use more than it has declared.
        unexplained = math.ceil(gpu.used_bytes - ours)
        if not gpu.memory_bytes:
            unexplained = len(self._foreign_pids[gpu.uuid])
        return replace(gpu, foreign_bytes=max(0, unexplained))

    @property
    def next_ticket(self) -> int:
        """The ticket of whoever comes now."""
        return 1 + max((claim.ticket for claim in self.claims), default=0)

    def find(self, name: str) -> Claim | None:
        """Returns the claim in a file; None when it does not stand."""
        return self._standing[name].claim if name in self._standing else None

    def serve(self, claim: Claim, avoid: Collection[str] = ()) -> tuple[Gpu, ...] | None:
        """Returns the GPUs that a waiting claim may have now, others than those to avoid if it can; None: it waits."""
        held = [*self._held, *(kept for _, kept in self._withhold(claim))]
        return choose_gpus(self._find_pool(claim), held, claim.request, avoid=avoid)

    def can_get_its_turn(self, claim: Claim) -> bool:
        """Says whether nobody but other claimants is in the way of a waiting claim."""
        return can_get_its_turn(self._find_pool(claim), self._held, claim.request)

    def _find_pool(self, claim: Claim) -> list[Gpu]:
        return [self.gpus[name] for name in claim.pool if name in self.gpus]

    def _withhold(self, claim: Claim) -> list[tuple[Claim, Claim]]:
        """Returns what those who came earlier withhold, each with who does."""
        present_at = time.time() - ABSENT_S
        waiting = [
            entry.claim
            for entry in self._standing.values()
            if not entry.claim.gpus and entry.claim.ticket < claim.ticket and entry.touched_at >= present_at
        ]
        withheld: list[tuple[Claim, Claim]] = []
        for earlier in sorted(waiting, key=lambda earlier: earlier.ticket):
            held = [*self._held, *(kept for _, kept in withheld)]
            kept = reserve_gpus(self._find_pool(earlier), held, earlier.request)
            withheld += [(earlier, part) for part in kept]
        return withheld

    def explain(self, claim: Claim) -> str:
        """Says, GPU by GPU, what a claim is waiting for."""
        withheld = self._withhold(claim)
        states = []
        for name in claim.pool:
            gpu = self.gpus.get(name)
            if gpu is None:
                states.append(f"{name} is no longer there")
                continue
            holders = [held for held in self._held if name in held.gpus]
            keepers = [earlier for earlier, kept in withheld if name in kept.gpus]
            states.append(f"{gpu.label} {self._explain_gpu(gpu, claim.request, holders, keepers)}")
        return "; ".join(states)

    def _explain_gpu(self, gpu: Gpu, request: Request, holders: list[Claim], keepers: list[Claim]) -> str:
        reasons = []
        if holders:
            reasons.append("is held by " + " and ".join(map(_describe_holder, holders)))
        if is_taken_by_others(gpu) or (request.memory_bytes and gpu.foreign_bytes):
            reasons.append(self._describe_foreign(gpu))
        if keepers:
            names = " and ".join(f"{_name_claim(keeper)}, waiting for {_count_s(keeper)} s" for keeper in keepers)
            reasons.append(f"is kept for {names}")
        return " and ".join(reasons) or "is free"

    def _describe_foreign(self, gpu: Gpu) -> str:
        foreign = [supervisor.read_process(pid) for pid in self._foreign_pids[gpu.uuid]]
        names = [f"pid {supervisor.describe(process)[:_DESCRIPTION_LENGTH]}" for process in foreign if process]
        users = " and ".join(names) or "processes that are hidden from us, or use more than they declared"
        if not gpu.memory_bytes:
            return f"is in use by {users}"
        return f"has {gpu.foreign_bytes / GIB:.1f} of {gpu.memory_bytes / GIB:.1f} GiB in use by {users}"


def _find_holder(pid: int, holders: Collection[_Identity]) -> _Identity | None:
    """Returns the holder that a process is or descends from."""
    while holders and pid > 0:
        process = supervisor.read_process(pid)
        if process is None:
            return None
        if process.identity in holders:
            return process.identity
        pid = process.parent
    return None


def _name_claim(claim: Claim) -> str:
    return f"{claim.request.test_id or 'a run'} (pid {claim.pid})"


def _describe_holder(claim: Claim) -> str:
    memory = "" if claim.request.gpu_memory is None else f" with {claim.request.gpu_memory:g} GiB"
    return f"{_name_claim(claim)}{memory} for {_count_s(claim)} s"


def _count_s(claim: Claim) -> int:
    return max(0, round(time.time() - claim.since))
