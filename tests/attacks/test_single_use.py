"""A token is honoured once: by many at a time, by a thief, and when an answer was lost."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import redis
import redis.asyncio
from fastapi import FastAPI, Header
from fastapi.responses import JSONResponse

from security.one_time_token import Claims, TokenSigner
from tests.in_loop import serving_app
from tests.stage import (
    PATIENT,
    SECRET,
    Answer,
    Server,
    Upstream,
    Visitor,
    now_ms,
    serving,
    settings_with,
    visiting,
)
from tests.upstream import play

MANY = 200
KEYS = "keyturn:{main}:"


def urls(redis_url: str, upstream: Upstream) -> dict[str, Any]:
    """Where a server finds its store and its upstream; patient, for the machine may be slow."""
    return {"redis_url": redis_url, "openai_base_url": upstream.url, **PATIENT}


@pytest.fixture
async def server(redis_url: str, upstream: Upstream) -> AsyncIterator[Server]:
    """A server for many at a time."""
    async with serving(settings_with(**urls(redis_url, upstream))) as server:
        yield server


async def at_once(visitor: Visitor, count: int, **headers: str) -> list[Answer]:
    """The same turn so many times in parallel, each on a connection of its own."""
    body, shown = visitor.body(), visitor.headers(**headers)
    return await asyncio.gather(*(visitor.post(body, shown) for _ in range(count)))


def told(answers: list[Answer]) -> Counter[str]:
    """How many were told what; 'ok' is an answer."""
    return Counter(answer.code or "ok" for answer in answers)


async def test_of_200_parallel_uses_one_is_admitted(visitor: Visitor, upstream: Upstream) -> None:
    """One answer, one POST upstream, and one successor that works."""
    await visitor.say()
    answers = await at_once(visitor, MANY)
    assert told(answers) == {"ok": 1, "token_reused": MANY - 1}
    assert {answer.json["chain"] for answer in answers if answer.code} == {"kept"}
    tokens = [answer.token for answer in answers if answer.token]
    assert len(tokens) == 1
    assert len(await upstream.books()) == 2
    visitor.token = tokens[0]
    assert (await visitor.say()).status == 200


async def test_two_servers_at_one_store_admit_one(redis_url: str, upstream: Upstream) -> None:
    """Single use is the store's, not the process's: half of the uses go to another server."""
    settings = settings_with(**urls(redis_url, upstream))
    async with (
        serving(settings) as one,
        serving(settings) as two,
        visiting(one) as visitor,
        visiting(two) as other,
    ):
        await visitor.say()
        other.token = visitor.token
        halves = await asyncio.gather(at_once(visitor, 50), at_once(other, 50))
    assert told(halves[0] + halves[1]) == {"ok": 1, "token_reused": 99}
    assert len(await upstream.books()) == 2


def naive_proxy(redis_url: str, upstream: Upstream) -> FastAPI:
    """The control: the token is looked up, and deleted when that is done."""
    app = FastAPI()
    store = redis.asyncio.Redis.from_url(redis_url)

    @app.post("/v1/chat/completions")
    async def complete(authorization: str = Header()) -> JSONResponse:
        token = authorization.removeprefix("Bearer ")
        if not await store.get(token):
            return JSONResponse({}, 401)
        await store.delete(token)
        body = {"messages": [{"role": "user", "content": "hello"}]}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{upstream.url}/chat/completions", json=body) as answer,
        ):
            return JSONResponse(await answer.json())

    app.state.store = store
    return app


async def test_looking_first_and_deleting_then_admits_several(
    redis_url: str, upstream: Upstream
) -> None:
    """The control: under the same load, GET and then DEL lets one token pay for many turns."""
    app = naive_proxy(redis_url, upstream)
    with redis.Redis.from_url(redis_url) as store:
        store.set("a-token", 1)
    async with serving_app(app) as url, visiting(url, token="a-token") as visitor:
        answers = await at_once(visitor, MANY)
    await app.state.store.aclose()
    admitted = [answer for answer in answers if answer.status == 200]
    assert len(admitted) > 1
    assert len(await upstream.books()) == len(admitted)


async def test_200_parallel_first_turns_with_one_key_begin_one_chain(
    visitor: Visitor, upstream: Upstream
) -> None:
    """A first turn has no token; its Idempotency-Key makes it one turn all the same."""
    answers = await at_once(visitor, MANY, Idempotency_Key=secrets.token_urlsafe(16))
    assert told(answers) == {"ok": 1, "duplicate_request": MANY - 1}
    assert len({answer.token for answer in answers}) == 1
    assert len(await upstream.books()) == 1


async def test_no_other_spelling_of_a_token_is_a_second_token(
    visitor: Visitor, upstream: Upstream
) -> None:
    """Base64 can be spelled in several ways: of all of them together one turn is admitted."""
    await visitor.say()
    token = visitor.token or ""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spelled = [token[:-1] + letter for letter in alphabet]
    spelled += [token + "=", token + "==", token + "A", "." + token, token.replace(".", ".=")]
    shown = [visitor.headers(Authorization=f"Bearer {spelling}") for spelling in spelled]
    answers = [await visitor.post(visitor.body(), headers) for headers in shown]
    assert told(answers)["ok"] == 1
    assert set(told(answers)) <= {"ok", "token_reused", "token_forged", "token_malformed"}
    assert len(await upstream.books()) == 2


class Retrying:
    """A turn sent with an Idempotency-Key, to be repeated exactly."""

    def __init__(self, visitor: Visitor, content: str = "hello") -> None:
        self.visitor = visitor
        self.key = secrets.token_urlsafe(16)
        self.body = visitor.body(content)
        self.token = visitor.token

    async def send(self, body: bytes | None = None, key: str | None = None) -> Answer:
        """Send it, or a variation of it, as often as one likes."""
        shown = f"Bearer {self.token}" if self.token else None
        headers = self.visitor.headers(Idempotency_Key=key or self.key, Authorization=shown)
        return await self.visitor.post(body or self.body, headers)


@pytest.mark.parametrize("turns_before", [0, 1], ids=["first turn", "follow-up"])
async def test_a_lost_answer_is_recovered_by_its_key(
    visitor: Visitor, upstream: Upstream, turns_before: int
) -> None:
    """The repeat gets the very same successor and no second POST; with it the chat goes on."""
    for _ in range(turns_before):
        await visitor.say()
    turn = Retrying(visitor)
    lost = await turn.send()
    for _ in range(3):
        again = await turn.send()
        assert (again.status, again.code, again.json["chain"]) == (
            *(409, "duplicate_request", "advanced"),
        )
        assert again.token == lost.token
    assert len(await upstream.books()) == turns_before + 1
    visitor.token = again.token
    resent = await visitor.say(headers={"Idempotency_Key": secrets.token_urlsafe(16)})
    assert resent.status == 200
    late = await turn.send()
    assert late.code == ("token_reused" if turns_before else "idempotency_conflict")
    assert late.token is None
    assert (await visitor.say()).status == (401 if turns_before else 200)


@pytest.mark.parametrize("turns_before", [0, 1], ids=["first turn", "follow-up"])
async def test_a_key_repeats_its_own_body_only(
    visitor: Visitor, upstream: Upstream, turns_before: int
) -> None:
    """The key with another body is refused and costs nothing; the true repeat still works."""
    for _ in range(turns_before):
        await visitor.say()
    turn = Retrying(visitor)
    first = await turn.send()
    other = await turn.send(body=visitor.body("something else"))
    assert (other.status, other.code, other.json["chain"]) == (422, "idempotency_conflict", "kept")
    assert other.token is None
    assert (await turn.send()).token == first.token
    assert len(await upstream.books()) == turns_before + 1


async def test_the_successor_wants_a_new_key(visitor: Visitor, upstream: Upstream) -> None:
    """The next turn under the last turn's key is refused, and passes under a new one."""
    turn = Retrying(visitor)
    visitor.token = (await turn.send()).token
    assert (await visitor.say(headers={"Idempotency_Key": turn.key})).code == "idempotency_conflict"
    fresh = {"Idempotency_Key": secrets.token_urlsafe(16)}
    assert (await visitor.say(headers=fresh)).status == 200
    assert len(await upstream.books()) == 2


