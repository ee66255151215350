"""What every answer carries: CORS for exactly the pages that the operator named, and a label.

Asked over real sockets, with the origins that people have tried in order to slip through.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
from fastapi import FastAPI
from multidict import CIMultiDict
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge import SENT, limit_policy
from tests.causes import Broken, break_part
from tests.stage import (
    CHAT,
    RESPONSES,
    Answer,
    Server,
    Upstream,
    Visitor,
    serving,
    settings_with,
    visiting,
)

PAGE = "https://page.example"
WANTED = "authorization, content-type, keyturn-fingerprint, keyturn-timestamp, idempotency-key"
FOREIGN = [
    "https://elsewhere.example",
    "http://page.example",
    "https://page.example:8443",
    "https://page.example.evil.example",
    "https://evilpage.example",
    "https://page.example@evil.example",
    "https://sub.page.example",
    "https://page.example/",
    "https://PAGE.example",
    "https://page.example, https://evil.example",
    "null",
    "file://",
    "*",
]
OWN_KEY = b'{"user_message":"hello","api_key":"sk-visitor"}'


async def ask(
    visitor: Visitor, path: str, origin: str | None = PAGE, method: str = "GET", **headers: str
) -> Answer:
    """A request without a body, by a page of this origin."""
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    said |= {"Origin": origin} if origin else {}
    async with visitor.session.request(method, visitor.url + path, headers=said) as answer:
        return Answer(answer.status, answer.headers, await answer.read())


async def preflight(visitor: Visitor, path: str, origin: str, wanted: str = WANTED) -> Answer:
    """What a browser asks before it sends a chat."""
    asks = {
        "Access_Control_Request_Method": "POST",
        "Access_Control_Request_Headers": wanted,
    }
    return await ask(visitor, path, origin, "OPTIONS", **asks)


async def test_a_preflight_of_an_allowed_page_is_granted(visitor: Visitor) -> None:
    """Its origin, our headers and those it asks for, for two hours, without credentials."""
    answer = await preflight(visitor, CHAT, PAGE)
    assert (answer.status, answer.body) == (204, b"")
    headers = answer.headers
    assert headers["Access-Control-Allow-Origin"] == PAGE
    assert headers["Access-Control-Allow-Headers"] == f"{SENT.decode()}, {WANTED}"
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert headers["Access-Control-Max-Age"] == "7200"
    assert headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in headers
    assert "X-Request-Id" in headers


async def test_a_preflight_mirrors_header_names_and_nothing_else(visitor: Visitor) -> None:
    """What is no list of header names is not sent back."""
    for odd in ("x-a: b", "<script>", "x" * 2049, "é"):
        answer = await preflight(visitor, CHAT, PAGE, odd)
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Headers"] == SENT.decode()


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_foreign_page_is_told_nothing(
    visitor: Visitor, upstream: Upstream, origin: str
) -> None:
    """Preflight and chat of an origin that is not exactly listed are refused without CORS."""
    for path in (CHAT, RESPONSES):
        visitor.path = path
        chat = await visitor.post(visitor.body(), visitor.headers(Origin=origin))
        for answer in (await preflight(visitor, path, origin), chat):
            assert (answer.status, answer.code) == (403, "origin_forbidden")
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert answer.headers["Vary"] == "Origin"
    assert await upstream.books() == []


async def test_both_apis_answer_a_preflight_alike(visitor: Visitor) -> None:
    """What a page may send to one of them it may send to the other."""
    chat, response = [await preflight(visitor, path, PAGE) for path in (CHAT, RESPONSES)]
    told = [name for name in chat.headers if name.lower().startswith("access-control-")]
    assert (response.status, len(told) > 3) == (chat.status, True)
    assert {name: response.headers[name] for name in told} == {
        name: chat.headers[name] for name in told
    }


async def test_two_origins_are_none(visitor: Visitor, upstream: Upstream) -> None:
    """A request with an allowed and a foreign origin is refused, in either order."""
    for origins in ([PAGE, "https://evil.example"], ["https://evil.example", PAGE], [PAGE, PAGE]):
        headers = CIMultiDict(visitor.headers())
        for origin in origins:
            headers.add("Origin", origin)
        answer = await visitor.post(visitor.body(), headers)  # type: ignore[arg-type]
        assert answer.code == "origin_forbidden"
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert await upstream.books() == []


@pytest.mark.parametrize(
    "path",
    ["/v1/models", "/v1/models/gpt-4.1-mini", "/api/health", "/client.js", "/client.d.ts"],
)
@pytest.mark.parametrize("origin", [PAGE, "https://elsewhere.example", "null"])
async def test_what_is_for_everybody_is_for_every_origin(
    visitor: Visitor, path: str, origin: str
) -> None:
    """Models, health, the module and its types can be read by any page, also after a preflight."""
    for answer in (await ask(visitor, path, origin), await preflight(visitor, path, origin)):
        assert answer.status in (200, 204)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/openapi.json", "/nowhere"])
async def test_other_routes_answer_a_foreign_page_that_cannot_read_it(
    visitor: Visitor, path: str
) -> None:
    """CORS is no access control: these are answered, without leave for a foreign page to read."""
    answer = await ask(visitor, path, "https://elsewhere.example")
    assert answer.code != "origin_forbidden"
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert (await ask(visitor, path)).headers["Access-Control-Allow-Origin"] == PAGE


@asynccontextmanager
async def serving_own_keys(
    redis_url: str, upstream: Upstream, **said: Any
) -> AsyncIterator[Visitor]:
    """A server for own keys, and a visitor of it."""
    settings = settings_with(redis_url=redis_url, byok_base_url=upstream.url, **said)
    async with serving(settings) as server, visiting(server) as visitor:
        yield visitor


async def test_own_keys_are_taken_from_any_page_by_default(
    redis_url: str, upstream: Upstream
) -> None:
    """`/api/chat` has its own list of origins, which is everybody unless the operator says so."""
    async with serving_own_keys(redis_url, upstream) as visitor:
        for origin in ("https://elsewhere.example", "null"):
            headers = visitor.headers(Origin=origin)
            answer = await visitor.post(OWN_KEY, headers, "/api/chat")
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")
            assert (await preflight(visitor, "/api/chat", origin)).status == 204


async def test_own_keys_are_taken_from_the_listed_pages(redis_url: str, upstream: Upstream) -> None:
    """With a list, only its pages; the list of the gated routes does not count here."""
    listed = "https://own.example,http://localhost:3000"
    async with serving_own_keys(redis_url, upstream, byok_allowed_origins=listed) as visitor:
        for origin, status in (("http://localhost:3000", 200), (PAGE, 403), ("null", 403)):
            headers = visitor.headers(Origin=origin)
            answer = await visitor.post(OWN_KEY, headers, "/api/chat")
            assert answer.status == status
            allowed = answer.headers.get("Access-Control-Allow-Origin")
            assert allowed == (origin if status == 200 else None)
        assert (await preflight(visitor, CHAT, "https://own.example")).status == 403


async def test_a_request_without_origin_passes_unless_one_is_required(
    redis_url: str, upstream: Upstream
) -> None:
    """curl sends none: it passes, but not with REQUIRE_ORIGIN=on, where upstream is not asked."""
    urls = {"redis_url": redis_url, "openai_base_url": upstream.url}
    async with serving(settings_with(**urls)) as server, visiting(server) as visitor:
        assert (await visitor.say()).status == 200
    strict = settings_with(**urls, require_origin="on")
    async with serving(strict) as server, visiting(server) as visitor:
        for path in (CHAT, RESPONSES, "/api/chat"):
            answer = await visitor.post(visitor.body(), visitor.headers(), path)
            assert (answer.status, answer.code) == (403, "origin_forbidden")
        assert (await visitor.say(headers={"Origin": PAGE})).status == 200
        assert (await ask(visitor, "/api/health", None)).status == 200
    assert len(await upstream.books()) == 2


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_an_unhandled_error_can_be_read_by_the_page(
    redis_url: str, upstream: Upstream, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """A 500 carries CORS, the next token, and nothing of what broke; the log says where."""
    settings = settings_with(redis_url=redis_url, openai_base_url=upstream.url)
    async with (
        serving(settings, around=break_part("upstream")) as server,
        visiting(server, extra={"Origin": PAGE}, path=path) as visitor,
    ):
        answer = await visitor.say()
    assert (answer.status, answer.code) == (500, "internal_error")
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "Keyturn-Token" in answer.headers["Access-Control-Expose-Headers"]
    assert answer.token
    assert "unexpected RuntimeError" in caplog.text
    assert "causes.py" in caplog.text


async def test_the_frameworks_own_middleware_misses_an_unhandled_error() -> None:
    """The control: behind Starlette's CORS middleware the same page cannot read a 500."""
    app = FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=[PAGE])
    app.add_api_route("/", lambda: Broken().anything, methods=["GET"])
    assert "access-control-allow-origin" not in await headers_of_a_500(app)


