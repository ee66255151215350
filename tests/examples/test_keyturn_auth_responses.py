"""Responses through the openai SDK: the same auth, the same chain."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response

from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.examples.sdk_stage import KINDS, MODEL, AsyncSdk, Sdk, SyncSdk, chains, talking
from tests.stage import Server, Upstream
from tests.upstream import play

pytestmark = pytest.mark.parametrize("kind", KINDS)
WORD = "response.output_text.delta"


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[CuttingProxy]:
    """What sees every request on its way to the server."""
    async with cutting_proxy(server.url) as proxy:
        yield proxy


async def whole(sdk: Sdk, words: str) -> str:
    """Take a turn whose answer comes as a whole."""
    if isinstance(sdk, AsyncSdk):
        return (await sdk.client.responses.create(model=MODEL, input=words)).output_text
    client = client_of(sdk)
    return await asyncio.to_thread(
        lambda: client.responses.create(model=MODEL, input=words).output_text
    )


async def streamed(sdk: Sdk, words: str, *, helper: bool = False) -> list[Any]:
    """Take a turn whose answer streams; its events."""
    if isinstance(sdk, AsyncSdk):
        return await events_async(sdk.client, words, helper)
    return await asyncio.to_thread(events, client_of(sdk), words, helper)


def client_of(sdk: Sdk) -> OpenAI:
    """The sync client."""
    assert isinstance(sdk, SyncSdk)
    return sdk.client


def events(client: OpenAI, words: str, helper: bool) -> list[Any]:
    """The events of a stream, or those of the SDK's stream helper."""
    if helper:
        with client.responses.stream(model=MODEL, input=words) as told:
            return [*told, told.get_final_response()]
    with client.responses.create(model=MODEL, input=words, stream=True) as stream:
        return list(stream)


async def events_async(client: AsyncOpenAI, words: str, helper: bool) -> list[Any]:
    """The same, with the async client."""
    if helper:
        async with client.responses.stream(model=MODEL, input=words) as told:
            return [*[event async for event in told], await told.get_final_response()]
    async with await client.responses.create(model=MODEL, input=words, stream=True) as stream:
        return [event async for event in stream]


def text_of(events: list[Any]) -> str:
    """What a stream says."""
    return "".join(event.delta for event in events if getattr(event, "type", None) == WORD)


async def test_both_apis_share_a_chain(kind: str, server: Server, upstream: Upstream) -> None:
    """Whole, streamed, through the helper, and a turn of Chat Completions between them."""
    async with talking(kind, server.url) as sdk:
        assert await whole(sdk, "one") == "one one one "
        assert text_of(await streamed(sdk, "two")) == "two two two "
        assert await sdk.whole("three") == "three three three "
        *told, final = await streamed(sdk, "four", helper=True)
    assert isinstance(final, Response)
    assert text_of(told) == final.output_text == "four four four "
    assert await chains(server) == [4]
    paths = [entry["path"].removeprefix("/v1/") for entry in await upstream.books()]
    assert paths == ["responses", "responses", "chat/completions", "responses"]


async def test_the_sdk_alone_does_not_pass(kind: str, server: Server) -> None:
    """Control: without the auth the same call is refused, and by the gate."""
    async with talking(kind, server.url, httpx2.Auth()) as sdk:
        with pytest.raises(openai.BadRequestError) as refused:
            await whole(sdk, "alone")
    assert refused.value.code == "timestamp_missing"


async def test_an_error_before_the_stream(kind: str, server: Server) -> None:
    """Upstream's failure is the SDK's own exception with our code; the chain goes on."""
    async with talking(kind, server.url) as sdk:
        with pytest.raises(openai.InternalServerError) as failed:
            await streamed(sdk, play(status=500, body={}))
        assert failed.value.code == "upstream_unavailable"
        assert await whole(sdk, "two") == "two two two "
    assert await chains(server) == [2]


@pytest.mark.parametrize("helper", [False, True])
@pytest.mark.parametrize("failure", [{"error_after": 1}, {"reset_after": 1}])
async def test_an_error_in_mid_stream(
    kind: str, failure: dict[str, int], helper: bool, server: Server
) -> None:
    """An answer that breaks off raises `openai.APIError` with our code; the chain goes on."""
    async with talking(kind, server.url) as sdk:
        with pytest.raises(openai.APIError) as broken:
            await streamed(sdk, play(**failure), helper=helper)
        assert type(broken.value) is openai.APIError
        assert broken.value.code == "upstream_unavailable"
        assert await whole(sdk, "two") == "two two two "
    assert await chains(server) == [2]


async def test_a_lost_answer_costs_no_chain(kind: str, server: Server, proxy: CuttingProxy) -> None:
    """The SDK's retry shows the same key, is told the successor, and goes on with it."""
    async with talking(kind, proxy.url) as sdk:
        proxy.cut_next()
        assert text_of(await streamed(sdk, "lost and found")) == "lost and found " * 3
    keys = [carried.headers["idempotency-key"] for carried in proxy.of("POST")]
    assert len(keys) == 3
    assert keys[0] == keys[1] != keys[2]
    assert await chains(server) == [2]
