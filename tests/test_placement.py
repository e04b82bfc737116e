"""Placement: nobody is given what another has, whatever can be served is, and every turn comes."""

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgvalidate.gpu import Gpu, GpuPool
from fgvalidate.placement import (
    GIB,
    Claim,
    Request,
    can_get_its_turn,
    choose_gpus,
    explain_shortage,
    reserve_gpus,
)


def make_gpu(index: int, *, memory: float = 80, foreign: float = 0, part_of: str = "") -> Gpu:
    uuid = f"GPU-{index}"
    return Gpu(
        name=str(index),
        uuid=uuid,
        index=index,
        board_uuid=part_of or uuid,
        model="",
        memory_bytes=int(memory * GIB),
        used_bytes=int(foreign * GIB),
        foreign_bytes=int(foreign * GIB),
    )


def make_gpus(num: int) -> list[Gpu]:
    return [make_gpu(index) for index in range(num)]


def claim(*indices: int, memory: float | None = None, places: int = 1) -> Claim:
    request = Request(num_gpus=len(indices), gpu_memory=memory, specs_per_gpu=places)
    return Claim(request=request, gpus=tuple(f"GPU-{index}" for index in indices))


def choose(gpus: Sequence[Gpu], claims: Sequence[Claim], request: Request) -> list[str] | None:
    chosen = choose_gpus(gpus, claims, request)
    return None if chosen is None else [gpu.name for gpu in chosen]


@pytest.mark.parametrize(
    ("claims", "request_", "expected"),
    [
        pytest.param([], Request(num_gpus=2), ["0", "1"], id="the first ones"),
        pytest.param([claim(0, 2)], Request(num_gpus=2), ["1", "3"], id="those nobody has"),
        pytest.param([claim(0, 1, 2)], Request(num_gpus=2), None, id="too few are left"),
        pytest.param([claim(0, 1, 2, 3)], Request(num_gpus=0), [], id="none are asked for"),
        pytest.param([Claim(request=Request(num_gpus=4))], Request(num_gpus=1), ["0"], id="one that waits has none"),
        pytest.param([claim(0)], Request(num_gpus=4, specs_per_gpu=2), None, id="the other does not share"),
        pytest.param([claim(0, places=2)], Request(num_gpus=4), None, id="this one does not share"),
        pytest.param([claim(0, places=2)], Request(num_gpus=4, specs_per_gpu=2), ["0", "1", "2", "3"], id="both share"),
        pytest.param([claim(0, places=2)], Request(num_gpus=1, specs_per_gpu=2), ["1"], id="an empty one is better"),
        pytest.param(
            [claim(0, 1, 2, places=2), claim(3, places=3), claim(3, places=3)],
            Request(num_gpus=1, specs_per_gpu=2),
            ["0"],
            id="two are enough for one that shares with one",
        ),
        pytest.param(
            [claim(0, 1, 2, 3, places=3), claim(0, 1, 2, 3, places=2)],
            Request(num_gpus=1, specs_per_gpu=3),
            None,
            id="the other shares with one only",
        ),
        pytest.param([claim(1, memory=30)], Request(num_gpus=1, gpu_memory=40), ["1"], id="the fullest with room"),
        pytest.param([claim(1, memory=30)], Request(num_gpus=1, gpu_memory=50), ["1"], id="to the last byte"),
        pytest.param([claim(1, memory=30)], Request(num_gpus=1, gpu_memory=50.001), ["0"], id="and none beyond"),
        pytest.param([claim(1, memory=30)], Request(num_gpus=4, gpu_memory=60), None, id="no room on one of them"),
        pytest.param([claim(0, places=9)], Request(num_gpus=4, gpu_memory=1), None, id="no memory beside a place"),
        pytest.param([claim(0, memory=1)], Request(num_gpus=4, specs_per_gpu=9), None, id="no place beside memory"),
    ],
)
def test_four_equal_gpus(claims: list[Claim], request_: Request, expected: list[str] | None) -> None:
    assert choose(make_gpus(4), claims, request_) == expected


@pytest.mark.parametrize(
    ("foreign", "request_", "is_served"),
    [
        (8, Request(num_gpus=1), True),
        (8.1, Request(num_gpus=1), False),
        (8.1, Request(num_gpus=1, specs_per_gpu=2), False),
        (70, Request(num_gpus=1, gpu_memory=10), True),
        (70, Request(num_gpus=1, gpu_memory=11), False),
    ],
)
def test_memory_that_others_use_is_taken(foreign: float, request_: Request, is_served: bool) -> None:
    assert (choose([make_gpu(0, foreign=foreign)], [], request_) is not None) == is_served


