"""More turns at once than Redis has connections for: a bounded wait, a plain no, nothing lost."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis.asyncio

from security.calls import Deadlines
from security.store import CONNECTIONS, connect
from tests.faults.figures import CROWDED, Figures
from tests.faults.store_stage import OwnRedis
from tests.security.ledger_stage import Chain, Store, ledger_on, outcome
from tests.stage import Upstream, Visitor, at_rest, eventually, serving, settings_with, visiting

CROWD = 400
DEADLINES = Deadlines(command=8, whole=8.5)  # a place is waited for until 0.5
BUSY = 3.0  # seconds in which it replies to nobody: far less than a command may take
SPARE = 4  # for questions about the store itself
ADMITTED = ("admitted", "advanced")
OVERLOADED = ("overloaded", None)


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


@pytest.fixture
async def client(store: OwnRedis) -> AsyncIterator[Store]:
    """A client of it that waits as long as a command may take."""
    url = f"unix://{store.socket}"
    client: Store = connect(url, timeout=DEADLINES.command, connect_timeout=DEADLINES.command)
    yield client
    await client.aclose()


async def connections_of(store: OwnRedis) -> int:
    """How many clients it has, who asks left out."""
    with store.client() as client:
        return len(client.client_list()) - 1


async def test_a_crowd_waits_for_so_long_and_no_longer(
    store: OwnRedis, client: Store, figures: Figures
) -> None:
    """Some get in, the others are told long before the store speaks again; 54 connections at most;
    all is well after it."""
    ledger = ledger_on(client, deadlines=DEADLINES)
    await ledger.load(connections=CONNECTIONS)
    await outcome(Chain(ledger, client).redeem())
    chains = [Chain(ledger, client) for _ in range(CROWD)]
    be_busy(store, BUSY)
    took: list[float] = []
    found = Counter(await asyncio.gather(*(timed(chain, took) for chain in chains)))
    most = await connections_of(store)
    figures.note(CROWDED, most)
    print(f"{dict(found)}; slowest {max(took):.2f} s; {most} connections")
    assert {*found} == {ADMITTED, OVERLOADED}
    assert found[ADMITTED] >= CONNECTIONS
    assert max(took) < BUSY * 2 / 3
    assert most <= CONNECTIONS + SPARE
    assert await outcome(Chain(ledger, client).redeem()) == ADMITTED
    assert not ledger._calls._places.locked()


def be_busy(store: OwnRedis, seconds: float) -> None:
    """Reply to nobody for so long, from now on."""
    store.tell("CLIENT", "PAUSE", str(round(seconds * 1000)), "ALL")


async def timed(chain: Chain, took: list[float]) -> tuple[str, str | None]:
    """How it ends, and how long a refusal takes."""
    began = time.monotonic()
    found = await outcome(chain.redeem())
    if found != ADMITTED:
        took.append(time.monotonic() - began)
    return found


async def test_who_finds_no_room_is_told_when_to_come_again(
    store: OwnRedis, upstream: Upstream
) -> None:
    """503 with Retry-After and the token kept; nothing stays open, and the next turn gets in."""
    settings = settings_with(
        redis_url=f"unix://{store.socket}",
        openai_base_url=upstream.url,
        redis_timeout_ms=4000,
        redis_deadline_ms=4500,  # a place is waited for until 0.5 here, too
    )
    async with serving(settings) as server, visiting(server) as visitor:
        assert (await visitor.say()).status == 200
        be_busy(store, BUSY)
        asked = [visitor.post(visitor.body(), visitor.headers()) for _ in range(4 * CONNECTIONS)]
        refused = [answer for answer in await asyncio.gather(*asked) if answer.status == 503]
        no_room = [answer for answer in refused if answer.code == "overloaded"]
        assert no_room
        assert {answer.json["chain"] for answer in no_room} == {"kept"}
        assert {answer.code for answer in refused} <= {"overloaded", "store_unavailable"}
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        await eventually(lambda: at_rest(server))
        visitor.token = None
        await eventually(lambda: gets_in(visitor))


async def gets_in(visitor: Visitor) -> bool:
    """Whether a turn is admitted."""
    return (await visitor.say()).status == 200


async def test_by_its_defaults_the_client_library_opens_one_for_each(
    store: OwnRedis, figures: Figures
) -> None:
    """The control: a plain client connects once for every call that is open, until it raises."""
    async with redis.asyncio.Redis(unix_socket_path=store.socket) as naive:
        be_busy(store, 0.35)
        asked = [naive.get("x") for _ in range(CROWD)]
        told = await asyncio.gather(*asked, return_exceptions=True)
        figures.note(CROWDED, await connections_of(store), control=True)
    assert any(isinstance(each, redis.exceptions.MaxConnectionsError) for each in told)
