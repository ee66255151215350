"""A turn leaves nothing behind, however it ends: no object that stays, none for the collector.

Counted, not timed: rounds of turns of one kind, and what is alive in the worker after each.
Whatever stays of a turn shows in every round; a cache that fills shows in the first.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis

from bench.measures import unsettled
from tests.command_stage import answers, ended, free_port, started
from tests.own_key_stage import OWN_KEY, by_bearer
from tests.stage import (
    CHAT,
    OPERATORS_KEY,
    RESPONSES,
    SECRET,
    Upstream,
    Visitor,
    eventually,
    redis_process,
    upstream_process,
    visiting,
    wait_until,
)
from tests.upstream import play

TURNS, ROUNDS = 25, 3
SMALL = 3 * TURNS  # blocks; the least that is forgotten of a turn is an entry somewhere
WARM_UP = 200  # turns until the worker's own caches are full
MANY = "100000/minute"
BY_OWN_KEY = {"user_message": "hi", "api_key": OWN_KEY}


@dataclass
class Scene:
    """A worker that counts, and who asks it."""

    url: str
    redis_url: str
    visitor: Visitor

    async def say(self, content: str = "hello", *, path: str = CHAT, **changed: Any) -> int:
        """A turn that goes on with the chain; its status, or 0 where the answer was cut."""
        self.visitor.path = path
        try:
            return (await self.visitor.say(content, **changed)).status
        except aiohttp.ClientError:
            self.visitor.token = None
            return 0

    async def send(self, path: str, body: Any = None, **headers: str | None) -> int:
        """A request that spends no token."""
        raw = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        return (await self.visitor.post(raw, self.visitor.headers(**headers), path)).status

    async def counts(self) -> dict[str, int]:
        """What is alive, once nothing is open."""
        with redis.Redis.from_url(self.redis_url) as store:

            async def is_at_rest() -> bool:
                return not unsettled(store)

            await eventually(is_at_rest)
        async with self.visitor.session.get(f"{self.url}/counts") as answer:
            found: dict[str, int] = await answer.json(content_type=None)
            return found


Take = Callable[[Scene], Awaitable[int]]


async def replayed(scene: Scene) -> int:
    """A token that was spent a moment ago, shown again."""
    visitor = scene.visitor
    visitor.token = None
    await scene.say()
    spent = visitor.token
    await scene.say()
    visitor.token, good = spent, visitor.token
    found = await scene.say()
    visitor.token = good
    return found


async def left(scene: Scene, path: str = CHAT) -> int:
    """A stream whose visitor leaves at its first word."""
    visitor = scene.visitor
    visitor.path, visitor.token = path, None
    body = visitor.body(play(words=500, gap_ms=20))
    url = visitor.url + path
    async with visitor.session.post(url, data=body, headers=visitor.headers()) as answer:
        await answer.content.readany()
        answer.close()
    return answer.status


KINDS: dict[str, tuple[Take, int]] = {
    "stream": (Scene.say, 200),
    "whole": (partial(Scene.say, stream=False), 200),
    "response": (partial(Scene.say, path=RESPONSES), 200),
    "left": (left, 200),
    "response left": (partial(left, path=RESPONSES), 200),
    "upstream 500": (partial(Scene.say, content=play(status=500)), 502),
    "upstream 429": (partial(Scene.say, content=play(status=429)), 503),
    "upstream 400": (partial(Scene.say, content=play(status=400)), 502),
    "upstream garbage": (partial(Scene.say, content=play(body="<html>")), 502),
    "error in the stream": (partial(Scene.say, content=play(error_after=2)), 200),
    "stream cut": (partial(Scene.say, content=play(reset_after=2)), 200),
    "replay": (replayed, 401),
    "forged": (partial(Scene.send, path=CHAT, Authorization=f"Bearer {'x' * 64}"), 401),
    "stale": (partial(Scene.send, path=CHAT, Keyturn_Timestamp="1700000000000"), 401),
    "no fingerprint": (partial(Scene.send, path=CHAT, Keyturn_Fingerprint=None), 400),
    "no JSON": (partial(Scene.send, path=CHAT, body=b"{"), 400),
    "not allowed": (partial(Scene.say, logprobs=True), 400),
    "foreign page": (partial(Scene.send, path=CHAT, Origin="https://evil.example"), 403),
    "own key": (partial(Scene.send, path="/api/chat", body=BY_OWN_KEY), 200),
    "own key, not valid": (partial(Scene.send, path="/api/chat"), 422),
    "own key, stream": (partial(Scene.say, headers=by_bearer()), 200),
    "nowhere": (partial(Scene.send, path="/nowhere"), 404),
}


@dataclass(frozen=True)
class Ends:
    """A store and an upstream that are there for all of these tests."""

    redis_url: str
    upstream: Upstream


@pytest.fixture(scope="module")
def ends() -> Iterator[Ends]:
    """Both, of our own."""
    with redis_process() as url, upstream_process() as upstream:
        yield Ends(url, upstream)


def counting(ends: Ends, home: Path, stack: ExitStack, **more: str) -> str:
    """A worker that counts, after its first turns; where it listens."""
    port = free_port()
    said = {
        "PORT": port,
        "REDIS_URL": ends.redis_url,
        "OPENAI_BASE_URL": ends.upstream.url,
        "BYOK_BASE_URL": ends.upstream.url,
        "OPENAI_API_KEY": OPERATORS_KEY,
        "API_SECRET_KEY": SECRET,
        **dict.fromkeys(("RATE_LIMIT", "START_LIMIT", "START_LIMIT_GLOBAL"), MANY),
        **dict.fromkeys(("DAILY_BUDGET_USD", "VISITOR_DAILY_BUDGET_USD"), "off"),
        **more,
    }
    command = (sys.executable, "-m", "tests.counted")
    running = stack.enter_context(started(command, home, **said))
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: answers(url) or ended(running), 40)
    assert not ended(running), running.said
    asyncio.run(warm_up(ends, url))
    return url


async def warm_up(ends: Ends, url: str) -> None:
    """The first turns of a worker, with the operator's key and with visitors' own."""
    async with visiting(url) as visitor:
        scene = Scene(url, ends.redis_url, visitor)
        for _ in range(WARM_UP):
            assert await scene.say() == 200
            assert await scene.send("/api/chat", BY_OWN_KEY) == 200


@pytest.fixture(scope="module")
def worker(ends: Ends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One worker for all kinds."""
    with ExitStack() as stack:
        yield counting(ends, tmp_path_factory.mktemp("counted"), stack)


