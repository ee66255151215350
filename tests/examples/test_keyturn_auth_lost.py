"""What is lost on the way, and what has to wait, under the openai SDK's own retries."""

import asyncio
import json
from collections.abc import AsyncIterator

import openai
import pytest

from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.examples.sdk_stage import KINDS, chains, talking
from tests.stage import Server, Upstream, at_rest, eventually, serving, settings_with
from tests.wire import END, WHOLE, ByHand

pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[CuttingProxy]:
    """What cuts answers on their way to the SDK."""
    async with cutting_proxy(server.url) as proxy:
        yield proxy


def said(proxy: CuttingProxy, name: str) -> list[str | None]:
    """What every POST said in a header."""
    return [carried.headers.get(name) for carried in proxy.of("POST")]


@pytest.mark.parametrize("turns_before", [0, 1])
async def test_a_lost_answer_costs_no_chain(
    kind: str, turns_before: int, server: Server, upstream: Upstream, proxy: CuttingProxy
) -> None:
    """The SDK's retry shows the same key, is told the successor, and goes on with it.

    The lost answer was paid, and so is its repeat: nobody can read it a second time.
    """
    async with talking(kind, proxy.url) as sdk:
        for _ in range(turns_before):
            await sdk.whole("before")
        proxy.cut_next()
        assert await sdk.streamed("lost and found") == "lost and found " * 3
        lost, again, resent = proxy.of("POST")[turns_before:]
        assert (lost.cut, again.cut, resent.cut) == (True, False, False)
        assert await sdk.whole("after") == "after after after "
    for name in ("idempotency-key", "authorization"):
        assert lost.headers.get(name) == again.headers.get(name) != resent.headers.get(name)
    assert await chains(server) == [turns_before + 3]
    await eventually(lambda: at_rest(server))
    paid = [entry for entry in await upstream.books() if entry["ended"] == "done"]
    assert len(paid) == turns_before + 3
    assert all(entry["output_tokens"] == 3 for entry in paid)


async def test_a_retry_with_another_key_costs_the_chain(
    kind: str, server: Server, proxy: CuttingProxy
) -> None:
    """Control: a retry that does not look like one finds its token used, and begins a new chain."""
    async with talking(kind, proxy.url) as sdk:
        await sdk.whole("before")
        proxy.cut_next()
        await sdk.whole("lost", extra_headers={"x-stainless-retry-count": "0"})
    assert await chains(server) == [1, 2]


async def test_a_lost_answer_that_nobody_retries(
    kind: str, server: Server, proxy: CuttingProxy
) -> None:
    """The program is told that the connection failed, and its next turn works all the same."""
    async with talking(kind, proxy.url, max_retries=0) as sdk:
        await sdk.whole("before")
        proxy.cut_next()
        with pytest.raises(openai.APIConnectionError):
            await sdk.whole("lost")
        assert await sdk.whole("after") == "after after after "
    assert await chains(server) == [1, 2]


async def test_a_whole_answer_that_is_cut_in_its_body(
    kind: str, server: Server, proxy: CuttingProxy
) -> None:
    """Its head brought the successor: the SDK's retry is the next turn of the same chain."""
    async with talking(kind, proxy.url) as sdk:
        proxy.cut_next(after_head=True)
        assert await sdk.whole("cut") == "cut cut cut "
    assert len(proxy.of("POST")) == 2
    assert len(set(said(proxy, "idempotency-key"))) == 2
    assert await chains(server) == [2]


async def test_a_stream_that_is_cut_in_its_body(
    kind: str, server: Server, proxy: CuttingProxy
) -> None:
    """The SDK raises a connection error, and the next turn goes on in the same chain."""
    async with talking(kind, proxy.url) as sdk:
        proxy.cut_next(after_head=True)
        with pytest.raises(openai.APIConnectionError):
            await sdk.streamed("cut")
        assert await sdk.streamed("after") == "after after after "
    assert await chains(server) == [2]


async def test_a_rate_limit_is_waited_out(kind: str, redis_url: str, upstream: Upstream) -> None:
    """The SDK waits as long as Retry-After says; the retry has a fresh timestamp and its key."""
    settings = settings_with(
        redis_url=redis_url, openai_base_url=upstream.url, rate_limit="20/minute"
    )
    turns = 0
    async with serving(settings) as server, cutting_proxy(server.url) as proxy:
        async with talking(kind, proxy.url) as sdk:
            while len(proxy.of("POST")) == turns:
                assert await sdk.whole("one") == "one one one "
                turns += 1
        assert await chains(server) == [turns]
    refused, retried = proxy.of("POST")[-2:]
    assert refused.headers["idempotency-key"] == retried.headers["idempotency-key"]
    assert refused.headers["authorization"] == retried.headers["authorization"]
    sent = [int(carried.headers["keyturn-timestamp"]) for carried in (refused, retried)]
    assert sent[1] - sent[0] >= 1000


async def test_a_store_that_pauses_is_waited_out(
    kind: str, redis_url: str, upstream: Upstream
) -> None:
    """A 503 with Retry-After is retried with the same key, whatever the store did meanwhile."""
    settings = settings_with(redis_url=redis_url, openai_base_url=upstream.url)
    async with serving(settings) as server, cutting_proxy(server.url) as proxy:
        async with talking(kind, proxy.url) as sdk:
            await sdk.whole("one")
            await server.keyturn.store.client_pause(900)
            assert await sdk.whole("two") == "two two two "
        keys = said(proxy, "idempotency-key")
        assert keys[1] == keys[2]
        assert len(await chains(server)) == 1


async def answer(hand: ByHand) -> None:
    """Upstream answers the next turn, wholly."""
    call = await hand.call()
    await call.whole("200 OK", "application/json", json.dumps(WHOLE).encode())


async def test_a_wait_does_not_hold_up_others(kind: str, redis_url: str, hand: ByHand) -> None:
    """Between refusal and retry the token is free; the retry shows the one that is next then."""
    settings = settings_with(redis_url=redis_url, openai_base_url=hand.url, max_streams_per_chain=1)
    async with serving(settings) as server, cutting_proxy(server.url) as proxy:
        async with talking(kind, proxy.url) as sdk, asyncio.TaskGroup() as tasks:
            tasks.create_task(sdk.streamed("a stream that goes on"))
            call = await hand.call()
            await call.begin()
            tasks.create_task(sdk.whole("too many: it has to wait"))
            await eventually(lambda: sent(proxy, 2))
            await call.end(END)
            await eventually(lambda: at_rest(server))
            tasks.create_task(sdk.whole("in the meantime"))
            await answer(hand)
            await answer(hand)
        assert await chains(server) == [3]
    _, refused, meantime, retried = said(proxy, "authorization")
    assert refused == meantime != retried


async def sent(proxy: CuttingProxy, count: int) -> bool:
    """Whether so many turns were sent."""
    return len(proxy.of("POST")) >= count
