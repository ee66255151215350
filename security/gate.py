"""The gate. A request is admitted when it passes, in this order, and only then:

    1  timestamp     sent just now                              (timestamp)
    2  fingerprint   by the browser the token was made for      (one_time_token, fingerprint)
    -  the body      is whole and asks for what may be asked    (handed in: read_request)
    3  address rate  by an address that does not ask too often  (ledger)
    4  token         with a token that was never used           (ledger)
    -  the budget    has room for the most that it can cost     (ledger)

The first check that fails answers. Cheap checks come first; from 3 on they are one atomic script,
so that a visitor's own mistake never costs the token and no two turns take the same money. An
`Admission` is made here and nowhere else, and both doors to upstream ask for one.
"""

import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, Generic, Protocol, TypeVar

from pydantic import SecretStr

from security.breaker import Breaker
from security.budget import Hold, WorstCase
from security.capacity import Capacity
from security.errors import InvalidRequest, Rejection, Standing, StoreUnavailable
from security.fingerprint import require_match, require_well_formed
from security.keyed_hash import KeyedHash
from security.ledger import Ledger, new_rid
from security.one_time_token import Claims, TokenSigner
from security.scripts import Duplicate, Renewed, Turn, Verdict, Visitor
from security.timestamp import require_fresh

_IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9._-]{16,64}")
FIRST_TURN: Final = 0
Forget = Callable[[str, Visitor, str | None], None]


class Asked(Protocol):
    """A validated request: the bytes of its body as they came, and the most that it can cost."""

    @property
    def raw(self) -> bytes: ...

    @property
    def worst(self) -> WorstCase: ...


