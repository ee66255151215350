"""What does not depend on time: calls to Redis, and whether a worker grows."""

from collections.abc import Iterator

import pytest

from bench.measures import redis_commands
from bench.peers import KEYTURN, LEAKY, PEERS, Peer, serving
from bench.soak import soak
from bench.speed_stage import Scene, scene

NAIVE = next(peer for peer in PEERS if peer.name == "naive")
TURNS_A_SECOND = 80
SECONDS = 10
BETWEEN_MIB = 4  # 640 turns that are judged leave 10 MiB behind where 16 KiB of each are kept


@pytest.fixture
def place() -> Iterator[Scene]:
    """A fresh store and a fresh upstream."""
    with scene() as place:
        yield place


@pytest.mark.parametrize(
    ("peer", "before", "after"), [(KEYTURN, 1, 1), (NAIVE, 4, 0)], ids=["keyturn", "naive"]
)
async def test_redis_is_asked_once_before_and_once_after(
    place: Scene, peer: Peer, before: int, after: int
) -> None:
    """A turn is one call to Redis before its first byte and one after its last; naively, four."""
    async with serving(peer, place.place) as served:
        found = await redis_commands(served, place.place, 5)
    assert found == {"redis_before": before, "redis_after": after}


@pytest.mark.parametrize(
    ("peer", "leaks"), [(KEYTURN, False), (LEAKY, True)], ids=["ours", "leaky"]
)
async def test_a_worker_does_not_grow(place: Scene, peer: Peer, leaks: bool) -> None:
    """Its memory stays as it is; one that keeps 16 KiB a turn is told."""
    found = await soak(peer, place, SECONDS, seed=1, rate=TURNS_A_SECOND)
    assert found.turns > SECONDS * TURNS_A_SECOND / 2
    assert (dict(+found.odd), found.left) == ({}, 0)
    assert (found.grown_mib > BETWEEN_MIB) is leaks, f"{found.grown_mib:.2f} MiB"
