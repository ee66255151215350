"""What Redis says about a day's money, read from outside."""

from dataclasses import dataclass
from typing import Any

import redis

from security.client_ip import parse_address, prefixes
from security.keyed_hash import KeyedHash, derive_key
from tests.stage import SECRET

PREFIX = "keyturn:{main}:"
CONTROL = PREFIX + "control"
_HASHED = KeyedHash(derive_key(SECRET))


@dataclass(frozen=True, slots=True)
class Money:
    """µUSD spent, and µUSD held for turns that are open."""

    spent: int
    held: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """All that is known of one day: its money, and that of each visitor's name.

    `over` counts charges above their hold, `holds` the holds that are noted one by one.
    """

    day: Money
    over: int
    visitors: dict[str, Money]
    holds: int

    @property
    def held(self) -> int:
        """All that is held, µUSD, of the day or of any visitor."""
        return max(self.day.held, max((each.held for each in self.visitors.values()), default=0))


def names(address: str) -> list[str]:
    """Under which names a visitor's money is counted: his own, and for IPv6 that of the /48."""
    parsed = parse_address(address)
    assert parsed
    narrow, wide = prefixes(parsed)
    return [_HASHED("addr", prefix.encode()) for prefix in (narrow, wide) if prefix]


def money_keys(day: int, address: str) -> list[str]:
    """The keys that a turn's money counts in, the day's first."""
    of_day = f"{PREFIX}spend:{day}"
    return [of_day, *(f"{of_day}:{name}" for name in names(address))]


def read_ledger(store: "redis.Redis", day: int) -> Ledger:
    """Everything about a day, from Redis as it is."""
    of_day = f"{PREFIX}spend:{day}"
    keys = [key.decode() for key in store.scan_iter(f"{of_day}:*", count=1000)]
    visitors = {key.removeprefix(f"{of_day}:"): _money(store, key) for key in keys}
    holds = set(store.scan_iter(f"{PREFIX}hold:*", count=1000))
    leases: Any = store.zrange(f"{PREFIX}holds", 0, -1)
    holds |= {f"{PREFIX}hold:".encode() + rid for rid in leases}
    over = _whole(store.hget(of_day, "over"))
    return Ledger(_money(store, of_day), over, visitors, len(holds))


def today(store: "redis.Redis") -> int:
    """The day by the clock of Redis."""
    seconds: Any = store.time()
    return int(seconds[0]) // 86400


def set_cap(store: "redis.Redis", micro_usd: int) -> None:
    """Let the operator set the day's cap, over the setting."""
    store.hset(CONTROL, "cap", str(micro_usd))


def _money(store: "redis.Redis", key: str) -> Money:
    spent, held = store.hmget(key, ["spent", "held"])
    return Money(_whole(spent), _whole(held))


def _whole(said: Any) -> int:
    return int(said or 0)
