"""A gate with everything around it in view: a recording ledger, a clock that stands still."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from security.breaker import Breaker
from security.budget import FREE, Hold, WorstCase
from security.capacity import Capacity
from security.errors import Quota, Rejection, Standing
from security.gate import Admission, Credentials, Gate
from security.keyed_hash import KeyedHash
from security.ledger import Ledger
from security.one_time_token import Claims, TokenSigner
from security.scripts import Turn, Verdict, Visitor

NOW = 1_795_300_000_000
KEY = "a-key-for-these-tests-0123456789-abcdefgh"
FINGERPRINT = "fingerprint-of-a-browser"
IDEMPOTENCY = "one-send-0123456789"
VISITOR = Visitor("address-hash", "wider-hash")
STANDING = Standing(Quota(29, 2))
HOLD = Hold(micro_usd=5, max_output=7, day=20_000)
VERDICT = Verdict(number=1, last_ms=NOW, born_ms=NOW, standing=STANDING, hold=HOLD)

Outcome = Verdict | BaseException | None
hashed = KeyedHash(b"k" * 32)
CLAIMS = Claims("chain", 1, NOW, NOW, NOW + 1_800_000, hashed("fp", FINGERPRINT.encode()))
GOOD = Credentials(
    visitor=VISITOR,
    timestamp=str(NOW),
    fingerprint=FINGERPRINT,
    token=None,
    idempotency_key=None,
)


@dataclass(frozen=True)
class Asked:
    """A request, as the gate sees one."""

    raw: bytes = b'{"messages":[]}'
    worst: WorstCase = FREE


@dataclass
class Recording(Ledger):
    """A ledger that keeps a diary and answers what it was told to; `None` answers never."""

    diary: list[Any] = field(default_factory=list)
    outcome: Outcome = VERDICT

    async def redeem(self, rid: str, visitor: Visitor, turn: Turn) -> Verdict:
        self.diary.append(("redeem", rid, visitor, turn))
        return await self._answer()

    async def probe(self, rid: str, visitor: Visitor) -> Standing:
        self.diary.append(("probe", rid, visitor))
        return (await self._answer()).standing

    async def admit_own_key(self, rid: str, visitor: Visitor) -> Standing:
        self.diary.append(("own key", rid, visitor))
        return (await self._answer()).standing

    async def _answer(self) -> Verdict:
        if self.outcome is None:
            await asyncio.Event().wait()
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        assert self.outcome
        return self.outcome


class Scene:
    """A gate at a fixed time, and everything around it in view."""

    def __init__(self, breaker: Callable[..., Breaker] = Breaker) -> None:
        self.seconds = 0.0
        self.ledger = Recording()
        self.capacity = Capacity(3)
        self.signer = TokenSigner([KEY], tenant="main")
        self.upstream = breaker(failures=1, open_for=5, clock=lambda: self.seconds)
        self.own_upstream = breaker(failures=1, open_for=5, clock=lambda: self.seconds)
        self.forgotten: list[tuple[str, Visitor, str | None]] = []
        self.gate = Gate(
            signer=self.signer,
            keyed_hash=hashed,
            ledger=self.ledger,
            capacity=self.capacity,
            upstream=self.upstream,
            own_upstream=self.own_upstream,
            forget=lambda *turn: self.forgotten.append(turn),
            clock_ms=lambda: NOW,
            max_skew=120,
            token_ttl=1800,
        )

    async def admit(self, body: Outcome | Asked = None, **shown: Any) -> Admission[Asked]:
        """Ask for admission with what is shown; `body` may be a mistake to be raised."""

        async def read_request() -> Asked:
            self.ledger.diary.append("body")
            if isinstance(body, BaseException):
                raise body
            return body if isinstance(body, Asked) else Asked()

        return await self.gate.admit(replace(GOOD, **shown), read_request)

    async def refused(self, body: Outcome | Asked = None, **shown: Any) -> Rejection:
        """The rejection that this raises; the diary begins anew."""
        self.ledger.diary.clear()
        with pytest.raises(Rejection) as refused:
            await self.admit(body, **shown)
        return refused.value

    def token(self, **changed: Any) -> str:
        """A token that is good at this gate, or differs from one in what is named."""
        return self.signer.sign(CLAIMS._replace(**changed))

    @property
    def steps(self) -> list[str]:
        """What was done, in order."""
        return [each if isinstance(each, str) else each[0] for each in self.ledger.diary]

    @property
    def turn(self) -> Turn:
        """The turn that the ledger was asked for last."""
        turn = self.ledger.diary[-1][3]
        assert isinstance(turn, Turn)
        return turn
