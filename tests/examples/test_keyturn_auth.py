"""A chain kept under the openai SDK: turns, hang-ups, errors, dead chains and wrong clocks."""

import copy
import itertools
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import openai
import pytest
import redis

from house import Keyturn
from keyturn_auth import KeyturnAuth
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.examples.sdk_stage import KINDS, chains, talking
from tests.stage import (
    Server,
    Upstream,
    Visitor,
    at_rest,
    eventually,
    serving,
    settings_with,
    visiting,
)
from tests.upstream import play

pytestmark = pytest.mark.parametrize("kind", KINDS)
HOUR = 3600


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[CuttingProxy]:
    """What sees every request on its way to the server."""
    async with cutting_proxy(server.url) as proxy:
        yield proxy


async def test_three_turns_are_one_chain(kind: str, server: Server, upstream: Upstream) -> None:
    """Whole, streamed and through the stream helper: each turn shows the last one's successor."""
    async with talking(kind, server.url) as sdk:
        assert await sdk.whole("one") == "one one one "
        assert await sdk.streamed("two") == "two two two "
        assert await sdk.helped("three") == "three three three "
    assert await chains(server) == [3]
    assert [entry["ended"] for entry in await upstream.books()] == ["done"] * 3


async def test_the_sdk_alone_does_not_pass(kind: str, server: Server) -> None:
    """Control: without the auth the same call is refused, and by the gate."""
    async with talking(kind, server.url, httpx2.Auth()) as sdk:
        with pytest.raises(openai.BadRequestError) as refused:
            await sdk.whole("one")
    assert refused.value.code == "timestamp_missing"


@pytest.mark.parametrize("base_url", ["{}", "{}/", "{}/v1", "{}/v1/"])
async def test_the_address_may_be_said_in_every_way(
    kind: str, base_url: str, server: Server
) -> None:
    """With or without the trailing /v1 and slash."""
    auth = KeyturnAuth(base_url.format(server.url))
    async with talking(kind, server.url, auth) as sdk:
        assert await sdk.whole("one") == "one one one "


async def test_a_hang_up_keeps_the_chain(kind: str, server: Server, upstream: Upstream) -> None:
    """Whoever stops reading in the middle goes on in the same chain; upstream is closed."""
    async with talking(kind, server.url) as sdk:
        script = play(text="early ", hang_after=1)
        assert await sdk.streamed(script, stop_at="early ") == "early "
        assert await sdk.whole("two") == "two two two "
    assert await chains(server) == [2]
    await eventually(lambda: at_rest(server))
    assert [entry["ended"] for entry in await upstream.books()] == ["closed", "done"]


async def test_a_stream_that_nobody_reads_keeps_the_chain(kind: str, server: Server) -> None:
    """The successor is taken from the headers: not a byte of the body is needed."""
    async with talking(kind, server.url) as sdk:
        assert await sdk.streamed(play(hang_after=0), stop_at="") == ""
        assert await sdk.whole("two") == "two two two "
    assert await chains(server) == [2]


async def test_an_error_before_the_stream(kind: str, server: Server, proxy: CuttingProxy) -> None:
    """Upstream's failure is one request and the SDK's own exception; the chain goes on."""
    async with talking(kind, proxy.url) as sdk:
        with pytest.raises(openai.InternalServerError) as failed:
            await sdk.streamed(play(status=500, body={}))
        assert (failed.value.status_code, failed.value.code) == (502, "upstream_unavailable")
        assert len(proxy.of("POST")) == 1
        assert await sdk.whole("two") == "two two two "
    assert await chains(server) == [2]


async def test_a_visitors_mistake_before_the_stream(kind: str, server: Server) -> None:
    """What the visitor asked wrongly is named, and the token is still good."""
    async with talking(kind, server.url) as sdk:
        await sdk.whole("one")
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            await sdk.whole("two", temperature=17)
        assert refused.value.code == "invalid_request"
        await sdk.whole("three")
    assert await chains(server) == [2]


@pytest.mark.parametrize("failure", [{"error_after": 1}, {"reset_after": 1}])
async def test_an_error_in_mid_stream(kind: str, failure: dict[str, int], server: Server) -> None:
    """An answer that breaks off raises `openai.APIError` with our code; the chain goes on."""
    async with talking(kind, server.url) as sdk:
        with pytest.raises(openai.APIError) as broken:
            await sdk.streamed(play(**failure))
        assert type(broken.value) is openai.APIError
        assert broken.value.code == "upstream_unavailable"
        assert "secret" not in str(broken.value)
        assert await sdk.helped("two") == "two two two "
    assert await chains(server) == [2]


async def forget(server: Server, name: Any) -> None:
    """Redis no longer knows the chain."""
    await server.keyturn.store.delete(name)


async def revoke(server: Server, name: Any) -> None:
    """The chain was revoked."""
    await server.keyturn.store.hset(name, "state", "revoked")


async def advance(server: Server, name: Any) -> None:
    """Somebody else took the next turn."""
    await server.keyturn.store.hincrby(name, "n", 1)


