"""Two upstreams and two owners of keys: neither upstream ever sees the other's secrets."""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.command_stage import server_py
from tests.in_loop import serving_app
from tests.own_key_stage import CHAT, COMPLETIONS, JSON, by_bearer
from tests.stage import RESPONSES, SECRET, Upstream, Visitor, visiting
from tests.upstream import play

OPERATORS = {
    "OPENAI_API_KEY": "sk-operator-canary-1f6e",
    "OPENAI_ADMIN_KEY": "sk-admin-canary-2a7d",
    "OPENAI_ORG_ID": "org-canary-3b8c",
    "OPENAI_PROJECT_ID": "proj-canary-4c9b",
    "OPENAI_WEBHOOK_SECRET": "whsec-canary-5dab",
    "OPENAI_CUSTOM_HEADERS": (
        "Authorization: Bearer sk-custom-canary-6e5f\nX-Custom: custom-canary-7f4e\n"
        "Host: host-canary-8a3d\nContent-Length: 3\ncookie: cookie-canary-9b2c"
    ),
}
OPERATORS_CANARY = "canary"  # in every value above
VISITORS_CANARY = "visitors-own"


@pytest.fixture
def own(other_upstream: Upstream) -> Upstream:
    """The upstream for own keys; the fixture `upstream` is the operator's."""
    return other_upstream


@asynccontextmanager
async def confused(
    tmp_path: Path, redis_url: str, upstream: Upstream, own: Upstream, **said: str
) -> AsyncIterator[Visitor]:
    """A visitor of a real server, in whose environment stands all that the SDK listens to."""
    environment = {
        **OPERATORS,
        "API_SECRET_KEY": SECRET,
        "REDIS_URL": redis_url,
        "OPENAI_BASE_URL": upstream.url,
        "BYOK_BASE_URL": own.url,
        "RATE_LIMIT": "100000/minute",
        "START_LIMIT": "100000/minute",
        "START_LIMIT_GLOBAL": "100000/minute",
        "MAX_STREAMS_PER_IP": "1000",
        "BYOK_REJECT_LIMIT": "100000/hour",
        "DAILY_BUDGET_USD": "1000",
        "VISITOR_DAILY_BUDGET_USD": "1000",
        **said,
    }
    with server_py(tmp_path, **environment) as running:
        async with visiting(running.url) as visitor:
            yield visitor


SCRIPTS = [
    "hello",
    play(status=401, body={"error": {"code": "invalid_api_key"}}),
    play(status=429, body={}),
    play(status=500, body={}),
    play(body={"not": "a stream"}),
    play(error_after=1),
    play(reset_after=1),
    play(headers={"Set-Cookie": "a=b"}),
]
KEYS = [
    *("sk-visitors-own-{n}", "sk-visitors-own-{n}", "sk-visitors-own-{n}"),
    *("sk-visitors-own-{n} x", "sk-visitors-own-é{n}", "visitors-own-{n}", "sk-", "", " "),
]


async def ask_anything(visitor: Visitor, chance: random.Random, number: int) -> tuple[str, int]:
    """One request, good or bad, on any route and in any mode; returns mode and status."""
    content, key = chance.choice(SCRIPTS), chance.choice(KEYS).format(n=number)
    mode = chance.choice(["chat", "chat", "bearer", "bearer", "gate", "both", "broken"])
    path = chance.choice([COMPLETIONS, RESPONSES])
    body = replace(visitor, path=path).body(content, stream=chance.random() < 0.7)
    own_body: dict[str, Any] = {"user_message": content, "api_key": key}
    if chance.random() < 0.2:
        own_body.pop(chance.choice(["api_key", "user_message"]))
    headers = visitor.headers()
    if mode == "chat":
        path, headers, body = CHAT, dict(JSON), json.dumps(own_body).encode()
    if mode in ("bearer", "both"):
        headers = {**(JSON if mode == "bearer" else headers), "Authorization": f"Bearer {key}"}
    if mode == "broken":
        path, headers = chance.choice([CHAT, COMPLETIONS, RESPONSES]), by_bearer(key)
        body = chance.choice([b"", b"{", b"[]", body[:-1], json.dumps(own_body).encode()])
    try:
        answer = await visitor.post(body, headers, path)
    except (aiohttp.ClientPayloadError, ConnectionError):
        return mode, 0  # cut in the middle, as it should be
    if mode == "gate":
        visitor.token = answer.token
    return mode, answer.status


