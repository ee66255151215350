"""What every answer carries, whoever wrote it: a request id, CORS, and a body for every error.

Pure ASGI, outermost: an unhandled error gets its CORS headers here too, so that a page can read
it. CORS is no access control; `require_origin` is, on the routes that spend.
"""

import asyncio
import logging
import re
import secrets
import time
import traceback
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from completions.relay import KEEP_ALIVE
from exchange import ClientGone, Exchange, SlowReader
from problems import PROBLEMS, Headers, body_of, headers_of
from security.errors import Rejection
from security.scripts import Rate
from setting_types import start_burst
from settings import Settings
from standing import LimitPolicy, limit_headers
from turn_record import Observer, TurnNote

log = logging.getLogger("keyturn")

ANY_ORIGIN: Final = frozenset({"/v1/models", "/api/health", "/client.js", "/client.d.ts"})
ONE_MODEL: Final = "/v1/models/"
OWN_KEY_CHAT: Final = "/api/chat"
OPERATOR: Final = "/admin"
_OPERATOR_PATHS: Final = f"{OPERATOR}/"
EXPOSED: Final = (
    b"Keyturn-Token, Keyturn-Budget, Keyturn-Max-Output, RateLimit, RateLimit-Policy, "
    b"Retry-After, X-Request-Id, X-Should-Retry, Date"
)
# Allowed whether asked for or not: a first turn asks without Authorization, and what a browser
# remembers of its preflight then does for all turns of the page.
SENT: Final = (
    b"Authorization, Content-Type, Idempotency-Key, Keyturn-Fingerprint, Keyturn-Timestamp"
)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,64}")
_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9_, -]{1,2048}")
_NOTHING_YET: Final = (b"", KEEP_ALIVE)
_CLOSING: Final = frozenset({"request_timeout", "payload_too_large", "headers_too_large"})


def now_ms() -> int:
    """Unix time in milliseconds by this machine's clock."""
    return time.time_ns() // 1_000_000


def allowed_origin(path: str, origin: str | None, settings: Settings) -> str | None:
    """The value of Access-Control-Allow-Origin for a page of this origin, or None."""
    if path == OPERATOR or path.startswith(_OPERATOR_PATHS):
        return None  # no other page has business there
    allowed = settings.byok_allowed_origins if path == OWN_KEY_CHAT else settings.origins
    if path in ANY_ORIGIN or path.startswith(ONE_MODEL) or "*" in allowed:
        return "*"
    return origin if origin in allowed else None


def require_origin(exchange: Exchange, settings: Settings) -> None:
    """Refuse a page that the operator did not name, before anything is spent."""
    if exchange.scope["keyturn.origin"] is not None:
        return
    if exchange.values(b"origin") or settings.require_origin:
        raise Rejection("origin_forbidden")


def limit_policy(settings: Settings) -> LimitPolicy:
    """The address and start limits, as the RateLimit-Policy field says them."""
    return _policy_of(settings.rate_limit, settings.start_limit)


@lru_cache(maxsize=8)
def _policy_of(rate: Rate, starts: Rate) -> LimitPolicy:
    def window(burst: int, interval_us: int) -> str:
        return f"q={burst};w={max(1, burst * interval_us // 1_000_000)}"

    start = start_burst(starts)
    return LimitPolicy(
        address=f'"address";{window(rate.burst, rate.interval_us)}',
        start=f'"start";{window(start.burst, start.interval_us)}',
    )


class Watched(Protocol):
    """What is known here of the house: how it is set up, and who is told of its turns."""

    @property
    def settings(self) -> Settings: ...

    @property
    def observers(self) -> tuple[Observer, ...]: ...


