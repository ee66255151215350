"""A day's money as the operator sees it: what Redis counts of a UTC day, in whole µUSD."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Spender:
    """What a visitor spent and has held; `wide` is an IPv6 /48, which counts its visitors again.

    `name` is a keyed hash of the address prefix: nobody can tell the address from it.
    """

    name: str
    spent: int
    held: int
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Day:
    """The money of all visitors together, and where its cap was set; a cap of None is no cap.

    `date` as in ISO 8601, `resets_in` seconds. `holds` are open; `lapsed` ones count in full at
    the next admission. `over` answers cost more than was held, `past` ones were too long.
    """

    number: int
    date: str
    resets_in: int
    spent: int
    held: int
    cap: int | None
    cap_set_in: Literal["DAILY_BUDGET_USD", "control"]
    over: int
    past: int
    paused: bool
    holds: int
    lapsed: int

    @property
    def left(self) -> int | None:
        """What may still be spent or held today, or None without a cap."""
        return None if self.cap is None else max(0, self.cap - self.spent - self.held)
