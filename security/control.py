"""The operator's hand: what is decided here every worker finds at its next admission.

Pause and cap are the two fields of `control`, blocks are in `blocked`, and a chain says itself that
it was revoked: admit.lua reads all of them. Here they are written, and nowhere else.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import redis.asyncio as redis

from security.calls import Calls
from security.errors import Rejection
from security.ledger import new_rid
from security.scripts import Rate

Came = Literal["done", "full", "unknown"]

_OF_ADDRESS: Final = Rate(burst=10, interval_us=360_000_000)  # 10 at once, then one in 6 minutes
_OF_ALL: Final = Rate(burst=100, interval_us=36_000_000)
_KNOWN_MS: Final = 30 * 86_400_000
_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Blocked:
    """A visitor who is not let in, and until when, in Unix ms."""

    visitor: str
    until_ms: int


class Control:
    """What an operator decides and looks up, under one tenant's keys."""

    def __init__(self, store: "redis.Redis", calls: Calls) -> None:
        self._store = store
        self._calls = calls
        self._control = self._calls.script("control")
        self._attempt = self._calls.script("attempt")

    async def pause(self) -> Came:
        """Admit nobody by the operator's key."""
        return await self._decide("pause")

    async def resume(self) -> Came:
        """Admit again."""
        return await self._decide("resume")

    async def cap(self, micro_usd: int | None) -> Came:
        """Put this cap of a day in place of the setting's; None puts that back."""
        return await self._decide("cap", "" if micro_usd is None else str(micro_usd))

    async def block(self, visitor: str, seconds: int) -> Came:
        """Let this visitor in no more for so long; `full` where too many are blocked."""
        return await self._decide("block", visitor, str(seconds * 1000))

    async def unblock(self, visitor: str) -> Came:
        """Let this visitor in again."""
        return await self._decide("unblock", visitor)

    async def revoke(self, chain: str) -> Came:
        """Honour no token of this chain any more; `unknown` where there is none."""
        return await self._decide("revoke", chain=chain)

    async def revoke_of(self, visitor: str) -> int:
        """The same for every chain whose last turn came from this visitor; how many there were."""
        revoked = cursor = 0
        start = f"{self._calls.prefix}chain:"
        while True:
            cursor, found = await self._store.scan(cursor, match=start + "*", count=_BATCH)
            for name in await self._open_chains(cast(list[bytes], found), visitor):
                revoked += await self.revoke(name.removeprefix(start)) == "done"
            if cursor == 0:
                return revoked

    async def _open_chains(self, keys: list[bytes], visitor: str) -> list[str]:
        pipe = self._store.pipeline(transaction=False)
        for key in keys:
            pipe.hmget(key.decode(), "a", "state")
        said = await pipe.execute() if keys else []
        wanted = [visitor.encode(), b"open"]
        return [key.decode() for key, of in zip(keys, said, strict=True) if of == wanted]

    async def blocked(self, most: int) -> list[Blocked]:
        """Who is not let in now, the longest first, at most so many."""
        seconds, microseconds = await self._store.time()
        now_ms = seconds * 1000 + microseconds // 1000
        found: Any = await self._store.zrevrangebyscore(
            f"{self._calls.prefix}blocked", "+inf", f"({now_ms}", start=0, num=most, withscores=True
        )
        return [Blocked(visitor.decode(), int(until)) for visitor, until in found]

    async def require_try(self, address: str) -> None:
        """Count an attempt to come in as the operator; raises `Rejection` rate_limited."""
        wait_ms = await self._tried(address, "try")
        if wait_ms:
            detail = "Too many attempts. Wait as long as Retry-After says."
            raise Rejection("rate_limited", detail, retry_after=wait_ms / 1000)

    async def was_right(self, address: str) -> None:
        """Give the attempt back, and know this address from now on."""
        await self._tried(address, "right")

    async def end_session(self, session: str, seconds: int) -> None:
        """Remember, for as long as it would have lasted, that a session was ended."""
        await self._store.set(self._ended(session), 1, ex=seconds)

    async def has_ended(self, session: str) -> bool:
        """Whether the operator logged out of this session."""
        return bool(await self._store.exists(self._ended(session)))

    def _ended(self, session: str) -> str:
        return f"{self._calls.prefix}admin:ended:{session}"

    async def _decide(self, *what: str, chain: str | None = None) -> Came:
        rid = new_rid()
        keys = ["control", "blocked", f"chain:{chain}" if chain else "control"]
        reply = await self._calls.call(self._control, rid, keys, (rid, *what))
        return cast(Came, cast(bytes, reply[1]).decode())

    async def _tried(self, address: str, what: str) -> int:
        rid = new_rid()
        keys = ["control", f"admin:tries:{address}", "admin:tries:all", f"admin:known:{address}"]
        argv = (
            *(rid, what, _OF_ADDRESS.interval_us, _OF_ADDRESS.burst),
            *(_OF_ALL.interval_us, _OF_ALL.burst, _KNOWN_MS),
        )
        return int((await self._calls.call(self._attempt, rid, keys, argv))[1])
