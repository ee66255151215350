"""A costly look that many may ask for: shared_look.py."""

import asyncio

import pytest

from shared_look import SharedLook


class Scan:
    """A look that takes as long as it is told, by a clock that goes by nothing else."""

    def __init__(self, takes: float) -> None:
        self.now, self.takes, self.looks = 0.0, takes, 0
        self.failing = False

    async def look(self) -> int:
        """How often was looked; fails when it is told to."""
        self.looks += 1
        await asyncio.sleep(0)
        self.now += self.takes
        if self.failing:
            raise ValueError("it failed")
        return self.looks


async def test_who_asks_meanwhile_shares_it() -> None:
    """A hundred at a time are one look, also when one of them does not wait for the end."""
    scan = Scan(takes=1)
    shared = SharedLook(scan.look, lambda: scan.now)
    asking = [asyncio.create_task(shared.get()) for _ in range(100)]
    await asyncio.sleep(0)
    asking[0].cancel()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [1] * 99


@pytest.mark.parametrize(("later", "looks"), [(0.0, 1), (19.9, 1), (20.0, 2)])
async def test_a_look_rests_as_long_as_it_was_costly(later: float, looks: int) -> None:
    """Twenty times as long as it took."""
    scan = Scan(takes=1)
    shared = SharedLook(scan.look, lambda: scan.now)
    await shared.get()
    scan.now += later
    assert await shared.get() == looks


async def test_what_failed_is_tried_again() -> None:
    """At once: it found nothing that could stand for a while."""
    scan = Scan(takes=1)
    shared = SharedLook(scan.look, lambda: scan.now)
    scan.failing = True
    with pytest.raises(ValueError, match="it failed"):
        await shared.get()
    scan.failing = False
    assert await shared.get() == 2
