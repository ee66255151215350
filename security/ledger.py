"""The only door to Redis: checks 3 and 4, what is held for a turn, and its settlement.

One call admits, one call settles, each a single EVALSHA. The ledger remembers the highest that it
saw of today's money and every hold that it has open: a store that knows less admits nobody until
it was given that back.
"""

import asyncio
import logging
import secrets
from dataclasses import dataclass
from typing import Final, cast

import redis.asyncio as redis

from security.breaker import Breaker
from security.budget import FREE, OFF, UNSEEN, Caps, DayTotal, Hold, WorstCase
from security.calls import Calls, Deadlines, Reply
from security.errors import Budget, Chain, Code, Quota, Rejection, Standing, StoreUnavailable

log = logging.getLogger("keyturn")

_MOST_ATTEMPTS: Final = 4  # the day may change, the store may forget, and both once more


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` requests at once, then one per `interval_us` microseconds (GCRA)."""

    burst: int
    interval_us: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What the script enforces; lives in seconds, streams in flight as counts."""

    rate: Rate
    start: Rate
    start_of_all: Rate
    refused_own_keys: Rate
    lease: int
    streams_per_address: int
    streams_per_chain: int
    token_ttl: int
    chain_ttl: int
    reuse_grace: int
    recovery_window: int
    caps: Caps


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who pays: keyed hashes of an address prefix and, for IPv6, of the wider one."""

    address: str
    wide: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn asked for: which token of which chain, what identifies a repeat, the most it costs."""

    chain: str
    number: int
    born_ms: int
    fingerprint: str
    idempotency: str
    body: str
    worst: WorstCase = FREE


@dataclass(frozen=True, slots=True)
class Verdict:
    """An admitted turn: the chain's new integer, times in Unix ms, what is left, what is held."""

    number: int
    last_ms: int
    born_ms: int
    standing: Standing
    hold: Hold


class Duplicate(Rejection):
    """The turn was admitted before and its answer lost; `verdict` names the same successor."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__("duplicate_request")
        self.verdict = verdict


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
    ) -> None:
        self.prefix = f"keyturn:{{{tenant}}}:"
        self._calls = Calls(store, prefix=self.prefix, deadlines=deadlines, breaker=breaker)
        self._admit = self._calls.script("admit")
        self._settle = self._calls.script("settle")
        self._restore = self._calls.script("restore")
        self._limits = limits
        self._constants = _constants(limits)
        self._day = 0
        self._seen: dict[int, DayTotal] = {}
        self._holds: dict[str, tuple[Visitor, Hold]] = {}
        self._restoring = asyncio.Lock()
        self.distrust: str | None = None  # while it says why, nobody is admitted

    async def load(self, *, connections: int = 1) -> None:
        """Open connections, load the scripts, and learn what day it is."""
        self._day = await self._calls.load(connections)

    async def redeem(self, rid: str, visitor: Visitor, turn: Turn) -> Verdict:
        """Honour a turn once and hold its worst case: checks 3 and 4, then the budget.

        Raises `Rejection` for what the script refuses, `Duplicate` for a lost answer,
        `StoreUnavailable` when Redis cannot be relied on.
        """
        verdict = await self._ask("turn", rid, visitor, turn)
        self._holds[rid] = visitor, verdict.hold
        return verdict

    async def probe(self, rid: str, visitor: Visitor) -> Standing:
        """Charge the address rate for a guess; raises `Rejection` rate_limited past it."""
        return (await self._ask("probe", rid, visitor, _NO_TURN)).standing

    async def admit_own_key(self, rid: str, visitor: Visitor) -> Standing:
        """Admit a visitor who pays for themselves: limits on the address, and no chain."""
        return (await self._ask("own_key", rid, visitor, _NO_TURN)).standing

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
        day, payers = self._day, ("", "")
        if rid in self._holds:
            day, payers = self._holds[rid][1].day, (visitor.address, visitor.wide or "")
        keys = _settlement_keys(visitor, chain, day)
        interval = self._limits.refused_own_keys.interval_us
        said = (rid, int(key_refused), interval, charge, int(went_past))
        for _ in range(_MOST_ATTEMPTS):
            seen = self._seen_of(day)
            argv = (*said, seen.epoch, seen.spent, seen.changes, day, *payers)
            reply = await self._calls.call(self._settle, rid, keys, argv)
            if reply[1] == b"settled":
                self._notice(day, _total(reply[2:]))
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
            keys = _admission_keys(rid, visitor, turn.chain, day)
            argv: tuple[str | int, ...] = (
                *(mode, rid, visitor.address, visitor.wide or ""),
                *self._constants,
                *(turn.number, turn.born_ms, turn.fingerprint, turn.idempotency, turn.body),
                *(turn.worst.prompt, turn.worst.total),
                *(turn.worst.max_output, turn.worst.output_price),
                *(day, seen.epoch, seen.spent, seen.changes),
                *_caps(self._limits.caps),
            )
            reply = await self._calls.call(self._admit, rid, keys, argv)
            if reply[1] == b"other_day":
                self._day = int(reply[_DAY])
            elif reply[1] == b"forgotten":
                await self._give_back(day, seen)
            else:
                total = _total(reply[_DAY + 1 :])
                if mode != "own_key":
                    self._notice(day, total)
                verdict = _judge(reply, self._limits.caps.visitor)
                if mode == "turn" and self._seen_of(day).epoch != total.epoch:
                    raise StoreUnavailable(chain="unknown")  # its hold was lost while it came
                return verdict
        raise StoreUnavailable()

    # -- the memory of money

    def _seen_of(self, day: int) -> DayTotal:
        return self._seen.get(day, UNSEEN)

    def _notice(self, day: int, total: DayTotal) -> None:
        """Remember the highest; the days before yesterday can be forgotten."""
        self._seen[day] = self._seen_of(day).or_later(total)
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
            self._seen[day] = _total(reply[2:])
            log.warning(
                "the store lost money that it had acknowledged: restored spent=%s and %s holds",
                *(self._seen[day].spent, len(holds)),
            )


_NO_TURN: Final = Turn("-", 0, 0, "", "", "")

_DAY: Final = 15  # where a reply of admit.lua says what day it is


def _admission_keys(rid: str, visitor: Visitor, chain: str, day: int) -> list[str]:
    prefixes = visitor.address, visitor.wide or visitor.address
    return [
        *("control", "blocked"),
        *(f"{kind}:{prefix}" for kind in ("rate", "inflight", "reject") for prefix in prefixes),
        *(f"chain:{chain}", f"inflight:{chain}"),
        *(f"start:{prefix}" for prefix in prefixes),
        *("start:all", f"spend:{day}"),
        *(f"spend:{day}:{prefix}" for prefix in prefixes),
        f"hold:{rid}",
    ]


def _settlement_keys(visitor: Visitor, chain: str | None, day: int) -> list[str]:
    narrow, wide = visitor.address, visitor.wide or visitor.address
    return [
        "control",
        *(f"inflight:{narrow}", f"inflight:{wide}", f"inflight:{chain or narrow}"),
        *(f"reject:{narrow}", f"reject:{wide}"),
        f"spend:{day}",
    ]


def _constants(limits: Limits) -> tuple[int, ...]:
    rates = (limits.rate, limits.start, limits.start_of_all, limits.refused_own_keys)
    return (
        *(number for rate in rates for number in (rate.interval_us, rate.burst)),
        limits.lease * 1000,
        limits.streams_per_address,
        limits.streams_per_chain,
        limits.token_ttl * 1000,
        limits.chain_ttl * 1000,
        limits.reuse_grace * 1000,
        limits.recovery_window * 1000,
    )


def _caps(caps: Caps) -> tuple[int, int]:
    return (
        OFF if caps.day is None else caps.day,
        OFF if caps.visitor is None else caps.visitor,
    )


def _total(said: Reply) -> DayTotal:
    epoch, spent, changes = (item.decode() if isinstance(item, bytes) else item for item in said)
    return DayTotal(str(epoch), int(spent), int(changes))


def _judge(reply: Reply, visitor_cap: int | None) -> Verdict:
    _, code, chain, *numbers = (
        item.decode() if isinstance(item, bytes) else item for item in reply[: _DAY + 1]
    )
    number, last_ms, born_ms, wait_ms, *quotas, held, max_output, budget, ends_in, day = map(
        int, numbers
    )
    left, regained, starts, regained_starts = quotas
    standing = Standing(
        Quota(left, regained),
        Quota(starts, regained_starts) if starts >= 0 else None,
        Budget(budget, visitor_cap or 0, ends_in) if budget >= 0 else None,
    )
    verdict = Verdict(number, last_ms, born_ms, standing, Hold(held, max_output, day))
    if code == "admitted":
        return verdict
    if code == "duplicate_request":
        raise Duplicate(verdict).with_limits(standing)
    if code == "store_unavailable":
        raise StoreUnavailable(chain="unknown")
    raise Rejection(
        cast(Code, code),
        chain=cast(Chain, chain),
        retry_after=wait_ms / 1000 if wait_ms > 0 else None,
    ).with_limits(standing)
