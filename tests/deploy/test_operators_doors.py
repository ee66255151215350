"""Through each proxy, by the file that deploy/ ships: who reaches `/metrics` and `/admin`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from tests.deploy.proxy_stage import HOST, PROXIES, Changes, Proxy, needs
from tests.operator_stage import API, TOKEN, settings_for
from tests.prometheus_stage import METRICS_TOKEN, read
from tests.stage import Server, Upstream, serving

each = pytest.mark.parametrize("name", [pytest.param(each, marks=needs(each)) for each in PROXIES])
METRICS = ("/metrics", "/metrics/", "/%6Detrics", "/metrics?x=1")
PAGE = ("/admin", "/admin/admin.js", f"{API}state", "/%61dmin", f"{API}state?x=1")
OURS = ("10.0.0.0/8", "127.0.0.3/32")
# What makes the lines for a network of one's own be in force.
KEPT: dict[str, Changes] = {
    "nginx": [
        ("# location /admin {", "location /admin {"),
        ("#     allow 10.0.0.0/8;", "allow 127.0.0.3/32;"),
        ("#     deny all;", "deny all;"),
        ("#     proxy_pass http://keyturn;", "proxy_pass http://keyturn;"),
        ("    # }\n", "}\n"),
    ],
    "haproxy": [("# http-request deny", "http-request deny"), OURS],
    "caddy": [
        ("# @others {", "@others {"),
        ("#	path /admin", "path /admin"),
        ("#	not remote_ip", "not remote_ip"),
        ("# }\n", "}\n"),
        ("# respond @others", "respond @others"),
        OURS,
    ],
}


@asynccontextmanager
async def before(
    name: str, folder: Path, redis_url: str, upstream: Upstream, changes: Changes = ()
) -> AsyncIterator[tuple[Proxy, Server]]:
    """A proxy before a Keyturn that has a page for its operator, and metrics."""
    settings = settings_for(redis_url, upstream, metrics_token=METRICS_TOKEN, trusted_proxies=HOST)
    async with serving(settings) as server:
        with PROXIES[name](folder, [server.url], changes) as proxy:
            yield proxy, server


async def asked(
    proxy: Proxy, path: str, token: str, source: str = "127.0.0.2"
) -> tuple[int, bytes]:
    """What is answered to whoever comes from this address, and knows the token."""
    connector = aiohttp.TCPConnector(local_addr=(source, 0), ssl=proxy.tls, force_close=True)
    url = URL(proxy.url + path, encoded=True)
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(url, headers=headers, allow_redirects=False) as answer,
    ):
        return answer.status, await answer.read()


@each
async def test_metrics_stay_behind_it(
    tmp_path: Path, redis_url: str, upstream: Upstream, name: str
) -> None:
    """However the path is spelled, and with the right token; from Keyturn itself they are read."""
    async with before(name, tmp_path, redis_url, upstream) as (proxy, server):
        for path in METRICS:
            status, body = await asked(proxy, path, METRICS_TOKEN)
            assert (path, status, b"keyturn_" in body) == (path, 404, False)
        assert await read(server.url)
        status, _ = await asked(proxy, f"{API}state", TOKEN)
        assert status == 200, "the control: the operator's page passes"


@each
async def test_the_page_can_be_kept_to_a_network(
    tmp_path: Path, redis_url: str, upstream: Upstream, name: str
) -> None:
    """With the lines for it in force others are refused, with the right token too."""
    async with before(name, tmp_path, redis_url, upstream, KEPT[name]) as (proxy, _):
        for path in PAGE:
            status, body = await asked(proxy, path, TOKEN)
            assert status in (403, 404), path
            assert b"paused" not in body
        status, _ = await asked(proxy, f"{API}state", TOKEN, "127.0.0.3")
        assert status == 200
        assert (await asked(proxy, "/v1/models", ""))[0] == 200


@each
async def test_the_operator_logs_in_through_it(
    tmp_path: Path, redis_url: str, upstream: Upstream, name: str
) -> None:
    """On a port of its own; the cookie is for TLS alone exactly where the proxy speaks it, whatever
    a visitor says of that."""
    async with before(name, tmp_path, redis_url, upstream) as (proxy, _):
        connector, is_https = aiohttp.TCPConnector(ssl=proxy.tls), proxy.url.startswith("https:")
        said = {"Origin": proxy.url, "X-Forwarded-Proto": "http" if is_https else "https"}
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"{proxy.url}{API}login", json={"token": TOKEN}, headers=said) as answer,
        ):
            assert answer.status == 200, await answer.text()
            assert ("Secure" in answer.headers["Set-Cookie"]) == is_https
