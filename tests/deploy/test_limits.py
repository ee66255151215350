"""Through each proxy, by the configuration that deploy/ ships, Keyturn's limits stay its own."""

import asyncio
import io
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.deploy.proxy_stage import HOST, PROXIES, Changes, Proxy, haproxy, needs, nginx
from tests.faults.topology_stage import certify
from tests.stage import Answer, Upstream, Visitor, serving, settings_with
from tests.upstream import play

each = pytest.mark.parametrize("name", [pytest.param(each, marks=needs(each)) for each in PROXIES])
Before = Callable[..., AbstractAsyncContextManager[Proxy]]


@pytest.fixture
def before(redis_url: str, upstream: Upstream, tmp_path: Path) -> Before:
    """A proxy before Keyturn before the scripted upstream."""

    @asynccontextmanager
    async def open_all(name: str, changes: Changes = (), **said: Any) -> AsyncIterator[Proxy]:
        chosen = {"trusted_proxies": HOST, "openai_base_url": upstream.url, **said}
        async with serving(settings_with(redis_url=redis_url, **chosen)) as server:
            with PROXIES[name](tmp_path / name, [server.url], changes) as proxy:
                yield proxy

    return open_all


@asynccontextmanager
async def coming_from(proxy: Proxy, address: str) -> AsyncIterator[Visitor]:
    """A visitor whose connections have this address of the machine; all of 127/8 are its own."""
    tls = proxy.tls
    connector = aiohttp.TCPConnector(local_addr=(address, 0), ssl=tls, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Visitor(session, proxy.url, fingerprint=f"fingerprint-of-{address}")


async def counted(visitor: Visitor, **headers: str) -> str | None:
    """A first turn's refusal, or None."""
    return (await visitor.post(visitor.body(), visitor.headers(**headers))).code


SPOOFS = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Real-IP": "203.0.113.9",
    "Forwarded": "for=203.0.113.9",
    "CF-Connecting-IP": "203.0.113.9",
}


@each
async def test_limits_count_for_each_visitor_and_cannot_be_dodged(
    before: Before, name: str
) -> None:
    """Two addresses have two limits; whatever a visitor writes of himself changes nothing."""
    async with (
        before(name, rate_limit="2/day") as proxy,
        coming_from(proxy, "127.0.0.2") as one,
        coming_from(proxy, "127.0.0.3") as other,
    ):
        assert [await counted(one) for _ in range(3)] == [None, None, "rate_limited"]
        for header, value in SPOOFS.items():
            assert await counted(one, **{header: value}) == "rate_limited"
        assert await counted(one, X_Forwarded_For="127.0.0.3, 203.0.113.9") == "rate_limited"
        assert await counted(other) is None


@each
async def test_an_unnamed_proxy_makes_one_visitor_of_all(before: Before, name: str) -> None:
    """The control: without TRUSTED_PROXIES the second address finds its limit used up."""
    async with (
        before(name, rate_limit="2/day", trusted_proxies="") as proxy,
        coming_from(proxy, "127.0.0.2") as one,
        coming_from(proxy, "127.0.0.3") as other,
    ):
        assert [await counted(one) for _ in range(3)] == [None, None, "rate_limited"]
        assert await counted(other) == "rate_limited"


@each
@pytest.mark.parametrize("size", [300_000, 6_000_000], ids=["300 kB", "6 MB"])
async def test_a_large_body_is_refused_in_our_words(
    before: Before, upstream: Upstream, name: str, size: int
) -> None:
    """As a problem, with CORS, whoever refuses it: a page can read what was wrong."""
    page = "https://page.example"
    async with before(name, allowed_origins=page) as proxy, proxy.visiting() as visitor:
        headers, body = visitor.headers(Origin=page), io.BytesIO(b"x" * size)
        url = proxy.url + visitor.path
        async with visitor.session.post(url, data=body, headers=headers) as said:
            answer = Answer(said.status, said.headers, await said.read())
        assert (answer.status, answer.code) == (413, "payload_too_large"), answer.body
        assert answer.headers["Access-Control-Allow-Origin"] in ("*", page)
        assert answer.headers["x-should-retry"] == "false"
        assert answer.json["chain"] == "kept"
        assert answer.json["error"]["code"] == "payload_too_large"
        assert (await visitor.say()).status == 200
    assert len(await upstream.books()) == 1


@each
async def test_a_large_answer_arrives_whole(before: Before, name: str) -> None:
    """Four megabytes in one piece, and two hundred kilobytes as a stream."""
    async with before(name) as proxy, proxy.visiting() as visitor:
        whole = await visitor.say(play(words=1000, text="x" * 4000), stream=False)
        assert whole.text == "x" * 4_000_000
        streamed = await visitor.say(play(words=1000, text="y" * 200))
        assert streamed.text == "y" * 200_000


@each
async def test_errors_keep_their_words(before: Before, name: str) -> None:
    """A refusal of Keyturn's passes as it is, by every proxy."""
    async with before(name) as proxy, proxy.visiting(token="no-token") as visitor:
        answer = await visitor.say()
    assert (answer.status, answer.code) == (401, "token_malformed")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


H2 = """
import http2 from 'node:http2';
import { readFileSync } from 'node:fs';

const [url, ca, body, headers] = process.argv.slice(2);
const session = http2.connect(url, { ca: readFileSync(ca) });
const request = session.request({
  ':method': 'POST', ':path': '/v1/chat/completions', ...JSON.parse(headers),
});
request.on('response', (head) => console.log(JSON.stringify(head)));
request.on('data', (chunk) => process.stdout.write(chunk));
request.on('end', () => session.close());
request.end(body);
"""


async def by_http2(proxy: Proxy, folder: Path) -> tuple[dict[str, Any], str]:
    """A turn by HTTP/2: its answer's head and body."""
    script = folder / "turn.mjs"
    script.write_text(H2)
    async with proxy.visiting() as visitor:
        command = ["node", str(script), proxy.url, str(proxy.authority)]
        command += [visitor.body().decode(), json.dumps(visitor.headers())]
        run = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=30, check=True
        )
    head, _, body = run.stdout.partition("\n")
    return json.loads(head), body


@needs("node")
@needs("caddy")
async def test_caddy_speaks_http2_to_visitors(before: Before, tmp_path: Path) -> None:
    """By a certificate of its own authority; Keyturn behind it hears HTTP/1.1."""
    async with before("caddy") as proxy:
        head, body = await by_http2(proxy, tmp_path)
    assert (head[":status"], head["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert head["keyturn-token"]
    assert body.endswith("data: [DONE]\n\n")


@needs("node")
@pytest.mark.parametrize(
    ("name", "open_proxy"),
    [
        pytest.param("nginx", nginx, marks=needs("nginx")),
        pytest.param("haproxy", haproxy, marks=needs("haproxy")),
    ],
)
async def test_the_others_speak_http2_to_visitors(
    redis_url: str, upstream: Upstream, tmp_path: Path, name: str, open_proxy: Any
) -> None:
    """By the lines for TLS that stand in their files, uncommented."""
    settings = settings_with(
        redis_url=redis_url, openai_base_url=upstream.url, trusted_proxies=HOST
    )
    async with serving(settings) as server:
        with open_proxy(tmp_path / name, [server.url], tls=certify(tmp_path)) as proxy:
            head, body = await by_http2(proxy, tmp_path)
    assert (head[":status"], head["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert body.endswith("data: [DONE]\n\n")
