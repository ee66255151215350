"""`/admin`: who may come in, the page's own files, and the way to its API.

The law: it is not there unless `ADMIN_TOKEN` is set. An attempt is counted before it is looked at.
A session's cookie acts only for this page itself: what another site's page sends is refused.
"""

import json
import logging
import secrets
import time
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from completions.body import Strict, read_json, validate
from console import Console
from credentials import visitor
from edge import OPERATOR
from exchange import Exchange
from house import Keyturn
from operator_api import API, Answer, Asked, look_for_visitors, looking
from pages import PUBLIC, file_headers
from problems import Headers
from security.client_ip import parse_address
from security.errors import Rejection
from security.session import LASTS, Session
from shared_look import SharedLook

log = logging.getLogger("keyturn")

FOLDER: Final = Path(__file__).parent / "admin"
COOKIE: Final = "keyturn-operator"
FILES: Final = {
    OPERATOR: FOLDER / "index.html",
    **{
        f"{OPERATOR}/{name}": FOLDER / name
        for name in (
            *("admin.css", "admin.js", "api.js", "plots.js", "tables.js", "amounts.js", "words.js"),
            *("vendor/uplot.js", "vendor/uplot.css", "vendor/uplot.txt"),
        )
    },
    # The demo page may be off, and its looks are ours too.
    **{f"{OPERATOR}/{name}": PUBLIC / name for name in ("page.css", "controls.css", "theme.js")},
}
ALONE: Final[Headers] = [
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_JSON: Final[Headers] = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    *ALONE,
]
_API: Final = f"{OPERATOR}/api/"
_MOST_BYTES: Final = 4096


class LoginBody(Strict):
    """The token, as it stands in the settings."""

    token: str


class OperatorPage:
    """Everything below /admin, as one ASGI endpoint."""

    def __init__(self) -> None:
        self._visitors: SharedLook[Answer] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        keyturn: Keyturn = scope["app"].state.keyturn
        path = scope["path"]
        if keyturn.console is None or scope.get("raw_path") not in (path.encode(), None):
            raise Rejection("not_found")
        exchange = Exchange(scope, receive, send, keyturn.patience)
        if path in FILES:
            require_method(exchange, "GET")
            await _answer_file(exchange, FILES[path], FILES[path].read_bytes())
        elif path == _API + "login":
            await _log_in(exchange, keyturn, keyturn.console)
        elif path == _API + "logout":
            await _log_out(exchange, keyturn, keyturn.console)
        elif path.removeprefix(_API) in API and path.startswith(_API):
            look = partial(look_for_visitors, keyturn, keyturn.console)
            self._visitors = self._visitors or SharedLook(look, time.monotonic)
            await _answer_api(exchange, keyturn, keyturn.console, self._visitors)
        else:
            raise Rejection("not_found")


def require_method(exchange: Exchange, method: str) -> None:
    """Refuse any other method, and name this one."""
    if exchange.scope["method"] != method:
        allowed = "GET, HEAD" if method == "GET" else method
        raise HTTPException(405, headers={"Allow": allowed})


async def _answer_file(exchange: Exchange, file: Path, content: bytes) -> None:
    headers = [
        *((name.encode(), value.encode()) for name, value in file_headers(file, content).items()),
        *ALONE,
    ]
    etag = dict(headers)[b"etag"].decode()
    known = etag in (exchange.header(b"if-none-match") or "")
    await exchange.start(304 if known else 200, headers)
    await exchange.end(b"" if known else content)


async def _answer_api(
    exchange: Exchange, keyturn: Keyturn, console: Console, visitors: SharedLook[Answer]
) -> None:
    method, answer = API[exchange.scope["path"].removeprefix(_API)]
    require_method(exchange, method)
    by = await require_operator(exchange, keyturn, console)
    body = await _body(exchange) if method == "POST" else b""
    query = exchange.scope["query_string"].decode("latin-1")
    asked = Asked(keyturn, console, by, exchange.request_id, query, body, visitors)
    await _say(exchange, await answer(asked))


async def _body(exchange: Exchange) -> bytes:
    exchange.require_json()
    return await exchange.read_body(_MOST_BYTES)


async def _say(exchange: Exchange, said: Any, *more: tuple[bytes, bytes]) -> None:
    body = json.dumps(said, separators=(",", ":")).encode()
    length = (b"content-length", str(len(body)).encode())
    await exchange.start(200, [*_JSON, length, *more])
    await exchange.end(body)


# -- who is the operator


