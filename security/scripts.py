"""What the ledger's scripts are given, and what their replies mean: see the heads of `lua/*.lua`.

Pure: who asks, what for, and the order of keys and arguments.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from security.budget import FREE, OFF, Caps, DayTotal, Hold, WorstCase
from security.errors import Budget, Chain, Code, Quota, Rejection, Standing, StoreUnavailable
from security.words import Form

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


class Visitor(NamedTuple):
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


class Verdict(NamedTuple):
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

# Without the tenant's prefix.
_ADMISSION_KEYS: Final = (
    *("control", "blocked", "rate:%(narrow)s", "rate:%(wide)s"),
    *("inflight:%(narrow)s", "inflight:%(wide)s", "reject:%(narrow)s", "reject:%(wide)s"),
    *("chain:%(chain)s", "inflight:%(chain)s"),
    *("start:%(narrow)s", "start:%(wide)s", "start:all"),
    *("spend:%(day)s", "spend:%(day)s:%(narrow)s", "spend:%(day)s:%(wide)s", "hold:%(rid)s"),
)
_SETTLEMENT_KEYS: Final = (
    *("control", "inflight:%(narrow)s", "inflight:%(wide)s", "inflight:%(of)s"),
    *("reject:%(narrow)s", "reject:%(wide)s", "spend:%(day)s"),
)
_SEEN: Final = ("%(epoch)s", "%(spent)s", "%(changes)s")


def admission_form(prefix: str, limits: Limits) -> Form:
    """The KEYS and ARGV of admit.lua."""
    argv: tuple[str | int, ...] = (
        *("%(mode)s", "%(rid)s", "%(narrow)s", "%(wider)s"),
        *_constants(limits),
        *("%(number)s", "%(born)s", "%(print)s", "%(repeat)s", "%(body)s"),
        *("%(prompt)s", "%(total)s", "%(output)s", "%(price)s"),
        *("%(day)s", *_SEEN),
        *_policy(limits),
    )
    return Form([prefix + key for key in _ADMISSION_KEYS], argv)


def admission(
    mode: str, rid: str, visitor: Visitor, turn: Turn, day: int, seen: DayTotal
) -> dict[str, str]:
    """The names in it."""
    worst = turn.worst
    return {
        "mode": mode,
        "rid": rid,
        "narrow": visitor.address,
        "wide": visitor.wide or visitor.address,
        "wider": visitor.wide or "",
        "chain": turn.chain,
        "number": f"{turn.number}",
        "born": f"{turn.born_ms}",
        "print": turn.fingerprint,
        "repeat": turn.idempotency,
        "body": turn.body,
        "prompt": f"{worst.prompt}",
        "total": f"{worst.total}",
        "output": f"{worst.max_output}",
        "price": f"{worst.output_price}",
        "day": f"{day}",
        **names_of(seen),
    }


def settlement_form(prefix: str, limits: Limits) -> Form:
    """The KEYS and ARGV of settle.lua."""
    argv: tuple[str | int, ...] = (
        *("%(rid)s", "%(refused)s"),
        limits.refused_own_keys.interval_us,
        *("%(charge)s", "%(past)s", *_SEEN, "%(day)s", "%(payer)s", "%(wider)s"),
    )
    return Form([prefix + key for key in _SETTLEMENT_KEYS], argv)


def settlement(
    rid: str, visitor: Visitor, chain: str | None, day: int, charge: int, *, is_held: bool
) -> dict[str, str]:
    """The names in it but for what was seen; `is_held` where this worker has the hold open."""
    return {
        "rid": rid,
        "narrow": visitor.address,
        "wide": visitor.wide or visitor.address,
        "of": chain or visitor.address,
        "charge": f"{charge}",
        "day": f"{day}",
        "payer": visitor.address if is_held else "",
        "wider": (visitor.wide or "") if is_held else "",
    }


def names_of(seen: DayTotal) -> dict[str, str]:
    """The names of what the worker saw of a day's money."""
    return {"epoch": seen.epoch, "spent": f"{seen.spent}", "changes": f"{seen.changes}"}


def _constants(limits: Limits) -> tuple[int, ...]:
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


def _policy(limits: Limits) -> tuple[int, int, int]:
    """The same of the caps, in µUSD, and whether an earlier life of the store is believed."""
    caps = limits.caps
    return (
        OFF if caps.day is None else caps.day,
        OFF if caps.visitor is None else caps.visitor,
        int(limits.failover_fence),
    )


def total_of(said: Reply) -> DayTotal:
    """What a script saw of a day's money: the end of every reply."""
    epoch, spent, changes = said
    return DayTotal(cast(bytes, epoch).decode(), int(spent), int(changes))


def judge(reply: Reply, visitor_cap: int | None) -> Verdict:
    """The verdict of a reply of admit.lua; raises the `Rejection` that it says instead."""
    numbers = map(int, reply[3 : DAY + 1])
    number, last_ms, born_ms, wait_ms, left, regained, starts, regained_starts, *more = numbers
    held, max_output, budget, ends_in, day = more
    standing = Standing(
        Quota(left, regained),
        Quota(starts, regained_starts) if starts >= 0 else None,
        Budget(budget, visitor_cap or 0, ends_in) if budget >= 0 else None,
    )
    verdict = Verdict(number, last_ms, born_ms, standing, Hold(held, max_output, day))
    if reply[1] == b"admitted":
        return verdict
    code, chain = cast(bytes, reply[1]).decode(), cast(bytes, reply[2]).decode()
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
