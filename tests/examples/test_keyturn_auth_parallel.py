"""One token in flight at a time, for threads and for tasks; answers overlap."""

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from keyturn_auth import KeyturnAuth
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.examples.sdk_stage import KINDS, asked, chains, talking, text_of
from tests.stage import Server, Upstream, eventually, serving, settings_with
from tests.upstream import play
from tests.wire import END, WHOLE, ByHand, event

TURNS = 12


@pytest.fixture
async def server(redis_url: str, upstream: Upstream) -> AsyncIterator[Server]:
    """Keyturn, where a chain may have many streams."""
    settings = settings_with(
        redis_url=redis_url, openai_base_url=upstream.url, max_streams_per_chain=TURNS
    )
    async with serving(settings) as server:
        yield server


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[CuttingProxy]:
    """What sees every request on its way to the server."""
    async with cutting_proxy(server.url) as proxy:
        yield proxy


def tokens(proxy: CuttingProxy) -> list[str]:
    """The token of every turn; none for a first one."""
    return [carried.headers.get("authorization", "none") for carried in proxy.of("POST")]


@pytest.mark.parametrize("kind", KINDS)
async def test_turns_at_once_follow_each_other(
    kind: str, server: Server, proxy: CuttingProxy
) -> None:
    """From threads and from tasks: no token is shown twice, none is refused, it is one chain."""
    async with talking(kind, proxy.url) as sdk:
        script = play(hold_ms=20, text="so ", words=2)
        answers = await asyncio.gather(*(sdk.streamed(script) for _ in range(TURNS)))
    assert answers == ["so so "] * TURNS
    assert len(set(tokens(proxy))) == len(tokens(proxy)) == TURNS
    assert await chains(server) == [TURNS]


class Unqueued(KeyturnAuth):
    """A control: nobody waits for anybody."""

    def _line_up(self) -> Any:
        _, mine = super()._line_up()
        before: Any = type(mine)()
        before.set_result(None)
        return before, mine


@pytest.mark.parametrize("kind", KINDS)
async def test_without_the_queue_tokens_are_shown_twice(
    kind: str, server: Server, proxy: CuttingProxy
) -> None:
    """Control: turns that do not wait for each other scatter over several chains."""
    async with talking(kind, proxy.url, Unqueued(proxy.url)) as sdk:
        await asyncio.gather(*(sdk.streamed(play(hold_ms=20)) for _ in range(4)))
    assert len(await chains(server)) > 1


@pytest.mark.parametrize("kind", KINDS)
async def test_answers_overlap(kind: str, redis_url: str, hand: ByHand) -> None:
    """The token is free once the headers are there: a turn ends while an earlier one streams."""
    settings = settings_with(redis_url=redis_url, openai_base_url=hand.url)
    async with serving(settings) as server, talking(kind, server.url) as sdk:
        first = asyncio.create_task(sdk.streamed("first"))
        long = await hand.call()
        second = asyncio.create_task(sdk.whole("second"))
        await long.begin()
        await long.say(event("a long "))
        short = await hand.call()
        await short.whole("200 OK", "application/json", json.dumps(WHOLE).encode())
        assert await second == "hi"
        assert not first.done()
        await long.end(event("answer") + END)
        assert await first == "a long answer"
        assert await chains(server) == [2]


async def test_a_task_that_gives_up_waiting_holds_up_nobody(redis_url: str, hand: ByHand) -> None:
    """Cancelled in the queue, a turn is never sent, and those behind it still wait their turn."""
    settings = settings_with(redis_url=redis_url, openai_base_url=hand.url)
    async with (
        serving(settings) as server,
        cutting_proxy(server.url) as proxy,
        talking("async", proxy.url) as sdk,
    ):
        turns = [asyncio.create_task(sdk.whole(name)) for name in ("one", "two", "three")]
        call = await hand.call()
        turns[1].cancel()
        assert await gone(turns[1])
        assert not turns[2].done()
        assert len(proxy.of("POST")) == 1
        await call.whole("200 OK", "application/json", json.dumps(WHOLE).encode())
        call = await hand.call()
        await call.whole("200 OK", "application/json", json.dumps(WHOLE).encode())
        assert [await turns[0], await turns[2]] == ["hi", "hi"]
        assert await chains(server) == [2]


async def test_a_task_that_gives_up_in_flight_frees_the_token(
    server: Server, proxy: CuttingProxy
) -> None:
    """Cancelled before its headers came, a turn lets the next one go, if in a new chain."""
    async with talking("async", proxy.url) as sdk:
        turn = asyncio.create_task(sdk.whole(play(silent=True)))
        await eventually(lambda: reached(proxy))
        turn.cancel()
        assert await gone(turn)
        assert await sdk.whole("next") == "next next next "


async def reached(proxy: CuttingProxy) -> bool:
    """Whether a turn is under way."""
    return bool(proxy.of("POST"))


async def gone(task: "asyncio.Task[str]") -> bool:
    """Whether a task ends by being cancelled."""
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    return isinstance(outcome, asyncio.CancelledError)


async def test_lost_answers_of_parallel_tasks(server: Server, proxy: CuttingProxy) -> None:
    """Each retry is known for the send that it repeats: only keys of lost answers come again."""
    async with talking("async", proxy.url) as sdk:
        for _ in range(3):
            proxy.cut_next()
        names = [f"task {number}" for number in range(TURNS)]
        answers = await asyncio.gather(*(sdk.whole(name) for name in names))
    assert answers == [f"{name} " * 3 for name in names]
    keys = [carried.headers["idempotency-key"] for carried in proxy.of("POST")]
    repeated = {key for key in keys if keys.count(key) > 1}
    lost = {carried.headers["idempotency-key"] for carried in proxy.of("POST") if carried.cut}
    assert repeated <= lost


async def test_several_loops_may_use_one_auth(server: Server) -> None:
    """Nothing is bound to the event loop in which it was first used."""
    auth = KeyturnAuth(server.url)

    async def two_at_once() -> None:
        async with talking("async", server.url, auth) as sdk:
            await asyncio.gather(sdk.whole("one"), sdk.whole("two"))

    for _ in range(2):
        await asyncio.to_thread(asyncio.run, two_at_once())
    assert await chains(server) == [4]


async def test_threads_of_one_pool(server: Server, proxy: CuttingProxy) -> None:
    """As a program with a thread pool does it: threads that are used again mix up no keys."""

    def talk() -> list[str]:
        with ExitStack() as stack:
            auth = KeyturnAuth(proxy.url)
            http = stack.enter_context(httpx2.Client(auth=auth, trust_env=False))
            pool = stack.enter_context(ThreadPoolExecutor(3))
            client = OpenAI(base_url=f"{proxy.url}/v1", api_key="keyturn", http_client=http)
            create = client.chat.completions.create
            return list(pool.map(lambda name: text_of(create(**asked(name))), "abcdefgh"))

    assert await asyncio.to_thread(talk) == [f"{name} " * 3 for name in "abcdefgh"]
    assert len({carried.headers["idempotency-key"] for carried in proxy.of("POST")}) == 8
    assert await chains(server) == [8]