R = TypeVar("R")
A = TypeVar("A", bound=Asked)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a visitor shows: the headers as they came, and whose limits apply."""

    visitor: Visitor
    timestamp: str | None
    fingerprint: str | None = field(repr=False)
    token: str | None = field(repr=False)
    idempotency_key: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Admission(Generic[R]):
    """The proof that a request passed the gate.

    `own_key` is the visitor's own key, or None: then the operator pays, and `chain`, `next_token`
    and `hold` are there.
    """

    rid: str
    visitor: Visitor
    request: R
    standing: Standing
    chain: str | None = None
    next_token: str | None = field(default=None, repr=False)
    hold: Hold | None = None
    own_key: SecretStr | None = None


class Gate:
    """Decides who may spend the operator's key, or pass with their own.

    `forget` is told the rid, visitor and chain of a turn that Redis may have admitted although
    nobody heard it say so; what it took there is to be given back, by whom does not matter here.
    """

    def __init__(
        self,
        *,
        signer: TokenSigner,
        keyed_hash: KeyedHash,
        ledger: Ledger,
        capacity: Capacity,
        upstream: Breaker,
        own_upstream: Breaker,
        forget: Forget,
        clock_ms: Callable[[], int],
        max_skew: int,
        token_ttl: int,
    ) -> None:
        self._signer = signer
        self._hash = keyed_hash
        self._ledger = ledger
        self._capacity = capacity
        self._upstream = upstream
        self._own_upstream = own_upstream
        self._forget = forget
        self._clock_ms = clock_ms
        self._max_skew = max_skew
        self._token_ttl = token_ttl

    async def admit(
        self, shown: Credentials, read_request: Callable[[], Awaitable[A]]
    ) -> Admission[A]:
        """Pass every check in order; the first that fails raises its `Rejection`.

        An admission holds one place of this worker's capacity: whoever gets it gives it back.
        """
        now_ms = self._clock_ms()
        require_fresh(shown.timestamp, now_ms=now_ms, max_skew=self._max_skew)
        fingerprint = self._hash("fp", require_well_formed(shown.fingerprint).encode())
        claims = self._signer.unsign(shown.token, now_ms=now_ms) if shown.token else None
        rid = new_rid()
        if claims:
            await self._require_match(rid, shown.visitor, fingerprint, claims)
        request = await read_request()
        turn = self._turn(shown, claims, fingerprint, request)
        self._capacity.enter(self._upstream)
        try:
            verdict = await self._redeem(rid, shown.visitor, turn)
        except BaseException as refusal:
            self._withdraw(refusal, self._upstream, rid, shown.visitor, turn.chain)
            raise
        successor = self._successor(turn, verdict)
        return Admission(
            *(rid, shown.visitor, request, verdict.standing),
            chain=turn.chain,
            next_token=successor,
            hold=verdict.hold,
        )

    async def admit_own_key(self, visitor: Visitor, own_key: SecretStr, request: R) -> Admission[R]:
        """Admit a visitor who pays: address limits hold, tokens and budgets do not apply."""
        rid = new_rid()
        self._capacity.enter(self._own_upstream)
        try:
            standing = await self._ledger.admit_own_key(rid, visitor)
        except BaseException as refusal:
            self._withdraw(refusal, self._own_upstream, rid, visitor, None)
            raise
        return Admission(rid, visitor, request, standing, own_key=own_key)

    async def _require_match(
        self, rid: str, visitor: Visitor, fingerprint: str, claims: Claims
    ) -> None:
        """Compare the fingerprint with the token's; a wrong guess costs a tick of the rate."""
        try:
            require_match(fingerprint, sealed=claims.fingerprint)
        except Rejection as mismatch:
            standing = await self._ledger.probe(rid, visitor)
            raise mismatch.with_limits(standing) from None

    def _withdraw(
        self,
        refusal: BaseException,
        upstream: Breaker,
        rid: str,
        visitor: Visitor,
        chain: str | None,
    ) -> None:
        """Give the place of a refused turn back, and what Redis may have admitted unheard."""
        self._capacity.withdraw(upstream)
        if _is_unheard(refusal):
            self._forget(rid, visitor, chain)

    async def _redeem(self, rid: str, visitor: Visitor, turn: Turn) -> Verdict:
        try:
            return await self._ledger.redeem(rid, visitor, turn)
        except Duplicate as duplicate:
            duplicate.with_successor(self._successor(turn, duplicate.verdict))
            raise
        except Renewed as renewed:
            renewed.with_successor(self._successor(replace(turn, chain=rid), renewed.verdict))
            raise

    def _turn(
        self, shown: Credentials, claims: Claims | None, fingerprint: str, request: Asked
    ) -> Turn:
        key = shown.idempotency_key
        if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
            raise InvalidRequest(
                "invalid_request",
                "Idempotency-Key must be 16 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.",
                param="Idempotency-Key",
            )
        return Turn(
            chain=claims.chain if claims else self._new_chain(shown.visitor, fingerprint, key),
            number=claims.turn if claims else FIRST_TURN,
            born_ms=claims.born_ms if claims else 0,
            fingerprint=fingerprint,
            idempotency=self._hash("idem", key.encode()) if key else "",
            body=self._hash("body", request.raw),
            worst=request.worst,
        )

    def _new_chain(self, visitor: Visitor, fingerprint: str, key: str | None) -> str:
        """A chain's id: random, or found again by whoever repeats a first turn with its key."""
        if key is None:
            return secrets.token_urlsafe(16)
        return self._hash("chain", "\0".join((key, fingerprint, visitor.address)).encode())

    def _successor(self, turn: Turn, verdict: Verdict) -> str:
        """The token that follows: a pure function of what the script returned."""
        return self._signer.sign(
            Claims(
                chain=turn.chain,
                turn=verdict.number,
                born_ms=verdict.born_ms,
                issued_ms=verdict.last_ms,
                expires_ms=verdict.last_ms + self._token_ttl * 1000,
                fingerprint=turn.fingerprint,
            )
        )


def _is_unheard(refusal: BaseException) -> bool:
    """Whether the script may have run all the same: its reply was lost, or we were cut off."""
    if isinstance(refusal, StoreUnavailable):
        return refusal.chain == "unknown"
    return not isinstance(refusal, Exception)
