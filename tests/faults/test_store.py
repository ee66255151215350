"""A store that is broken lets nobody in, says so soon, and is trusted again soon after it healed.

The store is a real Redis, broken while the server runs; between the two lies a wire that can be
slow or lose replies.
"""

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.faults.figures import BROKEN, LOST_REPLY, REFUSAL, Figures
from tests.faults.figures import HEALED as HEAL
from tests.faults.store_stage import FAULTS, Fault, OwnRedis, Wire, wired
from tests.stage import (
    Answer,
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

SOON = 0.75  # seconds until a visitor is told that the store is broken
HEALED = 2.0  # seconds until a healed store is used again


@dataclass
class Scene:
    """A server whose store can be broken."""

    store: OwnRedis
    wire: Wire
    url: str
    server: Server
    visitor: Visitor
    upstream: Upstream

    async def posts(self) -> int:
        """How often upstream was asked."""
        return len(await self.upstream.books())

    async def say(self, key: str) -> Answer:
        """A turn that can be repeated: the same token, body and key each time."""
        visitor = self.visitor
        return await visitor.post(visitor.body(), visitor.headers(Idempotency_Key=key))

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of one of the routes that spend nothing."""
        async with self.visitor.session.get(self.visitor.url + path) as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def scene(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Scene]:
    """A server, its own Redis at the end of a wire, and a visitor in the middle of a chat."""
    store = OwnRedis(tmp_path)
    store.start()
    store.ready()
    try:
        async with wired(store.socket, tmp_path) as (wire, url):
            urls = {"redis_url": url, "openai_base_url": upstream.url}
            settings = settings_with(**urls, rate_limit="1000/hour")
            async with (
                serving(settings) as server,
                visiting(server, extra={"Origin": "https://page.example"}) as visitor,
            ):
                assert (await visitor.say()).status == 200
                yield Scene(store, wire, url, server, visitor, upstream)
    finally:
        store.kill()


async def refusal(scene: Scene, key: str, figures: Figures | None = None) -> Answer:
    """What a visitor is told while the store is broken, in time."""
    began = time.monotonic()
    answer = await scene.say(key)
    took = time.monotonic() - began
    if figures:
        figures.note(REFUSAL, took)
    assert took < SOON
    return answer


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_broken_store_lets_nobody_in_and_heals(
    scene: Scene, figures: Figures, fault: Fault
) -> None:
    """503 in time, no POST, and the chat goes on within two seconds of healing: no restart."""
    key = secrets.token_urlsafe(16)
    fault.strike(scene.store, scene.wire)
    for _ in range(5):
        require_unavailable(await refusal(scene, key, figures))
    figures.note(BROKEN, await scene.posts() - 1, of=5)
    assert await scene.get("/healthz") == (200, '{"status":"ok"}')
    ready = await scene.get("/readyz")
    assert ready[0] == 503, ready
    assert await scene.posts() == 1

    fault.heal(scene.store, scene.wire)
    healed = time.monotonic()
    while (answer := await scene.say(key)).code == "store_unavailable":
        assert time.monotonic() - healed < HEALED
        await asyncio.sleep(0.05)
    figures.note(HEAL, time.monotonic() - healed)
    await require_goes_on(scene, answer, fault.name)


def require_unavailable(answer: Answer) -> None:
    """Fail closed, and a page can read it."""
    assert (answer.status, answer.code) == (503, "store_unavailable")
    assert answer.json["chain"] in ("kept", "unknown")
    assert int(answer.headers["Retry-After"]) >= 1
    assert "x-should-retry" not in answer.headers
    assert answer.headers["Access-Control-Allow-Origin"] == "https://page.example"
    assert answer.token is None
    words = answer.body.decode().replace(answer.json["request_id"], "")  # chance may spell one
    assert not re.search(r"(?i)redis|lua|evalsha|errno|oom|wrongtype", words)


async def require_goes_on(scene: Scene, answer: Answer, fault: str) -> None:
    """The repeat by key was admitted, or recovers what was admitted unheard; one POST a turn.

    A store that was started again or followed another hands over a new chain, if it has the old.
    """
    if fault in ("killed", "loading", "read-only"):
        assert answer.code == "chain_unknown"
        assert bool(answer.token) == (fault != "killed")
        scene.visitor.token = answer.token
        assert (await scene.visitor.say()).status == 200
        return
    assert answer.code in (None, "duplicate_request")
    assert await scene.posts() == (1 if answer.code else 2)
    scene.visitor.token = answer.token
    assert (await scene.visitor.say()).status == 200


async def test_a_limiter_that_fails_open_lets_everybody_in(scene: Scene, figures: Figures) -> None:
    """The control: a proxy that counts in Redis, and serves where that fails, as many limiters do
    by default."""
    kill = next(fault for fault in FAULTS if fault.name == "killed")
    path, once = scene.url.removeprefix("unix://"), Retry(NoBackoff(), 0)
    counter, served = redis.asyncio.Redis(unix_socket_path=path, retry=once), 0
    async with counter, visiting(scene.upstream.url.removesuffix("/v1")) as naive:
        kill.strike(scene.store, scene.wire)
        for _ in range(5):
            with contextlib.suppress(redis.RedisError):
                assert int(await counter.incr("address")) <= 5
            served += (await naive.say(model="gpt-4.1-mini")).status == 200
    figures.note(BROKEN, served, of=5, control=True)
    assert served == await scene.posts() - 1 == 5


async def test_by_its_defaults_the_client_library_hangs_on_a_stopped_store(
    scene: Scene, figures: Figures
) -> None:
    """The control: with a plain client a visitor would still be waiting after two seconds."""
    stop = next(fault for fault in FAULTS if fault.name == "stopped")
    async with redis.asyncio.Redis(unix_socket_path=scene.url.removeprefix("unix://")) as naive:
        await naive.get("x")
        stop.strike(scene.store, scene.wire)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await naive.get("x")
        figures.note(REFUSAL, 2, control=True)  # and more: nobody waited for the end
        stop.heal(scene.store, scene.wire)


@pytest.mark.parametrize("cut", [False, True], ids=["silence", "cut"])
async def test_one_lost_reply_is_one_turn(scene: Scene, figures: Figures, cut: bool) -> None:
    """The call is repeated under its own name and gets its first outcome: one POST, one tick."""
    before = left(await scene.visitor.say())
    scene.wire.cut = cut
    scene.wire.lose = 1
    answer = await scene.visitor.say()
    assert (answer.status, answer.text) == (200, "hello " * 3)
    assert scene.wire.lose == 0, "no reply was lost"
    assert await scene.posts() == 3
    figures.note(LOST_REPLY, int(max(turns_of(scene))) - 2)
    assert turns_of(scene) == {"3"}
    after = await scene.visitor.say()
    assert after.status == 200
    assert before - left(after) in (1, 2), "the repeat cost a tick"


def left(answer: Answer) -> int:
    """How many requests the address has left."""
    found = re.search(r'"address";r=(\d+)', answer.headers["RateLimit"])
    assert found
    return int(found[1])


def turns_of(scene: Scene) -> set[str]:
    """The integer of every chain."""
    with scene.store.client() as client:
        return {client.hget(name, "n") for name in client.keys("*chain:*")}


async def test_when_every_reply_is_lost_the_turn_is_recovered_by_its_key(scene: Scene) -> None:
    """Nobody knows what became of it, so nothing is sent upstream; the repeat tells."""
    key = secrets.token_urlsafe(16)
    scene.wire.lose = 2
    answer = await refusal(scene, key)
    require_unavailable(answer)
    assert answer.json["chain"] == "unknown"
    assert turns_of(scene) == {"2"}, "the script did not run"
    again = await scene.say(key)
    assert (again.status, again.code, again.json["chain"]) == (409, "duplicate_request", "advanced")
    scene.visitor.token = again.token
    assert (await scene.visitor.say()).status == 200
    assert await scene.posts() == 2


async def test_a_turn_admitted_unheard_keeps_no_place(scene: Scene) -> None:
    """Its streams in flight are soon given back by its own name. Left to their lease, two lost
    replies would lock a visitor out of the chain for minutes."""
    scene.wire.lose = 2
    require_unavailable(await refusal(scene, secrets.token_urlsafe(16)))
    leases = leases_of(scene)
    assert leases, "the script did not run"
    assert min(leases) > 300, "the control: without us they would stay so many seconds"
    await eventually(lambda: at_rest(scene.server), HEALED)
    assert leases_of(scene) == []


def leases_of(scene: Scene) -> list[int]:
    """How long each count of streams in flight would stay, in seconds."""
    with scene.store.client() as client:
        return [client.ttl(name) for name in client.keys("*inflight:*")]


async def test_by_its_defaults_the_client_library_counts_again_and_again(
    scene: Scene, figures: Figures
) -> None:
    """The control: a plain client repeats what was done already, until it gives up."""
    scene.wire.lose, scene.wire.cut = 1000, True
    async with redis.asyncio.Redis(unix_socket_path=scene.url.removeprefix("unix://")) as naive:
        with pytest.raises((TimeoutError, redis.ConnectionError)):
            async with asyncio.timeout(2):
                await naive.incrby("counter", 1000)
    scene.wire.lose = 0
    with scene.store.client() as client:
        counted = int(client.get("counter") or 0)
    figures.note(LOST_REPLY, counted / 1000, control=True)
    assert counted > 1000


async def test_a_store_that_breaks_during_an_answer_costs_no_answer(scene: Scene) -> None:
    """A turn that was admitted is answered to its end, with the token that follows."""
    stop = next(fault for fault in FAULTS if fault.name == "stopped")
    visitor = scene.visitor
    body = visitor.body(play(words=10, gap_ms=30))
    async with visitor.session.post(
        visitor.url + "/v1/chat/completions", data=body, headers=visitor.headers()
    ) as got:
        await got.content.readany()
        stop.strike(scene.store, scene.wire)
        rest = await got.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    assert rest.count(b'"word "') >= 8
    stop.heal(scene.store, scene.wire)
    visitor.token = got.headers["Keyturn-Token"]
    await eventually(lambda: succeeds(visitor), HEALED)


async def succeeds(visitor: Visitor) -> bool:
    """Whether the next turn is admitted."""
    return (await visitor.say()).status == 200


async def test_a_server_starts_without_its_store_and_serves_when_it_comes(
    tmp_path: Path, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Start-up only warns; until the store is there nobody gets in, and then everybody does."""
    store = OwnRedis(tmp_path)
    settings = settings_with(redis_url=f"unix://{store.socket}", openai_base_url=upstream.url)
    async with serving(settings) as server, visiting(server) as visitor:
        assert "the store cannot be reached yet" in caplog.text
        assert store.socket not in caplog.text
        assert (await visitor.say()).code == "store_unavailable"
        store.start()
        try:
            store.ready()
            await eventually(lambda: succeeds(visitor), HEALED)
        finally:
            store.kill()
    assert len(await upstream.books()) == 1
