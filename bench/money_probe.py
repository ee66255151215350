"""After a run: is a turn that fits admitted, and one that does not fit refused?

A cap that is kept by refusing what would have fitted is no cap but a leak: a hold that nobody gave
back refuses turns all day, and the sums never show it.
"""

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import redis

from bench.money_ledger import Ledger, names, read_ledger, set_cap
from bench.money_stage import Scene
from bench.plan import PRICED, Turn
from bench.rush import Ended, new_session, take
from tests.money.books import worst
from tests.stage import wait_until

FAR = 10**12
BUSIEST = 4
BREAKER_SECONDS = 6


@dataclass
class Probe:
    """Small turns, one by one, by visitors who never came before unless they are named."""

    scene: Scene
    store: "redis.Redis"
    day: int
    phantoms: int = 0
    broken: list[str] = field(default_factory=list)
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def ledger(self) -> Ledger:
        """The money as it is now."""
        return read_ledger(self.store, self.day)

    def ask(self, address: str | None = None) -> str:
        """Take one small turn that may not be shrunk; how it ended."""
        number = next(self.numbers)
        script = {"words": 1, "prompt": 1, "tokens_per_word": 1}
        whose = address or f"192.0.2.{number}"
        turn = Turn(0, whose, "plain", True, "probe", script, max_tokens=1)
        before = self.ledger().day
        ended = asyncio.run(_take(self.scene.url, turn))
        if ended.code == "ok":
            wait_until(lambda: self.ledger().day.spent > before.spent)
        return ended.code

    def expect(self, what: str, fits: bool, code: str) -> None:
        """Note what should not be."""
        if fits and code != "ok":
            self.phantoms += 1
            self.broken.append(f"phantom refusal ({code}): {what}")
        if not fits and code == "ok":
            self.broken.append(f"admitted beyond the cap: {what}")


async def _take(url: str, turn: Turn) -> Ended:
    async with new_session() as session, asyncio.timeout(BREAKER_SECONDS * 2):
        while True:
            ended = await take(session, url, turn, None)
            if ended.code != "overloaded":  # else upstream failed before, and is spared for now
                return ended
            await asyncio.sleep(0.5)


async def _small(scene: Scene) -> int:
    """The worst case of the last turn that upstream was asked for."""
    body = (await scene.upstream.books())[-1]["body"]
    return worst(body, PRICED["plain"], 1)


def probe(scene: Scene, store: "redis.Redis", day: int, addresses: list[str]) -> Probe:
    """Try the edge of every cap; `addresses` are those of the visitors who asked."""
    probe = Probe(scene, store, day)
    rested = probe.ledger().day.spent
    at_rest = probe.ask()
    set_cap(store, FAR)
    probe.expect("under a far cap", True, probe.ask())
    small = asyncio.run(_small(scene))
    left = scene.caps.day - rested
    probe.expect(f"{small} into {left} of the day", small <= left, at_rest)
    for address in _busiest(probe.ledger(), addresses):
        left = _left_of(probe.ledger(), address, scene.caps.visitor)
        probe.expect(f"{small} into {left} of a visitor", small <= left, probe.ask(address))
    for spare in (0, -1):
        set_cap(store, probe.ledger().day.spent + small + spare)
        probe.expect(f"{small} into {small + spare} of the day", spare == 0, probe.ask())
    return probe


def _busiest(ledger: Ledger, addresses: list[str]) -> list[str]:
    """Those who spent most, one address of each."""
    visitors = {names(address)[0]: address for address in addresses}
    spent = {name: money.spent for name, money in ledger.visitors.items() if name in visitors}
    return [visitors[name] for name in sorted(spent, key=lambda name: -spent[name])[:BUSIEST]]


def _left_of(ledger: Ledger, address: str, cap: int) -> int:
    """What their caps leave, were there no hold: the tighter of /64 and /48."""
    tiers = zip((1, 4), names(address), strict=False)
    return min(factor * cap - ledger.visitors[name].spent for factor, name in tiers)