def test_gpu_that_does_not_say_its_memory_is_given_whole_while_nobody_is_on_it() -> None:
    unknown = make_gpu(0, memory=0)
    used = Gpu(**{**vars(unknown), "foreign_bytes": 1})

    assert choose([unknown], [], Request(num_gpus=1)) == ["0"]
    assert choose([used], [], Request(num_gpus=1)) is None
    assert choose([unknown], [], Request(num_gpus=1, gpu_memory=1)) is None


def test_parts_of_a_gpu_serve_one_at_a_time() -> None:
    parts = [make_gpu(0, part_of="GPU-9"), make_gpu(1, part_of="GPU-9"), make_gpu(2)]

    assert choose(parts, [claim(0)], Request(num_gpus=1)) == ["1"]
    assert choose(parts, [], Request(num_gpus=2)) is None
    assert choose([*parts, make_gpu(3)], [], Request(num_gpus=2)) == ["2", "3"]


@pytest.mark.parametrize(
    ("gpus", "request_", "expected"),
    [
        ([], Request(num_gpus=0), ""),
        ([], Request(num_gpus=1), "it needs 1 GPU, none is available (why)"),
        (make_gpus(1), Request(num_gpus=2), "it needs 2 GPUs, 1 is available (why)"),
        (make_gpus(2), Request(num_gpus=3), "it needs 3 GPUs, 2 are available (why)"),
        (make_gpus(2), Request(num_gpus=2), ""),
        ([make_gpu(0, foreign=80)], Request(num_gpus=1), ""),
        (make_gpus(2), Request(num_gpus=2, gpu_memory=80), ""),
        (
            [make_gpu(0, memory=79.6), make_gpu(1, memory=40)],
            Request(num_gpus=2, gpu_memory=60),
            "it needs 2 GPUs with 60 GiB each, 1 of 2 can serve it (why; the largest has 79.6 GiB)",
        ),
        (
            [make_gpu(0, memory=0)],
            Request(num_gpus=1, gpu_memory=0.5),
            "it needs 1 GPU with 0.5 GiB, 0 of 1 can serve it (why; the driver does not say how much memory they have)",
        ),
        (
            [make_gpu(0, part_of="GPU-9"), make_gpu(1, part_of="GPU-9")],
            Request(num_gpus=2),
            "it needs 2 GPUs, 0 of 2 can serve it (why; a run can use one MIG device only)",
        ),
    ],
)
def test_pool_that_can_never_serve_a_request_says_why(gpus: list[Gpu], request_: Request, expected: str) -> None:
    assert explain_shortage(GpuPool(tuple(gpus), "why"), request_) == expected


@pytest.mark.parametrize(
    ("claims", "earlier", "later", "expected"),
    [
        pytest.param([claim(0)], Request(num_gpus=2), Request(num_gpus=1), None, id="the free one is kept"),
        pytest.param(
            [claim(0)], Request(num_gpus=1), Request(num_gpus=1), None, id="it is about to be taken by the earlier one"
        ),
        pytest.param(
            [claim(0, places=2)],
            Request(num_gpus=2),
            Request(num_gpus=1, specs_per_gpu=2),
            None,
            id="a shared one is left to become empty",
        ),
        pytest.param(
            [claim(0, memory=60), claim(1, memory=60)],
            Request(num_gpus=1, gpu_memory=70),
            Request(num_gpus=1, gpu_memory=20),
            ["1"],
            id="one GPU becomes empty, the other is of no use to the earlier one",
        ),
        pytest.param(
            [claim(0, memory=60), claim(1, memory=60)],
            Request(num_gpus=1, gpu_memory=10),
            Request(num_gpus=1, gpu_memory=10),
            ["0"],
            id="there is room for both",
        ),
        pytest.param(
            [claim(0, memory=10)],
            Request(num_gpus=2),
            Request(num_gpus=1, gpu_memory=10),
            None,
            id="the other kind must wait too",
        ),
    ],
)
def test_later_requests_get_what_earlier_ones_have_no_use_for(
    claims: list[Claim], earlier: Request, later: Request, expected: list[str] | None
) -> None:
    gpus = make_gpus(2)

    withheld = reserve_gpus(gpus, claims, earlier)

    assert choose(gpus, [*claims, *withheld], later) == expected


def test_a_gpu_that_others_fill_is_not_kept() -> None:
    gpus = [make_gpu(0, foreign=60), make_gpu(1)]

    withheld = reserve_gpus(gpus, [claim(1, memory=50)], Request(num_gpus=1))

    assert choose(gpus, [claim(1, memory=50), *withheld], Request(num_gpus=1, gpu_memory=10)) == ["0"]
    assert choose(gpus[1:], [claim(1, memory=50), *withheld], Request(num_gpus=1, gpu_memory=10)) is None


