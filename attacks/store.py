"""Redis as an attack leaves it: turns admitted, money, and no key that should not be there."""

import re
from dataclasses import dataclass
from typing import Any, Final

import redis

from security.keyed_hash import KeyedHash, derive_key
from tests.attacks.canaries import OPERATORS, TEXTS, UPSTREAMS, VISITORS, dump, hits

MARK: Final = "-7b6a5c"  # the end of the word by which an attacker's texts are known

_ID: Final = r"[A-Za-z0-9_-]{16,43}"
_KEYS: Final = re.compile(
    r"keyturn:\{(main|other)\}:(control|blocked|holds|start:all"
    rf"|(chain|hold|closed|rate|start|inflight|reject):({_ID}|readyz)|spend:[0-9]+(:{_ID})?)"
)
_ENDLESS: Final = ("control", "blocked")  # the operator's own, which last

# Chains and their turns, µUSD spent in all days, holds: in one go, for there are many looks.
LOOK: Final = """
local turns, spent = {}, 0
for _, name in ipairs(redis.call('KEYS', 'keyturn:*:chain:*')) do
  turns[#turns + 1] = name
  turns[#turns + 1] = redis.call('HGET', name, 'n') or '0'
end
for _, name in ipairs(redis.call('KEYS', 'keyturn:*:spend:*')) do
  if string.match(name, ':spend:%d+$') then
    spent = spent + (redis.call('HGET', name, 'spent') or 0)
  end
end
return {turns, tostring(spent), #redis.call('KEYS', 'keyturn:*:hold:*')}
"""
FORGET: Final = """
for _, kind in ipairs({'rate', 'start', 'reject', 'inflight'}) do
  for _, name in ipairs(redis.call('KEYS', 'keyturn:*:' .. kind .. ':*')) do
    redis.call('DEL', name)
  end
end
redis.call('DEL', 'keyturn:{main}:control', 'keyturn:{other}:control')
"""


@dataclass(frozen=True)
class Look:
    """How it stands: chain -> the turn that may come next, scripts run, µUSD spent, open holds."""

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
        self._hashed = KeyedHash(derive_key(OPERATORS["identity key"]))

    def look(self) -> Look:
        """How it stands now."""
        turns, spent, holds = self._run(LOOK)
        stats = self.client.info("commandstats")
        calls = stats.get("cmdstat_evalsha", {}).get("calls", 0)
        chains = dict(zip(turns[::2], map(int, turns[1::2]), strict=True))
        return Look(chains, calls, int(spent), holds)

    def forget_limits(self) -> None:
        """As if nobody had asked for a long time."""
        self._run(FORGET)

    def _run(self, script: str) -> Any:
        return self.client.eval(script, 0)

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

    def leave_of_the_day(self, micro_usd: int) -> None:
        """Set the day's cap so that this much is left of it, when nothing is held."""
        spent, held = (int(self._day(name) or 0) for name in ("spent", "held"))
        self.client.hset("keyturn:{main}:control", "cap", spent + held + micro_usd)

    def _day(self, name: str) -> Any:
        return self.client.hget(f"keyturn:{{main}}:spend:{self._today()}", name)

    def _today(self) -> int:
        return int(self.client.time()[0]) // 86_400

    def spend_all_of(self, address: str) -> None:
        """As if a visitor had spent their day."""
        visitor = self._hashed("addr", f"{address}/32".encode())
        name = f"keyturn:{{main}}:spend:{self._today()}:{visitor}"
        self.client.hset(name, "spent", 500_000)
        self.client.expire(name, 172_800)

    def odd_keys(self) -> list[str]:
        """Keys that no part of ours should have made, or that would stay for ever."""
        names = self.client.keys("*")
        pipe = self.client.pipeline(transaction=False)
        for name in names:
            pipe.ttl(name)
        endless = {name for name, ttl in zip(names, pipe.execute(), strict=True) if ttl == -1}
        strange = [name for name in names if not _KEYS.fullmatch(name)]
        lasting = [name for name in endless if not name.endswith(_ENDLESS)]
        return [f"{name[:60]!r} is no key of ours" for name in strange] + [
            f"{name[:60]!r} would stay for ever" for name in lasting
        ]

    def secrets(self) -> list[str]:
        """Secrets and texts that are kept where only hashes should be, in whatever dress."""
        kept = dump(self.url)
        found = hits(OPERATORS | VISITORS | TEXTS | UPSTREAMS, kept)
        words = [word for word in (MARK, "fingerprint-") if word.encode() in kept]
        return [f"Redis holds the {each}" for each in [*found, *words]]

    def drop_what_is_over(self) -> None:
        """Take away chains, and what is remembered of turns that were settled."""
        if names := self.client.keys("keyturn:*:chain:*") + self.client.keys("keyturn:*:closed:*"):
            self.client.delete(*names)

    def close(self) -> None:
        """Hang up."""
        self.client.close()
