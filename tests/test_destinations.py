"""What OpenAI is told that no other upstream is: keep nothing, and which visitor it was."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from completions.operator_keys import OperatorKeys
from completions.own_key import OwnKeyUpstream
from completions.upstream import Destination, Upstream
from house import Keyturn
from security.breaker import Breaker
from tests.own_key_stage import OWN_KEY, ask, complete
from tests.stage import OPERATORS_KEY, Server, Visitor, serving, settings_with, visiting
from tests.stage import Upstream as Books

OPENAI = [
    "https://api.openai.com/v1",
    "https://api.openai.com",
    "https://api.openai.com/",
    "https://api.openai.com:443/v1",
    "https://API.OpenAI.com/v1",
    "HTTPS://api.openai.com./v1",
    "http://api.openai.com/v1",
    "https://eu.api.openai.com/v1",
]
OTHERS = [
    "https://api.openai.com.evil.example/v1",
    "https://evil-api.openai.com/v1",
    "https://xapi.openai.com/v1",
    "https://api-openai.com/v1",
    "https://apixopenai.com/v1",
    "https://openai.com/v1",
    "https://evil.example/api.openai.com/v1",
    "https://evil.example/https://api.openai.com/v1",
    "https://api.openai.com\\.evil.example/v1",
    "https://api.openai.com:443.evil.example/v1",
    "https://api.opena\u0131.com/v1",
    "https://mine.openai.azure.com/openai/v1",
    "https://openrouter.ai/api/v1",
    "http://127.0.0.1:11434/v1",
    "http://localhost:8000/v1",
    "http://[::1]:8000/v1",
    "https://[/v1",
    "",
]


def destination(url: str) -> Destination:
    """A destination with this URL."""
    breaker = Breaker(failures=5, open_for=5, clock=time.monotonic)
    keys = OperatorKeys([SecretStr(OPERATORS_KEY)], clock=time.monotonic)
    return Destination(url, keys, breaker)


@pytest.mark.parametrize("url", OPENAI)
def test_openai_is_known_by_its_host(url: str) -> None:
    """However its address is written, and in whatever region."""
    assert destination(url).is_openai


@pytest.mark.parametrize("url", OTHERS)
def test_whoever_only_looks_like_it_is_not(url: str) -> None:
    """A name within another, in a path, in another alphabet; and no text is an error."""
    assert not destination(url).is_openai


def test_a_search_for_the_name_would_be_deceived() -> None:
    """The control: the name stands in many addresses that are not OpenAI's."""
    assert sum("api.openai.com" in url for url in OTHERS) > 3


Serve = Callable[..., AbstractAsyncContextManager[tuple[Server, Visitor]]]


@pytest.fixture
def serve(redis_url: str, upstream: Books) -> Serve:
    """Make a server with these settings, and a visitor of it, behind a proxy that is trusted."""

    @asynccontextmanager
    async def serve(**said: Any) -> AsyncIterator[tuple[Server, Visitor]]:
        around = said.pop("around", lambda keyturn: keyturn)
        urls = {"openai_base_url": upstream.url, "byok_base_url": upstream.url}
        settings = settings_with(
            **{"redis_url": redis_url, "trusted_proxies": "127.0.0.1", **urls, **said}
        )
        async with serving(settings, around=around) as server, visiting(server) as visitor:
            yield server, visitor

    return serve


async def named(visitor: Visitor, books: Books, address: str, **changed: Any) -> str:
    """The name under which upstream sees a new visitor at this address."""
    headers = visitor.headers(Authorization=None, X_Forwarded_For=address)
    answer = await visitor.post(visitor.body(**changed), headers)
    assert answer.status == 200, answer.body
    return str((await books.books())[-1]["body"]["safety_identifier"])


async def test_nobody_else_is_told_what_openai_is(serve: Serve, upstream: Books) -> None:
    """Some compatible servers refuse words that they do not know: by default they see none."""
    async with serve() as (_, visitor):
        for stream in (True, False):
            assert (await visitor.say(stream=stream)).status == 200
            assert (await complete(visitor, stream=stream)).status == 200
        assert (await ask(visitor)).status == 200
    for entry in await upstream.books():
        assert not {"store", "safety_identifier", "user", "metadata"} & set(entry["body"])


async def test_upstream_can_tell_visitors_apart_and_nothing_more(
    serve: Serve, upstream: Books
) -> None:
    """One name for each address prefix, made with a key; the same for all of a visitor's chats."""
    async with serve(safety_identifier="on") as (server, visitor):
        first = await named(visitor, upstream, "203.0.113.7")
        assert first == await named(visitor, upstream, "203.0.113.7", user="another")
        assert first != await named(visitor, upstream, "203.0.113.8")
        inside = await named(visitor, upstream, "2001:db8:1:2::7")
        assert inside == await named(visitor, upstream, "2001:db8:1:2:ffff::8")
        assert inside != await named(visitor, upstream, "2001:db8:1:3::7")
        assert len(first) <= 64
        hashed = server.keyturn.hash
        assert first == hashed("safety", f"main\0{hashed('addr', b'203.0.113.7/32')}".encode())
        assert not await server.keyturn.store.keys(f"*{first}*")


