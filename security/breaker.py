"""A circuit breaker: after some failures in a row, stop asking for a while, then probe once."""

from collections.abc import Callable


class Breaker:
    """Counts failures in a row; open means: do not ask now.

    `open_for` and the clock are in seconds. While open, one caller per `open_for` may probe.
    """

    def __init__(self, *, failures: int, open_for: float, clock: Callable[[], float]) -> None:
        self._allowed = failures
        self._open_for = open_for
        self._clock = clock
        self._failures = 0
        self._closed_again = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether asking is pointless at this moment; looking takes nothing."""
        return self._failures >= self._allowed and self._clock() < self._closed_again

    def try_enter(self) -> bool:
        """Whether the caller may ask now; past the pause it makes the caller the one probe."""
        if self._failures < self._allowed:
            return True
        if self._clock() < self._closed_again:
            return False
        self._closed_again = self._clock() + self._open_for
        self._probing = True
        return True

    def withdraw(self) -> None:
        """Take back an entry after which nothing was asked: a probe not made is the next one's."""
        if self._probing:
            self._closed_again = self._clock()
        self._probing = False

    def succeeded(self) -> None:
        """Note an answer: the breaker is closed."""
        self._failures = 0
        self._probing = False

    def failed(self) -> None:
        """Note a failure; enough of them in a row open the breaker."""
        self._failures += 1
        self._probing = False
        if self._failures >= self._allowed:
            self._closed_again = self._clock() + self._open_for
