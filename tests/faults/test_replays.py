"""After a failover that loses writes no token of before is honoured, and every chat goes on.

Real servers: a primary, a replica that does not hear of what is spent last, and the death of the
primary. With the fence off, as a control, what was spent is honoured again.
"""

import asyncio
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from security.store import connect
from tests.faults.figures import CROWD as LIMITED
from tests.faults.figures import REPLAYED, Figures
from tests.faults.load_stage import sends
from tests.faults.money_stage import fail_over, redises
from tests.faults.topology_stage import TOPOLOGIES, Group, Node, in_step
from tests.security.ledger_stage import Chain, Store, ledger_on, outcome
from tests.stage import (
    ROOT,
    Answer,
    Server,
    Upstream,
    Visitor,
    at_rest,
    commands,
    eventually,
    serving,
    settings_with,
    visiting,
    wait_until,
)

MANY = 5000
ADMITTED = ("admitted", "advanced")
RENEWED = ("chain_unknown", "advanced")
UNKNOWN = ("chain_unknown", "none")
DOWN = "store_unavailable"
LIMIT = 30.0

Topology = Callable[[Path], AbstractContextManager[Group]]


async def all_of(work: Sequence[Callable[[], Awaitable[Any]]], at_once: int = 40) -> list[Any]:
    """The results of all of this, so many at once."""
    places = asyncio.Semaphore(at_once)

    async def one(each: Callable[[], Awaitable[Any]]) -> Any:
        async with places:
            return await each()

    return await asyncio.gather(*(one(each) for each in work))


async def once_up(chain: Chain, number: int) -> tuple[str, str | None]:
    """How it ends to show this token, once the store answers."""
    found = await outcome(chain.redeem(number))
    return found if found[0] != DOWN else await once_up(chain, number)


@pytest.mark.parametrize("fenced", [True, False], ids=["fenced", "control"])
async def test_spent_tokens_that_a_replica_never_heard_of(
    tmp_path: Path, figures: Figures, fenced: bool
) -> None:
    """0 of 5,000 are honoured again, and each chat goes on once; without the fence all are."""
    async with redises(tmp_path) as found, AsyncExitStack() as stack:
        store: Store = connect(found.url, timeout=5, connect_timeout=5)
        stack.push_async_callback(store.aclose)
        ledger = ledger_on(store, failover_fence=fenced)
        chains = [Chain(ledger, store) for _ in range(MANY)]
        await all_of([chain.redeem for chain in chains])
        await found.mark()
        await all_of([chain.redeem for chain in chains])
        await fail_over(found)
        replays = [lambda chain=chain: once_up(chain, 1) for chain in chains]
        first = Counter(await all_of(replays))
        figures.note(REPLAYED, first[ADMITTED], of=len(chains), control=not fenced)
        assert first == {RENEWED if fenced else ADMITTED: len(chains)}
        if fenced:
            assert Counter(await all_of(replays)) == {UNKNOWN: len(chains)}


