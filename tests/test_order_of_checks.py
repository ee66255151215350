"""The order of the checks: a request wrong in every way is told the first reason, then the next.

Cheap and stateless comes first: nothing before the script touches Redis, and nothing that is
refused reaches upstream or costs the token.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import redis

from tests.causes import token_of
from tests.stage import (
    CHAT,
    RESPONSES,
    Answer,
    Server,
    Upstream,
    Visitor,
    commands,
    head,
    now_ms,
    send_raw,
    serving,
    settings_with,
    visiting,
)

GOOD = {
    CHAT: b'{"messages":[{"role":"user","content":"hello"}]}',
    RESPONSES: b'{"input":[{"role":"user","content":"hello"}]}',
}
KEYS = "keyturn:{main}:"


@dataclass
class Wrong:
    """A request that is wrong in every way, to be mended one thing at a time."""

    method: str = "PUT"
    path: str = "/v1/completions"
    headers: dict[str, str] = field(default_factory=dict)
    more: tuple[str, ...] = ("Idempotency-Key: a", "Idempotency-Key: b")
    body: bytes = b"{" * 2001

    async def send(self, server: Server) -> Answer:
        """Send it as it stands now."""
        length = {"Content-Length": str(len(self.body)), "Connection": "close"}
        first = head(self.method, self.path, {**self.headers, **length}, *self.more)
        return await send_raw(server, first, self.body)

    def set(self, **headers: str) -> None:
        """Change some headers (underscores stand for hyphens)."""
        self.headers |= {name.replace("_", "-"): value for name, value in headers.items()}


Mend = Callable[[Wrong], None]


def header(name: str, value: str | Callable[[], str]) -> Mend:
    """A mend that sets one header."""
    return lambda wrong: wrong.set(**{name: value if isinstance(value, str) else value()})


def body(raw: bytes) -> Mend:
    """A mend that changes the body."""
    return lambda wrong: setattr(wrong, "body", raw)


def expired_token() -> str:
    """A token of ours that has had its time."""
    return "Bearer " + token_of(issued_ms=now_ms() - 99_000, expires_ms=now_ms() - 40_000)


def forged_token() -> str:
    """A token whose signature is not ours."""
    return expired_token()[:-8] + "AAAAAAAA"


def to(path: str) -> Mend:
    """A mend that asks at a right address."""
    return lambda wrong: setattr(wrong, "path", path)


# Each step mends what the one before was told, and names what is told next.
STATELESS: list[tuple[Mend, str]] = [
    (lambda wrong: setattr(wrong, "method", "POST"), "unsupported_media_type"),
    (header("Content_Type", "application/json"), "origin_forbidden"),
    (header("Origin", "https://page.example"), "header_repeated"),
    (lambda wrong: setattr(wrong, "more", ("Idempotency-Key: a",)), "timestamp_missing"),
    (header("Keyturn_Timestamp", "yesterday"), "timestamp_malformed"),
    (header("Keyturn_Timestamp", "1000000000000"), "timestamp_stale"),
    (header("Keyturn_Timestamp", lambda: str(now_ms())), "fingerprint_missing"),
    (header("Keyturn_Fingerprint", "short"), "fingerprint_malformed"),
    (header("Keyturn_Fingerprint", "fingerprint-of-a-browser"), "token_malformed"),
    (header("Authorization", "Bearer what?"), "token_malformed"),
    (header("Authorization", forged_token), "token_forged"),
    (header("Authorization", expired_token), "token_expired"),
]


def bodies(good: bytes) -> list[tuple[Mend, str]]:
    """The steps that mend the body, until it is a good one."""
    return [
        (lambda wrong: None, "payload_too_large"),
        (body(b"{"), "malformed_json"),
        (body(good[:-1] + b',"store":true}'), "unsupported_parameter"),
        (body(good.partition(b"[")[0] + b"[]}"), "invalid_request"),
        (body(good), "invalid_request"),  # the Idempotency-Key
    ]


def wrong_in_every_way() -> Wrong:
    """What the first step sends."""
    wrong = Wrong()
    wrong.set(Content_Type="text/plain", Origin="https://elsewhere.example")
    wrong.set(Authorization="Basic dXNlcjpwYXNz")
    return wrong


@pytest.mark.parametrize("path", GOOD)
async def test_a_request_wrong_in_every_way_is_told_one_reason_after_the_other(
    redis_url: str, upstream: Upstream, path: str
) -> None:
    """Mending what was told leads to the next reason in the order of the gate, up to the answer."""
    settings = settings_with(
        redis_url=redis_url, openai_base_url=upstream.url, max_body_bytes=2000, max_streams_per_ip=1
    )
    steps: list[tuple[Mend, str]] = [(lambda wrong: None, "not_found")]
    steps += [(to(path), "method_not_allowed"), *STATELESS]
    async with serving(settings) as server, visiting(server, path=path) as visitor:
        wrong = wrong_in_every_way()
        before = commands(redis_url)
        assert [await told(wrong, step, server) for step in steps] == codes(steps)
        assert commands(redis_url) == before, "Redis was asked before the script"

        await visitor.say()
        used = f"Bearer {visitor.token}"
        wrong.set(Authorization=used, Keyturn_Fingerprint="fingerprint-of-another")
        assert (await wrong.send(server)).code == "fingerprint_mismatch"
        wrong.set(Keyturn_Fingerprint=visitor.fingerprint)
        before = commands(redis_url)
        steps = bodies(GOOD[path])
        assert [await told(wrong, step, server) for step in steps] == codes(steps)
        assert commands(redis_url) == before, "Redis was asked before the body was read"

        wrong.more = ()
        await visitor.say()  # what the wrong one shows is now a used token
        with redis.Redis.from_url(redis_url) as store:
            await require_order_of_state(wrong, server, visitor, store)
        assert len(await upstream.books()) == 4


def codes(steps: list[tuple[Mend, str]]) -> list[str]:
    """What each step should be told."""
    return [code for _, code in steps]


async def told(wrong: Wrong, step: tuple[Mend, str], server: Server) -> str | None:
    """Mend, send, and say what was told."""
    step[0](wrong)
    return (await wrong.send(server)).code


async def require_order_of_state(
    wrong: Wrong, server: Server, visitor: Visitor, store: "redis.Redis"
) -> None:
    """The worker's own capacity, and then the script: rate, block, chain, streams, pause."""
    address = server.keyturn.hash("addr", b"127.0.0.1/32")
    store.set(f"{KEYS}rate:{address}", (now_ms() + 10**9) * 1000)
    store.zadd(f"{KEYS}blocked", {address: now_ms() + 10**6})
    store.zadd(f"{KEYS}inflight:{address}", {"another": now_ms() + 10**6})
    store.hset(f"{KEYS}control", "paused", "1")
    async with serving(server.keyturn.settings) as leaving:
        leaving.keyturn.turns.drain(30)
        assert (await wrong.send(leaving)).code == "overloaded"
    assert (await wrong.send(server)).code == "rate_limited"
    store.delete(f"{KEYS}rate:{address}")
    assert (await wrong.send(server)).code == "visitor_blocked"
    store.delete(f"{KEYS}blocked")
    assert (await wrong.send(server)).code == "token_reused"
    wrong.set(Authorization=f"Bearer {visitor.token}")
    assert (await wrong.send(server)).code == "too_many_streams"
    store.delete(f"{KEYS}inflight:{address}")
    assert (await wrong.send(server)).code == "paused"
    store.delete(f"{KEYS}control")
    answer = await wrong.send(server)
    assert answer.status == 200, answer.body
    wrong.set(Authorization=f"Bearer {answer.token}")
    assert (await wrong.send(server)).status == 200


