"""Every SDK in every situation, each with its real outcome, from a page of another origin."""

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pytest
from playwright.async_api import Page

from tests.browser.page_stage import NEEDS_CHROMIUM
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.sdk.bundles import NEEDS_SDKS
from tests.sdk.chain import tokens_shown
from tests.sdk.chats import Chat, Failure, Said
from tests.sdk.matrix import EXPECTED, FINE, SDKS, SEEN, Sdk, Seen
from tests.stage import (
    PATIENT,
    Server,
    Upstream,
    eventually,
    serving,
    settings_with,
    visiting,
)
from tests.upstream import play

pytestmark = [NEEDS_CHROMIUM, NEEDS_SDKS, pytest.mark.asyncio(loop_scope="module")]
every_sdk = pytest.mark.parametrize("sdk", SDKS, ids=lambda sdk: sdk.id)

UNAVAILABLE: Final = "The model's server cannot be reached. Use the next token."
NEIGHBOUR: Final = "what a neighbour says"


@dataclass
class Cell:
    """One SDK in one situation."""

    sdk: Sdk
    chat: Chat
    proxy: CuttingProxy
    server: Server
    upstream: Upstream
    seen: Seen

    async def chats(self, *texts: str) -> None:
        """Take these turns, each of which is answered."""
        for text in texts:
            assert await self.chat.say(text) == Said(f"{text} " * 3)

    def shown(self) -> list[str]:
        """The token that each POST showed."""
        return tokens_shown(self.proxy)

    async def books(self) -> list[dict[str, Any]]:
        """What upstream was asked by this server on behalf of this SDK."""
        (key,) = self.server.keyturn.settings.openai_api_key
        ours = f"Bearer {key.get_secret_value()}" if key else ""
        books = [entry for entry in await self.upstream.books() if entry["authorization"] == ours]
        return [entry for entry in books if NEIGHBOUR not in str(entry)]

    async def is_told(self, situation: str, outcome: str) -> None:
        """Put the outcome into the table, which says it already."""
        books = await self.books()
        self.seen[self.sdk.name, situation] = told = (outcome, len(books))
        assert told == EXPECTED[self.sdk.name, situation], [entry["body"] for entry in books]


Begin = Callable[..., AbstractAsyncContextManager[Cell]]


@asynccontextmanager
async def cell_of(
    drivers: Page,
    redis_url: str,
    upstream: Upstream,
    seen: Seen,
    sdk: Sdk,
    *,
    chained: bool = True,
    **said: Any,
) -> AsyncIterator[Cell]:
    """A chat by this SDK with a server with these settings, through a proxy that may cut."""
    settings = settings_with(
        redis_url=redis_url,
        openai_base_url=upstream.url,
        openai_api_key=f"sk-operator-{secrets.token_hex(16)}",
        allowed_origins=drivers.url.rstrip("/"),
        **PATIENT,
        **said,
    )
    async with (
        serving(settings) as server,
        cutting_proxy(server.url) as proxy,
        sdk.open(drivers, proxy.url, chained) as chat,
    ):
        yield Cell(sdk, chat, proxy, server, upstream, seen)


@pytest.fixture
def begin(
    drivers: Page, redis_url: str, upstream: Upstream, request: pytest.FixtureRequest
) -> Begin:
    """Begin a chat by an SDK."""
    seen = request.config.stash.setdefault(SEEN, {})
    return partial(cell_of, drivers, redis_url, upstream, seen)


@every_sdk
async def test_three_turns_make_one_chain(begin: Begin, sdk: Sdk) -> None:
    """Each turn shows the token that the one before brought."""
    async with begin(sdk) as cell:
        await cell.chats("one", "two", "three")
        assert cell.shown() == ["–", "a1", "a2"]
        await cell.is_told("Three turns", FINE)


@every_sdk
async def test_a_stopped_answer_costs_no_chain(begin: Begin, sdk: Sdk) -> None:
    """Upstream is closed, and the next turn shows the token that the stopped answer brought."""
    async with begin(sdk) as cell:
        await cell.chats("one")
        stopped = await cell.chat.say(play(words=500, gap_ms=20), stop=True)
        assert stopped.text.startswith("word ")
        await eventually(partial(is_closed, cell))
        await cell.chats("three")
        assert cell.shown() == ["–", "a1", "a2"]
        await cell.is_told("Stopped, then on", stopped.error.name if stopped.error else FINE)


async def is_closed(cell: Cell) -> bool:
    """Whether the last answer was given up."""
    return bool((await cell.books())[-1]["ended"] == "closed")


