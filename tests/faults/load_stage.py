"""Light load: visitors who go on chatting whatever happens, as a page would, and take notes."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.stage import Answer, Server, Visitor, visiting

NEW_CHAIN = ("chain_unknown", "token_reused", "chain_revoked")
AGAIN_AFTER = 0.05


@dataclass(frozen=True)
class Told:
    """One answer: when, how long it took, its code (None: admitted), and of which send it is."""

    at: float
    took: float
    code: str | None
    send: str


@dataclass
class Load:
    """What all visitors were told, in order."""

    told: list[Told] = field(default_factory=list)
    stopped: bool = False

    def codes(self) -> Counter[str | None]:
        """How often each code was told."""
        return Counter(each.code for each in self.told)

    def slowest(self) -> float:
        """Seconds until the slowest refusal."""
        return max((each.took for each in self.told if each.code), default=0)

    def admitted_after(self, moment: float) -> float | None:
        """Seconds from a moment until the first turn that began later was admitted."""
        later = (t.at + t.took for t in self.told if t.code is None and t.at > moment)
        return next((end - moment for end in later), None)

    async def keep_chatting(self, visitor: Visitor) -> None:
        """Turn after turn, each repeated under its own key until it was answered."""
        while not self.stopped:
            await self._turn(visitor, secrets.token_urlsafe(16))

    async def _turn(self, visitor: Visitor, send: str) -> None:
        key = send
        while True:
            began = time.monotonic()
            answer = await visitor.post(visitor.body(send), visitor.headers(Idempotency_Key=key))
            self.told.append(Told(began, time.monotonic() - began, answer.code, send))
            visitor.token = answer.token or visitor.token
            if answer.code is None or self.stopped:
                return
            if answer.code in NEW_CHAIN and not answer.token:
                visitor.token = None
            if answer.code != "store_unavailable":
                key = secrets.token_urlsafe(16)
            await asyncio.sleep(AGAIN_AFTER)


@asynccontextmanager
async def load_on(server: Server, visitors: int = 4) -> AsyncIterator[Load]:
    """So many visitors who chat until the block ends."""
    load = Load()
    async with asyncio.TaskGroup() as group:
        for _ in range(visitors):
            group.create_task(_one(server, load))
        try:
            yield load
        finally:
            load.stopped = True


async def _one(server: Server, load: Load) -> None:
    async with visiting(server, fingerprint=secrets.token_urlsafe(16)) as visitor:
        await load.keep_chatting(visitor)


def sends(books: list[dict[str, Any]]) -> Counter[str]:
    """How often upstream was asked for each send."""
    return Counter(entry["body"]["messages"][-1]["content"] for entry in books)


def is_unavailable(answer: Answer) -> bool:
    """Whether it says that Redis does not answer."""
    return (answer.status, answer.code) == (503, "store_unavailable")
