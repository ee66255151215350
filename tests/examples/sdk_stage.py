"""The real openai SDK with our auth, sync and async behind one face."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2
from openai import AsyncOpenAI, AsyncStream, OpenAI, Stream
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from keyturn_auth import KeyturnAuth
from tests.stage import Server

MODEL = "gpt-4.1-mini"
KINDS = ("sync", "async")


def asked(content: str, **said: Any) -> dict[str, Any]:
    """The arguments of a turn."""
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **said}


def text_of(completion: ChatCompletion) -> str:
    """What a whole answer says."""
    return completion.choices[0].message.content or ""


def piece_of(chunk: ChatCompletionChunk) -> str:
    """What a chunk adds to an answer."""
    return chunk.choices[0].delta.content or ""


class Sdk(Protocol):
    """A program that talks: whole answers, streams, and streams it stops reading."""

    async def whole(self, content: str, **said: Any) -> str:
        """Take a turn whose answer comes as a whole."""

    async def streamed(self, content: str, stop_at: str | None = None) -> str:
        """Take a turn whose answer streams; hang up once it says `stop_at`."""

    async def helped(self, content: str) -> str:
        """The same, through the SDK's stream helper."""


@dataclass
class SyncSdk:
    """`OpenAI`, each turn in a thread."""

    client: OpenAI

    async def whole(self, content: str, **said: Any) -> str:
        """See `Sdk`."""
        return await asyncio.to_thread(self._whole, content, **said)

    def _whole(self, content: str, **said: Any) -> str:
        return text_of(self.client.chat.completions.create(**asked(content, **said)))

    async def streamed(self, content: str, stop_at: str | None = None) -> str:
        """See `Sdk`."""
        return await asyncio.to_thread(self._streamed, content, stop_at)

    def _streamed(self, content: str, stop_at: str | None) -> str:
        text = ""
        stream: Stream[ChatCompletionChunk]
        with self.client.chat.completions.create(**asked(content, stream=True)) as stream:
            for chunk in stream:
                text += piece_of(chunk)
                if stop_at is not None and text.endswith(stop_at):
                    break
        return text

    async def helped(self, content: str) -> str:
        """See `Sdk`."""
        return await asyncio.to_thread(self._helped, content)

    def _helped(self, content: str) -> str:
        with self.client.chat.completions.stream(**asked(content)) as stream:
            deltas = [event.delta for event in stream if event.type == "content.delta"]
            assert text_of(stream.get_final_completion()) == "".join(deltas)
        return "".join(deltas)


@dataclass
class AsyncSdk:
    """`AsyncOpenAI`, in the test's own loop."""

    client: AsyncOpenAI

    async def whole(self, content: str, **said: Any) -> str:
        """See `Sdk`."""
        return text_of(await self.client.chat.completions.create(**asked(content, **said)))

    async def streamed(self, content: str, stop_at: str | None = None) -> str:
        """See `Sdk`."""
        text = ""
        stream: AsyncStream[ChatCompletionChunk]
        async with await self.client.chat.completions.create(
            **asked(content, stream=True)
        ) as stream:
            async for chunk in stream:
                text += piece_of(chunk)
                if stop_at is not None and text.endswith(stop_at):
                    break
        return text

    async def helped(self, content: str) -> str:
        """See `Sdk`."""
        async with self.client.chat.completions.stream(**asked(content)) as stream:
            deltas = [event.delta async for event in stream if event.type == "content.delta"]
            assert text_of(await stream.get_final_completion()) == "".join(deltas)
        return "".join(deltas)


@asynccontextmanager
async def talking(
    kind: str, url: str, auth: httpx2.Auth | None = None, **said: Any
) -> AsyncIterator[Sdk]:
    """The SDK set up as the documentation says, for the server at `url`."""
    auth = auth or KeyturnAuth(url)
    said = {"base_url": f"{url}/v1", "api_key": "keyturn", **said}
    async with AsyncExitStack() as stack:
        if kind == "sync":
            http = stack.enter_context(httpx2.Client(auth=auth, trust_env=False))
            yield SyncSdk(OpenAI(http_client=http, **said))
        else:
            client = httpx2.AsyncClient(auth=auth, trust_env=False)
            http_client = await stack.enter_async_context(client)
            yield AsyncSdk(AsyncOpenAI(http_client=http_client, **said))


async def chains(server: Server) -> list[int]:
    """How many turns each chain has taken; one number per chain."""
    store = server.keyturn.store
    names = await store.keys("*:chain:*")
    return sorted([int(await store.hget(name, "n") or 0) for name in names])
