"""What a turn may cost, and what was set aside for it.

Redis counts whole µUSD. Prices are whole picoUSD per token, so that a cost is exact until it is
rounded, once, and upwards: nothing is ever charged less than it is.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

PICO_PER_MICRO: Final = 1_000_000
MICRO_PER_USD: Final = 1_000_000
OFF: Final = -1
LEAST_OUTPUT: Final = 256  # tokens; no answer is shortened to fewer, as in admit.lua
WIDE_FACTOR: Final = 4  # so many times its visitors' cap has an IPv6 /48, as in admit.lua


def round_up(pico_usd: int) -> int:
    """Whole µUSD that cover so many pUSD."""
    return -(-pico_usd // PICO_PER_MICRO)


@dataclass(frozen=True, slots=True)
class Caps:
    """Hard caps of a UTC day in µUSD: of all visitors together, and of each; None is no cap."""

    day: int | None
    visitor: int | None


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The most that a turn can cost: its prompt in pUSD, and output tokens at pUSD each."""

    prompt_pico_usd: int
    output_price: int
    max_output: int

    @property
    def prompt(self) -> int:
        """The prompt alone, in µUSD."""
        return round_up(self.prompt_pico_usd)

    @property
    def total(self) -> int:
        """Prompt and output, in µUSD."""
        return self.with_output(self.max_output)

    @property
    def least(self) -> int:
        """What a cap must have left for the shortest answer that is still one, in µUSD."""
        tokens = min(self.max_output, LEAST_OUTPUT)
        return min(self.total, self.prompt + round_up(tokens * self.output_price))

    def with_output(self, tokens: int) -> int:
        """The prompt and so many tokens of output, in µUSD."""
        return round_up(self.prompt_pico_usd + tokens * self.output_price)


FREE: Final = WorstCase(0, 0, 1)


@dataclass(frozen=True, slots=True)
class Hold:
    """What is set aside for a turn, in µUSD of a Unix day, and the output tokens it pays for."""

    micro_usd: int
    max_output: int
    day: int


class DayTotal(NamedTuple):
    """What is known of a day's money: which count it is, what was spent, how often it changed.

    `spent` (µUSD) and `changes` only grow, and `epoch` names the one count that they belong to.
    """

    epoch: str
    spent: int
    changes: int

    def or_later(self, other: "DayTotal") -> "DayTotal":
        """The higher of two sights of one count; a sight of another count says nothing here."""
        if not self.epoch:
            return other
        if other.epoch != self.epoch:
            return self
        if other.spent >= self.spent and other.changes >= self.changes:
            return other
        return DayTotal(self.epoch, max(self.spent, other.spent), max(self.changes, other.changes))


UNSEEN: Final = DayTotal("", 0, 0)
