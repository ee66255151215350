"""The routes that spend nothing: health, models, documentation, the page and the browser module."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from pages import DOCS_POLICY, FILES, PAGE_POLICY, PUBLIC, is_ready, readiness
from tests.stage import (
    CHAT,
    RESPONSES,
    Answer,
    Server,
    Upstream,
    Visitor,
    commands,
    head,
    redis_process,
    send_raw,
    serving,
    settings_with,
    visiting,
)

Serve = Callable[..., AbstractAsyncContextManager[Visitor]]
DOCS = ["/docs", "/redoc", "/openapi.json"]
OPEN = ["/v1/models", "/api/health", "/healthz", "/readyz", *DOCS, *FILES]


@pytest.fixture
def serve(redis_url: str, upstream: Upstream) -> Serve:
    """Make a server with these settings, and a visitor of it."""

    @asynccontextmanager
    async def serve(**said: Any) -> AsyncIterator[Visitor]:
        urls = {"redis_url": redis_url, "openai_base_url": upstream.url}
        settings = settings_with(**{**urls, **said})
        async with serving(settings) as server, visiting(server) as visitor:
            yield visitor

    return serve


async def get(visitor: Visitor, path: str, method: str = "GET", **headers: str) -> Answer:
    """One of the routes, redirects not followed."""
    async with visitor.session.request(
        method, visitor.url + path, headers=headers, allow_redirects=False
    ) as answer:
        return Answer(answer.status, answer.headers, await answer.read())


async def test_health_is_exactly_this(visitor: Visitor) -> None:
    """`/api/health` is a contract to the byte, for every page."""
    answer = await get(visitor, "/api/health", Origin="https://elsewhere.example")
    assert (answer.status, answer.body) == (200, b'{"status":"ok"}')
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_models_are_the_operators_own_list(serve: Serve, upstream: Upstream) -> None:
    """The allowed models in OpenAI's shape, without a token and without asking upstream."""
    async with serve(allowed_models="gpt-4o-mini,gpt-4.1-mini") as visitor:
        answer = await get(visitor, "/v1/models")
    assert answer.status == 200
    assert answer.json["object"] == "list"
    assert [model["id"] for model in answer.json["data"]] == ["gpt-4o-mini", "gpt-4.1-mini"]
    assert {model["object"] for model in answer.json["data"]} == {"model"}
    assert await upstream.books() == []


async def test_one_model_is_found_by_its_name(serve: Serve, tmp_path: Path) -> None:
    """A name may hold a slash, as those of open models do; one that is not allowed is not there."""
    models = ("maker/model-1", "gpt-4.1-mini")
    prices = tmp_path / "prices.toml"
    price = "input = 1\ncached_input = 1\noutput = 1\n"
    prices.write_text("".join(f'[models."{model}"]\n{price}' for model in models))
    async with serve(allowed_models=",".join(models), prices_file=prices) as visitor:
        listed = (await get(visitor, "/v1/models")).json["data"]
        for model in listed:
            assert (await get(visitor, f"/v1/models/{model['id']}")).json == model
        for name in ("gpt-4o-mini", "maker", "maker/model-1/", "gpt-4.1-mini%20"):
            assert (await get(visitor, f"/v1/models/{name}")).code == "not_found"


async def test_a_page_learns_the_limits_from_the_list(serve: Serve) -> None:
    """So that it can trim, count and offer before anything is refused; no secret is among them."""
    said = {"max_messages": 7, "max_message_chars": 99, "max_output_tokens": 321}
    prompt = {"system_prompt": "SECRET-PROMPT", "default_model": "gpt-4o-mini"}
    async with serve(**said, **prompt, byok_models="gpt-4.1-mini") as visitor:
        answer = await get(visitor, "/v1/models")
    assert answer.json["keyturn"] == {
        **said,
        "default_model": "gpt-4o-mini",
        "max_body_bytes": 262144,
        "system_prompt": True,
        "byok": True,
        "byok_models": ["gpt-4.1-mini"],
    }
    assert b"SECRET" not in answer.body
    async with serve(byok="off") as visitor:
        found = (await get(visitor, "/v1/models")).json["keyturn"]
    assert (found["byok"], found["byok_models"], found["system_prompt"]) == (False, [], False)


async def test_nothing_of_it_spends(visitor: Visitor, upstream: Upstream, redis_url: str) -> None:
    """No route here asks upstream, and only /readyz asks Redis."""
    before = commands(redis_url)
    for path in [path for path in OPEN if path != "/readyz"]:
        assert (await get(visitor, path)).status == 200
    assert commands(redis_url) == before
    await get(visitor, "/readyz")
    assert commands(redis_url) != before
    assert await upstream.books() == []


