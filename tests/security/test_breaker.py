"""The circuit breaker: when it stops asking, and who asks first again."""

from dataclasses import dataclass, field

import pytest

from security.breaker import Breaker


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Setup:
    """A breaker that opens for 5 s after 3 failures in a row, and its clock."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.breaker = Breaker(failures=3, open_for=5, clock=self.clock)

    def opened(self) -> Breaker:
        """The breaker after its third failure."""
        for _ in range(3):
            assert self.breaker.try_enter()
            self.breaker.failed()
        return self.breaker


@pytest.fixture
def setup() -> Setup:
    """A new breaker."""
    return Setup()


def test_it_opens_at_the_last_of_the_failures_in_a_row(setup: Setup) -> None:
    """Two failures change nothing, the third one stops all asking."""
    for _ in range(2):
        setup.breaker.failed()
        assert not setup.breaker.is_open
        assert setup.breaker.try_enter()
    setup.breaker.failed()
    assert setup.breaker.is_open
    assert not any(setup.breaker.try_enter() for _ in range(100))


def test_a_success_in_between_starts_the_count_again(setup: Setup) -> None:
    """Failures count in a row, not in sum."""
    for _ in range(10):
        setup.breaker.failed()
        setup.breaker.failed()
        setup.breaker.succeeded()
    assert setup.breaker.try_enter()


def test_after_the_pause_one_caller_probes(setup: Setup) -> None:
    """Of a hundred who come at once exactly one may ask; after another pause, one more."""
    breaker = setup.opened()
    for _ in range(3):
        setup.clock.now += 4.999
        assert not breaker.try_enter()
        setup.clock.now += 0.001
        assert sum(breaker.try_enter() for _ in range(100)) == 1


def test_looking_takes_nothing(setup: Setup) -> None:
    """`is_open` tells that a probe is due, however often it is asked, and leaves it due."""
    breaker = setup.opened()
    setup.clock.now += 5
    assert not any(breaker.is_open for _ in range(10))
    assert breaker.try_enter()
    assert breaker.is_open


def test_a_probe_that_succeeds_closes_it_for_all(setup: Setup) -> None:
    """One answer is enough, and the failures before are forgotten."""
    breaker = setup.opened()
    setup.clock.now += 5
    assert breaker.try_enter()
    breaker.succeeded()
    assert all(breaker.try_enter() for _ in range(10))
    breaker.failed()
    assert breaker.try_enter()


def test_a_probe_that_fails_opens_it_for_a_whole_pause(setup: Setup) -> None:
    """The pause begins when the failure is known, not when the probe began."""
    breaker = setup.opened()
    setup.clock.now += 5
    assert breaker.try_enter()
    setup.clock.now += 3
    breaker.failed()
    setup.clock.now += 4.999
    assert not breaker.try_enter()
    setup.clock.now += 0.001
    assert breaker.try_enter()


def test_a_probe_that_was_not_made_is_the_next_callers(setup: Setup) -> None:
    """Whoever withdraws hands the probe on at once; whoever keeps it makes the others wait."""
    breaker = setup.opened()
    setup.clock.now += 5
    assert breaker.try_enter()
    assert not breaker.try_enter()
    breaker.withdraw()
    assert breaker.try_enter()
    assert not breaker.try_enter()


def test_withdrawing_anything_but_the_probe_changes_nothing(setup: Setup) -> None:
    """One who entered before it opened cannot shorten the pause."""
    assert setup.breaker.try_enter()
    breaker = setup.opened()
    breaker.withdraw()
    assert not breaker.try_enter()
    setup.clock.now += 5
    assert breaker.try_enter()
    breaker.failed()
    breaker.withdraw()
    assert not breaker.try_enter()
