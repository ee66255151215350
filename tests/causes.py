"""What brings about each refusal: a scene, and one short act per cause.

Every act puts a canary wherever a visitor can put text, so that a test can look for it in the
answer.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import redis
from multidict import CIMultiDict

from house import Keyturn
from security.one_time_token import Claims, TokenSigner
from tests.stage import SECRET, Answer, Server, Visitor, head, now_ms, send_raw
from tests.upstream import play

CANARY = "CaNaRy-7731"
KEY = "an-idempotency-key-" + CANARY
QUERY = f"?q={CANARY}"


@dataclass
class Scene:
    """What a cause may act upon."""

    server: Server
    visitor: Visitor
    store: "redis.Redis"

    @property
    def path(self) -> str:
        """Where the visitor chats, with the canary."""
        return self.visitor.path + QUERY

    async def say(self, content: str = CANARY, body: bytes = b"", **headers: str | None) -> Answer:
        """One turn with the canary in every place; the visitor keeps its successor."""
        visitor = self.visitor
        raw = body or visitor.body(content)
        answer = await visitor.post(raw, visitor.headers(**headers), self.path)
        visitor.token = answer.token or visitor.token
        return answer

    async def script(self, **script: Any) -> Answer:
        """A turn that upstream answers as told."""
        return await self.say(play(**script))

    @asynccontextmanager
    async def open_stream(self) -> AsyncIterator[None]:
        """While this lasts, a turn of another chain is being answered."""
        body = self.visitor.body(play(words=9, hang_after=1))
        url = self.visitor.url + self.path
        async with self.visitor.session.post(url, data=body, headers=self.visitor.headers()) as got:
            await got.content.readany()
            yield


Cause = Callable[[Scene], Awaitable[Answer]]


def plain(**headers: str | None) -> Cause:
    """A first turn with these headers changed."""
    return lambda scene: scene.say(CANARY, b"", **headers)


def with_body(body: bytes) -> Cause:
    """A first turn with this body."""
    return lambda scene: scene.say(body=body)


def upstream_says(**script: Any) -> Cause:
    """A first turn that upstream answers as told."""
    return lambda scene: scene.script(**script)


async def wrong_method(scene: Scene) -> Answer:
    async with scene.visitor.session.get(
        scene.visitor.url + scene.path, headers=scene.visitor.headers()
    ) as answer:
        return Answer(answer.status, answer.headers, await answer.read())


async def wrong_path(scene: Scene) -> Answer:
    return await scene.visitor.post(b"{}", scene.visitor.headers(), f"/v1/{CANARY}")


async def no_operator(scene: Scene) -> Answer:
    headers = scene.visitor.headers(Authorization=f"Bearer {CANARY}")
    return await scene.visitor.post(b"{}", headers, "/admin/api/pause")


async def no_scraper(scene: Scene) -> Answer:
    headers = scene.visitor.headers(Authorization=f"Bearer {CANARY}")
    async with scene.visitor.session.get(scene.server.url + "/metrics", headers=headers) as answer:
        return Answer(answer.status, answer.headers, await answer.read())


async def half_a_body(scene: Scene) -> Answer:
    headers = scene.visitor.headers(Content_Length="900")
    return await send_raw(scene.server, head("POST", scene.path, headers), b'{"messages": "' + b"C")


async def a_header_twice(scene: Scene) -> Answer:
    twice = CIMultiDict(scene.visitor.headers())
    twice.add("Idempotency-Key", KEY)
    twice.add("Idempotency-Key", KEY)
    return await scene.visitor.post(scene.visitor.body(CANARY), twice, scene.path)  # type: ignore[arg-type]


async def blocked(scene: Scene) -> Answer:
    name = scene.server.keyturn.hash("addr", b"127.0.0.1/32")
    scene.store.zadd("keyturn:{main}:blocked", {name: now_ms() + 60_000})
    return await scene.say()


async def another_fingerprint(scene: Scene) -> Answer:
    await scene.say()
    return await scene.say(Keyturn_Fingerprint="another-browser-" + CANARY)


async def forged(scene: Scene) -> Answer:
    await scene.say()
    assert scene.visitor.token
    payload = scene.visitor.token.rpartition(".")[0]
    return await scene.say(Authorization=f"Bearer {payload}.{'A' * 43}")


def token_of(*, issued_ms: int, expires_ms: int, chain: str = CANARY) -> str:
    """A token signed by the server's own key."""
    claims = Claims(chain, 1, issued_ms, issued_ms, expires_ms, "f")
    return TokenSigner([SECRET], tenant="main").sign(claims)


