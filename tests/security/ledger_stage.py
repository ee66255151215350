"""A ledger over any store, chains to redeem, and eyes for what stands in Redis."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from redis.exceptions import TimeoutError as RedisTimeoutError

from security.breaker import Breaker
from security.budget import Caps
from security.calls import Deadlines
from security.errors import Rejection
from security.ledger import Ledger, new_rid
from security.scripts import Limits, Rate, Renewed, Turn, Verdict, Visitor

# redis-py types every reply as bytes or str; a test knows which.
Store: TypeAlias = Any

HOUR_US = 3_600_000_000
PLENTY = Rate(burst=100_000, interval_us=600)
LIMITS = Limits(
    rate=PLENTY,
    start=PLENTY,
    start_of_all=PLENTY,
    refused_own_keys=PLENTY,
    lease=360,
    streams_per_address=10_000,
    streams_per_chain=10_000,
    token_ttl=1800,
    chain_ttl=86_400,
    reuse_grace=10,
    recovery_window=180,
    caps=Caps(day=None, visitor=None),
    failover_fence=True,
)
AT_LEISURE = Deadlines(command=5, whole=10)
STRICT = Deadlines(command=0.25, whole=0.6)
HOME = Visitor("home")
PREFIX = "keyturn:{t}:"


class Clock:
    """A clock that stands still until it is moved; seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def ledger_on(
    store: Any,
    *,
    tenant: str = "t",
    deadlines: Deadlines = AT_LEISURE,
    clock: Callable[[], float] | None = None,
    **limits: Any,
) -> Ledger:
    """A ledger with generous limits but the ones named; its breaker opens after three failures.

    It is fenced but on fakeredis, which has no INFO.
    """
    connection = getattr(store.connection_pool, "connection_class", "")
    fenced = {"failover_fence": "fakeredis" not in str(connection)}
    return Ledger(
        store,
        tenant=tenant,
        limits=replace(LIMITS, **{**fenced, **limits}),
        deadlines=deadlines,
        breaker=Breaker(failures=3, open_for=1, clock=clock or Clock()),
    )


class Altered:
    """A store that changes every script on its way in: what a ledger would be without a line."""

    def __init__(self, store: Store, old: str, new: str, *, script: str = "Admits") -> None:
        self._store, self._old, self._new, self._script = store, old, new, script
        self.texts: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def register_script(self, text: str) -> Any:
        """The script as the real store registers it, after the change; the line must be there."""
        if self._script in text:
            if self._old not in text:  # no AssertionError: that would look like a find
                raise LookupError(f"the script has no {self._old!r}")
            text = text.replace(self._old, self._new)
        self.texts.append(text)
        return self._store.register_script(text)


class Lossy:
    """A store that does what it is asked; its first answer that admits is lost on the way."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.connection_pool = store.connection_pool
        self.lost = 0

    def register_script(self, text: str) -> Any:
        """The real script, whose first admission becomes silence."""
        real = self._store.register_script(text)

        async def script(keys: Sequence[str], argv: Sequence[str | int]) -> Any:
            reply = await real(keys, argv)
            if not self.lost and reply[1] == b"admitted":
                self.lost += 1
                raise RedisTimeoutError
            return reply

        return script


@dataclass
class Chain:
    """One conversation as its holder sees it: the newest token and what a repeat would show."""

    ledger: Ledger
    store: Store
    visitor: Visitor = HOME
    name: str = field(default_factory=new_rid)
    number: int = 0
    born_ms: int = 0

    @property
    def key(self) -> str:
        """Where the chain stands in Redis."""
        return f"{PREFIX}chain:{self.name}"

    def turn(self, number: int | None = None, **changed: Any) -> Turn:
        """The turn that shows token `number`, by default the newest."""
        shown = self.number if number is None else number
        turn = Turn(self.name, shown, self.born_ms if shown else 0, "browser", "", "text")
        return replace(turn, **changed)

    async def redeem(
        self, number: int | None = None, *, rid: str | None = None, **changed: Any
    ) -> Verdict:
        """Show a token; once admitted, its successor is the newest."""
        turn = self.turn(number, **changed)
        verdict = await self.ledger.redeem(rid or new_rid(), self.visitor, turn)
        self.number, self.born_ms = verdict.number, verdict.born_ms
        return verdict

    async def take(self, turns: int) -> "Chain":
        """Take that many good turns."""
        for _ in range(turns):
            await self.redeem()
        return self

    def through(self, ledger: Ledger) -> "Chain":
        """The same chain through another ledger."""
        return replace(self, ledger=ledger)

    async def age(self, seconds: int) -> None:
        """Let the chain be so much older than it is; its tokens remember the same birth."""
        for name in ("last", "born"):
            await self.store.hincrby(self.key, name, -seconds * 1000)
        self.born_ms -= seconds * 1000

    async def stored(self) -> dict[str, str]:
        """What Redis holds of it."""
        found = await self.store.hgetall(self.key)
        return {name.decode(): value.decode() for name, value in found.items()}


async def become_another(store: Store) -> None:
    """Let a server follow another for a moment: whoever takes over names its history anew."""
    await store.replicaof("127.0.0.1", "1")
    await store.replicaof("NO", "ONE")


async def renewed(chain: Chain, number: int | None = None, rid: str | None = None) -> Chain:
    """The chain as which this one goes on when its token is shown."""
    rid = rid or new_rid()
    try:
        await chain.ledger.redeem(rid, chain.visitor, chain.turn(number))
    except Renewed as found:
        went_on = replace(chain, name=rid)
        went_on.number, went_on.born_ms = found.verdict.number, found.verdict.born_ms
        return went_on
    raise AssertionError("it was admitted")


async def refusal(call: Awaitable[object]) -> Rejection:
    """The rejection that a call ends in."""
    try:
        await call
    except Rejection as rejection:
        return rejection
    raise AssertionError("the call was not refused")


async def outcome(call: Awaitable[object]) -> tuple[str, str | None]:
    """How a call ends: the code, and what became of the chain."""
    try:
        await call
    except Rejection as rejection:
        return rejection.code, rejection.chain
    return "admitted", "advanced"


async def contents(store: Store) -> dict[str, Any]:
    """Every key with its value, readable."""
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"string": store.get,
        b"hash": store.hgetall,
        b"zset": lambda key: store.zrange(key, 0, -1, withscores=True),
    }
    keys = await store.keys("*")
    return {key.decode(): await readers[await store.type(key)](key) for key in sorted(keys)}


async def redis_us(store: Store) -> int:
    """The clock of the store, Unix µs."""
    seconds, micros = await store.time()
    return int(seconds) * 1_000_000 + int(micros)


async def fill(store: Store) -> None:
    """Let a store have more than its maxmemory."""
    await store.set("ballast", b"x" * 100_000)
    await store.config_set("maxmemory", 1)
