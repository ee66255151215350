"""A chat by each SDK, in the same few words: a browser's in its page, Python's right here."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import httpx2
from openai import APIError, AsyncOpenAI, OpenAI
from playwright.async_api import Page

from keyturn_auth import KeyturnAuth

PATIENCE: Final = 40  # seconds for one turn: a client that hangs shall not hang the tests
MODEL: Final = "gpt-4.1-mini"


@dataclass(frozen=True)
class Failure:
    """The error that an SDK raised; code and status are None where it is no API error."""

    name: str
    code: str | None
    status: int | None
    message: str


@dataclass(frozen=True)
class Said:
    """What came of a turn."""

    text: str
    error: Failure | None = None


class Chat(Protocol):
    """A conversation that an SDK keeps with Keyturn."""

    async def say(self, text: str, *, stop: bool = False) -> Said:
        """Take a turn, to its end or until there is something of its answer."""

    async def kept(self) -> Any:
        """What is kept to show next time."""

    async def keep(self, kept: Any) -> None:
        """Show this next time."""


@dataclass
class PageChat:
    """A chat in the page of `drivers/index.js`."""

    page: Page

    async def _run(self, name: str, argument: Any) -> Any:
        call = self.page.evaluate(f"(argument) => sdks.{name}(argument)", argument)
        return await asyncio.wait_for(call, PATIENCE)

    async def say(self, text: str, *, stop: bool = False) -> Said:
        """Take a turn in the page."""
        said = await self._run("say", {"text": text, "stop": stop})
        return Said(said["text"], Failure(**said["error"]) if said["error"] else None)

    async def kept(self) -> Any:
        """The entries of its storage."""
        return await self._run("kept", None)

    async def keep(self, kept: Any) -> None:
        """Put these entries there."""
        await self._run("kept", kept)


@asynccontextmanager
async def page_chat(page: Page, sdk: str, url: str, chained: bool) -> AsyncIterator[PageChat]:
    """A chat by this SDK of `drivers/index.js`."""
    chat = PageChat(page)
    await chat._run("open", {"sdk": sdk, "url": url, "chained": chained})
    yield chat


@dataclass
class PythonChat:
    """A chat by the openai SDK for Python."""

    auth: KeyturnAuth
    take: "Take"
    messages: list[Any] = field(default_factory=list)

    async def say(self, text: str, *, stop: bool = False) -> Said:
        """Take a turn right here."""
        self.messages.append({"role": "user", "content": text})
        pieces: list[str] = []
        failure = None
        try:
            await asyncio.wait_for(self.take(self.messages, pieces, stop), PATIENCE)
        except APIError as error:
            status = getattr(error, "status_code", None)
            failure = Failure(type(error).__name__, error.code, status, str(error))
        answer = "".join(pieces)
        if answer:
            self.messages.append({"role": "assistant", "content": answer})
        return Said(answer, failure)

    async def kept(self) -> Any:
        """The token."""
        return self.auth._token

    async def keep(self, kept: Any) -> None:
        """Show this token next time."""
        self.auth._token = kept


class Take(Protocol):
    """Takes a turn: adds its pieces as they come, and stops after the first if told to."""

    def __call__(self, messages: list[Any], pieces: list[str], stop: bool) -> Awaitable[None]: ...


@asynccontextmanager
async def sync_chat(url: str, chained: bool) -> AsyncIterator[PythonChat]:
    """A chat by `OpenAI`."""
    auth = KeyturnAuth(url)
    http_client = httpx2.Client(auth=auth if chained else None)
    with OpenAI(base_url=f"{url}/v1", api_key="keyturn", http_client=http_client) as client:

        def work(messages: list[Any], pieces: list[str], stop: bool) -> None:
            chat = client.chat.completions
            with chat.create(model=MODEL, messages=messages, stream=True) as stream:
                for chunk in stream:
                    pieces.append(chunk.choices[0].delta.content or "")
                    if stop and pieces[-1]:
                        return

        async def take(messages: list[Any], pieces: list[str], stop: bool) -> None:
            await asyncio.to_thread(work, messages, pieces, stop)

        yield PythonChat(auth, take)


@asynccontextmanager
async def async_chat(url: str, chained: bool) -> AsyncIterator[PythonChat]:
    """A chat by `AsyncOpenAI`."""
    auth = KeyturnAuth(url)
    http_client = httpx2.AsyncClient(auth=auth if chained else None)
    async with AsyncOpenAI(
        base_url=f"{url}/v1", api_key="keyturn", http_client=http_client
    ) as client:

        async def take(messages: list[Any], pieces: list[str], stop: bool) -> None:
            chat = client.chat.completions
            async with await chat.create(model=MODEL, messages=messages, stream=True) as stream:
                async for chunk in stream:
                    pieces.append(chunk.choices[0].delta.content or "")
                    if stop and pieces[-1]:
                        return

        yield PythonChat(auth, take)


@asynccontextmanager
async def helper_chat(url: str, chained: bool) -> AsyncIterator[PythonChat]:
    """A chat by the stream helper of `AsyncOpenAI`."""
    auth = KeyturnAuth(url)
    http_client = httpx2.AsyncClient(auth=auth if chained else None)
    async with AsyncOpenAI(
        base_url=f"{url}/v1", api_key="keyturn", http_client=http_client
    ) as client:

        async def take(messages: list[Any], pieces: list[str], stop: bool) -> None:
            chat = client.chat.completions
            async with chat.stream(model=MODEL, messages=messages) as stream:
                async for event in stream:
                    if event.type == "content.delta":
                        pieces.append(event.delta)
                        if stop and event.delta:
                            return

        yield PythonChat(auth, take)
