"""How growth is judged: by what lasts, not by a crowd or a moment; and who asks."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from bench.connection import Door
from bench.measures import MIB
from bench.soak import ALLOWED_MIB, HOUR, MOST, Soak, Visitors, verdict
from bench.speed_stage import Scene, scene

MINUTES = 25


def run_of(*, an_hour: float = 0, step: float = 0, at: float = 0.6, noise: float = 0.3) -> Soak:
    """A run in which a worker grew so many MiB an hour, and by a step at a part of the time."""
    rng, end = random.Random(1), MINUTES * 60
    samples = []
    for second in range(0, end, 5):
        mib = 55 + an_hour * second / HOUR + (step if second >= at * end else 0)
        samples.append((float(second), int((mib + rng.uniform(-noise, noise)) * MIB)))
    return Soak(rate=1, samples=samples)


@pytest.mark.parametrize(
    ("found", "fine"),
    [
        (run_of(), True),
        (run_of(an_hour=0.6), True),
        (run_of(an_hour=1.5), False),
        (run_of(step=20, at=0.1), True),
        (run_of(step=0.1), True),
        (run_of(step=20, at=0.6), False),
        (run_of(step=20, at=0.9), False),
    ],
    ids=["still", "little", "an hour", "in the warm-up", "small step", "step", "late step"],
)
def test_growth_is_judged_by_what_lasts(found: Soak, fine: bool) -> None:
    """25 minutes tell 1.5 MiB an hour from 0.6; what comes after the warm-up may not stay."""
    assert (verdict(found) == []) is fine, verdict(found)


def test_one_odd_reading_moves_nothing() -> None:
    """A line with the least squares would tell it as growth."""
    found = run_of(noise=0)
    found.samples[-1] = (found.samples[-1][0], 500 * MIB)
    assert found.mib_an_hour == found.grown_mib == 0 < ALLOWED_MIB


def test_turns_that_did_not_come_whole_are_told_with_why() -> None:
    """By status and code."""
    found = run_of()
    found.odd = Counter({"503 overloaded": 2, "0 cut": 1, "no answer": 0})
    (said,) = verdict(found)
    assert said == "3 turns did not come whole: {'503 overloaded': 2, '0 cut': 1}"


@pytest.fixture(scope="module")
def place() -> Iterator[Scene]:
    """The swift upstream, to be asked directly."""
    with scene() as both_ends:
        yield both_ends


@pytest.fixture
def door(place: Scene) -> Door:
    """Where it is."""
    return place.direct.door


async def test_no_more_are_open_than_a_bound(place: Scene, door: Door) -> None:
    """However fast they come: who finds no place waits, and is counted."""
    visitors, most = Visitors(door, 1), 0
    coming = asyncio.create_task(visitors.come(20_000, 0.5))
    while not coming.done():
        most = max(most, (await place.books())["open"])
        await asyncio.sleep(0)
    await visitors.all_ended()
    visitors.leave()
    assert visitors.waited > 0
    assert 0 < most <= MOST


async def test_the_crowd_is_as_large_as_the_bound(place: Scene, door: Door) -> None:
    """As many at once as ever may be, and all of them answered."""
    visitors = Visitors(door, 1)
    crowd = asyncio.create_task(visitors.crowd())
    most = 0
    while not crowd.done():
        most = max(most, (await place.books())["open"])
        await asyncio.sleep(0)
    visitors.leave()
    assert most == MOST
    assert +visitors.odd == Counter()
