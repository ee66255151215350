"""A till: turns that cost something, a clock that is moved by hand, and eyes for the money."""

from collections.abc import Awaitable, Callable
from typing import Any

from security.budget import Caps, Hold, WorstCase
from security.errors import Rejection
from security.ledger import new_rid
from security.scripts import Visitor
from tests.security.ledger_stage import HOME, PREFIX, Chain, Store, ledger_on

A_DAY = 86_400
TODAY = 20_000
NOON = TODAY * A_DAY + A_DAY // 2
OTHER = Visitor("other")


class Clocked:
    """A store whose scripts read a clock that stands still until it is moved; Unix seconds."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def register_script(self, text: str) -> Any:
        """The script with the other clock; a script may do without one."""
        return self._store.register_script(
            text.replace("redis.call('TIME')", "redis.call('HMGET', 'clock', 's', 'us')")
        )

    async def show(self, seconds: int) -> None:
        """Set the clock."""
        await self._store.hset("clock", mapping={"s": seconds, "us": 0})

    async def lose_all(self) -> None:
        """Forget everything but the time."""
        now = await self._store.hget("clock", "s")
        await self._store.flushall()
        await self.show(int(now))


class Between:
    """A store that is interrupted before or after it runs one of its scripts."""

    def __init__(self, store: Store, script: str) -> None:
        self._store, self._script = store, script
        self.before: Callable[[], Awaitable[None]] | None = None
        self.after: Callable[[list[Any]], Awaitable[None]] | None = None
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def register_script(self, text: str) -> Any:
        """The real script, interrupted if it is the one; `after` is told the reply."""
        real = self._store.register_script(text)
        if self._script not in text:
            return real

        async def script(keys: list[str], argv: list[str]) -> Any:
            self.calls += 1
            if self.before:
                await self.before()
            reply = await real(keys, argv)
            if self.after:
                await self.after(reply)
            return reply

        return script


def flat(micro_usd: int) -> WorstCase:
    """A turn that costs so much at most, however long its answer."""
    return WorstCase(micro_usd * 1_000_000, 0, 16)


def per_token(prompt: int, price: int, max_output: int) -> WorstCase:
    """A turn with a prompt of so many µUSD and an answer at so many µUSD a token."""
    return WorstCase(prompt * 1_000_000, price * 1_000_000, max_output)


class Till:
    """A worker's ledger with caps in µUSD; every turn begins a chain of its own."""

    def __init__(
        self, store: Store, *, day: int | None = None, visitor: int | None = None, **limits: Any
    ) -> None:
        self.store = store
        self.ledger = ledger_on(store, caps=Caps(day, visitor), **limits)

    async def hold(
        self, worst: WorstCase, visitor: Visitor = HOME, rid: str | None = None
    ) -> tuple[str, Hold]:
        """Admit a turn; its rid and what is held for it."""
        rid = rid or new_rid()
        verdict = await Chain(self.ledger, self.store, visitor).redeem(rid=rid, worst=worst)
        return rid, verdict.hold

    async def settle(
        self, rid: str, charge: int, visitor: Visitor = HOME, *, went_past: bool = False
    ) -> None:
        """End a turn at a price."""
        await self.ledger.settle(rid, visitor, chain=None, charge=charge, went_past=went_past)

    async def spend(self, micro_usd: int, visitor: Visitor = HOME) -> None:
        """Admit a turn and charge all that was held for it."""
        rid, _ = await self.hold(flat(micro_usd), visitor)
        await self.settle(rid, micro_usd, visitor)

    async def asks(self, worst: WorstCase | int, visitor: Visitor = HOME) -> str:
        """What becomes of a turn: `admitted`, or the code of the refusal."""
        try:
            await self.hold(flat(worst) if isinstance(worst, int) else worst, visitor)
        except Rejection as refused:
            return refused.code
        return "admitted"


async def count(store: Store, name: str, day: int = TODAY, of: str = "") -> int:
    """One of the numbers that are kept of a day, or of a visitor's day."""
    key = f"{PREFIX}spend:{day}" + (f":{of}" if of else "")
    return int(await store.hget(key, name) or 0)


async def money(store: Store, of: str = "", day: int = TODAY) -> tuple[int, int]:
    """What is spent and held of a day, or of a visitor's day."""
    return await count(store, "spent", day, of), await count(store, "held", day, of)


async def open_holds(store: Store) -> dict[str, int]:
    """The amount of every hold that is open."""
    start = f"{PREFIX}hold:"
    found = {key.decode(): await store.hgetall(key) for key in await store.keys(start + "*")}
    return {
        key.removeprefix(start): int(hold[b"micro_usd"])
        for key, hold in found.items()
        if b"micro_usd" in hold
    }
