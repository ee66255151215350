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
from tests.faults.store_stage import OwnRedis
from tests.security.ledger_stage import Chain, Store, ledger_on, outcome
from tests.stage import Upstream, Visitor, at_rest, eventually, serving, settings_with, visiting

CROWD = 400
DEADLINES = Deadlines(command=0.5, whole=0.7)  # a place is waited for until 0.2
BUSY_MS = 350  # for so long it replies to nobody: less than a command may take
SPARE = 4  # for questions about the store itself
SOON = 0.75
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


async def connections_of(store: OwnRedis) -> int:
    """How many clients it has, who asks left out."""
    with store.client() as client:
        return len(client.client_list()) - 1


async def test_a_crowd_waits_for_so_long_and_no_longer(store: OwnRedis, figures: Figures) -> None:
    """Some get in, the others are told in time; 54 connections at most; all is well after it."""
    client: Store = connect(f"unix://{store.socket}", timeout=0.5, connect_timeout=1)
    ledger = ledger_on(client, deadlines=DEADLINES)
    await ledger.load(connections=CONNECTIONS)
    await outcome(Chain(ledger, client).redeem())
    chains = [Chain(ledger, client) for _ in range(CROWD)]
    be_busy(store)
    took: list[float] = []
    found = Counter(await asyncio.gather(*(timed(chain, took) for chain in chains)))
    figures.note(REFUSAL, max(took))
    most = await connections_of(store)
    figures.note(CROWDED, most)
    print(f"{dict(found)}; slowest {max(took):.2f} s; {most} connections")
    assert {*found} == {ADMITTED, OVERLOADED}
    assert found[ADMITTED] >= CONNECTIONS
    assert max(took) < SOON
    assert most <= CONNECTIONS + SPARE
    assert await outcome(Chain(ledger, client).redeem()) == ADMITTED
    assert not ledger._calls._places.locked()
    await client.aclose()


def be_busy(store: OwnRedis, times: int = 1) -> None:
    """Reply to nobody for a while, from now on."""
    store.tell("CLIENT", "PAUSE", str(times * BUSY_MS), "ALL")


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
        redis_timeout_ms=1000,
        redis_deadline_ms=1200,
    )
    async with serving(settings) as server, visiting(server) as visitor:
        assert (await visitor.say()).status == 200
        be_busy(store, 2)
        asked = [visitor.post(visitor.body(), visitor.headers()) for _ in range(4 * CONNECTIONS)]
        refused = [answer for answer in await asyncio.gather(*asked) if answer.status == 503]
        no_room = [answer for answer in refused if answer.code == "overloaded"]
        assert no_room
        assert {answer.json["chain"] for answer in no_room} == {"kept"}
        assert {answer.code for answer in refused} <= {"overloaded", "store_unavailable"}
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        await eventually(lambda: at_rest(server))
        visitor.token = None
        await eventually(lambda: gets_in(visitor), 2)


async def gets_in(visitor: Visitor) -> bool:
    """Whether a turn is admitted."""
    return (await visitor.say()).status == 200


async def test_by_its_defaults_the_client_library_opens_one_for_each(
    store: OwnRedis, figures: Figures
) -> None:
    """The control: a plain client connects once for every call that is open, until it raises."""
    async with redis.asyncio.Redis(unix_socket_path=store.socket) as naive:
        be_busy(store)
        asked = [naive.get("x") for _ in range(CROWD)]
        told = await asyncio.gather(*asked, return_exceptions=True)
        figures.note(CROWDED, await connections_of(store), control=True)
    assert any(isinstance(each, redis.exceptions.MaxConnectionsError) for each in told)