async def headers_of_a_500(app: FastAPI) -> dict[str, str]:
    """The headers with which an app answers a page whose request breaks it."""
    sent: list[Any] = []
    scope = {
        **{"type": "http", "method": "GET", "path": "/", "query_string": b"", "root_path": ""},
        "headers": [(b"origin", PAGE.encode())],
    }
    with pytest.raises(RuntimeError):
        await app(scope, asyncio.Event().wait, lambda message: collect(sent, message))  # type: ignore[arg-type]
    assert sent[0]["status"] == 500
    return {name.decode(): value.decode() for name, value in sent[0]["headers"]}


async def collect(sent: list[Any], message: Any) -> None:
    """Keep a message."""
    sent.append(message)


class Layer:
    """Somebody's own layer around an app, which remembers what passed it."""

    passed: ClassVar[list[str]] = []
    begun: ClassVar[list[int]] = []

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def passing(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.begun.append(message["status"])
            await send(message)

        self.passed.append(scope["path"])
        await self._app(scope, receive, passing)


async def test_a_turn_passes_no_layer_of_the_framework(server: Server, visitor: Visitor) -> None:
    """What else is asked for passes them all; refusals of a turn go straight as well."""
    Layer.passed.clear()
    server.app.middleware_stack = Layer(server.app.build_middleware_stack())
    assert (await visitor.say()).status == 200
    assert (await visitor.say(n=7)).status == 400
    assert (await ask(visitor, CHAT)).status == 405
    assert (await ask(visitor, "/api/health")).status == 200
    assert Layer.passed == [CHAT, "/api/health"]


async def test_a_layer_that_somebody_adds_is_passed_by_turns_too(
    server: Server, visitor: Visitor
) -> None:
    """It may be there to refuse, or to see how answers begin."""
    Layer.passed.clear()
    Layer.begun.clear()
    server.app.middleware_stack = None
    server.app.add_middleware(Layer)
    server.app.look_around()
    assert (await visitor.say()).status == 200
    assert (Layer.passed, Layer.begun) == ([CHAT], [200])


async def test_a_label_is_kept_when_it_is_one_and_made_otherwise(visitor: Visitor) -> None:
    """A good X-Request-Id comes back; any other is replaced, and never echoed."""
    label = "page-7.request_42"
    assert (await ask(visitor, "/api/health", X_Request_Id=label)).headers["X-Request-Id"] == label
    made = set()
    for odd in ("short", "x" * 65, "with blank", "<script>", "äöüäöüäöü"):
        answer = await ask(visitor, "/nowhere", X_Request_Id=odd)
        assert answer.headers["X-Request-Id"] == answer.json["request_id"] != odd
        made.add(answer.headers["X-Request-Id"])
    assert len(made) == 5


def test_the_start_policy_says_how_many_may_start_at_once() -> None:
    """60 new chats an hour are ten at once and then one a minute, and the policy says so."""
    assert limit_policy(settings_with(start_limit="60/hour")).start == '"start";q=10;w=600'
    assert limit_policy(settings_with(start_limit="3/day")).start == '"start";q=3;w=86400'
