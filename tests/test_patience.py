"""A limit on each of many waits, kept by one timer."""

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest

from patience import Wait

LIMIT = 0.3


@pytest.fixture
async def wait() -> Iterator[Wait]:  # type: ignore[misc]
    """A limit that is short."""
    with closing(Wait(LIMIT)) as wait:
        yield wait


async def test_what_takes_too_long_is_ended(wait: Wait) -> None:
    """By `TimeoutError`, after the limit, and the task lives on."""
    loop = asyncio.get_running_loop()
    since = loop.time()
    with pytest.raises(TimeoutError), wait:
        await asyncio.sleep(60)
    assert LIMIT * 0.9 < loop.time() - since < 30
    assert wait.expired
    task = asyncio.current_task()
    assert task
    assert not task.cancelling()
    await asyncio.sleep(0)


async def test_each_wait_has_the_whole_limit(wait: Wait) -> None:
    """Many short waits, longer than the limit together, are none of them too long."""
    for _ in range(10):
        with wait:
            await asyncio.sleep(LIMIT / 6)
        assert not wait.expired


async def test_the_limit_counts_from_the_wait_that_is_on(wait: Wait) -> None:
    """A timer that was set by an earlier wait ends a later one neither too early nor never."""
    loop = asyncio.get_running_loop()
    with wait:
        await asyncio.sleep(LIMIT * 0.5)
    since = loop.time()
    with pytest.raises(TimeoutError), wait:
        await asyncio.sleep(60)
    assert LIMIT * 0.9 < loop.time() - since < 30


async def test_it_can_be_waited_again_after_it_was_too_long(wait: Wait) -> None:
    """As a stream does that was silent, again and again."""
    for _ in range(3):
        with pytest.raises(TimeoutError), wait:
            await asyncio.sleep(60)
    with wait:
        await asyncio.sleep(0)
    assert not wait.expired


async def test_time_between_two_waits_does_not_count(wait: Wait) -> None:
    """Nobody is ended who does not wait."""
    with wait:
        await asyncio.sleep(0)
    await asyncio.sleep(LIMIT * 3)
    with wait:
        await asyncio.sleep(0)


async def test_another_s_cancellation_is_no_timeout(wait: Wait) -> None:
    """Who is cancelled within a wait is cancelled, whether or not it was too long as well."""

    async def waiting() -> None:
        with wait:
            await asyncio.sleep(60)

    task = asyncio.create_task(waiting())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not wait.expired


async def test_an_error_within_stays_what_it_is(wait: Wait) -> None:
    """Also a `TimeoutError` of somebody else."""
    with pytest.raises(TimeoutError, match="theirs"), wait:
        raise TimeoutError("theirs")
    assert not wait.expired


async def test_one_timer_serves_all_waits() -> None:
    """However many waits, a timer is set once in the limit; closed, none is left."""
    set_at: list[float] = []

    class Counting(Wait):
        def _look_at(self, when: float) -> None:
            set_at.append(when)
            super()._look_at(when)

    with closing(Counting(60)) as wait:
        for _ in range(100):
            with wait:
                await asyncio.sleep(0)
    assert len(set_at) == 1
    assert wait._timer is None
