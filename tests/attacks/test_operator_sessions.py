"""A session is no token: it cannot be made, and no other site's page can use it."""

import hashlib
import hmac
import json
import time
from typing import Any

import pytest
import redis
from itsdangerous import URLSafeSerializer

from operator_page import COOKIE
from security.session import LASTS, Operator, Session
from tests.operator_stage import (
    API,
    POSTS,
    TOKEN,
    operating,
    session_of,
    settings_for,
    two_workers,
)
from tests.stage import Upstream, serving

JSON = "application/json"
NAME = "N" * 22


def sealed(said: Any, token: str = TOKEN, salt: str = "keyturn.operator.v1.main") -> str:
    """A cookie as somebody makes it who has read our source."""
    key = hmac.digest(token.encode(), b"keyturn operator session", "sha256")
    options = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    text = URLSafeSerializer(key, salt=salt, signer_kwargs=options).dumps(said)
    return text if isinstance(text, str) else text.decode()


async def test_a_session_cannot_be_made(redis_url: str, upstream: Upstream) -> None:
    """Forged, changed, expired, without an end, of another token or tenant: none is one."""
    now = int(time.time())
    good = sealed({"s": NAME, "e": now + 60})
    cookies = [
        "",
        TOKEN,
        # Not the last one, of which two bits say nothing.
        good[:-2] + ("A" if good[-2] != "A" else "B") + good[-1],
        good.replace(".", ".A", 1),
        sealed({"s": NAME, "e": now - 1}),
        sealed({"s": NAME, "e": now + LASTS + 60}),
        sealed({"s": NAME, "e": float(now + 60)}),
        sealed({"s": NAME}),
        sealed({"s": "../x", "e": now + 60}),
        sealed([NAME, now + 60]),
        sealed({"s": NAME, "e": now + 60}, token=TOKEN + "!"),
        sealed({"s": NAME, "e": now + 60}, salt="keyturn.operator.v1.other"),
        "A" * 4000,
    ]
    settings = settings_for(redis_url, upstream)
    async with serving(settings) as server, operating(server, None) as nobody:
        for cookie in cookies:
            answer = await nobody.ask("GET", API + "state", Cookie=f"{COOKIE}={cookie}")
            assert (answer.status, answer.code) == (401, "operator_only"), cookie
        answer = await nobody.ask("GET", API + "state", Cookie=f"{COOKIE}={good}")
        assert answer.status == 200, "the control: signed by the very key"
        tossed = f"{COOKIE}=junk; {COOKIE}={good}; other=1"
        assert (await nobody.ask("GET", API + "state", Cookie=tossed)).status == 200


async def test_a_session_goes_on_behind_a_password(redis_url: str, upstream: Upstream) -> None:
    """Browsers send what a proxy in front asks for along: it opens nothing, and is no guess."""
    password = {"Authorization": "Basic b3BlcmF0b3I6cGFzc3dvcmQ="}
    async with (
        serving(settings_for(redis_url, upstream)) as server,
        operating(server, None) as operator,
    ):
        cookie = await session_of(operator, **password)
        for _ in range(12):
            answer = await operator.ask("GET", API + "state", **password)
            assert (answer.status, answer.code) == (401, "operator_only")
        said = {"Content_Type": JSON, "Origin": server.url, "Cookie": cookie, **password}
        assert (await operator.ask("GET", API + "state", **said)).status == 200
        assert (await operator.ask("POST", API + "pause", b"{}", **said)).status == 200
        said["Authorization"] = f"Bearer {TOKEN}x"
        answer = await operator.ask("GET", API + "state", **said)
        assert answer.code == "operator_only", "the control: a wrong token is one, also here"


async def test_a_new_token_ends_all_sessions(redis_url: str, upstream: Upstream) -> None:
    """A session is good in every worker, until the token changes."""
    async with (
        two_workers(redis_url, upstream) as (one, other),
        operating(one, None) as operator,
        serving(settings_for(redis_url, upstream, admin_token=TOKEN[::-1])) as changed,
    ):
        cookie = await session_of(operator)
        statuses = []
        for server in (one, other, changed):
            operator.url = server.url
            statuses.append((await operator.ask("GET", API + "state", Cookie=cookie)).status)
    assert statuses == [200, 200, 401]