async def test_upstream_knows_a_turn_by_the_name_it_has_in_our_log(
    serve: Serve, upstream: Books
) -> None:
    """The visitor's own label, or the one that we made: by it an operator asks OpenAI what was."""
    async with serve() as (_, visitor):
        answers = [
            await visitor.say(),
            await visitor.say(headers={"X-Request-Id": "label-of-mine"}),
        ]
        answers.append(await complete(visitor))
    names = [answer.headers["X-Request-Id"] for answer in answers]
    seen = [entry["headers"]["x-client-request-id"] for entry in await upstream.books()]
    assert seen[-3:] == names
    assert names[1] == "label-of-mine"


async def test_two_tenants_name_a_visitor_differently(serve: Serve, upstream: Books) -> None:
    """The same key and the same address, and yet nobody can follow a visitor across them."""
    names = set()
    for tenant in ("one", "two"):
        async with serve(safety_identifier="on", tenant=tenant) as (_, visitor):
            names.add(await named(visitor, upstream, "203.0.113.7"))
    assert len(names) == 2


@pytest.mark.parametrize("own", ["sk-x", "", 5, {}, "k3jd83hd72hs92kd83hs7A"])
async def test_no_visitor_names_himself(serve: Serve, upstream: Books, own: Any) -> None:
    """He could take another's name, or a new one for each turn; null is no name."""
    async with serve(safety_identifier="on") as (_, visitor):
        answer = await visitor.post(visitor.body(safety_identifier=own), visitor.headers())
        assert (answer.code, answer.json["param"]) == ("unsupported_parameter", "safety_identifier")
        assert await upstream.books() == []
        assert (await visitor.say(safety_identifier=None)).status == 200


async def test_who_brings_his_own_key_is_not_named(serve: Serve, upstream: Books) -> None:
    """His account is his own affair."""
    async with serve(safety_identifier="on") as (_, visitor):
        assert (await complete(visitor)).status == 200
        assert (await ask(visitor)).status == 200
    assert all("safety_identifier" not in entry["body"] for entry in await upstream.books())


def at_openai(upstream: Books) -> Callable[[Keyturn], Keyturn]:
    """A house built for OpenAI, whose doors lead to the scripted upstream all the same."""

    def around(keyturn: Keyturn) -> Keyturn:
        assert keyturn.settings.openai_base_url == keyturn.settings.byok_base_url == OPENAI[0]
        here = destination(upstream.url)
        pool = keyturn.upstream._pool
        return replace(
            keyturn,
            upstream=Upstream(
                pool,
                operator=here,
                own_key=replace(here, keys=OperatorKeys([], clock=time.monotonic)),
            ),
            own_key_upstream=OwnKeyUpstream(
                upstream.url,
                policy=keyturn.own_key_policy,
                connections=10,
                patience=keyturn.patience,
                breaker=here.breaker,
            ),
        )

    return around


async def test_openai_keeps_no_chat_and_knows_who_asked(serve: Serve, upstream: Books) -> None:
    """By the operator's key, by own keys, and in /api/chat; who it was, by the operator's only."""
    urls = dict.fromkeys(("openai_base_url", "byok_base_url"), OPENAI[0])
    async with serve(**urls, around=at_openai(upstream)) as (server, visitor):
        name = await named(visitor, upstream, "203.0.113.7", store=False)
        assert (await complete(visitor)).status == 200
        assert (await ask(visitor)).status == 200
        await server.keyturn.own_key_upstream.close()
    entries = await upstream.books()
    assert [entry["body"]["store"] for entry in entries] == [False] * 3
    assert [entry["body"].get("safety_identifier") for entry in entries] == [name, None, None]
    assert [entry["authorization"] for entry in entries] == [
        f"Bearer {OPERATORS_KEY}",
        *[f"Bearer {OWN_KEY}"] * 2,
    ]


async def test_the_operator_may_leave_visitors_unnamed(serve: Serve, upstream: Books) -> None:
    """SAFETY_IDENTIFIER=off, also at OpenAI; what is stored there is another matter."""
    urls = dict.fromkeys(("openai_base_url", "byok_base_url"), OPENAI[0])
    async with serve(**urls, safety_identifier="off", around=at_openai(upstream)) as (_, visitor):
        assert (await visitor.say()).status == 200
    (entry,) = await upstream.books()
    assert (entry["body"]["store"], "safety_identifier" in entry["body"]) == (False, False)