async def expired(scene: Scene) -> Answer:
    now = now_ms()
    token = token_of(issued_ms=now - 99_000, expires_ms=now - 31_000)
    return await scene.say(Authorization=f"Bearer {token}")


async def from_the_future(scene: Scene) -> Answer:
    now = now_ms()
    token = token_of(issued_ms=now + 60_000, expires_ms=now + 90_000)
    return await scene.say(Authorization=f"Bearer {token}")


async def forgotten(scene: Scene) -> Answer:
    await scene.say()
    scene.store.flushdb()
    return await scene.say()


async def failed_over(scene: Scene) -> Answer:
    await scene.say()
    scene.store.replicaof("127.0.0.1", "1")
    scene.store.replicaof("NO", "ONE")
    return await scene.say()


async def revoked(scene: Scene) -> Answer:
    tokens = [(await scene.say()).token for _ in range(3)]
    await scene.say(Authorization=f"Bearer {tokens[0]}")
    return await scene.say()


async def asked_twice(scene: Scene) -> Answer:
    await scene.say()
    return await scene.say(Authorization=None)


async def a_second_stream(scene: Scene) -> Answer:
    async with scene.open_stream():
        return await scene.say()


async def used_a_moment_ago(scene: Scene) -> Answer:
    await scene.say()
    used = scene.visitor.token
    await scene.say()
    return await scene.say(Authorization=f"Bearer {used}")


async def used_long_ago(scene: Scene) -> Answer:
    tokens = [(await scene.say()).token for _ in range(3)]
    return await scene.say(Authorization=f"Bearer {tokens[0]}")


async def repeated(scene: Scene) -> Answer:
    body = scene.visitor.body(CANARY)
    first = await scene.say(body=body, Idempotency_Key=KEY)
    again = await scene.say(body=body, Idempotency_Key=KEY, Authorization=None)
    assert again.token == first.token
    return again


async def repeated_otherwise(scene: Scene) -> Answer:
    await scene.say("this " + CANARY, Idempotency_Key=KEY)
    return await scene.say("that " + CANARY, Idempotency_Key=KEY, Authorization=None)


async def paused(scene: Scene) -> Answer:
    scene.store.hset("keyturn:{main}:control", "paused", "1")
    return await scene.say()


async def day_is_spent(scene: Scene) -> Answer:
    scene.store.hset("keyturn:{main}:control", "cap", "1")
    return await scene.say()


async def silent_store(scene: Scene) -> Answer:
    scene.store.client_pause(60_000, all=False)  # not its reads, nor the word that ends it
    try:
        return await scene.say()
    finally:
        scene.store.client_unpause()


async def draining(scene: Scene) -> Answer:
    scene.server.keyturn.turns.drain(30)
    return await scene.say()


async def own_key_refused(scene: Scene) -> Answer:
    body = scene.visitor.body(play(status=401, body={"error": {"message": CANARY}}))
    return await scene.say(body=body, Authorization=f"Bearer sk-{CANARY}")


class Broken:
    """A part of the house that raises whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(CANARY)


def break_part(part: str) -> Callable[[Keyturn], Keyturn]:
    """The house with one part broken."""
    changed: dict[str, Any] = {part: Broken()}
    return lambda keyturn: replace(keyturn, **changed)
