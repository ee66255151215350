"""A visitor with an own key who hangs up: upstream is closed, and the turn settled."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import redis
from openai import AsyncOpenAI

from completions.own_key_request import OwnKeyRequest
from house import Keyturn
from security.gate import Admission
from tests.own_key_stage import ask
from tests.stage import Server, Upstream, eventually, serving, settings_with, visiting
from tests.upstream import play


def in_flight(redis_url: str) -> int:
    """How many turns Redis holds open."""
    with redis.Redis.from_url(redis_url) as store:
        return sum(int(store.zcard(key)) for key in store.scan_iter("*:inflight:*"))


async def seconds_until_closed(server: Server, upstream: Upstream, script: str) -> float:
    """Hang up on a running turn; how long upstream's connection then stays open."""
    async with visiting(server) as visitor:
        turn = asyncio.create_task(ask(visitor, script))

        async def asked() -> bool:
            books = await upstream.books()
            return bool(books) and (books[-1]["chunks"] == 1 or "silent" in script)

        await eventually(asked)
        turn.cancel()
        hung_up = time.time()

    async def closed() -> bool:
        return bool((await upstream.books())[-1]["ended"] == "closed")

    try:
        await eventually(closed, limit=1)
    except AssertionError:
        return 1.0
    return float((await upstream.books())[-1]["ended_at"]) - hung_up


@pytest.mark.parametrize("script", [play(hang_after=1), play(silent=True)])
async def test_a_hang_up_closes_upstream(
    server: Server, upstream: Upstream, redis_url: str, script: str
) -> None:
    """Within half a second upstream is closed, also while it is silent, and the turn is settled."""
    assert await seconds_until_closed(server, upstream, script) < 0.5

    async def settled() -> bool:
        return in_flight(redis_url) == 0

    await eventually(settled, limit=2)


async def test_a_stream_read_by_a_task_of_its_own_would_stay_open(
    redis_url: str, upstream: Upstream
) -> None:
    """The control: a door that reads upstream beside the request does not notice the hang-up."""
    reading: set[asyncio.Task[None]] = set()

    class Naive:
        @asynccontextmanager
        async def stream(
            self, admission: Admission[OwnKeyRequest]
        ) -> AsyncIterator[AsyncIterator[bytes]]:
            texts: asyncio.Queue[bytes] = asyncio.Queue()

            async def read() -> None:
                async with AsyncOpenAI(api_key="sk-x", base_url=upstream.url) as client:
                    messages: Any = admission.request.messages
                    async for chunk in await client.chat.completions.create(
                        model="m", messages=messages, stream=True
                    ):
                        texts.put_nowait((chunk.choices[0].delta.content or "").encode())

            async def written() -> AsyncIterator[bytes]:
                while True:
                    yield await texts.get()

            reading.add(asyncio.create_task(read()))
            yield written()

        async def close(self) -> None:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)

    def naive(keyturn: Keyturn) -> Keyturn:
        return replace(keyturn, own_key_upstream=Naive())  # type: ignore[arg-type]

    settings = settings_with(redis_url=redis_url, byok_base_url=upstream.url)
    async with serving(settings, around=naive) as server:
        assert await seconds_until_closed(server, upstream, play(hang_after=1)) >= 0.5
        await server.keyturn.own_key_upstream.close()
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
