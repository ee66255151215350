"""Whose limit a request counts against, over real sockets: nothing a visitor wrote is believed.

Every test gives an address one or a few requests and looks who is refused the next one.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import redis
from multidict import CIMultiDict

from credentials import UNNAMED_PROXY
from tests.stage import Server, Upstream, Visitor, serving, settings_with, visiting

Serve = Callable[..., AbstractAsyncContextManager[tuple[Server, Visitor]]]


@pytest.fixture
def serve(redis_url: str, upstream: Upstream) -> Serve:
    """Make a server with these settings, and a visitor of it."""

    @asynccontextmanager
    async def serve(**said: Any) -> AsyncIterator[tuple[Server, Visitor]]:
        urls = {"redis_url": redis_url, "openai_base_url": upstream.url}
        async with (
            serving(settings_with(**{**urls, "rate_limit": "1/day", **said})) as server,
            visiting(server) as visitor,
        ):
            yield server, visitor

    return serve


async def ask(visitor: Visitor, *forwarded: str, **headers: str) -> str | None:
    """A first turn with these X-Forwarded-For lines; what is told, None for an answer."""
    shown = CIMultiDict(visitor.headers(Authorization=None, **headers))
    for line in forwarded:
        shown.add("X-Forwarded-For", line)
    return (await visitor.post(visitor.body(), shown)).code  # type: ignore[arg-type]


async def test_what_a_visitor_writes_is_not_believed_by_default(serve: Serve) -> None:
    """Without TRUSTED_PROXIES no header gives a visitor another address."""
    async with serve() as (_, visitor):
        assert await ask(visitor) is None
        for number in range(3):
            address = f"203.0.113.{number}"
            assert await ask(visitor, address) == "rate_limited"
            named = {"X_Real_IP": address, "CF_Connecting_IP": address, "True_Client_IP": address}
            assert await ask(visitor, **named) == "rate_limited"
            assert await ask(visitor, Forwarded=f"for={address}") == "rate_limited"


async def test_behind_a_named_proxy_each_visitor_has_a_limit(serve: Serve) -> None:
    """The proxy's word counts, read from the right; what stands left of it is the visitor's own."""
    async with serve(trusted_proxies="127.0.0.1, 10.0.0.0/8") as (_, visitor):
        assert await ask(visitor, "203.0.113.1") is None
        assert await ask(visitor, "203.0.113.2") is None
        assert await ask(visitor, "203.0.113.1") == "rate_limited"
        assert await ask(visitor, "198.51.100.9, 203.0.113.1") == "rate_limited"
        assert await ask(visitor, "198.51.100.9", "203.0.113.1") == "rate_limited"
        assert await ask(visitor, "203.0.113.1, 10.1.2.3") == "rate_limited"
        assert await ask(visitor, "::ffff:203.0.113.1") == "rate_limited"
        assert await ask(visitor, "203.0.113.1:4711") == "rate_limited"
        assert await ask(visitor, "203.0.113.3, 10.1.2.3, 10.9.9.9") is None


@pytest.mark.parametrize("garbage", ["", "unknown", "203.0.113.77.5", "[::1", "<script>", ",,,"])
async def test_garbage_from_a_proxy_counts_against_the_last_good_hop(
    serve: Serve, garbage: str
) -> None:
    """What cannot be read ends the walk: no garbage makes a new visitor."""
    async with serve(trusted_proxies="127.0.0.1") as (_, visitor):
        assert await ask(visitor) is None  # the proxy itself, speaking for nobody
        assert await ask(visitor, garbage) == "rate_limited"
        assert await ask(visitor, "203.0.113.5, " + garbage) == "rate_limited"


async def test_neighbours_in_a_64_share_a_limit(serve: Serve) -> None:
    """An IPv6 visitor holds a whole /64, so that is what is limited."""
    async with serve(trusted_proxies="127.0.0.1") as (_, visitor):
        assert await ask(visitor, "2001:db8:1:1::1") is None
        assert await ask(visitor, "2001:db8:1:1:ffff::2") == "rate_limited"
        assert await ask(visitor, "2001:db8:1:2::1") is None


async def test_a_48_has_sixteen_times_the_limit(serve: Serve) -> None:
    """Whoever holds a /48 can use its /64s for sixteen visitors, and no more."""
    async with serve(trusted_proxies="127.0.0.1") as (_, visitor):
        told = [await ask(visitor, f"2001:db8:7:{number:x}::1") for number in range(18)]
        assert told == [None] * 16 + ["rate_limited"] * 2
        assert await ask(visitor, "2001:db8:8::1") is None


async def test_the_header_of_a_vendor_counts_from_a_trusted_peer_only(serve: Serve) -> None:
    """CLIENT_IP_HEADER names the visitor, unless the peer is not a named proxy."""
    async with serve(trusted_proxies="127.0.0.1", client_ip_header="CF-Connecting-IP") as (_, who):
        assert await ask(who, "203.0.113.9", CF_Connecting_IP="203.0.113.1") is None
        assert await ask(who, "203.0.113.9", CF_Connecting_IP="203.0.113.2") is None
        assert await ask(who, "203.0.113.8", CF_Connecting_IP="203.0.113.1") == "rate_limited"
        assert await ask(who, "203.0.113.9", CF_Connecting_IP="nobody") is None
        assert await ask(who, "203.0.113.9", CF_Connecting_IP="") == "rate_limited"


async def test_a_vendors_header_from_a_stranger_is_nothing(serve: Serve) -> None:
    """Without a trusted peer anybody could write it."""
    async with serve(client_ip_header="CF-Connecting-IP") as (_, visitor):
        assert await ask(visitor, CF_Connecting_IP="203.0.113.1") is None
        assert await ask(visitor, CF_Connecting_IP="203.0.113.2") == "rate_limited"


async def test_a_token_may_move_between_addresses(serve: Serve) -> None:
    """A phone that changes its network goes on with its chain; only the limits differ."""
    async with serve(trusted_proxies="127.0.0.1") as (_, visitor):
        for number in range(3):
            answer = await visitor.say(headers={"X_Forwarded_For": f"203.0.113.{number}"})
            assert answer.status == 200


async def test_an_unnamed_proxy_is_told_once(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """One WARNING however many requests, and a line in /readyz that does not stop serving."""
    caplog.set_level(logging.INFO)
    async with serve(rate_limit="100/day") as (_, visitor):
        assert (await ready(visitor))["proxies"] == "ok"
        for number in range(3):
            await ask(visitor, f"203.0.113.{number}")
        warned = [record for record in caplog.records if record.getMessage() == UNNAMED_PROXY]
        assert [record.levelname for record in warned] == ["WARNING"]
        assert "203.0.113" not in caplog.text
        assert (await ready(visitor))["proxies"] == UNNAMED_PROXY


async def test_a_named_proxy_is_no_warning(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Where TRUSTED_PROXIES is set there is nothing to say."""
    async with serve(trusted_proxies="127.0.0.1") as (_, visitor):
        await ask(visitor, "203.0.113.1")
        assert (await ready(visitor))["proxies"] == "ok"
        assert UNNAMED_PROXY not in caplog.text


