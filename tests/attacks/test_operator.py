"""Whoever is not the operator gets nothing: attacks on /admin, each with what would have worked."""

import asyncio
import json
import logging
from contextlib import ExitStack

import pytest
import redis

from operator_page import FILES
from tests.operator_stage import (
    API,
    GETS,
    POSTS,
    TOKEN,
    operating,
    session_of,
    settings_for,
    two_workers,
)
from tests.operator_stage import Operator as Asker
from tests.stage import Answer, Upstream, head, redis_process, send_raw, serving, visiting

JSON = "application/json"
EVERY = [*(("GET", name) for name in GETS), *(("POST", name) for name in POSTS)]


async def every(operator: Asker, **headers: str) -> list[Answer]:
    """The answers of every route of the API to requests with these headers."""
    return [
        await operator.ask(method, API + name, b"{}", Content_Type=JSON, **headers)
        for method, name in EVERY
    ]


def refused(answers: list[Answer]) -> set[tuple[int, str | None]]:
    """Status and code of each."""
    return {(answer.status, answer.code) for answer in answers}


async def test_it_is_not_there_unless_it_was_asked_for(redis_url: str, upstream: Upstream) -> None:
    """Without ADMIN_TOKEN every path and method is not_found, whatever is shown."""
    settings = settings_for(redis_url, upstream, admin_token=None)
    async with serving(settings) as server, operating(server) as operator:
        paths = [*FILES, *(API + name for name in (*GETS, *POSTS, "login", "logout"))]
        for path in paths:
            for method in ("GET", "POST", "PUT"):
                answer = await operator.ask(method, path)
                assert (answer.status, answer.code) == (404, "not_found")
        assert server.keyturn.console is None
        async with visiting(server) as visitor:
            assert (await visitor.say()).status == 200
    with redis.Redis.from_url(redis_url) as store:
        assert store.keys("*history*") == store.keys("*workers*") == []


async def test_nobody_gets_in_without_the_token(redis_url: str, upstream: Upstream) -> None:
    """Nothing, a wrong token, another scheme, a visitor's token, the operator's other secrets."""
    settings = settings_for(redis_url, upstream)
    async with serving(settings) as server, operating(server, None) as nobody:
        assert refused(await every(nobody)) == {(401, "operator_only")}
        for shown in (
            *("Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer keyturn"),
            *(f"Basic {TOKEN}", f"bearer  {TOKEN}", TOKEN, "Bearer "),
        ):
            answer = await nobody.ask("GET", API + "state", Authorization=shown)
            assert (answer.status, answer.code) == (401, "operator_only")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            forget_tries(redis_url)
        answer = await nobody.ask("GET", API + "state", Authorization=f"bearer {TOKEN}")
        assert answer.status == 200, "the control; a scheme has no case"


def forget_tries(redis_url: str) -> None:
    """Let attempts begin anew."""
    with redis.Redis.from_url(redis_url) as store:
        for key in store.keys("*admin:tries*"):
            store.delete(key)


async def test_no_page_reads_the_answers(redis_url: str, upstream: Upstream) -> None:
    """No CORS for anybody, not for those who may chat; a preflight is refused."""
    async with (
        serving(settings_for(redis_url, upstream)) as server,
        operating(server) as operator,
    ):
        page = {"Origin": "https://page.example"}
        answer = await operator.ask("GET", API + "state", **page)
        assert answer.status == 200
        assert "Access-Control-Allow-Origin" not in answer.headers
        preflight = {**page, "Access_Control_Request_Method": "POST"}
        answer = await operator.ask("OPTIONS", API + "pause", **preflight)
        assert (answer.status, answer.code) == (403, "origin_forbidden")
        control = await operator.ask("OPTIONS", "/v1/chat/completions", **preflight)
        assert control.status == 204