@pytest.mark.parametrize(
    ("kill", "code"),
    [(forget, "chain_unknown"), (revoke, "chain_revoked"), (advance, "token_reused")],
)
async def test_a_dead_chain_is_begun_anew(
    kind: str, kill: Any, code: str, server: Server, visitor: Visitor, proxy: CuttingProxy
) -> None:
    """Where the chain has ended the send itself begins a new one, unseen by the program."""
    async with talking(kind, proxy.url, KeyturnAuth(proxy.url, fingerprint="x" * 16)) as sdk:
        await sdk.whole("one")
        (chain,) = await server.keyturn.store.keys("*:chain:*")
        await kill(server, chain)
        assert await sdk.whole("two") == "two two two "
        assert await sdk.whole("three") == "three three three "
    assert len(proxy.of("POST")) == 4
    begun = [carried for carried in proxy.of("POST") if "authorization" not in carried.headers]
    assert len(begun) == 2
    assert 2 in await chains(server)
    # Control: it is this code that the old token meets.
    token = proxy.of("POST")[1].headers["authorization"].removeprefix("Bearer ")
    visitor.fingerprint, visitor.token = "x" * 16, token
    assert (await visitor.say()).code in (code, "chain_revoked")


async def test_a_store_that_failed_over(
    kind: str, server: Server, proxy: CuttingProxy, redis_url: str
) -> None:
    """The send goes on by the token that the refusal brings: no other first turn is sent."""
    async with talking(kind, proxy.url, KeyturnAuth(proxy.url, fingerprint="x" * 16)) as sdk:
        await sdk.whole("one")
        with redis.Redis.from_url(redis_url) as store:
            store.replicaof("127.0.0.1", "1")
            store.replicaof("NO", "ONE")
        assert await sdk.whole("two") == "two two two "
    shown = [carried.headers.get("authorization") for carried in proxy.of("POST")]
    assert len(shown) == len(set(shown)) == 3
    assert shown.count(None) == 1


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"api_secret_key": "another-long-and-random-secret-for-tests-0"}, "token_forged"),
        ({"identity_key": "another-long-and-random-identity-for-tests"}, "fingerprint_mismatch"),
    ],
)
async def test_a_server_that_does_not_know_the_token(
    kind: str, changed: dict[str, str], code: str, redis_url: str, upstream: Upstream
) -> None:
    """Where the operator changed a key the conversation goes on in a new chain."""
    said = {"redis_url": redis_url, "openai_base_url": upstream.url}
    async with (
        serving(settings_with(**said)) as old,
        serving(settings_with(**said, **changed)) as new,
        cutting_proxy(old.url) as proxy,
    ):
        auth = KeyturnAuth(proxy.url)
        async with talking(kind, proxy.url, auth) as sdk:
            await sdk.whole("one")
        proxy.server = new.url
        async with talking(kind, proxy.url, auth) as sdk:
            assert await sdk.whole("two") == "two two two "
            assert len(proxy.of("POST")) == 3
        shown = proxy.of("POST")[1].headers
        async with visiting(new, fingerprint=shown["keyturn-fingerprint"]) as visitor:
            visitor.token = shown["authorization"].removeprefix("Bearer ")
            assert (await visitor.say()).code == code, "control: that is what it met"


def an_hour_ahead(keyturn: Keyturn) -> Keyturn:
    """A house in which it is an hour later; its Redis has another clock."""
    gate = copy.copy(keyturn.gate)
    clock_ms = gate._clock_ms
    gate._clock_ms = lambda: clock_ms() + HOUR * 1000
    return replace(keyturn, gate=gate)


async def test_an_expired_token(kind: str, redis_url: str, upstream: Upstream) -> None:
    """After a long pause the conversation goes on in a new chain."""
    settings = settings_with(redis_url=redis_url, openai_base_url=upstream.url)
    paused = [0.0]
    async with (
        serving(settings) as now,
        serving(settings, around=an_hour_ahead) as later,
        cutting_proxy(now.url) as proxy,
    ):
        auth = KeyturnAuth(proxy.url, clock=lambda: time.time() + paused[0])
        async with talking(kind, proxy.url, auth) as sdk:
            await sdk.whole("one")
        proxy.server, paused[0] = later.url, HOUR
        async with talking(kind, proxy.url, auth) as sdk:
            assert await sdk.whole("two") == "two two two "
    assert ["authorization" in carried.headers for carried in proxy.of("POST")] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("off", [-HOUR, HOUR])
async def test_a_clock_that_is_an_hour_off(kind: str, off: int, proxy: CuttingProxy) -> None:
    """The first send puts it right by the server's, and later ones need no second request."""
    auth = KeyturnAuth(proxy.url, clock=lambda: time.time() + off)
    async with talking(kind, proxy.url, auth) as sdk:
        await sdk.whole("one")
        assert len(proxy.of("POST")) == 2
        await sdk.whole("two")
    assert len(proxy.of("POST")) == 3
    keys = [carried.headers["idempotency-key"] for carried in proxy.of("POST")]
    assert keys[0] == keys[1] != keys[2]


async def test_what_no_remedy_helps_is_raised(kind: str, proxy: CuttingProxy) -> None:
    """A clock that runs away is put right once, then the refusal is the program's."""
    steps = itertools.count(1)
    auth = KeyturnAuth(proxy.url, clock=lambda: time.time() + HOUR * next(steps))
    async with talking(kind, proxy.url, auth) as sdk:
        with pytest.raises(openai.AuthenticationError) as refused:
            await sdk.whole("one")
    assert refused.value.code == "timestamp_stale"
    assert len(proxy.of("POST")) == 2
