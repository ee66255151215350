"""One of several workers that redeem the same tokens at the same time; run as a process.

Reads one line of JSON, {"url", "kind", "turns", "times"}; says "ready" when connected and begins
at the next line. Tells as JSON how often each chain's token was honoured, and how others ended.
"""

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable

from security.errors import Rejection
from security.ledger import Ledger, new_rid
from security.scripts import Turn, Verdict
from security.store import connect
from tests.security.ledger_stage import HOME, Store, ledger_on

Redeem = Callable[[Turn], Awaitable[str]]
AT_ONCE = 40


def by_ledger(ledger: Ledger) -> Redeem:
    """Redeem as the product does."""

    async def redeem(turn: Turn) -> str:
        try:
            verdict: Verdict = await ledger.redeem(new_rid(), HOME, turn)
        except Rejection as refused:
            return f"{refused.code} {refused.chain}"
        return "admitted" if verdict.number == turn.number + 1 else "nonsense"

    return redeem


def by_looking_first(store: Store) -> Redeem:
    """Redeem as one should not: look whether the token is there, and delete it later."""

    async def redeem(turn: Turn) -> str:
        if await store.get(f"token:{turn.chain}") is None:
            return "token_reused kept"
        for _ in range(3):
            await store.ping()
        await store.delete(f"token:{turn.chain}")
        return "admitted"

    return redeem


async def warm(store: Store) -> None:
    """Open connections, so that those who race do not queue for the first one."""
    await asyncio.gather(*(store.ping() for _ in range(AT_ONCE)))


Counts = tuple[Counter[str], Counter[str]]


async def race(redeem: Redeem, turns: list[Turn], at_once: int) -> Counts:
    """Redeem all of these, so many at once: honours by chain, and outcomes."""
    honours: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    places = asyncio.Semaphore(at_once)

    async def one(turn: Turn) -> None:
        async with places:
            outcome = await redeem(turn)
        outcomes[outcome] += 1
        honours[turn.chain] += outcome == "admitted"

    await asyncio.gather(*(one(turn) for turn in turns))
    return honours, outcomes


async def main() -> None:
    """Be one worker."""
    work = json.loads(sys.stdin.readline())
    store = connect(work["url"], timeout=5, connect_timeout=5)
    ledger = ledger_on(store)
    await ledger.load()
    redeem = by_ledger(ledger) if work["kind"] == "ledger" else by_looking_first(store)
    turns = [Turn(*fields[:-1]) for fields in work["turns"]] * work["times"]
    random.Random(work["seed"]).shuffle(turns)
    await warm(store)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    honours, outcomes = await race(redeem, turns, AT_ONCE)
    print(json.dumps({"honours": honours, "outcomes": outcomes}), flush=True)
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main())
