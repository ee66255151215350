"""What the operator's page stands on: who is the operator, what may be decided, what is known."""

import time
from dataclasses import dataclass
from typing import Final

import redis.asyncio as redis

from recording import Recorder
from security.breaker import Breaker
from security.calls import Calls, Deadlines
from security.capacity import Capacity
from security.control import Control
from security.history import History
from security.one_time_token import TokenSigner
from security.scripts import prefix_of
from security.session import Operator
from security.store import OPERATORS_OWN
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
    command = min(settings.redis_timeout_ms / 1000, _WHOLE / 2)  # the rest is to wait in turn
    deadlines = Deadlines(command=command, whole=_WHOLE)
    control = Control(store, calls_of(store, settings.tenant, deadlines))
    history = History(store, calls_of(store, settings.tenant, deadlines))
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


def calls_of(store: "redis.Redis", tenant: str, deadlines: Deadlines) -> Calls:
    """Calls that take few connections of the store, and break alone."""
    return Calls(
        store,
        prefix=prefix_of(tenant),
        deadlines=deadlines,
        breaker=Breaker(failures=3, open_for=1, clock=time.monotonic),
        places=OPERATORS_OWN,
    )
