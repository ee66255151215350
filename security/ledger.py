"""The only door to Redis: checks 3 and 4, and the end of a turn.

One call admits, one call settles, each a single EVALSHA. When Redis cannot answer in time the
answer is `StoreUnavailable`: nobody gets in. No call is repeated by the library; ours is repeated
once, with the same `rid`, by which the script recognises it.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import redis.asyncio as redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from security.breaker import Breaker
from security.errors import Chain, Code, Quota, Rejection, Standing, StoreUnavailable
from security.store import CONNECTIONS

_LUA = Path(__file__).parent / "lua"

Script = Callable[[Sequence[str], Sequence[str | int]], Awaitable[list[bytes | int]]]


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


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds for one command, and for the whole of waiting, calling and calling again."""

    command: float
    whole: float


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who pays: keyed hashes of an address prefix and, for IPv6, of the wider one."""

    address: str
    wide: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn asked for: which token of which chain, and what would identify a repeat of it."""

    chain: str
    number: int
    born_ms: int
    fingerprint: str
    idempotency: str
    body: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """An admitted turn: the chain's new integer, its times in Unix ms, what is left of limits."""

    number: int
    last_ms: int
    born_ms: int
    standing: Standing


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
        self._store = store
        self.prefix = f"keyturn:{{{tenant}}}:"
        self._limits = limits
        self._deadlines = deadlines
        self._breaker = breaker
        self._admit = cast(Script, store.register_script((_LUA / "admit.lua").read_text()))
        self._settle = cast(Script, store.register_script((_LUA / "settle.lua").read_text()))
        self._constants = _constants(limits)
        self._places = asyncio.Semaphore(CONNECTIONS)

    async def load(self, *, connections: int = 1) -> None:
        """Open connections and load the scripts, so that the first visitors find both."""
        async with asyncio.timeout(self._deadlines.whole * 5):
            await asyncio.gather(*(self._store.ping() for _ in range(connections)))
            for script in (self._admit, self._settle):
                await self._store.script_load(script.script)  # type: ignore[attr-defined]

    async def redeem(self, rid: str, visitor: Visitor, turn: Turn) -> Verdict:
        """Honour a turn once: checks 3 and 4, or the first turn of a new chain.

        Raises `Rejection` for what the script refuses, `Duplicate` for a lost answer,
        `StoreUnavailable` when Redis cannot be relied on.
        """
        return await self._ask("turn", rid, visitor, turn)

    async def probe(self, rid: str, visitor: Visitor) -> Standing:
        """Charge the address rate for a guess; raises `Rejection` rate_limited past it."""
        return (await self._ask("probe", rid, visitor, _NO_TURN)).standing

    async def admit_own_key(self, rid: str, visitor: Visitor) -> Standing:
        """Admit a visitor who pays for themselves: limits on the address, and no chain."""
        return (await self._ask("own_key", rid, visitor, _NO_TURN)).standing

    async def settle(
        self, rid: str, visitor: Visitor, *, chain: str | None, key_refused: bool = False
    ) -> None:
        """Give back the turn's places in flight; saying it twice changes nothing."""
        narrow = f"inflight:{visitor.address}"
        keys = [
            narrow,
            f"inflight:{visitor.wide}" if visitor.wide else narrow,
            f"inflight:{chain}" if chain else narrow,
            f"reject:{visitor.address}",
            f"reject:{visitor.wide}" if visitor.wide else f"reject:{visitor.address}",
        ]
        interval = self._limits.refused_own_keys.interval_us
        await self._call(self._settle, rid, keys, (rid, "1" if key_refused else "0", interval))

    async def _ask(self, mode: str, rid: str, visitor: Visitor, turn: Turn) -> Verdict:
        argv: tuple[str | int, ...] = (
            *(mode, rid, visitor.address, visitor.wide or ""),
            *self._constants,
            *(turn.number, turn.born_ms, turn.fingerprint, turn.idempotency, turn.body),
        )
        return _judge(await self._call(self._admit, rid, _keys(visitor, turn.chain), argv))

    async def _call(
        self, script: Script, rid: str, keys: Sequence[str], argv: Sequence[str | int]
    ) -> list[bytes | int]:
        if not self._breaker.try_enter():
            raise StoreUnavailable()
        try:
            reply = await self._call_in_turn(script, [self.prefix + key for key in keys], argv)
        except (RedisError, OSError, TimeoutError) as failure:
            self._breaker.failed()
            if isinstance(failure, ReadOnlyError):
                await self._store.connection_pool.disconnect(inuse_connections=False)
            raise StoreUnavailable(chain=_chain_after(failure)) from None
        if not reply or reply[0] != rid.encode():
            self._breaker.failed()
            await self._store.connection_pool.disconnect()
            raise StoreUnavailable(chain="unknown")
        self._breaker.succeeded()
        return reply

    async def _call_in_turn(
        self, script: Script, keys: Sequence[str], argv: Sequence[str | int]
    ) -> list[bytes | int]:
        """Wait for a free connection, and call: a crowd of visitors is no broken store."""
        end = asyncio.get_running_loop().time() + self._deadlines.whole
        try:
            async with asyncio.timeout_at(end - self._deadlines.command):
                await self._places.acquire()
        except TimeoutError:
            self._breaker.withdraw()
            raise Rejection("overloaded", retry_after=1) from None
        try:
            return await self._call_twice(script, keys, argv, end)
        finally:
            self._places.release()

    async def _call_twice(
        self, script: Script, keys: Sequence[str], argv: Sequence[str | int], end: float
    ) -> list[bytes | int]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout_at(end):
            try:
                return await script(keys, argv)
            except (RedisConnectionError, RedisTimeoutError, OSError):
                if end - loop.time() < self._deadlines.command:
                    raise
                return await script(keys, argv)


_NO_TURN: Final = Turn("-", 0, 0, "", "", "")

_ADDRESS_KEYS: Final = ("rate", "inflight", "reject")


def _keys(visitor: Visitor, chain: str) -> list[str]:
    narrow, wide = visitor.address, visitor.wide or visitor.address
    return [
        "control",
        "blocked",
        *(f"{kind}:{prefix}" for kind in _ADDRESS_KEYS for prefix in (narrow, wide)),
        f"chain:{chain}",
        f"inflight:{chain}",
        f"start:{narrow}",
        f"start:{wide}",
        "start:all",
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


def _judge(reply: list[bytes | int]) -> Verdict:
    _, code, chain, number, last_ms, born_ms, wait_ms, left, regained, starts, regained_starts = (
        item.decode() if isinstance(item, bytes) else item for item in reply
    )
    standing = Standing(
        Quota(int(left), int(regained)),
        Quota(int(starts), int(regained_starts)) if int(starts) >= 0 else None,
    )
    verdict = Verdict(int(number), int(last_ms), int(born_ms), standing)
    if code == "admitted":
        return verdict
    if code == "duplicate_request":
        raise Duplicate(verdict).with_limits(standing)
    raise Rejection(
        cast(Code, code),
        chain=cast(Chain, chain),
        retry_after=int(wait_ms) / 1000 if int(wait_ms) > 0 else None,
    ).with_limits(standing)


def _chain_after(failure: BaseException) -> Chain:
    """A reply of Redis says that nothing was written; silence says nothing."""
    silent = isinstance(failure, RedisConnectionError | RedisTimeoutError | TimeoutError | OSError)
    return "unknown" if silent else "kept"
