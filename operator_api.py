"""What the operator's page and `curl` ask: the state, the history, and decisions.

Every decision is in force at the next admission of every worker, and leaves a line in the log that
says who decided what; the answer to one is the state that it made.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar, cast

from pydantic import Field

from completions.body import Strict, read_json, validate
from console import Console
from edge import now_ms
from house import Keyturn
from money_report import day_fields, spender_fields
from security.control import Came
from security.errors import InvalidRequest, Rejection
from security.spending import OutOfSight, in_sight, read_day, read_spenders
from setting_types import budget
from shared_look import SharedLook
from turn_history import by_minute, curves, forecast, forecast_minutes, most_refused

log = logging.getLogger("keyturn")

_MOST_ROWS: Final = 10
_MOST_BLOCKED: Final = 200  # shown
_LOOK_SECONDS: Final = 5.0
_SCAN_SECONDS: Final = 30.0
# Hours that are shown: how many points, and how many minutes each.
_VIEWS: Final = {1: (60, 1), 6: (72, 5), 24: (96, 15)}

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{22}$")]


class Nothing(Strict):
    """A body that need not say anything: `{}`."""


class CapBody(Strict):
    """The cap of a day in USD, written as in the settings; null is the setting's."""

    usd: str | None


class BlockBody(Strict):
    """Whom to let in no more, and for how many hours."""

    visitor: Name
    hours: Annotated[int, Field(ge=1, le=8760)] = 24


class UnblockBody(Strict):
    """Whom to let in again."""

    visitor: Name


class RevokeBody(Strict):
    """Which chat to end: by its name, by one of its tokens, or all that a visitor has."""

    chain: Name | None = None
    token: Annotated[str, Field(max_length=512)] | None = None
    visitor: Name | None = None


B = TypeVar("B", bound=Strict)
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks what: the name by which the log calls the operator, the query and the body."""

    keyturn: Keyturn
    console: Console
    by: str
    request_id: str
    query: str
    body: bytes
    visitors: SharedLook[dict[str, Any]]

    def body_as(self, schema: type[B]) -> B:
        """The body as its schema; raises `InvalidRequest`."""
        return validate(schema, read_json(self.body))


async def state(asked: Asked) -> Answer:
    """All that a glance needs: admissions, money, streams, who is blocked."""
    keyturn = asked.keyturn
    settings, console = keyturn.settings, asked.console
    async with looking(keyturn):
        day = await read_day(keyturn.store, tenant=settings.tenant, cap=settings.caps.day)
        blocked = await console.control.blocked(_MOST_BLOCKED)
        load = await console.history.load()
        now = console.tally.minute
        spent_at = await console.history.spent(forecast_minutes(now))
    return {
        "server_time_ms": now_ms(),
        "tenant": settings.tenant,
        **day_fields(day, settings.caps.visitor),
        "cap_setting_micro_usd": settings.caps.day,
        "forecast": forecast(spent_at, now_minute=now, spent=day.spent, resets_in=day.resets_in),
        "streams": {"open": load.streams, "most": load.most, "workers": load.workers},
        "blocked": [{"visitor": b.visitor, "until_ms": b.until_ms} for b in blocked],
    }


async def history(asked: Asked) -> Answer:
    """The last 1, 6 or 24 hours as curves."""
    view = re.fullmatch(r"(?:hours=(1|6|24))?", asked.query)
    if not view:
        raise InvalidRequest("invalid_request", "hours must be 1, 6 or 24.", param="hours")
    hours = int(view[1] or 1)
    console = asked.console
    last = console.tally.minute
    async with looking(asked.keyturn):
        counts = {
            hour: await console.history.counts(hour)
            for hour in range(last // 60 - hours, last // 60 + 1)
        }
    # Beside the loop: streams go on while thousands of counts are added.
    return {"hours": hours, **await asyncio.to_thread(_drawn, counts, last, *_VIEWS[hours])}


def _drawn(counts: dict[int, dict[str, int]], last: int, count: int, step: int) -> Answer:
    return curves(by_minute(counts), last=last, count=count, step=step)


async def visitors(asked: Asked) -> Answer:
    """Who spent most today, and who was refused most in this hour and the last."""
    return await asked.visitors.get()


async def look_for_visitors(keyturn: Keyturn, console: Console) -> Answer:
    """The same, looked for among all visitors of the day, which may take seconds."""
    settings, hour = keyturn.settings, console.tally.minute // 60
    async with looking(keyturn, _SCAN_SECONDS):
        seconds, _ = await keyturn.store.time()
        top, count = await read_spenders(
            keyturn.store, tenant=settings.tenant, day=int(seconds) // 86_400, most=_MOST_ROWS
        )
        refused = [await console.history.refused(each) for each in (hour - 1, hour)]
    return {
        "visitors": count,
        "top": [spender_fields(each, settings.caps.visitor) for each in top],
        "refused": most_refused(refused, _MOST_ROWS),
    }


async def pause(asked: Asked) -> Answer:
    """Admit nobody by the operator's key."""
    asked.body_as(Nothing)
    return await _decided(asked, "pause", asked.console.control.pause())