class Edge:
    """The outermost layer: labels requests, answers preflights and errors, adds CORS.

    A POST to one of `spending` goes straight to its endpoint.
    """

    def __init__(self, app: ASGIApp, spending: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._spending = spending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # a GET, of whose answer the server leaves the body out
            scope = {**scope, "method": "GET"}
        keyturn: Watched = scope["app"].state.keyturn
        exchange = Exchange(scope, receive, send)
        scope["keyturn.request_id"] = _request_id(exchange)
        note = scope["keyturn.note"] = TurnNote(began=time.perf_counter())
        scope["keyturn.origin"] = _origin(exchange, keyturn.settings)
        exchange.send = _noting(send, scope, note)
        spends = self._spending.get(scope["path"]) if scope["method"] == "POST" else None
        try:
            await self._answer(exchange, spends or self._app, keyturn.settings)
        finally:
            if spends:
                _tell(keyturn.observers, exchange)
            elif note.code != "ok":
                log.info("%s %s request_id=%s", note.status, note.code, exchange.request_id)

    async def _answer(self, exchange: Exchange, endpoint: ASGIApp, settings: Settings) -> None:
        note = exchange.note
        try:
            exchange.require_bounded_head()
            if _is_preflight(exchange):
                await _answer_preflight(exchange, settings)
            else:
                await endpoint(exchange.scope, exchange.receive, exchange.send)
        except ClientGone:
            note.code = "gone"
        except SlowReader:
            note.code = "slow_reader"
            exchange.abort()
        except asyncio.CancelledError:  # by a server that cannot wait for us
            note.code = "overloaded"
            if not exchange.abort():
                raise
            log.warning("cut by the end of the server request_id=%s", exchange.request_id)
        except Rejection as rejection:
            rejection.__traceback__ = None  # its frames hold it: garbage for the collector alone
            await _refuse(exchange, rejection, settings)
        except Exception as error:
            log_unexpected(error, exchange.request_id)
            await _refuse(exchange, Rejection("internal_error"), settings)


def _tell(observers: Iterable[Observer], exchange: Exchange) -> None:
    """Tell of a turn that is over; what an observer does wrong is not the visitor's concern."""
    record = exchange.note.record(exchange.request_id, exchange.scope["path"], time.perf_counter())
    for observe in observers:
        try:
            observe(record)
        except Exception as error:
            log_unexpected(error, exchange.request_id)


def log_unexpected(error: BaseException, request_id: str) -> None:
    """Log where an error arose and its type; its text may quote a visitor, so it stays out."""
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[::-1])
    log.error("unexpected %s request_id=%s at %s", type(error).__name__, request_id, where)


def _request_id(exchange: Exchange) -> str:
    given = exchange.values(b"x-request-id")
    if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
        return given[0]
    return secrets.token_urlsafe(12)


def _origin(exchange: Exchange, settings: Settings) -> str | None:
    """What a page that asks is told of its origin; None for no page, and for one not allowed."""
    origins = exchange.values(b"origin")
    one = len(origins) == 1
    return allowed_origin(exchange.scope["path"], origins[0], settings) if one else None


def _common(scope: Scope) -> Headers:
    headers = [
        (b"x-request-id", scope["keyturn.request_id"].encode()),
        (b"vary", b"Origin"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if origin := scope["keyturn.origin"]:
        headers.append((b"access-control-allow-origin", origin.encode("latin-1")))
        headers.append((b"access-control-expose-headers", EXPOSED))
    return headers


def _noting(send: Send, scope: Scope, note: TurnNote) -> Send:
    """The `send` of every layer: adds what each answer carries, and notes how it begins."""
    extra, join = _common(scope), (scope.get("extensions") or {}).get("keyturn.join")

    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            note.status = message["status"]
            message["headers"] = [*message.get("headers", []), *extra]
            if join and join(send, message):
                return
        elif note.first_byte is None and note.code == "ok" and _is_answer(message):
            note.first_byte = time.perf_counter()
        await send(message)

    return noting


def _is_answer(message: Message) -> bool:
    return message.get("body", b"") not in _NOTHING_YET


def _is_preflight(exchange: Exchange) -> bool:
    return (
        exchange.scope["method"] == "OPTIONS"
        and exchange.header(b"origin") is not None
        and exchange.header(b"access-control-request-method") is not None
    )


async def _answer_preflight(exchange: Exchange, settings: Settings) -> None:
    origin = exchange.header(b"origin")
    if allowed_origin(exchange.scope["path"], origin, settings) is None:
        raise Rejection("origin_forbidden")
    wanted = exchange.header(b"access-control-request-headers") or ""
    mirrored = b", " + wanted.encode() if _HEADER_NAMES.fullmatch(wanted) else b""
    headers: Headers = [
        (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
        (b"access-control-allow-headers", SENT + mirrored),
        (b"access-control-max-age", b"7200"),
    ]
    await exchange.start(204, headers)
    await exchange.end()


async def _refuse(exchange: Exchange, rejection: Rejection, settings: Settings) -> None:
    """Answer with the problem; an answer that has begun, or that nobody takes, is cut."""
    exchange.note.code = rejection.code
    if exchange.note.status:
        exchange.abort()
        return
    try:
        await _answer_problem(exchange, rejection, settings)
    except SlowReader:
        exchange.abort()


async def _answer_problem(exchange: Exchange, rejection: Rejection, settings: Settings) -> None:
    status = rejection.status or PROBLEMS[rejection.code].status
    body = body_of(
        rejection, request_id=exchange.request_id, now_ms=now_ms(), own_keys=settings.byok
    )
    headers = headers_of(rejection) + limit_headers(rejection.standing, limit_policy(settings))
    headers.append((b"content-length", str(len(body)).encode()))
    closing = rejection.code in _CLOSING
    if closing:
        headers.append((b"connection", b"close"))
    if closing:
        await exchange.start(status, headers)
        await exchange.write(body)
        await exchange.discard_body()
        body = b""
    else:
        exchange.hold(status, headers)
    await exchange.end(body)
