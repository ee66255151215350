"""Several workers as a process, before a Redis that can lose money."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.command_stage import Running, only, server_py, workers_of
from tests.faults.money_stage import BUDGET, SLOWLY, Redises, redises, take
from tests.stage import OPERATORS_KEY, SECRET, Upstream, Visitor, eventually, visiting

MANY = "100000/minute"


@dataclass
class House:
    """A server of several workers, their Redis, and a visitor whose every turn connects anew."""

    running: Running
    workers: list[int]
    store: Redises
    visitor: Visitor

    async def look(self) -> None:
        """Let every worker see the money as it stands."""
        for worker in self.workers:
            with only(worker, self.workers):
                await eventually(self._is_ready)

    async def _is_ready(self) -> bool:
        headers, url = {"Connection": "close"}, f"{self.visitor.url}/readyz"
        async with self.visitor.session.get(url, headers=headers) as answer:
            return answer.status == 200  # not at once where the store was lost a moment ago

    async def all_settled(self) -> None:
        """Wait until nothing is held."""
        await self.only_this_is_held(0)

    async def only_this_is_held(self, held: int) -> None:
        """Wait until so much is held, and no more."""

        async def is_so() -> bool:
            return self.store.money().held == held

        await eventually(is_so)

    async def exhaust(self) -> None:
        """Take turns until there is no money left."""
        while (await take(self.visitor)).code != "budget_exhausted":
            pass


@asynccontextmanager
async def several(directory: Path, upstream: Upstream, *, workers: int) -> AsyncIterator[House]:
    """As `WORKERS=n python server.py`."""
    said = {
        "WORKERS": str(workers),
        "OPENAI_BASE_URL": upstream.url,
        "OPENAI_API_KEY": OPERATORS_KEY,
        "API_SECRET_KEY": SECRET,
        **dict.fromkeys(("RATE_LIMIT", "START_LIMIT", "START_LIMIT_GLOBAL"), MANY),
        "MAX_STREAMS_PER_IP": "1000",
        **{name.upper(): str(value) for name, value in {**BUDGET, **SLOWLY}.items()},
    }
    async with redises(directory) as store:
        with ExitStack() as stack:
            started = server_py(directory / "home", REDIS_URL=store.url, **said)
            running = await asyncio.to_thread(stack.enter_context, started)
            async with visiting(running.url, extra={"Connection": "close"}) as visitor:
                house = House(running, workers_of(running), store, visitor)
                assert len(house.workers) == workers
                yield house