async def resume(asked: Asked) -> Answer:
    """Admit again."""
    asked.body_as(Nothing)
    return await _decided(asked, "resume", asked.console.control.resume())


async def cap(asked: Asked) -> Answer:
    """Set the cap of a day, from now on, or go back to the setting."""
    said = asked.body_as(CapBody)
    micro_usd = None if said.usd is None else _amount(said.usd)
    control = asked.console.control
    told = "setting" if micro_usd is None else f"{micro_usd} µUSD"
    return await _decided(asked, f"cap to={told}", control.cap(micro_usd))


def _amount(usd: str) -> int:
    try:
        amount = budget(usd)
    except ValueError as mistake:
        raise InvalidRequest("invalid_request", f"usd {mistake}.", param="usd") from None
    if amount is None:
        raise InvalidRequest(
            "invalid_request",
            "usd must be an amount: only DAILY_BUDGET_USD can be off.",
            param="usd",
        )
    return cast(int, amount)


async def block(asked: Asked) -> Answer:
    """Let a visitor in no more for some hours, by the operator's key or an own one."""
    said = asked.body_as(BlockBody)
    blocking = asked.console.control.block(said.visitor, said.hours * 3600)
    return await _decided(asked, f"block visitor={said.visitor} hours={said.hours}", blocking)


async def unblock(asked: Asked) -> Answer:
    """Let a visitor in again."""
    said = asked.body_as(UnblockBody)
    unblocking = asked.console.control.unblock(said.visitor)
    return await _decided(asked, f"unblock visitor={said.visitor}", unblocking)


async def revoke(asked: Asked) -> Answer:
    """End a chat, or all chats of a visitor: their next turn must begin a new one."""
    said = asked.body_as(RevokeBody)
    if sum(each is not None for each in (said.chain, said.token, said.visitor)) != 1:
        raise InvalidRequest("invalid_request", "Say one of chain, token and visitor.")
    control = asked.console.control
    if said.visitor is not None:
        async with looking(asked.keyturn, _SCAN_SECONDS):
            count = await control.revoke_of(said.visitor)
        _note(asked, f"revoke visitor={said.visitor} chains={count}")
        return {"revoked": count, **await state(asked)}
    chain = said.chain or _chain_of(said.token or "", asked.console)
    state_after = await _decided(asked, f"revoke chain={chain}", control.revoke(chain))
    return {"revoked": 1, **state_after}


def _chain_of(token: str, console: Console) -> str:
    """The chain of a visitor's token; that a token is bad says nothing of who shows it here."""
    try:
        return console.signer.unsign(token, now_ms=now_ms()).chain
    except Rejection as rejection:
        detail = f"token is none that could be used: {rejection.code}."
        raise InvalidRequest("invalid_request", detail, param="token") from None


async def _decided(asked: Asked, what: str, deciding: Awaitable[Came]) -> Answer:
    came = await deciding
    if came == "unknown":
        raise Rejection("not_found", "There is no such chat, or it ended by itself.")
    if came == "full":
        raise Rejection("invalid_request", "10,000 visitors are blocked: unblock some first.")
    _note(asked, what)
    return await state(asked)


def _note(asked: Asked, what: str) -> None:
    """A warning, so that it stands in every log whatever LOG_LEVEL is."""
    log.warning("operator by=%s request_id=%s did=%s", asked.by, asked.request_id, what)


@asynccontextmanager
async def looking(keyturn: Keyturn, seconds: float = _LOOK_SECONDS) -> AsyncIterator[None]:
    """A block that reads from the store, for so long at most; the refusal tells why it cannot."""
    try:
        async with asyncio.timeout(seconds), in_sight(keyturn.store):
            yield
    except OutOfSight as reason:
        raise Rejection("store_unavailable", f"{reason}.") from None
    except TimeoutError:
        raise Rejection("store_unavailable", "Redis does not answer in time.") from None


Method = Literal["GET", "POST"]
API: Final[dict[str, tuple[Method, Callable[[Asked], Awaitable[Answer]]]]] = {
    "state": ("GET", state),
    "history": ("GET", history),
    "visitors": ("GET", visitors),
    "pause": ("POST", pause),
    "resume": ("POST", resume),
    "cap": ("POST", cap),
    "block": ("POST", block),
    "unblock": ("POST", unblock),
    "revoke": ("POST", revoke),
}
