"""What the operator's page stands on: who is the operator, what may be decided, what is known."""

import time
from dataclasses import dataclass
from typing import Final

import redis.asyncio as redis

from recording import Recorder
from security.breaker import Breaker
from security.calls import Deadlines
from security.capacity import Capacity
from security.control import Control
from security.history import History
from security.one_time_token import TokenSigner
from security.session import Operator
from settings import Settings
from turn_history import Tally

_WHOLE: Final = 2.0  # seconds: an operator can wait longer than a visitor


@dataclass(frozen=True, slots=True)
class Console:
    """The parts of the operator's page; there are none where `ADMIN_TOKEN` is not set."""

    operator: Operator
    signer: TokenSigner
    control: Control
    history: History
    tally: Tally
    recorder: Recorder


def console_of(
    settings: Settings, store: "redis.Redis", capacity: Capacity, signer: TokenSigner
) -> Console | None:
    """The console that the settings ask for, on breakers of its own: no visitor waits for it."""
    token = settings.admin_token
    if token is None:
        return None
    deadlines = Deadlines(command=settings.redis_timeout_ms / 1000, whole=_WHOLE)
    control = Control(store, tenant=settings.tenant, deadlines=deadlines, breaker=_breaker())
    history = History(store, tenant=settings.tenant, deadlines=deadlines, breaker=_breaker())
    tally = Tally(time.time)
    return Console(
        operator=Operator(token.get_secret_value(), tenant=settings.tenant),
        signer=signer,
        control=control,
        history=history,
        tally=tally,
        recorder=Recorder(
            tally, history, streams=lambda: capacity.taken, most=settings.max_streams
        ),
    )


def _breaker() -> Breaker:
    return Breaker(failures=3, open_for=1, clock=time.monotonic)
