"""While Redis breaks no secret gets out: not into the log, not into an answer, not into Redis.

What a server without faults keeps to itself is looked at in `tests/attacks/test_secrets.py`.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.attacks.canaries import OPERATORS, TEXTS, UPSTREAMS, VISITORS, dump, hits
from tests.command_stage import Running, server_py
from tests.faults.figures import CANARIES, Figures, as_many
from tests.faults.store_stage import FAULTS, Fault, OwnRedis, Wire, wired
from tests.faults.test_drain import environment, exit_code
from tests.stage import Upstream, Visitor, eventually, visiting
from tests.upstream import play

WORDS = {**OPERATORS, **VISITORS, **TEXTS, **UPSTREAMS}
NEVER_SAID = {**OPERATORS, **UPSTREAMS}
FAILING = play(status=500, body={"error": {"message": " ".join(NEVER_SAID.values())}})


@dataclass
class Scene:
    """A talkative server, a store to be broken, and a visitor full of secrets."""

    running: Running
    store: OwnRedis
    wire: Wire
    visitor: Visitor
    upstream: Upstream
    heard: bytes = b""

    async def say(self, content: str) -> None:
        """A turn; what comes back is kept, its token apart."""
        key = {"Idempotency_Key": VISITORS["idempotency key"]}
        answer = await self.visitor.say(content, headers=key)
        head = {name: said for name, said in answer.headers.items() if name != "Keyturn-Token"}
        self.heard += json.dumps(head).encode() + answer.body

    async def leave(self) -> None:
        """A stream that is left at its first word."""
        visitor = self.visitor
        body = visitor.body(play(text=TEXTS["message"], words=90, gap_ms=50))
        url = visitor.url + visitor.path
        headers = visitor.headers(Authorization=None)
        async with visitor.session.post(url, data=body, headers=headers) as answer:
            await answer.content.readany()
            answer.close()


@asynccontextmanager
async def talkative(home: Path, upstream: Upstream) -> AsyncIterator[Scene]:
    """`python server.py` at its most talkative, before a Redis of its own."""
    store = OwnRedis(home)
    store.start()
    try:
        store.ready()
        async with wired(store.socket, home) as (wire, url):
            said = environment(
                url,
                upstream.url,
                OPENAI_API_KEY=OPERATORS["operator's key"],
                API_SECRET_KEY=OPERATORS["secret"],
                IDENTITY_KEY=OPERATORS["identity key"],
                LOG_LEVEL="debug",
                TRUSTED_PROXIES="127.0.0.1",
                DRAIN_SECONDS="1",
            )
            with ExitStack() as stack:
                starting = server_py(home / "kt", **said)
                running = await asyncio.to_thread(stack.enter_context, starting)
                extra = {"X-Forwarded-For": VISITORS["address"]}
                shown = VISITORS["fingerprint"]
                async with visiting(running.url, fingerprint=shown, extra=extra) as visitor:
                    yield Scene(running, store, wire, visitor, upstream)
    finally:
        store.kill()


@pytest.mark.parametrize("fault", FAULTS[: as_many(2, len(FAULTS))], ids=lambda fault: fault.name)
async def test_no_secret_gets_out_while_redis_is_broken(
    tmp_path: Path, upstream: Upstream, figures: Figures, fault: Fault
) -> None:
    """Turns, hang-ups, an upstream that says them all, a broken store and a hard end: in none of
    log, answers and Redis is a canary, in any dress."""
    async with talkative(tmp_path, upstream) as scene:
        await scene.say(TEXTS["message"])
        await scene.say(FAILING)
        await scene.leave()
        fault.strike(scene.store, scene.wire)
        for _ in range(3):
            await scene.say(TEXTS["message"])
        fault.heal(scene.store, scene.wire)
        scene.visitor.token = None
        await eventually(lambda: is_admitted(scene))
        await scene.leave()
        held = dump(f"unix://{scene.store.socket}")
        scene.running.process.send_signal(signal.SIGTERM)
        assert await exit_code(scene.running, 15) == 0
        log = scene.running.said.encode()
        books = json.dumps(await upstream.books()).encode()
    refused = NEVER_SAID | {"fingerprint": VISITORS["fingerprint"]}
    found = [*hits(WORDS, log), *hits(WORDS, held), *hits(refused, scene.heard)]
    figures.note(CANARIES, len(found))
    there = hits(WORDS, books)
    figures.note(CANARIES, len(there), control=True)
    assert found == []
    assert {"operator's key", "message"} <= {*there}, "the control: they are found where they are"


async def is_admitted(scene: Scene) -> bool:
    """Whether a turn is answered."""
    return (await scene.visitor.say(TEXTS["message"])).status == 200