async def test_alive_and_ready_are_two_things(serve: Serve) -> None:
    """With a dead store the process lives, is not ready, and says which part, but no internals."""
    async with serve(redis_url="redis://:a-password@127.0.0.1:9/0") as visitor:
        assert (await get(visitor, "/healthz")).body == b'{"status":"ok"}'
        assert (await get(visitor, "/api/health")).status == 200
        answer = await get(visitor, "/readyz")
    assert answer.status == 503
    assert answer.headers["Cache-Control"] == "no-store"
    said = answer.json
    assert said["redis"] == "it does not answer in time"
    assert (said["script"], said["settings"]) == ("it cannot be run", "ok")
    assert not re.search(r"127\.0\.0\.1|a-password|Errno|Error|sk-|://", answer.body.decode())


async def test_a_sound_server_is_ready(visitor: Visitor) -> None:
    """Every part is named, and fit to serve."""
    answer = await get(visitor, "/readyz")
    assert answer.status == 200
    parts = ("settings", "redis", "script", "store", "serving", "proxies")
    assert [answer.json[part] for part in parts] == ["ok"] * 6
    assert answer.json["upstream"] == "openai-compatible"


@pytest.mark.parametrize("byok", ["on", "off"])
async def test_readiness_says_whether_own_keys_are_taken(serve: Serve, byok: str) -> None:
    """A page learns it from there, before it asks a visitor for a key."""
    async with serve(byok=byok) as visitor:
        answer = await get(visitor, "/readyz")
    assert (answer.status, answer.json["byok"]) == (200, byok)


async def test_a_crowd_that_asks_whether_we_are_ready_shares_one_look(
    server: Server, redis_url: str
) -> None:
    """Else it would take the connections that visitors need; the control asks Redis each time."""
    of = server.app.state.readiness.of
    before = commands(redis_url).get("evalsha", 0)
    found = await asyncio.gather(*(of(server.keyturn) for _ in range(20)))
    assert all(is_ready(each) for each in found)
    shared = commands(redis_url)["evalsha"] - before
    await asyncio.gather(*(readiness(server.keyturn) for _ in range(20)))
    assert (shared, commands(redis_url)["evalsha"] - before - shared) == (1, 20)
    server.keyturn.turns.drain(30)
    assert not is_ready(await of(server.keyturn)), "a look that is over is not shown again"


async def test_a_store_that_forgets_is_not_ready(serve: Serve) -> None:
    """A store that may evict is unfit, and in production one that does not persist."""
    with redis_process("--maxmemory-policy", "allkeys-lru") as evicting:
        async with serve(redis_url=evicting) as visitor:
            answer = await get(visitor, "/readyz")
    assert answer.status == 503
    assert "noeviction" in answer.json["store"]
    assert answer.json["redis"] == "ok"
    async with serve(keyturn_env="production") as visitor:
        answer = await get(visitor, "/readyz")
    assert (answer.status, "appendonly" in answer.json["store"]) == (503, True)


async def test_a_draining_server_is_not_ready_and_takes_no_turn(server: Server) -> None:
    """Whoever balances load is told first; a turn that comes all the same is refused."""
    async with visiting(server) as visitor:
        server.keyturn.turns.drain(30)
        answer = await get(visitor, "/readyz")
        assert (answer.status, answer.json["serving"]) == (503, "draining")
        assert (await visitor.say()).code == "overloaded"
        assert (await get(visitor, "/healthz")).status == 200


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({}, 200),
        ({"docs": "off"}, 404),
        ({"keyturn_env": "production"}, 404),
        ({"keyturn_env": "production", "docs": "on"}, 200),
    ],
    ids=["development", "off", "production", "production, on"],
)
async def test_documentation_is_shown_where_it_should_be(
    serve: Serve, said: dict[str, str], status: int
) -> None:
    """On in development, off in production unless asked for; what is off is not there."""
    async with serve(**said) as visitor:
        for path in DOCS:
            answer = await get(visitor, path)
            assert answer.status == status
            assert answer.code == (None if status == 200 else "not_found")
            if status == 404:
                assert "content-security-policy" not in answer.headers


