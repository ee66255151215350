"""Redis as an attack leaves it: turns admitted, money, and no key that should not be there."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import redis

_ID: Final = r"[A-Za-z0-9_-]{16,43}"
_KEYS: Final = re.compile(
    r"keyturn:\{(main|other)\}:(control|blocked|holds|start:all"
    rf"|(chain|hold|closed|rate|start|inflight|reject):({_ID}|readyz)|spend:[0-9]+(:{_ID})?)"
)
_ENDLESS: Final = ("control", "blocked")  # the operator's own, which last


@dataclass(frozen=True)
class Look:
    """How it stands: chain -> turn that may come next, scripts run so far, µUSD spent, open holds."""

    chains: dict[str, int]
    calls: int
    spent: int
    holds: int

    def admitted_since(self, before: "Look") -> int:
        """How many turns were admitted between two looks."""
        return sum(turn - before.chains.get(chain, 0) for chain, turn in self.chains.items())


class Store:
    """The Redis of the servers under attack."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client: Any = redis.Redis.from_url(url, decode_responses=True)

    def look(self) -> Look:
        """How it stands now."""
        names = list(self.client.scan_iter("keyturn:*:chain:*", 1000))
        pipe = self.client.pipeline(transaction=False)
        for name in names:
            pipe.hget(name, "n")
        turns = pipe.execute()
        days = self.client.keys("keyturn:*:spend:[0-9]*")
        spent = sum(int(self.client.hget(day, "spent") or 0) for day in days if day.count(":") == 3)
        stats = self.client.info("commandstats")
        holds = len(self.client.keys("keyturn:*:hold:*"))
        calls = stats.get("cmdstat_evalsha", {}).get("calls", 0)
        chains = {name: int(turn or 0) for name, turn in zip(names, turns, strict=True)}
        return Look(chains, calls, spent, holds)

    def forget_limits(self) -> None:
        """As if nobody had asked for a long time."""
        limits = ("rate", "start", "reject", "inflight")
        names = [name for kind in limits for name in self.client.keys(f"keyturn:*:{kind}:*")]
        self.client.delete("keyturn:{main}:control", "keyturn:{other}:control", *names)

    def age_chains(self, seconds: float) -> None:
        """As if each chain's last turn had been so long ago."""
        for name in self.client.keys("keyturn:*:chain:*"):
            self.client.hincrby(name, "last", -round(seconds * 1000))

    def set_birth(self, chain: str, born_ms: int) -> None:
        """As if a chain had begun at another time."""
        self.client.hset(f"keyturn:{{main}}:chain:{chain}", "born", born_ms)

    def drop_chains(self) -> None:
        """As if every chain had been evicted."""
        if names := self.client.keys("keyturn:*:chain:*"):
            self.client.delete(*names)

    def odd_keys(self) -> Iterator[str]:
        """Keys that no part of ours should have made, or that would stay for ever."""
        for name in self.client.keys("*"):
            if not _KEYS.fullmatch(name):
                yield f"{name[:60]!r} is no key of ours"
            elif self.client.ttl(name) == -1 and not name.endswith(_ENDLESS):
                yield f"{name[:60]!r} would stay for ever"

    def close(self) -> None:
        """Hang up."""
        self.client.close()