@pytest.mark.parametrize("fence", ["on", "off"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_a_real_failover(
    tmp_path: Path, upstream: Upstream, figures: Figures, topology: Topology, fence: str
) -> None:
    """Sentinels or a cluster let the replica take over by themselves: nothing that was spent is
    sent upstream again, and whoever shows it is handed a token with which the chat goes on."""
    with topology(tmp_path) as group:
        settings = settings_with(
            redis_url=group.url, openai_base_url=upstream.url, failover_fence=fence
        )
        async with serving(settings) as server, AsyncExitStack() as stack:
            visitors = [await stack.enter_async_context(visiting(server)) for _ in range(50)]
            await all_of([visitor.say for visitor in visitors], 8)
            group.cut()
            spent = [visitor.token for visitor in visitors]
            assert {a.status for a in await all_of([each.say for each in visitors], 8)} == {200}
            group.pair[0].kill()
            await eventually(lambda: gets_in(server.url), LIMIT)
            before = len(await upstream.books())
            for visitor, token in zip(visitors, spent, strict=True):
                visitor.token = token
            answers = await all_of([visitor.say for visitor in visitors], 8)
            honoured = len(await upstream.books()) - before
            figures.note(REPLAYED, honoured, of=50, control=fence == "off")
            if fence == "off":
                assert honoured == 50
                return
            assert honoured == 0
            assert {outcome_of(answer) for answer in answers} == {RENEWED}
            assert {a.status for a in await all_of([each.say for each in visitors], 8)} == {200}


async def gets_in(url: str) -> bool:
    """Whether somebody who comes without a token is admitted."""
    async with visiting(url) as visitor:
        return (await visitor.say()).status == 200


def outcome_of(answer: Answer) -> tuple[str | None, str | None]:
    """Code and chain of a refusal, which hands over a token exactly where it says so."""
    assert answer.code
    chain = answer.json["chain"]
    assert bool(answer.token) == (chain == "advanced")
    return answer.code, chain


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """A server, and one that follows it."""
    first, second = Node(tmp_path / "first"), Node(tmp_path / "second")
    first.start()
    first.ready()
    second.start("--replicaof", "127.0.0.1", str(first.port))
    try:
        wait_until(second.follows)
        yield first, second
    finally:
        first.kill()
        second.kill()


@pytest.mark.parametrize("fenced", [True, False], ids=["fenced", "control"])
async def test_there_and_back_without_a_restart(two: tuple[Node, Node], fenced: bool) -> None:
    """A primary that was cut off, followed its heir and leads again is the same process, with the
    heir's past: what it saw spent itself it has forgotten, and does not honour."""
    first, second = two
    group = Group("", [first, second], two, lambda: None)
    store: Store = connect(f"redis://127.0.0.1:{first.port}", timeout=5, connect_timeout=5)
    chain = await Chain(ledger_on(store, failover_fence=fenced), store).take(1)
    run_id = first.info("server")["run_id"]
    group.cut()
    await chain.redeem()
    second.says("REPLICAOF NO ONE")
    first.says("REPLICAOF", "127.0.0.1", second.port)
    await eventually(lambda: is_in_step(second, first))
    first.says("REPLICAOF NO ONE")
    assert first.info("server")["run_id"] == run_id
    assert await once_up(chain, 1) == (RENEWED if fenced else ADMITTED)
    await store.aclose()


async def is_in_step(primary: Node, replica: Node) -> bool:
    """Whether a replica has all of its primary."""
    return in_step(primary, replica)


async def test_a_restart_that_lost_nothing(two: tuple[Node, Node]) -> None:
    """It ends what was before all the same: a server cannot tell what it lost."""
    server, _ = two
    store: Store = connect(f"redis://127.0.0.1:{server.port}", timeout=5, connect_timeout=5)
    chain = await Chain(ledger_on(store), store).take(1)
    server.kill()
    server.start()
    server.ready()
    assert await once_up(chain, 1) == RENEWED
    assert server.says("HGET", chain.key, "n") == "1"
    await store.aclose()


# -- what a visitor notices


CROWD = 300
STRICT = {"start_limit": "60/hour", "start_limit_global": "60/minute", "rate_limit": "30/minute"}


@pytest.mark.parametrize("takes_it", [True, False], ids=["takes the token", "control"])
async def test_a_crowd_that_loses_its_tokens_at_once(
    redis_url: str, upstream: Upstream, figures: Figures, takes_it: bool
) -> None:
    """All chat on at once, five times as many as may begin a chat in a minute, by two calls more
    each; pages that leave the token that they are handed are told to wait."""
    urls = {"redis_url": redis_url, "openai_base_url": upstream.url, "trusted_proxies": "127.0.0.1"}
    urls |= {"redis_timeout_ms": "5000", "redis_deadline_ms": "10000"}  # all begin, however busy
    async with AsyncExitStack() as stack:
        async with serving(settings_with(**urls)) as generous:
            crowd = [await stack.enter_async_context(from_home(generous, n)) for n in range(CROWD)]
            assert {answer.code for answer in await all_of([each.say for each in crowd])} == {None}
        with redis.Redis.from_url(redis_url) as client:
            client.replicaof("127.0.0.1", "1")
            client.replicaof("NO", "ONE")
            client.config_resetstat()
        async with serving(settings_with(**urls, **STRICT)) as server:
            for visitor in crowd:
                visitor.url = server.url
            lost = Counter(outcome_of(a) for a in await all_of([each.say for each in crowd]))
            assert lost == {RENEWED: CROWD}
            for visitor in crowd:
                visitor.token = visitor.token if takes_it else None
            told = Counter(answer.code for answer in await all_of([each.say for each in crowd]))
            await eventually(lambda: at_rest(server))
        asked = commands(redis_url)["evalsha"]
        figures.note(LIMITED, told["start_limited"], of=CROWD, control=not takes_it)
        if takes_it:
            assert told == {None: CROWD}
            assert asked <= 3 * CROWD
        else:
            assert told["start_limited"] > CROWD / 3


def from_home(server: Server, number: int) -> AbstractAsyncContextManager[Visitor]:
    """A visitor with an address of their own."""
    address = f"198.51.{100 + number // 250}.{number % 250}"
    return visiting(server, extra={"X-Forwarded-For": address})


PAGE = """
import { createInterface } from 'node:readline';
const { createFetch } = await import(process.argv[1]);
const send = createFetch({ baseURL: process.argv[2], fingerprint: 'a-page-that-runs-in-node' });
for await (const content of createInterface({ input: process.stdin })) {
  const body = JSON.stringify({ messages: [{ role: 'user', content }] });
  const headers = { 'Content-Type': 'application/json' };
  const answer = await send('/v1/chat/completions', { method: 'POST', headers, body });
  console.log(answer.status, (await answer.json()).code ?? 'answered');
}
"""


async def test_a_page_chats_on_by_client_js(redis_url: str, upstream: Upstream) -> None:
    """The module for pages takes the token that it is handed: the visitor sees an answer, although
    no new chat may begin, and upstream is asked once a turn."""
    settings = settings_with(
        redis_url=redis_url, openai_base_url=upstream.url, start_limit="1/day", require_origin="off"
    )
    module = (ROOT / "public" / "client.js").as_uri()
    async with serving(settings) as server:
        page = await asyncio.create_subprocess_exec(
            *("node", "--input-type=module", "-e", PAGE, module, server.url),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert page.stdin
        assert page.stdout
        try:
            for turn, lose in enumerate((False, False, True, False, True)):
                if lose:
                    with redis.Redis.from_url(redis_url) as client:
                        client.replicaof("127.0.0.1", "1")
                        client.replicaof("NO", "ONE")
                page.stdin.write(f"turn {turn}\n".encode())
                async with asyncio.timeout(20):
                    assert await page.stdout.readline() == b"200 answered\n"
        finally:
            page.kill()
            await page.wait()
    assert set(sends(await upstream.books()).values()) == {1}
