"""How many turns one worker carries at a time, and whether it takes new ones."""

from security.breaker import Breaker
from security.errors import Rejection


class Capacity:
    """Counts the turns of this worker; `enter` refuses past `limit` and while draining."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.draining = False

    def enter(self, upstream: Breaker) -> None:
        """Take a place for a turn to this upstream; raises `Rejection` overloaded without one."""
        if self.draining:
            raise Rejection("overloaded", "The server is restarting. Try again.", retry_after=1)
        if self.taken >= self.limit or not upstream.try_enter():
            raise Rejection("overloaded", retry_after=1)
        self.taken += 1

    def close(self) -> None:
        """Take no new ones from now on."""
        self.draining = True

    def withdraw(self, upstream: Breaker) -> None:
        """Give the place back of a turn that was refused before upstream was asked."""
        self.leave()
        upstream.withdraw()

    def leave(self) -> None:
        """Give the place back."""
        self.taken -= 1
