"""More turns at once than Redis has connections for: a bounded wait, a plain no, nothing lost."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis.asyncio

from security.calls import Deadlines
from security.store import CONNECTIONS, connect
from tests.faults.figures import CROWDED, REFUSAL, Figures
from tests.faults.store_stage import OwnRedis, wired
from tests.security.ledger_stage import Chain, Store, ledger_on, outcome
from tests.stage import Upstream, Visitor, at_rest, eventually, serving, settings_with, visiting

CROWD = 400
SLOW = 0.12  # seconds for each reply: less than the limit of a command
DEADLINES = Deadlines(command=0.4, whole=0.6)
SPARE = 4  # for questions about the store itself
SOON = 0.75


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OwnRedis]:
    """A Redis of our own."""
    store = OwnRedis(tmp_path)
    store.start()
    try:
        store.ready()
        yield store
    finally:
        store.kill()


async def connections_of(store: OwnRedis) -> int:
    """How many clients it has, who asks left out."""
    with store.client() as client:
        return len(client.client_list()) - 1


async def test_a_crowd_waits_for_so_long_and_no_longer(
    store: OwnRedis, tmp_path: Path, figures: Figures
) -> None:
    """Some get in, the others are told in time; 54 connections at most; all is well after it."""
    async with wired(store.socket, tmp_path) as (wire, url):
        client: Store = connect(url, timeout=0.25, connect_timeout=1)
        ledger = ledger_on(client, deadlines=DEADLINES)
        await ledger.load(connections=CONNECTIONS)
        chains = [Chain(ledger, client) for _ in range(CROWD)]
        wire.delay = SLOW
        took: list[float] = []
        found = Counter(await asyncio.gather(*(timed(chain, took) for chain in chains)))
        figures.note(REFUSAL, max(took))
        most = await connections_of(store)
        figures.note(CROWDED, most)
        print(f"{dict(found)}; slowest {max(took):.2f} s; {most} connections")
        assert set(found) <= {("admitted", "advanced"), ("overloaded", None)}
        assert found["overloaded", None] > CROWD / 2
        assert found["admitted", "advanced"] >= CONNECTIONS
        assert max(took) < SOON
        assert most <= CONNECTIONS + SPARE
        wire.delay = 0
        assert await outcome(Chain(ledger, client).redeem()) == ("admitted", "advanced")
        assert not ledger._calls._places.locked()
        await client.aclose()


async def timed(chain: Chain, took: list[float]) -> tuple[str, str | None]:
    """How it ends, and how long that takes."""
    began = time.monotonic()
    found = await outcome(chain.redeem())
    took.append(time.monotonic() - began)
    return found


async def test_who_finds_no_room_is_told_when_to_come_again(
    store: OwnRedis, tmp_path: Path, upstream: Upstream
) -> None:
    """503 with Retry-After and the token kept; nothing stays open, and the next turn gets in."""
    async with wired(store.socket, tmp_path) as (wire, url):
        settings = settings_with(
            redis_url=url,
            openai_base_url=upstream.url,
            redis_timeout_ms=1000,
            redis_deadline_ms=1200,
        )
        async with serving(settings) as server, visiting(server) as visitor:
            assert (await visitor.say()).status == 200
            wire.delay = 0.5
            asked = [
                visitor.post(visitor.body(), visitor.headers()) for _ in range(4 * CONNECTIONS)
            ]
            told = await asyncio.gather(*asked)
            wire.delay = 0
            refused = [answer for answer in told if answer.code == "overloaded"]
            assert refused
            for answer in refused:
                assert answer.status == 503
                assert int(answer.headers["Retry-After"]) >= 1
                assert answer.json["chain"] == "kept"
            await eventually(lambda: at_rest(server))
            visitor.token = None
            await eventually(lambda: gets_in(visitor), 2)


async def gets_in(visitor: Visitor) -> bool:
    """Whether a turn is admitted."""
    return (await visitor.say()).status == 200


async def test_by_its_defaults_the_client_library_opens_one_for_each(
    store: OwnRedis, tmp_path: Path, figures: Figures
) -> None:
    """The control: a plain client connects once for every call that is open, until it raises."""
    async with wired(store.socket, tmp_path) as (wire, url):
        wire.delay = SLOW
        path = url.removeprefix("unix://")
        async with redis.asyncio.Redis(unix_socket_path=path) as naive:
            asked = [naive.get("x") for _ in range(CROWD)]
            told = await asyncio.gather(*asked, return_exceptions=True)
            figures.note(CROWDED, await connections_of(store), control=True)
        assert any(isinstance(each, redis.exceptions.MaxConnectionsError) for each in told)