@pytest.fixture
def hoarder(ends: Ends, tmp_path: Path) -> Iterator[str]:
    """One that keeps something."""
    with ExitStack() as stack:
        yield counting(ends, tmp_path, stack, HOARD="yes")


@dataclass(frozen=True)
class Left:
    """What a round left behind: blocks of memory, and objects for the collector."""

    blocks: int
    cycles: int


async def left_by(ends: Ends, url: str, kind: str) -> list[Left]:
    """Take turns round by round, and count what stays of them; the first round fills caches."""
    take, status = KINDS[kind]
    async with visiting(url, extra={"Connection": "close"}) as visitor:
        scene = Scene(url, ends.redis_url, visitor)
        found = [await one_round(scene, take, status) for _ in range(ROUNDS)]
    print(kind, found)
    return found[1:]


async def one_round(scene: Scene, take: Take, status: int) -> Left:
    """Some turns of a kind; those that fail have one between that does not: no breaker opens."""
    before = await scene.counts()
    for _ in range(TURNS):
        assert await take(scene) == status
        if status > 500:
            assert await scene.say() == 200
    after = await scene.counts()
    return Left(after["blocks"] - before["blocks"], after["cycles"])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_turn_leaves_nothing(ends: Ends, worker: str, kind: str) -> None:
    """No entry stays anywhere for it, and no cycle is left."""
    rounds = await left_by(ends, worker, kind)
    assert min(each.blocks for each in rounds) < SMALL
    assert min(each.cycles for each in rounds) < TURNS


async def test_one_small_thing_of_each_turn_is_found_out(ends: Ends, hoarder: str) -> None:
    """The control: a worker that keeps an entry of every request."""
    rounds = await left_by(ends, hoarder, "stream")
    assert min(each.blocks for each in rounds) >= SMALL
