"""The figures that the tests of faults measure: each with the line it must keep to.

A test notes what it measured, and its control what would be without. `make faults` prints them.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

NAME: Final = "figure"
FULL: Final = "KEYTURN_FAULTS"  # in the environment: as many as the figures are told of
REPLAYED = "spent tokens honoured after a failover"
TAKEOVER = "seconds from a takeover to the next turn"
CROWD = "visitors told to wait when all lose their tokens at once"
BROKEN = "turns admitted while Redis is broken in eleven ways"
REFUSAL = "seconds until a visitor is told that Redis is broken"
HEALED = "seconds from a healed Redis to the next turn"
OVER_CAP = "µUSD over the cap, whatever Redis forgets"
LOST_REPLY = "times that a call counts whose reply was lost"
ASKED = "times that upstream is asked for a turn, failing in eleven ways"
UNCHARGED = "µUSD that upstream bills above what is charged, failing in eleven ways"
KILLED = "µUSD that upstream bills above what counts, after a worker is killed"
NEIGHBOURS = "answers completed by the neighbours of a killed worker"
CROWDED = "connections to Redis for 400 turns at once"
HUNG_UP = "hang-ups settled"
CLOSED = "seconds until upstream is closed after a hang-up"
DRAINED = "answers completed after SIGTERM"
JUMPED = "spent tokens honoured while a worker's clock is an hour off"
RETURNED = "chats that go on when its clock is right again"
CANARIES = "secrets found in logs, answers and Redis"

# The law of each: what it may be at most, or "all" of what there was.
LINES: Final[dict[str, float | str]] = {
    REPLAYED: 0,
    TAKEOVER: 5,
    CROWD: 0,
    BROKEN: 0,
    REFUSAL: 0.75,
    HEALED: 2,
    OVER_CAP: 0,
    LOST_REPLY: 1,
    ASKED: 1,
    UNCHARGED: 0,
    KILLED: 0,
    NEIGHBOURS: "all",
    CROWDED: 54,
    HUNG_UP: "all",
    CLOSED: 0.5,
    DRAINED: "all",
    JUMPED: 0,
    RETURNED: "all",
    CANARIES: 0,
}


def as_many(few: int, many: int) -> int:
    """How many there are of something: few among the other tests, many for the figures."""
    return many if FULL in os.environ else few


@dataclass(frozen=True, slots=True)
class Figure:
    """What one test found: so much, of how many; of a control it is what would be without us."""

    name: str
    found: float
    of: int | None
    control: bool

    @classmethod
    def read(cls, said: str) -> "Figure":
        """One that was noted."""
        return cls(*json.loads(said))


class Figures:
    """Takes notes for the report of this test."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record

    def note(
        self, name: str, found: float, *, of: int | None = None, control: bool = False
    ) -> None:
        """Note a figure by its name."""
        assert name in LINES
        self._record(NAME, json.dumps([name, found, of, control]))