async def test_every_answer_is_for_this_page_alone(redis_url: str, upstream: Upstream) -> None:
    """No frame, no referrer, no cache of answers; and a policy under which only our files run."""
    async with (
        serving(settings_for(redis_url, upstream)) as server,
        operating(server) as operator,
    ):
        for path in [*FILES, API + "state"]:
            headers = (await operator.ask("GET", path)).headers
            policy = headers["Content-Security-Policy"]
            assert "frame-ancestors 'none'" in policy
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            stores = "no-store" if path.startswith(API) else "no-cache"
            assert headers["Cache-Control"] == stores


@pytest.mark.parametrize("path", [*FILES, *(API + name for name in (*GETS, *POSTS, "login"))])
async def test_a_method_is_the_one_it_takes(redis_url: str, upstream: Upstream, path: str) -> None:
    """405 names in Allow what the path takes."""
    takes = "POST" if path.removeprefix(API) in (*POSTS, "login") else "GET, HEAD"
    async with (
        serving(settings_for(redis_url, upstream)) as server,
        operating(server) as operator,
    ):
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - set(takes.split(", ")):
            answer = await operator.ask(method, path, b"{}", Content_Type=JSON)
            assert (answer.status, answer.code) == (405, "method_not_allowed")
            assert answer.headers["Allow"] == takes


@pytest.mark.parametrize(
    "path",
    [
        *("/admin/", "/admin/index.html", "/admin/api", "/admin/api/", "/admin/api/state/"),
        *("/admin//api/state", "/admin%2fapi%2fstate", "/admin/api/..%2fstate", "/ADMIN"),
        *("/admin/../settings.py", "/admin/..%2f.env", "/admin/%2e%2e/.env", "/admin/vendor"),
        *("/admin/vendor%2fuplot.js", "/admin/admin.js%00", "/administrator", "/admin/state"),
    ],
)
async def test_a_path_is_exactly_itself(redis_url: str, upstream: Upstream, path: str) -> None:
    """No second spelling, no way out of the folder, and the token opens none of them."""
    async with serving(settings_for(redis_url, upstream)) as server:
        said = {"Connection": "close", "Authorization": f"Bearer {TOKEN}"}
        answer = await send_raw(server, head("GET", path, said), method="GET")
        assert (answer.status, answer.json["code"]) == (404, "not_found")


async def test_a_header_said_twice_is_refused(redis_url: str, upstream: Upstream) -> None:
    """Which of two tokens counts is no question for a proxy and us to differ about."""
    async with serving(settings_for(redis_url, upstream)) as server:
        said = {"Connection": "close", "Authorization": f"Bearer {TOKEN}"}
        twice = head("GET", API + "state", said, "Authorization: Bearer other")
        assert (await send_raw(server, twice, method="GET")).json["code"] == "header_repeated"


async def test_guesses_are_few(redis_url: str, upstream: Upstream) -> None:
    """Ten at once per address in all workers together, also when they come all at a time."""
    async with (
        two_workers(redis_url, upstream) as (one, other),
        operating(one, "a-guess") as guesser,
        operating(other, "a-guess") as also,
    ):
        asked = [each.ask("GET", API + "state") for each in (guesser, also) for _ in range(20)]
        answers = await asyncio.gather(*asked)
        codes = [answer.code for answer in answers]
        assert (codes.count("operator_only"), codes.count("rate_limited")) == (10, 30)
        limited = next(answer for answer in answers if answer.code == "rate_limited")
        assert 300 <= int(limited.headers["Retry-After"]) <= 360
        guesser.token = TOKEN
        assert (await guesser.ask("GET", API + "state")).code == "rate_limited", "right, too late"
        forget_tries(redis_url)
        for _ in range(30):
            assert (await guesser.ask("GET", API + "state")).status == 200, "being right is free"


async def test_a_flood_of_guesses_does_not_lock_the_operator_out(
    redis_url: str, upstream: Upstream
) -> None:
    """From where the right token came lately it is taken, while all others wait."""
    settings = settings_for(redis_url, upstream, trusted_proxies="127.0.0.1")
    async with serving(settings) as server, operating(server) as operator:
        home, other = {"X_Forwarded_For": "203.0.113.7"}, {"X_Forwarded_For": "203.0.113.8"}
        assert (await operator.ask("GET", API + "state", **home)).status == 200
        operator.token = "a-guess"
        codes = [
            (await operator.ask("GET", API + "state", X_Forwarded_For=f"198.51.100.{n}")).code
            for n in range(110)
        ]
        assert codes.count("rate_limited") == 10, "a hundred in all"
        operator.token = TOKEN
        assert (await operator.ask("GET", API + "state", **other)).code == "rate_limited"
        assert (await operator.ask("GET", API + "state", **home)).status == 200


