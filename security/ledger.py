"""The only door to Redis: checks 3 and 4, what is held for a turn, and its settlement.

One call admits, one call settles, each a single EVALSHA. The ledger remembers the highest that it
saw of today's money and every hold that it has open: a store that knows less admits nobody until
it was given that back.
"""

import asyncio
import logging
import secrets
from typing import Final

import redis.asyncio as redis

from security.breaker import Breaker
from security.budget import UNSEEN, DayTotal, Hold
from security.calls import Calls, Deadlines, Told, nobody
from security.errors import Standing, StoreUnavailable
from security.scripts import (
    DAY,
    NO_TURN,
    Limits,
    Turn,
    Verdict,
    Visitor,
    admission,
    admission_form,
    judge,
    names_of,
    prefix_of,
    settlement,
    settlement_form,
    total_of,
)

log = logging.getLogger("keyturn")

_MOST_ATTEMPTS: Final = 4  # the day may change, the store may forget, and both once more


def new_rid() -> str:
    """128 random bits that name one HTTP request on the server's side."""
    return secrets.token_urlsafe(16)


class Ledger:
    """Admits and settles turns in Redis, under one tenant's keys."""

    def __init__(
        self,
        store: "redis.Redis",
        *,
        tenant: str,
        limits: Limits,
        deadlines: Deadlines,
        breaker: Breaker,
        told: Told = nobody,
    ) -> None:
        self.prefix = prefix_of(tenant)
        self.breaker = breaker
        self._calls = Calls(
            store, prefix=self.prefix, deadlines=deadlines, breaker=breaker, told=told
        )
        self._admit = self._calls.script("admit")
        self._settle = self._calls.script("settle")
        self._restore = self._calls.script("restore")
        self._limits = limits
        self._admission = admission_form(self.prefix, limits)
        self._settlement = settlement_form(self.prefix, limits)
        self._day = 0
        self._told = (0, 0)
        self._seen: dict[int, DayTotal] = {}
        self._holds: dict[str, tuple[Visitor, Hold]] = {}
        self._restoring = asyncio.Lock()
        self.distrust: str | None = None  # while it says why, nobody is admitted

    @property
    def is_fenced(self) -> bool:
        """Whether a token is honoured only by the life of the store that saw its chain."""
        return self._limits.failover_fence

    async def load(self, *, connections: int = 1) -> None:
        """Open connections, load the scripts, and learn what day it is."""
        self._day = await self._calls.load(connections)

    async def redeem(self, rid: str, visitor: Visitor, turn: Turn) -> Verdict:
        """Honour a turn once and hold its worst case: checks 3 and 4, then the budget.

        Raises `Rejection` for what the script refuses, `Duplicate` for a lost answer, `Renewed`
        after a failover, `StoreUnavailable` when Redis cannot be relied on.
        """
        verdict = await self._ask("turn", rid, visitor, turn)
        self._holds[rid] = visitor, verdict.hold
        return verdict

    async def probe(self, rid: str, visitor: Visitor) -> Standing:
        """Charge the address rate for a guess; raises `Rejection` rate_limited past it."""
        return (await self._ask("probe", rid, visitor, NO_TURN)).standing

    async def admit_own_key(self, rid: str, visitor: Visitor) -> Standing:
        """Admit a visitor who pays for themselves: limits on the address, and no chain."""
        return (await self._ask("own_key", rid, visitor, NO_TURN)).standing

    async def settle(
        self,
        rid: str,
        visitor: Visitor,
        *,
        chain: str | None,
        charge: int = 0,
        went_past: bool = False,
        key_refused: bool = False,
    ) -> None:
        """Charge a turn in µUSD instead of its hold, and give back its places in flight.

        Saying it twice changes nothing. `went_past` counts an answer longer than it might be,
        `key_refused` a visitor's own key that upstream did not take.
        """
        held = self._holds.get(rid)
        day = held[1].day if held else self._day
        names = settlement(rid, visitor, chain, day, charge, is_held=held is not None)
        names |= {"refused": f"{key_refused:d}", "past": f"{went_past:d}"}
        for _ in range(_MOST_ATTEMPTS):
            seen = self._seen_of(day)
            names |= names_of(seen)
            reply = await self._calls.say(self._settle, rid, self._settlement, names)
            if reply[1] == b"settled":
                self._notice(day, total_of(reply[2:]))
                self._holds.pop(rid, None)
                return
            await self._give_back(day, seen)
        raise StoreUnavailable()

    def give_up(self, rid: str) -> None:
        """Forget a turn that could not be settled: its hold will count in full, by its lease."""
        self._holds.pop(rid, None)

    async def _ask(self, mode: str, rid: str, visitor: Visitor, turn: Turn) -> Verdict:
        if self.distrust is not None:
            raise StoreUnavailable()
        for _ in range(_MOST_ATTEMPTS):
            day, seen = self._day, self._seen_of(self._day)
            names = admission(mode, rid, visitor, turn, day, seen)
            reply = await self._calls.say(self._admit, rid, self._admission, names)
            if reply[1] == b"other_day":
                self._day = int(reply[DAY])
            elif reply[1] == b"forgotten":
                await self._give_back(day, seen)
            else:
                total = total_of(reply[DAY + 1 :])
                if mode != "own_key":
                    self._notice(day, total)
                if reply[1] == b"budget_exhausted":
                    self._tell(day, turn.worst.least, total.spent)
                verdict = judge(reply, self._limits.caps.visitor)
                if mode == "turn" and self._seen_of(day).epoch != total.epoch:
                    raise StoreUnavailable(chain="unknown")  # its hold was lost while it came
                return verdict
        raise StoreUnavailable()

    def _tell(self, day: int, least: int, spent: int) -> None:
        """Tell the operator that the money runs out: again when not even half as much fits."""
        told_of, fitted_not = self._told
        if told_of != day or least <= fitted_not // 2:
            self._told = day, least
            log.warning(
                "today's budget has no room for a turn of %s µUSD: spent=%s µUSD", least, spent
            )

    # -- the memory of money

    def _seen_of(self, day: int) -> DayTotal:
        return self._seen.get(day, UNSEEN)

    def _notice(self, day: int, total: DayTotal) -> None:
        """Remember the highest; the days before yesterday can be forgotten."""
        self._seen[day] = self._seen_of(day).or_later(total)
        if len(self._seen) > 1:
            for old in [each for each in self._seen if each < self._day - 1]:
                del self._seen[old]

    async def _give_back(self, day: int, seen: DayTotal) -> None:
        """Restore what the store lost of a day: what was spent, and the holds open here.

        Whoever finds it while that is done waits for it, and so admits nobody meanwhile.
        """
        async with self._restoring:
            if self._seen_of(day).epoch != seen.epoch:
                return
            rid, known = new_rid(), self._seen_of(day)
            holds = [each for each in self._holds.items() if each[1][1].day == day]
            argv: list[str | int] = [rid, day, known.epoch, known.spent, known.changes]
            for name, (visitor, hold) in holds:
                argv += [name, visitor.address, visitor.wide or ""]
                argv += [hold.micro_usd, hold.max_output, self._limits.lease * 1000]
            keys = ["control", f"spend:{day}"]
            reply = await self._calls.call(self._restore, rid, keys, argv)
            self._seen[day] = total_of(reply[2:])
            log.warning(
                "the store lost money that it had acknowledged: restored spent=%s and %s holds",
                *(self._seen[day].spent, len(holds)),
            )
