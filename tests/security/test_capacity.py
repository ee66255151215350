"""How many turns one worker carries at a time."""

import pytest

from security.breaker import Breaker
from security.capacity import Capacity
from security.errors import Rejection


def closed() -> Breaker:
    """A breaker that lets everybody through."""
    return Breaker(failures=1, open_for=5, clock=lambda: 0)


def test_the_limit_is_reached_and_never_passed() -> None:
    """Three places for three turns; the fourth is told to come back."""
    capacity = Capacity(3)
    for _ in range(3):
        capacity.enter(closed())
    with pytest.raises(Rejection, match=r"^overloaded$") as refused:
        capacity.enter(closed())
    assert refused.value.retry_after
    assert capacity.taken == 3


def test_a_place_given_back_is_free() -> None:
    """Entering and leaving a thousand times leaves no trace."""
    capacity = Capacity(1)
    for _ in range(1000):
        capacity.enter(closed())
        capacity.leave()
    assert capacity.taken == 0


def test_a_draining_worker_takes_nobody() -> None:
    """However many places are free; those inside may still leave."""
    capacity = Capacity(10)
    capacity.enter(closed())
    capacity.draining = True
    with pytest.raises(Rejection, match=r"^overloaded$"):
        capacity.enter(closed())
    capacity.leave()
    assert capacity.taken == 0


def test_an_open_breaker_takes_no_place() -> None:
    """Nobody waits for an upstream that is known to be down."""
    capacity, upstream = Capacity(10), closed()
    upstream.failed()
    with pytest.raises(Rejection, match=r"^overloaded$"):
        capacity.enter(upstream)
    assert capacity.taken == 0


def test_a_full_worker_leaves_the_probe_to_others() -> None:
    """Being refused for want of a place does not use up the one probe of upstream."""
    now = [0.0]
    capacity, upstream = Capacity(1), Breaker(failures=1, open_for=5, clock=lambda: now[0])
    capacity.enter(upstream)
    upstream.failed()
    now[0] = 5
    with pytest.raises(Rejection, match=r"^overloaded$"):
        capacity.enter(upstream)
    capacity.leave()
    capacity.enter(upstream)


def test_withdrawing_gives_back_the_place_and_the_probe() -> None:
    """A turn that was refused before upstream was asked leaves both as it found them."""
    now = [0.0]
    capacity, upstream = Capacity(1), Breaker(failures=1, open_for=5, clock=lambda: now[0])
    upstream.failed()
    now[0] = 5
    for _ in range(10):
        capacity.enter(upstream)
        capacity.withdraw(upstream)
    assert capacity.taken == 0