def test_only_others_than_claimants_keep_a_turn_from_coming() -> None:
    gpus = [make_gpu(0, foreign=60), make_gpu(1)]

    assert can_get_its_turn(gpus, [claim(1)], Request(num_gpus=1))
    assert not can_get_its_turn(gpus, [claim(1)], Request(num_gpus=2))
    assert not can_get_its_turn(gpus, [], Request(num_gpus=2, gpu_memory=30))
    assert can_get_its_turn(gpus, [claim(0), claim(1)], Request(num_gpus=2))
    assert not can_get_its_turn(gpus, [claim(0), claim(1)], Request(num_gpus=3))


requests = st.builds(
    Request,
    num_gpus=st.integers(1, 3),
    gpu_memory=st.none() | st.sampled_from([5.0, 10.0, 20.0, 30.0]),
    specs_per_gpu=st.integers(1, 3),
)
machines = st.lists(
    st.builds(lambda memory, foreign: (memory, foreign), st.sampled_from([10, 20, 40]), st.sampled_from([0, 1, 2, 5])),
    min_size=1,
    max_size=4,
).map(lambda sizes: [make_gpu(index, memory=size[0], foreign=size[1]) for index, size in enumerate(sizes)])


def is_sound(gpus: Sequence[Gpu], claims: Sequence[Claim]) -> bool:
    """The rules once more, as a judgement on a whole state."""
    for gpu in gpus:
        on_it = [claim.request for claim in claims if gpu.uuid in claim.gpus]
        sizes = [request.gpu_memory for request in on_it if request.gpu_memory is not None]
        places = [request.specs_per_gpu for request in on_it if request.gpu_memory is None]
        if sizes and places:
            return False
        if sizes and sum(sizes) * GIB + gpu.foreign_bytes > gpu.memory_bytes:
            return False
        if places and (len(places) > min(places) or gpu.foreign_bytes * 10 > gpu.memory_bytes):
            return False
    return True


@given(gpus=machines, arriving=st.lists(requests, max_size=8))
@settings(deadline=None, max_examples=300)
def test_nobody_is_given_what_another_has_and_whatever_can_be_served_is(
    gpus: list[Gpu], arriving: list[Request]
) -> None:
    claims: list[Claim] = []
    for request in arriving:
        chosen = choose_gpus(gpus, claims, request)
        sets = itertools.combinations(gpus, request.num_gpus)
        possible = [given for given in ([*claims, make_claim(request, some)] for some in sets) if is_sound(gpus, given)]
        assert (chosen is not None) == bool(possible)
        if chosen is not None:
            assert len({gpu.uuid for gpu in chosen}) == request.num_gpus
            claims.append(make_claim(request, chosen))
            assert is_sound(gpus, claims)


def make_claim(request: Request, gpus: Sequence[Gpu]) -> Claim:
    return Claim(request=request, gpus=tuple(gpu.uuid for gpu in gpus))


@given(gpus=machines, first=requests, seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=100)
def test_every_turn_comes_under_an_endless_stream_of_others(gpus: list[Gpu], first: Request, seed: int) -> None:
    """Each round two requests arrive and every run lasts three rounds at most."""
    if not can_get_its_turn(gpus, [], first):
        return
    random_ = random.Random(seed)

    def arrive() -> Request:
        memory = random_.choice([None, None, 5.0, 10.0])
        return Request(num_gpus=random_.randint(1, 2), gpu_memory=memory, specs_per_gpu=random_.randint(1, 3))

    running: list[tuple[int, Claim]] = []
    queue = [arrive() for _ in range(6)]
    served: set[int] = set()
    queue.append(first)
    for now in range(60):
        running = [(end, held) for end, held in running if end > now]
        claims = [held for _, held in running]
        waiting: list[Request] = []
        for request in queue:
            chosen = choose_gpus(gpus, claims, request)
            if chosen is None:
                if can_get_its_turn(gpus, [], request):
                    claims += reserve_gpus(gpus, claims, request)
                waiting.append(request)
                continue
            served.add(id(request))
            running.append((now + random_.randint(1, 3), make_claim(request, chosen)))
            claims.append(running[-1][1])
        queue = [*waiting, arrive(), arrive()]
        if id(first) in served:
            return
    pytest.fail(f"{first} was never served")


def test_gpu_to_avoid_is_taken_only_where_others_do_not_do() -> None:
    gpus, one, two = make_gpus(3), Request(num_gpus=1), Request(num_gpus=2)

    def avoid(*names: str, claims: Sequence[Claim] = (), request: Request = one) -> list[str] | None:
        chosen = choose_gpus(gpus, claims, request, avoid=names)
        return None if chosen is None else [gpu.name for gpu in chosen]

    assert avoid("GPU-0") == ["1"]
    assert avoid("GPU-0", "GPU-1") == ["2"]
    assert avoid("GPU-0", "GPU-1", "GPU-2") == ["0"]
    assert avoid("GPU-1", request=two) == ["0", "2"]
    assert avoid("GPU-0", claims=[claim(1)], request=two) == ["0", "2"]
    assert avoid("GPU-2", claims=[claim(0, 1)]) == ["2"]