async def ready(visitor: Visitor) -> dict[str, str]:
    """What /readyz says."""
    async with visitor.session.get(visitor.url + "/readyz") as answer:
        assert answer.status == 200
        found: dict[str, str] = await answer.json()
        return found


async def test_no_address_reaches_the_store(serve: Serve, redis_url: str) -> None:
    """Addresses, fingerprints, keys and texts stand in Redis as keyed hashes only."""
    async with serve(trusted_proxies="127.0.0.1") as (_, visitor):
        await ask(visitor, "203.0.113.1", Idempotency_Key="an-idempotency-key-1")
        await ask(visitor, "2001:db8:1:1::1")
    with redis.Redis.from_url(redis_url) as store:
        found = b" ".join(name + b" " + (store.dump(name) or b"") for name in store.keys("*"))
        ages = {name: store.pttl(name) for name in store.keys("*")}
    for canary in (b"203.0.113", b"2001:db8", b"fingerprint-of", b"an-idempotency", b"hello"):
        assert canary not in found
    assert b"chain:" in found
    assert {name for name, age in ages.items() if age < 0} == set()


async def test_the_limits_count_down(serve: Serve) -> None:
    """Each turn leaves one request less, of the address and, on first turns, of new chains."""
    async with serve(rate_limit="5/day", start_limit="3/day") as (_, visitor):
        shown = [await visitor.say() for _ in range(6)]
        assert [answer.status for answer in shown] == [200] * 5 + [429]
        assert shown[0].headers["RateLimit-Policy"] == '"address";q=5;w=86400, "start";q=3;w=86400'
        assert shown[1].headers["RateLimit-Policy"] == '"address";q=5;w=86400'
        limits = [answer.headers["RateLimit"] for answer in shown]
        counted = [limit.split(";")[1] for limit in limits]
        assert counted == ["r=4", "r=3", "r=2", "r=1", "r=0", "r=0"]
        assert '"start";r=2;t=' in limits[0]
        assert 17_000 < int(shown[5].headers["Retry-After"]) <= 17_280