async def test_the_start_rate_stands_before_the_streams_of_a_first_turn(
    redis_url: str, upstream: Upstream
) -> None:
    """A first turn past its start rate is told that, whatever else would stop it."""
    settings = settings_with(redis_url=redis_url, openai_base_url=upstream.url, start_limit="1/day")
    async with serving(settings) as server, visiting(server) as visitor:
        await visitor.say()
        with redis.Redis.from_url(redis_url) as store:
            store.hset(f"{KEYS}control", "paused", "1")
        visitor.token = None
        assert (await visitor.say()).code == "start_limited"


async def test_a_wrong_fingerprint_costs_a_tick(redis_url: str, upstream: Upstream) -> None:
    """Guessing fingerprints is bounded by the address rate; the token survives the guesses."""
    settings = settings_with(redis_url=redis_url, openai_base_url=upstream.url, rate_limit="4/day")
    async with serving(settings) as server, visiting(server) as visitor:
        await visitor.say()
        guesses = [
            await visitor.post(
                GOOD[CHAT], visitor.headers(Keyturn_Fingerprint=f"guess-number-{n:04}")
            )
            for n in range(5)
        ]
        told = [guess.code for guess in guesses]
        assert told == ["fingerprint_mismatch"] * 3 + ["rate_limited"] * 2
        with redis.Redis.from_url(redis_url) as store:
            store.delete(*store.keys(f"{KEYS}rate:*"))
        assert (await visitor.say()).status == 200


@pytest.mark.parametrize("path", [CHAT, RESPONSES, "/api/chat"])
async def test_an_origin_is_refused_before_anything_is_spent(
    redis_url: str, upstream: Upstream, path: str
) -> None:
    """A foreign page costs neither a command of Redis nor a POST."""
    urls = {"openai_base_url": upstream.url, "byok_base_url": upstream.url, "redis_url": redis_url}
    settings = settings_with(**urls, byok_allowed_origins="https://page.example")
    async with serving(settings) as server, visiting(server, path=path) as visitor:
        before = commands(redis_url)
        headers = visitor.headers(Origin="https://elsewhere.example")
        own_key = b'{"user_message":"hello","api_key":"sk-visitor"}'
        good = own_key if path == "/api/chat" else visitor.body()
        assert (await visitor.post(good, headers, path)).code == "origin_forbidden"
        assert commands(redis_url) == before
        assert await upstream.books() == []
        headers = visitor.headers(Origin="https://page.example")
        assert (await visitor.post(good, headers, path)).status == 200
        assert commands(redis_url) != before, "the control: what passes is counted"
        assert len(await upstream.books()) == 1