async def test_another_browser_cannot_recover_by_a_key(
    visitor: Visitor, upstream: Upstream
) -> None:
    """A key heard by somebody else begins a chain of their own and yields no token of ours."""
    turn = Retrying(visitor)
    ours = await turn.send()
    visitor.fingerprint = "fingerprint-of-somebody-else"
    theirs = await turn.send()
    assert theirs.status == 200
    assert claims(theirs).chain != claims(ours).chain
    assert len(await upstream.books()) == 2


def claims(answer: Answer) -> Claims:
    """What a token says."""
    return TokenSigner([SECRET], tenant="main").unsign(answer.token or "", now_ms=now_ms())


async def test_a_recovery_comes_too_late(redis_url: str, upstream: Upstream) -> None:
    """Past RECOVERY_WINDOW the key gives nothing back."""
    settings = settings_with(**urls(redis_url, upstream))
    async with serving(settings) as server, visiting(server) as visitor:
        turn = Retrying(visitor)
        await turn.send()
        age_chains(redis_url, ms=181_000)
        assert (await turn.send()).code == "idempotency_conflict"


def age_chains(redis_url: str, *, ms: int) -> None:
    """As if every chain's last turn had been so long ago."""
    with redis.Redis.from_url(redis_url) as store:
        for name in store.keys(f"{KEYS}chain:*"):
            store.hincrby(name, "last", -ms)


async def test_within_the_grace_a_double_click_harms_nothing(
    visitor: Visitor, upstream: Upstream
) -> None:
    """The last token shown again a moment later is refused, and the chain lives on."""
    await visitor.say()
    used = visitor.token
    await visitor.say()
    shown = visitor.headers(Authorization=f"Bearer {used}")
    for _ in range(3):
        again = await visitor.post(visitor.body(), shown)
        assert (again.code, again.json["chain"]) == ("token_reused", "kept")
    assert (await visitor.say()).status == 200
    assert len(await upstream.books()) == 3


async def test_a_stolen_token_ends_its_chain(server: Server, redis_url: str) -> None:
    """When thief and owner have both used a token, neither gets any further."""
    async with visiting(server) as owner, visiting(server) as thief:
        await owner.say()
        thief.token = owner.token
        assert (await thief.say("stolen")).status == 200
        age_chains(redis_url, ms=11_000)
        answer = await owner.say("mine")
        assert (answer.status, answer.code, answer.json["chain"]) == (
            *(401, "token_reused", "revoked"),
        )
        for whoever in (thief, owner, thief):
            answer = await whoever.say(play(silent=True))
            assert (answer.code, answer.json["chain"]) == ("chain_revoked", "revoked")
        owner.token = None
        assert (await owner.say("anew")).status == 200


async def test_a_token_two_turns_old_ends_its_chain_at_once(visitor: Visitor) -> None:
    """The grace is for the last token only: an older one never comes from a double click."""
    old = (await visitor.say()).token
    await visitor.say()
    await visitor.say()
    newest, visitor.token = visitor.token, old
    assert (await visitor.say()).json["chain"] == "revoked"
    visitor.token = newest
    assert (await visitor.say()).code == "chain_revoked"