async def mix(visitor: Visitor, seed: int, count: int = 150) -> set[tuple[str, int]]:
    """Many requests of every kind, some of them at the same time; returns all that came of it."""
    chance = random.Random(seed)
    found: set[tuple[str, int]] = set()
    for start in range(0, count, 5):
        asked = (ask_anything(visitor, chance, number) for number in range(start, start + 5))
        found |= set(await asyncio.gather(*asked))
    return found


async def seen_crosswise(upstream: Upstream, own: Upstream) -> list[str]:
    """Each request that held a secret of the other side, in any header, its path or its body."""
    at_operators = [json.dumps(entry) for entry in await upstream.books()]
    at_own = [json.dumps(entry) for entry in await own.books()]
    assert len(at_operators) > 5
    assert len(at_own) > 5
    return [entry for entry in at_operators if VISITORS_CANARY in entry] + [
        entry for entry in at_own if OPERATORS_CANARY in entry
    ]


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_secret_goes_crosswise(
    tmp_path: Path, redis_url: str, upstream: Upstream, own: Upstream, seed: int
) -> None:
    """Of 150 requests of all kinds none brings a secret to the other owner's upstream."""
    async with confused(tmp_path, redis_url, upstream, own) as visitor:
        found = await mix(visitor, seed)
    assert {(mode, 200) for mode in ("chat", "bearer", "gate")} <= found, "each mode worked"
    assert 500 not in {status for _, status in found}
    assert await seen_crosswise(upstream, own) == []
    by_operator = {entry["authorization"] for entry in await upstream.books()}
    assert by_operator == {f"Bearer {OPERATORS['OPENAI_API_KEY']}"}
    names = {name for entry in await own.books() for name in entry["headers"]}
    allowed = {"host", "authorization", "content-type", "content-length", "accept", "user-agent"}
    assert names <= {*allowed, "accept-encoding", "connection", "x-client-request-id"}
    hosts = {entry["headers"]["host"] for entry in await own.books()}
    assert hosts == {own.url.split("/")[2]}


async def test_a_naive_proxy_goes_crosswise(upstream: Upstream, own: Upstream) -> None:
    """The control: `key or OPERATORS_KEY` fails the same check over the same requests."""
    operators_key = OPERATORS["OPENAI_API_KEY"]

    async def proxy(request: Request) -> Response:
        try:
            said = await request.json()
            key = said.get("api_key", "")
            messages = said.get("messages") or [{"content": said["user_message"]}]
        except (ValueError, KeyError, AttributeError):
            return Response(status_code=400)
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        key = key.strip() or (bearer if bearer.startswith("sk-") else "") or operators_key
        base = own.url if request.url.path == CHAT or bearer else upstream.url
        headers = [(b"Authorization", f"Bearer {key}".encode())]
        answer = await client.post(
            f"{base}/chat/completions", json={"messages": messages}, headers=headers
        )
        return Response(answer.content, answer.status_code)

    routes = [Route(path, proxy, methods=["POST"]) for path in (CHAT, COMPLETIONS)]
    async with (
        httpx2.AsyncClient() as client,
        serving_app(Starlette(routes=routes)) as url,
        visiting(url) as visitor,
    ):
        await mix(visitor, seed=1)
    assert await seen_crosswise(upstream, own) != []


