"""Which GPUs a run gets. What there is, who has it and what is asked for come in; nothing is looked up here.

A request without `gpu_memory` takes one of `specs_per_gpu` equal places of each of its GPUs; one with it takes that
much memory of each. The two kinds never share a GPU: a run that says nothing of its memory may take all of it.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fgvalidate.gpu import Gpu, GpuPool

GIB = 1 << 30

FOREIGN_SHARE = 0.1
"""Share of a GPU's memory that others may have in use before a run that says nothing of its own stays away."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a run asks for."""

    num_gpus: int
    """0 or more."""
    gpu_memory: float | None = None
    """GiB on each GPU, more than 0; None: a place of each GPU, whatever its memory."""
    specs_per_gpu: int = 1
    """How many runs may share a GPU at most, where `gpu_memory` is None; 1: none but this one."""
    test_id: str = ""
    """Whose it is, for messages."""

    @property
    def memory_bytes(self) -> int | None:
        """Memory on each GPU; None: not declared."""
        return None if self.gpu_memory is None else math.ceil(self.gpu_memory * GIB)

    def describe(self) -> str:
        """Returns the number of GPUs in words: "2 GPUs with 40 GiB each"."""
        memory = "" if self.gpu_memory is None else f" with {self.gpu_memory:g} GiB{' each' * (self.num_gpus > 1)}"
        return f"{self.num_gpus} GPU{'s' * (self.num_gpus != 1)}{memory}"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A request together with what it was given."""

    request: Request
    gpus: tuple[str, ...] = ()
    """Full UUIDs; (): it has nothing, and waits."""
    pool: tuple[str, ...] = ()
    """Full UUIDs of the GPUs that it may be given."""
    ticket: int = 0
    """Its place in the order of arrival."""
    pid: int = 0
    """The process that holds it, or waits."""
    start_ticks: int = 0
    """When that process started, in clock ticks since boot: pids are used again."""
    since: float = 0.0
    """Since when it has what it has, or waits; seconds since the epoch."""

    @property
    def holder(self) -> tuple[int, int]:
        """The pid and the start time: no other process ever has both."""
        return self.pid, self.start_ticks


def choose_gpus(
    gpus: Sequence[Gpu], claims: Iterable[Claim], request: Request, *, avoid: Collection[str] = ()
) -> tuple[Gpu, ...] | None:
    """Chooses GPUs for a request: by memory the fullest that have room, else those with the fewest runs on them.

    Args:
        gpus: Those that it may be given.
        claims: Who has what, on these and on other GPUs.
        request: What is asked for.
        avoid: Full UUIDs of GPUs that are taken only where others do not do.

    Returns:
        As many GPUs as are asked for, in the order of `gpus`; None: there are not as many with room now.
    """
    fitting = _find_fitting(gpus, _group_claims(claims), request)
    fitting = sorted(fitting, key=lambda gpu: gpu.uuid in avoid)[: request.num_gpus]
    if len(fitting) < request.num_gpus:
        return None
    return tuple(gpu for gpu in gpus if gpu in fitting)


def reserve_gpus(gpus: Sequence[Gpu], claims: Iterable[Claim], request: Request) -> tuple[Claim, ...]:
    """Returns what a request that cannot be served yet withholds from later ones, so that its turn comes.

    It takes what has room for it now; for what is missing, nobody else may join the GPUs that can serve it once they
    are empty, beginning with those that fewest runs are on.

    Args:
        gpus: Those that the earlier request may be given.
        claims: Who has what, and what even earlier requests withhold.
        request: The earlier request.
    """
    held = _group_claims(claims)
    fitting = _find_fitting(gpus, held, request)[: request.num_gpus]
    missing = request.num_gpus - len(fitting)
    rest = [gpu for gpu in gpus if gpu not in fitting and _may_have_room(gpu, held, request)]
    emptying = sorted(rest, key=lambda gpu: len(held.get(gpu.uuid, ())))[:missing]
    whole = Request(num_gpus=len(emptying), test_id=request.test_id)
    return (
        Claim(request=request, gpus=tuple(gpu.uuid for gpu in fitting)),
        Claim(request=whole, gpus=tuple(gpu.uuid for gpu in emptying)),
    )


def can_get_its_turn(gpus: Sequence[Gpu], claims: Iterable[Claim], request: Request) -> bool:
    """Says whether a request could be served if all claims ended: whether others than claimants are not in its way.

    What is in use on a GPU that someone has a claim on counts as his here: it may be, where processes are hidden.
    """
    held = _group_claims(claims)
    return sum(_may_have_room(gpu, held, request) for gpu in gpus) >= request.num_gpus


def explain_shortage(pool: GpuPool, request: Request) -> str:
    """Says why these GPUs can never serve a request; an empty string when they can, though perhaps later."""
    if request.num_gpus == 0:
        return ""
    found = len(pool.gpus)
    needs = f"it needs {request.describe()}"
    if found < request.num_gpus:
        return f"{needs}, {found or 'none'} {'is' if found < 2 else 'are'} available ({pool.reason})"
    parts = "; a run can use one MIG device only" if any(gpu.is_part for gpu in pool.gpus) else ""
    able = [gpu for gpu in pool.gpus if _can_serve(gpu, request)]
    if len(able) >= request.num_gpus:
        return ""
    if request.memory_bytes is None:
        return f"{needs}, {len(able)} of {found} can serve it ({pool.reason}{parts})"
    largest = max(gpu.memory_bytes for gpu in pool.gpus) / GIB
    size = f"the largest has {largest:.1f} GiB" if largest else "the driver does not say how much memory they have"
    return f"{needs}, {len(able)} of {found} can serve it ({pool.reason}; {size}{parts})"


def _group_claims(claims: Iterable[Claim]) -> dict[str, list[Request]]:
    held: dict[str, list[Request]] = {}
    for claim in claims:
        for uuid in claim.gpus:
            held.setdefault(uuid, []).append(claim.request)
    return held


def _find_fitting(gpus: Sequence[Gpu], held: dict[str, list[Request]], request: Request) -> list[Gpu]:
    """Returns the GPUs that have room, the best first; equal ones in the order given."""
    fitting = [gpu for gpu in gpus if _has_room(gpu, held.get(gpu.uuid, ()), request)]
    if request.memory_bytes is not None:
        return sorted(fitting, key=lambda gpu: _count_free(gpu, held.get(gpu.uuid, ())))
    return sorted(fitting, key=lambda gpu: len(held.get(gpu.uuid, ())))


def _can_serve(gpu: Gpu, request: Request) -> bool:
    """Says whether a request fits on a GPU when nothing else is on it."""
    is_too_many = gpu.is_part and request.num_gpus > 1
    return not is_too_many and (request.memory_bytes or 0) <= gpu.memory_bytes


def _may_have_room(gpu: Gpu, held: dict[str, list[Request]], request: Request) -> bool:
    """Says whether a request may fit on a GPU once the claims on it have ended."""
    return _can_serve(gpu, request) if gpu.uuid in held else _has_room(gpu, (), request)


def _has_room(gpu: Gpu, others: Sequence[Request], request: Request) -> bool:
    """Says whether a request fits on a GPU beside others."""
    if not _can_serve(gpu, request):
        return False
    if request.memory_bytes is not None:
        is_alike = all(other.memory_bytes is not None for other in others)
        return is_alike and request.memory_bytes <= _count_free(gpu, others)
    if any(other.memory_bytes is not None for other in others):
        return False
    num_places = min(request.specs_per_gpu, *(other.specs_per_gpu for other in others), math.inf)
    return len(others) < num_places and not is_taken_by_others(gpu)


def _count_free(gpu: Gpu, others: Sequence[Request]) -> int:
    return gpu.memory_bytes - gpu.foreign_bytes - sum(other.memory_bytes or 0 for other in others)


def is_taken_by_others(gpu: Gpu) -> bool:
    """Says whether others have so much of a GPU's memory that it is no place for a run that says nothing of its own."""
    return gpu.foreign_bytes > FOREIGN_SHARE * gpu.memory_bytes


class Asking(Protocol):
    """What asks for GPUs: a spec, or a job of a multirun."""

    @property
    def gpu_requirement(self) -> int: ...  # noqa: D102
    @property
    def gpu_memory(self) -> float | None: ...  # noqa: D102
    @property
    def specs_per_gpu(self) -> int: ...  # noqa: D102
    @property
    def test_id(self) -> str: ...  # noqa: D102


def build_request(asking: Asking) -> Request:
    """Returns what a spec, or a job, asks for."""
    return Request(
        num_gpus=asking.gpu_requirement,
        gpu_memory=asking.gpu_memory,
        specs_per_gpu=asking.specs_per_gpu,
        test_id=asking.test_id,
    )


def explain_skip(request: Request, pool: GpuPool, *, cpu_ok: bool) -> str:
    """Says why a spec cannot run on this machine; an empty string when it can.

    Args:
        request: The GPUs it asks for.
        pool: The GPUs there are.
        cpu_ok: Whether its backend runs what asks for one GPU on the CPU.
    """
    shortage = explain_shortage(pool, request)
    if not shortage or request.num_gpus != 1:
        return shortage
    return "" if cpu_ok else f"{shortage}; backend.cpu_ok=true runs it on the CPU"