async def test_a_session_can_be_ended(redis_url: str, upstream: Upstream) -> None:
    """Whoever has copied the cookie is out too, in every worker; another session goes on."""
    async with (
        two_workers(redis_url, upstream) as (one, other),
        operating(one, None) as operator,
    ):
        cookies = [await session_of(operator) for _ in range(2)]
        said = {"Content_Type": JSON, "Origin": operator.url, "Cookie": cookies[0]}
        answer = await operator.ask("POST", API + "logout", b"{}", **said)
        assert answer.status == 200
        assert answer.headers["Set-Cookie"].startswith(f"{COOKIE}=; Path=/admin; Max-Age=0;")
        operator.url = other.url
        found = [(await operator.ask("GET", API + "state", Cookie=each)).status for each in cookies]
    assert found == [401, 200]


async def test_the_cookie_says_how_it_may_be_used(redis_url: str, upstream: Upstream) -> None:
    """Not the token, unseen by scripts, for this page only; by TLS only where TLS is spoken."""
    settings = settings_for(redis_url, upstream, trusted_proxies="127.0.0.1")
    async with serving(settings) as server, operating(server, None) as operator:
        said = {"Content_Type": JSON, "Origin": server.url}
        body = json.dumps({"token": TOKEN}).encode()
        for proto, secure in ((None, False), ("https", True), ("https, http", False)):
            more = {"X_Forwarded_Proto": proto} if proto else {}
            answer = await operator.ask("POST", API + "login", body, **said, **more)
            cookie = answer.headers["Set-Cookie"]
            assert TOKEN not in cookie
            assert {"HttpOnly", "SameSite=Strict", "Path=/admin"} <= set(cookie.split("; "))
            assert ("Secure" in cookie.split("; ")) == secure
            assert TOKEN.encode() not in answer.body


async def test_nobody_believes_a_visitor_about_tls(redis_url: str, upstream: Upstream) -> None:
    """X-Forwarded-Proto of a peer that is no trusted proxy says nothing."""
    async with (
        serving(settings_for(redis_url, upstream)) as server,
        operating(server, None) as operator,
    ):
        body = json.dumps({"token": TOKEN}).encode()
        said = {"Content_Type": JSON, "Origin": server.url, "X_Forwarded_Proto": "https"}
        answer = await operator.ask("POST", API + "login", body, **said)
        assert "Secure" not in answer.headers["Set-Cookie"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example", "Sec_Fetch_Site": "cross-site"},
        {"Origin": "https://page.example", "Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
        {"Origin": "https://page.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": ""},
        {},
    ],
)
async def test_another_site_cannot_use_the_session(
    redis_url: str, upstream: Upstream, headers: dict[str, str]
) -> None:
    """A POST with the cookie from any page but ours is refused, and nothing is decided.

    ALLOWED_ORIGINS are pages that may chat, not pages that may decide.
    """
    async with (
        serving(settings_for(redis_url, upstream)) as server,
        operating(server, None) as operator,
    ):
        cookie = await session_of(operator)
        for name in POSTS:
            answer = await operator.ask(
                "POST", API + name, b"{}", Content_Type=JSON, Cookie=cookie, **headers
            )
            assert (answer.status, answer.code) == (403, "origin_forbidden")
        login = json.dumps({"token": TOKEN}).encode()
        answer = await operator.ask("POST", API + "login", login, Content_Type=JSON, **headers)
        assert answer.code == "origin_forbidden"
        with redis.Redis.from_url(redis_url) as store:
            assert store.keys("*control") == []
        for own in ({"Origin": server.url}, {"Sec_Fetch_Site": "same-origin"}):
            answer = await operator.ask(
                "POST", API + "pause", b"{}", Content_Type=JSON, Cookie=cookie, **own
            )
            assert answer.status == 200, "the control"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_form_of_another_site_is_no_json(
    redis_url: str, upstream: Upstream, kind: str
) -> None:
    """What a form can send without asking first is refused by its type."""
    async with (
        serving(settings_for(redis_url, upstream)) as server,
        operating(server, None) as operator,
    ):
        cookie = await session_of(operator)
        said = {"Cookie": cookie, "Origin": server.url, "Content_Type": kind}
        assert (await operator.ask("POST", API + "pause", b"{}", **said)).status == 415


async def test_a_session_is_what_it_says() -> None:
    """What was signed is read again while it lasts, and not a second longer."""
    operator = Operator(TOKEN, tenant="main")
    text = operator.sign(Session(NAME, 1000))
    assert operator.unsign(text, now=999.9) == Session(NAME, 1000)
    assert operator.unsign(text, now=1000.0) is None
    assert operator.unsign(text, now=1000 - LASTS - 1.0) is None