async def test_a_flood_of_guesses_takes_no_connection_from_visitors(
    redis_url: str, upstream: Upstream
) -> None:
    """All at once with a crowd of visitors: each of these is answered, and questions after it."""
    patient = {"redis_timeout_ms": 1000, "redis_deadline_ms": 3000}
    settings = settings_for(redis_url, upstream, **patient)
    async with (
        serving(settings) as server,
        operating(server, "a-guess") as guesser,
        visiting(server) as visitor,
    ):
        with redis.Redis.from_url(redis_url) as store:
            store.execute_command("CLIENT", "PAUSE", "300", "ALL")
        guesses = [guesser.ask("GET", API + "state") for _ in range(100)]
        turns = [visitor.say() for _ in range(100)]
        answers = (await asyncio.gather(*turns, *guesses))[: len(turns)]
        assert "store_unavailable" not in {answer.code for answer in answers}
        async with visitor.session.get(server.url + "/readyz") as ready:
            assert (ready.status, (await ready.json())["store"]) == (200, "ok")


async def test_without_redis_nobody_is_the_operator(upstream: Upstream) -> None:
    """Neither by token nor by session; the refusal says that Redis is why."""
    with ExitStack() as stack:
        settings = settings_for(stack.enter_context(redis_process()), upstream)
        async with serving(settings) as server, operating(server) as operator:
            cookie = await session_of(operator)
            nobody = Asker(operator.session, operator.url, None)
            assert (await nobody.ask("GET", API + "state", Cookie=cookie)).status == 200
            stack.close()
            more = {"Content_Type": JSON, "Origin": server.url}
            login = json.dumps({"token": TOKEN}).encode()
            answers = [
                await operator.ask("GET", API + "state"),
                await nobody.ask("GET", API + "state", Cookie=cookie),
                await nobody.ask("POST", API + "pause", b"{}", Cookie=cookie, **more),
                await nobody.ask("POST", API + "login", login, **more),
                await nobody.ask("POST", API + "logout", b"{}", Cookie=cookie, **more),
            ]
            assert (await nobody.ask("GET", "/admin")).status == 200, "the page can say so"
    assert refused(answers) == {(503, "store_unavailable")}
    assert "Redis cannot be read" in answers[1].json["detail"]


async def test_the_token_stays_where_it_is(
    redis_url: str, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Right or wrong, no token is in a log, in Redis, in an answer, or in what fails."""
    wrong = "a-wrong-token-canary-0123456789"
    settings = settings_for(redis_url, upstream)
    said: list[bytes] = []
    with caplog.at_level(logging.DEBUG):
        async with serving(settings) as server, operating(server) as operator:
            cookie = await session_of(operator)
            for token in (TOKEN, wrong):
                operator.token = token
                said += [answer.body for answer in await every(operator)]
            broken = json.dumps({"token": wrong, "more": wrong}).encode()
            more = {"Content_Type": JSON, "Origin": server.url}
            said += [(await operator.ask("POST", API + "login", broken, **more)).body]
    with redis.Redis.from_url(redis_url) as store:
        stored = b" ".join(_everything(store))
    session = cookie.partition("=")[2]
    for secret in (TOKEN, wrong, session):
        assert secret not in caplog.text
        assert secret.encode() not in stored
        assert secret.encode() not in b" ".join(said)
    assert b"admin:known" in stored, "the control: there was something to see"
    assert repr(TOKEN) not in repr(settings)


def _everything(store: "redis.Redis") -> list[bytes]:
    found: list[bytes] = []
    for key in store.scan_iter():
        found += [key, store.dump(key) or b""]
    return found
