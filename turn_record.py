"""What is known of a turn when it is over: one record per POST to a route that spends.

The law: a record holds no text, no token, no key and no address. Whoever is told of it (a log line,
a count) can only pass on what stands here. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from completions.prices import Usage
from security.errors import Code

Outcome = Code | Literal["ok", "gone", "slow_reader"]


@dataclass(slots=True)  # not frozen: to set 13 fields would take three times as long
class TurnRecord:
    """A turn that is over, refusals included; whoever is told of it leaves it as it is.

    `status` is what was sent, 0 where the client left before; `code` is "ok", a code of the failure
    table (also of what failed behind a 200), or how the client ended it. `model` is one of those
    allowed, None where the body was not read. `visitor` is the keyed hash of an address prefix.
    Tokens are upstream's count, None where it told none; the cost is what the operator is charged,
    None where nothing was admitted. `ttfb_ms` is None where no byte of an answer left.
    """

    request_id: str
    route: str
    status: int
    code: Outcome
    model: str | None
    visitor: str | None
    own_key: bool
    stream: bool
    input_tokens: int | None
    output_tokens: int | None
    cost_micro_usd: int | None
    ttfb_ms: float | None
    duration_ms: float


Observer = Callable[[TurnRecord], None]


class Asked(Protocol):
    """What a body asks for, by any of the three routes."""

    @property
    def model(self) -> str: ...


@dataclass(slots=True)
class TurnNote:
    """What the layers find out while a turn goes on; times in seconds of one steady clock."""

    began: float
    status: int = 0
    code: Outcome = "ok"
    model: str | None = None
    visitor: str | None = None
    own_key: bool = False
    stream: bool = False
    usage: Usage | None = None
    cost_micro_usd: int | None = None
    first_byte: float | None = None

    def asked(self, request: Asked, *, stream: bool) -> None:
        """Note what a valid body asks for."""
        self.model, self.stream = request.model, stream

    def record(self, request_id: str, route: str, now: float) -> TurnRecord:
        """The record of it, at its end."""
        began, usage, first = self.began, self.usage, self.first_byte
        return TurnRecord(
            request_id=request_id,
            route=route,
            status=self.status,
            code=self.code,
            model=self.model,
            visitor=self.visitor,
            own_key=self.own_key,
            stream=self.stream,
            input_tokens=usage.prompt if usage else None,
            output_tokens=usage.output if usage else None,
            cost_micro_usd=self.cost_micro_usd,
            ttfb_ms=None if first is None else (first - began) * 1000,
            duration_ms=(now - began) * 1000,
        )
