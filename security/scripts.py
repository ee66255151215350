"""What the ledger's scripts are given, and what their replies mean: see the heads of `lua/*.lua`.

Pure: who asks, what for, and the order of keys and arguments.
"""

from dataclasses import dataclass
from typing import Final, cast

from security.budget import FREE, OFF, Caps, DayTotal, Hold, WorstCase
from security.errors import Budget, Chain, Code, Quota, Rejection, Standing, StoreUnavailable

Reply = list[bytes | int]


def prefix_of(tenant: str) -> str:
    """What each key of a tenant begins with; the braces keep them in one slot of a cluster."""
    return f"keyturn:{{{tenant}}}:"


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
    failover_fence: bool


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


class Renewed(Rejection):
    """The chain is of an earlier life of the store; it goes on under the name of this call.

    `verdict` names the first token of it. What was shown may have been spent, and is honoured no
    more.
    """

    def __init__(self, verdict: Verdict) -> None:
        super().__init__("chain_unknown", chain="advanced")
        self.verdict = verdict


NO_TURN: Final = Turn("-", 0, 0, "", "", "")
DAY: Final = 15  # where a reply of admit.lua says what day it is


def admission_keys(rid: str, visitor: Visitor, chain: str, day: int) -> list[str]:
    """The KEYS of admit.lua, without the tenant's prefix."""
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


def turn_argv(turn: Turn) -> tuple[str | int, ...]:
    """What admit.lua is told of a turn."""
    worst = turn.worst
    return (
        *(turn.number, turn.born_ms, turn.fingerprint, turn.idempotency, turn.body),
        *(worst.prompt, worst.total, worst.max_output, worst.output_price),
    )


def settlement_keys(visitor: Visitor, chain: str | None, day: int) -> list[str]:
    """The KEYS of settle.lua, without the tenant's prefix."""
    narrow, wide = visitor.address, visitor.wide or visitor.address
    return [
        "control",
        *(f"inflight:{narrow}", f"inflight:{wide}", f"inflight:{chain or narrow}"),
        *(f"reject:{narrow}", f"reject:{wide}"),
        f"spend:{day}",
    ]


def constants(limits: Limits) -> tuple[int, ...]:
    """What admit.lua is told of every limit but the caps."""
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


def policy(limits: Limits) -> tuple[int, int, int]:
    """The same of the caps, in µUSD, and whether an earlier life of the store is believed."""
    caps = limits.caps
    return (
        OFF if caps.day is None else caps.day,
        OFF if caps.visitor is None else caps.visitor,
        int(limits.failover_fence),
    )


def total_of(said: Reply) -> DayTotal:
    """What a script saw of a day's money: the end of every reply."""
    epoch, spent, changes = (item.decode() if isinstance(item, bytes) else item for item in said)
    return DayTotal(str(epoch), int(spent), int(changes))


def judge(reply: Reply, visitor_cap: int | None) -> Verdict:
    """The verdict of a reply of admit.lua; raises the `Rejection` that it says instead."""
    _, code, chain, *numbers = (
        item.decode() if isinstance(item, bytes) else item for item in reply[: DAY + 1]
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
    if code == "chain_unknown" and chain == "advanced":
        raise Renewed(verdict).with_limits(standing)
    if code == "store_unavailable":
        raise StoreUnavailable(chain="unknown")
    raise Rejection(
        cast(Code, code),
        chain=cast(Chain, chain),
        retry_after=wait_ms / 1000 if wait_ms > 0 else None,
    ).with_limits(standing)