async def test_the_sdk_by_itself_goes_crosswise(own: Upstream) -> None:
    """The control: given a visitor's key, the SDK sends the operator's that it finds around it."""
    script = f"""
import openai
client = openai.OpenAI(api_key="none", base_url="{own.url}", max_retries=0)
client = client.with_options(api_key="sk-visitors-own-1")
client.chat.completions.create(model="m", messages=[{{"role": "user", "content": "x"}}])
"""
    custom = OPERATORS["OPENAI_CUSTOM_HEADERS"].replace("Content-Length: 3\n", "")
    environment = {**os.environ, **OPERATORS, "OPENAI_CUSTOM_HEADERS": custom}
    command = [sys.executable, "-c", script]
    await asyncio.to_thread(subprocess.run, command, env=environment, check=True)
    (entry,) = await own.books()
    assert entry["authorization"] == "Bearer sk-custom-canary-6e5f"
    assert entry["headers"]["openai-organization"] == OPERATORS["OPENAI_ORG_ID"]


async def test_no_redirect_is_followed(
    tmp_path: Path, redis_url: str, upstream: Upstream, own: Upstream
) -> None:
    """An upstream that points elsewhere has failed; nobody goes there, in either mode."""

    def to(other: Upstream, status: int) -> str:
        location = {"Location": f"{other.url}/chat/completions"}
        return play(status=status, body={}, headers=location)

    async with confused(tmp_path, redis_url, upstream, own) as visitor:
        for status in (301, 302, 303, 307, 308):
            away = to(upstream, status)
            own_body = {"user_message": away, "api_key": "sk-visitors-own-1"}
            answers = [
                await visitor.post(json.dumps(own_body).encode(), JSON, CHAT),
                await visitor.post(visitor.body(away), by_bearer("sk-visitors-own-2")),
            ]
            assert [len(await each.books()) for each in (upstream, own)] == [0, 2]
            answers.append(await visitor.say(to(own, status)))
            assert [len(await each.books()) for each in (upstream, own)] == [1, 2]
            told = [(answer.status, answer.code) for answer in answers]
            assert told == [(502, "upstream_unavailable")] * 3
            await upstream.forget()
            await own.forget()
            await visitor.say()  # an answer closes the breakers again
            await visitor.post(visitor.body(), by_bearer("sk-visitors-own-3"))
            await upstream.forget()
            await own.forget()


async def test_a_client_that_follows_would_get_there(upstream: Upstream, own: Upstream) -> None:
    """The control: with redirects on, what one visitor wrote arrives at the other upstream."""
    location = {"Location": f"{upstream.url}/chat/completions"}
    content = play(status=307, body={}, headers=location)
    async with httpx2.AsyncClient(follow_redirects=True) as client:
        said = {"messages": [{"content": content}]}
        with pytest.raises(httpx2.TooManyRedirects):  # the script plays there as well
            await client.post(f"{own.url}/chat/completions", json=said)
    assert await upstream.books()


async def test_proxies_of_the_environment_are_not_used(
    tmp_path: Path, redis_url: str, upstream: Upstream, own: Upstream
) -> None:
    """A proxy named in the environment sees no key: nothing ever connects to it."""
    connected = 0

    async def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        writer.transport.abort()

    async with await asyncio.start_server(count, "127.0.0.1", 0) as proxy:
        url = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
        said = dict.fromkeys(names, url)
        async with confused(tmp_path, redis_url, upstream, own, **said) as visitor:
            body = json.dumps({"user_message": "hi", "api_key": "sk-visitors-own-1"}).encode()
            assert (await visitor.post(body, JSON, CHAT)).status == 200
            headers = by_bearer("sk-visitors-own-2")
            assert (await visitor.post(visitor.body(), headers)).status == 200
            assert (await visitor.say()).status == 200
        assert connected == 0
        naive = [sys.executable, "-c", f"import httpx2; httpx2.post('{own.url}', json={{}})"]
        await asyncio.to_thread(  # the control
            subprocess.run, naive, env={**os.environ, **said}, capture_output=True, check=False
        )
        assert connected > 0
