"""Three Keyturns behind a proxy, visitors who chat without a pause, and a restart one by one."""

import asyncio
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.command_stage import Running, server_py
from tests.deploy.proxy_stage import HOST, Proxy
from tests.faults.test_drain import environment
from tests.stage import Upstream, Visitor
from tests.upstream import play
from tests.wire import DONE, free_port

VISITORS = 12
# A machine that is busy with starting servers must not be taken for a proxy that fails.
PATIENT = {"REDIS_TIMEOUT_MS": "5000", "REDIS_DEADLINE_MS": "10000"}
PATIENT |= dict.fromkeys(("DAILY_BUDGET_USD", "VISITOR_DAILY_BUDGET_USD"), "off")


@dataclass
class Replica:
    """One of the three: where it listens, and the process that runs there now."""

    folder: Path
    said: dict[str, str]
    lives: int = 0
    stack: ExitStack = field(default_factory=ExitStack)
    running: Running | None = None

    @property
    def url(self) -> str:
        """Where the proxy finds it, in every life."""
        return f"http://{HOST}:{self.said['PORT']}"

    async def start(self) -> None:
        """Begin a life; over once it answers."""
        self.lives += 1
        life = server_py(self.folder.with_suffix(f".{self.lives}"), **self.said)
        self.running = await asyncio.to_thread(self.stack.enter_context, life)

    async def restart(self, number: signal.Signals) -> int:
        """End this life by a signal and begin the next; returns the exit code."""
        assert self.running
        code = await asyncio.to_thread(self.running.end, number)
        await asyncio.to_thread(self.stack.close)
        await self.start()
        return code


@dataclass
class Crowd:
    """What became of every chat: "ok", or what its visitor met instead."""

    stopped: bool = False
    asked: Counter[str] = field(default_factory=Counter)

    async def begin(self, visitor: Visitor) -> None:
        """A first turn."""
        told = await self._turn(visitor, secrets.token_hex(8))
        assert told == "ok", told
        self.asked[told] += 1

    async def chat_on(self, visitor: Visitor, words: int) -> None:
        """Turn after turn; nothing is ever said twice, so that each failure shows."""
        while not self.stopped:
            name = secrets.token_hex(8)
            told = await self._turn(visitor, play(words=words, gap_ms=10, text=name))
            self.asked[told] += 1
            if told != "ok":
                visitor.token = None
                await asyncio.sleep(0.05)

    async def _turn(self, visitor: Visitor, content: str) -> str:
        try:
            answer = await visitor.say(content)
        except aiohttp.ClientError as error:
            return type(error).__name__
        if answer.status != 200:
            return f"{answer.status} {answer.code}"
        return "ok" if answer.body.endswith(DONE) else f"cut: {answer.failure}"

    @property
    def failed(self) -> dict[str, int]:
        """Every chat that was not answered to its end."""
        return {told: times for told, times in self.asked.items() if told != "ok"}


@asynccontextmanager
async def three_replicas(
    folder: Path, redis_url: str, upstream: Upstream, **said: str
) -> AsyncIterator[list[Replica]]:
    """Three servers as an operator starts them, for a proxy on this machine."""
    with ExitStack() as stack:
        found = []
        for number in range(3):
            settings = environment(
                redis_url,
                upstream.url,
                TRUSTED_PROXIES=HOST,
                PORT=str(free_port()),
                **PATIENT,
                **said,
            )
            found.append(Replica(folder / f"replica-{number}", settings))
            stack.callback(found[-1].stack.close)
        await asyncio.gather(*(each.start() for each in found))
        yield found


@asynccontextmanager
async def crowd_at(proxy: Proxy, visitors: int = VISITORS) -> AsyncIterator[Crowd]:
    """Visitors of the proxy, half with short answers and half with long ones."""
    crowd = Crowd()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for number in range(visitors):
            visitor = await stack.enter_async_context(
                proxy.visiting(fingerprint=secrets.token_urlsafe(16))
            )
            await crowd.begin(visitor)  # one by one: many new chats at once are refused
            group.create_task(crowd.chat_on(visitor, words=2 if number % 2 else 60))
        try:
            yield crowd
        finally:
            crowd.stopped = True


async def restart_all(replicas: list[Replica], number: signal.Signals) -> list[int]:
    """One after the other, each when the one before is back; returns their exit codes."""
    return [await replica.restart(number) for replica in replicas]


def times_asked(books: list[dict[str, Any]]) -> Counter[str]:
    """How often upstream was asked for each chat."""
    return Counter(entry["body"]["messages"][-1]["content"] for entry in books)