async def require_operator(exchange: Exchange, keyturn: Keyturn, console: Console) -> str:
    """What the log calls whoever shows the token, or a session; raises `Rejection` else."""
    exchange.require_single_headers()
    shown = _token(exchange)
    if shown is not None:
        await require_token(exchange, keyturn, console, shown)
        return "token"
    session = _session(exchange, console)
    if session is None:
        raise Rejection("operator_only")
    if exchange.scope["method"] != "GET":
        require_own_page(exchange)
    async with looking(keyturn):
        has_ended = await console.control.has_ended(session.name)
    if has_ended:
        raise Rejection("operator_only")
    return f"session:{session.name[:8]}"


async def require_token(exchange: Exchange, keyturn: Keyturn, console: Console, shown: str) -> None:
    """Refuse a wrong token, and any at all from where too many wrong ones came."""
    address = visitor(exchange, keyturn).address
    await console.control.require_try(address)
    if not console.operator.is_token(shown):
        log.warning(
            "operator refused: wrong token visitor=%s request_id=%s", address, exchange.request_id
        )
        raise Rejection("operator_only")
    await console.control.was_right(address)


def require_own_page(exchange: Exchange) -> None:
    """Refuse what another site's page made the browser send: a cookie alone proves no wish.

    Browsers say where a request comes from, over plain HTTP by Origin only; whoever says nothing is
    none that a cookie is for.
    """
    sites = exchange.values(b"sec-fetch-site")
    origins, hosts = exchange.values(b"origin"), exchange.values(b"host")
    is_own = sites == ["same-origin"]
    if not sites:
        is_own = len(origins) == len(hosts) == 1 and urlsplit(origins[0]).netloc == hosts[0]
    if not is_own:
        raise Rejection("origin_forbidden", "Only the operator's own page may do that.")


def _token(exchange: Exchange) -> str | None:
    """The token shown; a name and password for a proxy in front, say, are no try to guess it."""
    scheme, _, token = (exchange.header(b"authorization") or "").partition(" ")
    return token if scheme.lower() == "bearer" else None


def _session(exchange: Exchange, console: Console) -> Session | None:
    """The session of the cookie; of several by that name, as a neighbour may add, a good one."""
    found = (console.operator.unsign(text, now=time.time()) for text in _cookies(exchange))
    return next((session for session in found if session), None)


def _cookies(exchange: Exchange) -> list[str]:
    pairs = (pair.partition("=") for pair in ";".join(exchange.values(b"cookie")).split(";"))
    return [value.strip() for name, _, value in pairs if name.strip() == COOKIE]


async def _log_in(exchange: Exchange, keyturn: Keyturn, console: Console) -> None:
    require_method(exchange, "POST")
    require_own_page(exchange)
    said = validate(LoginBody, read_json(await _body(exchange)))
    await require_token(exchange, keyturn, console, said.token)
    session = Session(secrets.token_urlsafe(16), int(time.time()) + LASTS)
    log.warning(
        "operator by=session:%s request_id=%s did=log in", session.name[:8], exchange.request_id
    )
    cookie = _cookie(console.operator.sign(session), LASTS, exchange, keyturn)
    await _say(exchange, {"ends": session.ends}, cookie)


async def _log_out(exchange: Exchange, keyturn: Keyturn, console: Console) -> None:
    """End the session in every worker, and have the browser forget it."""
    require_method(exchange, "POST")
    require_own_page(exchange)
    session = _session(exchange, console)
    if session:
        async with looking(keyturn):
            await console.control.end_session(session.name, LASTS)
        log.warning(
            "operator by=session:%s request_id=%s did=log out",
            session.name[:8],
            exchange.request_id,
        )
    await _say(exchange, {}, _cookie("", 0, exchange, keyturn))


def _cookie(value: str, seconds: int, exchange: Exchange, keyturn: Keyturn) -> tuple[bytes, bytes]:
    secure = "; Secure" if is_https(exchange, keyturn) else ""
    cookie = f"{COOKIE}={value}; Path={OPERATOR}; Max-Age={seconds}; HttpOnly; SameSite=Strict"
    return b"set-cookie", (cookie + secure).encode()


def is_https(exchange: Exchange, keyturn: Keyturn) -> bool:
    """Whether the browser speaks TLS: to us, or to a proxy that we trust and that says so."""
    if exchange.scope["scheme"] == "https":
        return True
    peer = parse_address(exchange.peer) if exchange.peer else None
    said = ",".join(exchange.values(b"x-forwarded-proto")).split(",")[-1].strip().lower()
    return said == "https" and keyturn.settings.trusted_proxies.trusts(peer)