async def test_the_documentations_policy_is_its_own(visitor: Visitor) -> None:
    """It may load its interface from where it stands; the page's policy allows no such thing."""
    for path in ("/docs", "/redoc"):
        answer = await get(visitor, path)
        assert answer.headers["Content-Security-Policy"] == DOCS_POLICY
        html = answer.body.decode()
        loaded = re.findall(r'<script[^>]* src="(https://[^/"]+)', html)
        loaded += re.findall(r'<link[^>]*href="(https://[^/"]+)[^>]*rel="stylesheet"', html)
        loaded += re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="(https://[^/"]+)', html)
        assert loaded
        assert all(source in DOCS_POLICY for source in loaded)
    assert "https:" not in PAGE_POLICY


@pytest.mark.parametrize("path", ["/", "/page.css", "/client.js", *DOCS])
async def test_a_head_is_a_get_without_a_body(visitor: Visitor, path: str) -> None:
    """HEAD answers with the headers of GET."""
    asked, seen = await get(visitor, path, "HEAD"), await get(visitor, path)
    assert (asked.status, asked.body) == (200, b"")
    for name in ("Content-Type", "Content-Length", "Content-Security-Policy"):
        assert asked.headers.get(name) == seen.headers.get(name)


@pytest.mark.parametrize("path", ["/v1/models", "/api/health", "/healthz", "/readyz"])
async def test_a_monitor_may_ask_by_head(visitor: Visitor, path: str) -> None:
    """Monitors like to ask by HEAD (RFC 9110, 9.1: every server has GET and HEAD)."""
    asked = await get(visitor, path, "HEAD")
    assert (asked.status, asked.body) == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        *("//v1/models", "/v1//models", "/v1/models/", "/v1/models/../models", "/V1/models"),
        *("/api/health/", "//", "/index.html", "/public/index.html", "/.env", "/server.py"),
        *("/..%2f.env", "/%2e%2e/settings.py", "/client.js/", "/page.js%00", "/v1/models;a=b"),
        *("/vendor", "/vendor/", "/marked.js", "/vendor/../page.js", "/vendor%2fmarked.js"),
        *("//elsewhere.example/%2f..", "/metrics", "/v1/chat/completions/", "/v1/responses/"),
    ],
)
async def test_a_path_is_exactly_itself(server: Server, path: str) -> None:
    """No second spelling of a route, no way out of public/, no redirect: it is not there."""
    answer = await send_raw(server, head("GET", path, {"Connection": "close"}), method="GET")
    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert answer.headers["Location"] is None


@pytest.mark.parametrize(
    "host", ["elsewhere.example", "localhost:1", "", "127.0.0.1@evil.example", "a b"]
)
async def test_the_host_header_decides_nothing(server: Server, visitor: Visitor, host: str) -> None:
    """Whatever host is named, the same routes answer, and the name is not repeated."""
    lines = {"Host": host, "X-Forwarded-Host": host, "Connection": "close"}
    page = await send_raw(server, head("GET", "/", lines), method="GET")
    assert (page.status, page.body) == (200, (PUBLIC / "index.html").read_bytes())
    document = await send_raw(server, head("GET", "/openapi.json", lines), method="GET")
    assert document.json == (await get(visitor, "/openapi.json")).json
    foreign = {"Origin": f"http://{host}", "Content-Type": "application/json"}
    chat = head("POST", "/v1/chat/completions", {**lines, **foreign, "Content-Length": "0"})
    assert (await send_raw(server, chat)).json["code"] == "origin_forbidden"


@pytest.mark.parametrize("path", [*OPEN, CHAT, RESPONSES, "/api/chat"])
async def test_other_methods_are_refused_with_what_is_allowed(visitor: Visitor, path: str) -> None:
    """405 names in Allow what the address takes; a POST route takes POST alone."""
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = await get(visitor, path, method)
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        allowed = {name.strip() for name in answer.headers["Allow"].split(",")}
        assert allowed - {"HEAD"} == ({"GET"} if path in OPEN else {"POST"})
        assert json.loads(answer.body)["request_id"] == answer.headers["X-Request-Id"]


async def test_a_wrong_password_is_told_from_silence(serve: Serve) -> None:
    """Readiness names the user or password where Redis refuses it, and shows neither."""
    with redis_process() as url:
        with redis.Redis.from_url(url) as operator:
            operator.config_set("requirepass", "the-right-one")
        wrong = url.replace("unix://", "unix://:the-wrong-one@")
        async with serve(redis_url=wrong) as visitor:
            answer = await get(visitor, "/readyz")
    assert answer.status == 503
    assert answer.json["redis"] == "it refuses the user or the password in REDIS_URL"
    assert b"the-wrong-one" not in answer.body