@every_sdk
async def test_a_spent_token_is_no_end(begin: Begin, sdk: Sdk) -> None:
    """It is refused, a new chain begins, and the visitor sees nothing but the answer."""
    async with begin(sdk) as cell:
        await cell.chats("one")
        spent = await cell.chat.kept()
        await cell.chats("two", "three")
        await cell.chat.keep(spent)
        await cell.chats("four", "five")
        assert cell.shown() == ["–", "a1", "a2", "a1", "–", "b1"]
        await cell.is_told("Spent token", FINE)


@every_sdk
async def test_a_lost_answer_is_asked_for_again(begin: Begin, sdk: Sdk) -> None:
    """Its successor is recovered by the same key, and the turn is paid once more in its chain."""
    async with begin(sdk) as cell:
        await cell.chats("one")
        cell.proxy.cut_next()
        await cell.chats("two", "three")
        posts = cell.proxy.of("POST")
        assert [post.cut for post in posts] == [False, True, False, False, False]
        assert cell.shown() == ["–", "a1", "a1", "a2", "a3"]
        keys = [post.headers["idempotency-key"] for post in posts]
        assert keys[1] == keys[2]
        assert len(set(keys)) == 4
        await cell.is_told("Lost answer", FINE)


@every_sdk
async def test_an_error_before_the_stream_is_the_sdks_own(begin: Begin, sdk: Sdk) -> None:
    """It carries our code, status and words, nothing is repeated, and the chat goes on."""
    async with begin(sdk) as cell:
        await cell.chats("one")
        error = {"message": "secret text", "code": "boom"}
        failed = await cell.chat.say(play(status=500, body={"error": error}))
        assert failed.text == ""
        assert told(failed.error) == (sdk.refused, "upstream_unavailable")
        assert failed.error
        assert failed.error.status == 502
        await cell.chats("three")
        assert cell.shown() == ["–", "a1", "a2"]
        await cell.is_told("500 upstream", failed.error.name)


@every_sdk
@pytest.mark.parametrize(
    ("situation", "end"),
    [("Error in the stream", {"error_after": 1}), ("Stream cut", {"reset_after": 1})],
)
async def test_a_broken_stream_is_an_error_of_the_sdk(
    begin: Begin, sdk: Sdk, situation: str, end: dict[str, int]
) -> None:
    """What came is kept, the error carries our code and words, and the chat goes on."""
    async with begin(sdk) as cell:
        await cell.chats("one")
        failed = await cell.chat.say(play(**end))
        assert failed.text == "word "
        assert told(failed.error) == (sdk.broken, "upstream_unavailable")
        assert failed.error
        await cell.chats("three")
        assert cell.shown() == ["–", "a1", "a2"]
        await cell.is_told(situation, failed.error.name)


def told(error: Failure | None) -> tuple[str, str | None]:
    """The name and code of an error that says our words."""
    assert error
    assert UNAVAILABLE in error.message
    return error.name, error.code


@every_sdk
async def test_a_limit_is_waited_out(begin: Begin, sdk: Sdk) -> None:
    """As long as Retry-After says, with the same token."""
    async with begin(sdk, rate_limit="60/minute") as cell:
        await cell.chats("one")
        assert 1 <= await seconds_of_a_refused_turn(cell) < 10
        refused, admitted = cell.shown()[-2:]
        assert refused == admitted != "–"
        await cell.is_told("429 waited out", FINE)


async def seconds_of_a_refused_turn(cell: Cell) -> float:
    """Take a turn when neighbours behind the same address took all of the minute."""
    while True:
        await spend_the_limit(cell.server)
        await cell.upstream.forget()
        before, start = len(cell.shown()), time.monotonic()
        await cell.chats("two")
        if len(cell.shown()) > before + 1:  # else the machine slept until the limit was there
            return time.monotonic() - start


async def spend_the_limit(server: Server) -> None:
    """Be the neighbours, until they are refused."""
    async with visiting(server) as neighbour:
        while (await neighbour.say(NEIGHBOUR)).status == 200:
            pass


@every_sdk
async def test_without_the_chain_nothing_passes(begin: Begin, sdk: Sdk) -> None:
    """The same SDK with a plain fetch fails at its first turn: so it is client.js that does it."""
    async with begin(sdk, chained=False) as cell:
        failed = await cell.chat.say("one")
        assert failed.error
        assert (failed.error.status, failed.text) == (400, "")
        await cell.is_told("Keyturn's part left out", str(failed.error.code))
