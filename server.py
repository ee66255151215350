"""Keyturn over HTTP: the routes, and the main path of a turn.

`app` is built without settings; its lifespan reads them. Run `python server.py`, or any ASGI server
with `server:app`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from fastapi import FastAPI
from pydantic import SecretStr
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from completions.chat import parse_chat
from completions.grammars import ResponsesScanner, scanner_for
from completions.own_key_request import parse_own_key, require_key
from completions.relay import Watched, read_whole, relay_stream
from completions.request import ChatRequest, Policy
from completions.responses import parse_responses
from completions.turns import OpenTurn
from credentials import bearer, credentials, safety_identifier, visitor
from edge import OPERATOR, Edge, limit_policy, log_unexpected, require_origin
from exchange import ClientGone, Exchange, SlowReader
from house import Keyturn, from_environment
from metrics_page import add_metrics
from operator_page import OperatorPage
from pages import add_pages
from problems import Headers, error_event, error_frame
from security.errors import Rejection
from security.gate import Admission
from standing import limit_headers

_EVENT_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_JSON: Headers = [(b"content-type", b"application/json"), *_EVENT_STREAM[1:]]
_PLAIN_TEXT: Headers = [(b"content-type", b"text/plain; charset=utf-8"), *_EVENT_STREAM[1:]]


class Parse(Protocol):
    """How the body of one of OpenAI's chat APIs is read."""

    def __call__(
        self, raw: bytes, policy: Policy, *, safety_identifier: str | None = None
    ) -> ChatRequest: ...


class GatedChat:
    """One of OpenAI's two chat APIs, behind the gate."""

    def __init__(self, parse: Parse) -> None:
        self._parse = parse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        keyturn: Keyturn = scope["app"].state.keyturn
        exchange = Exchange(scope, receive, send, keyturn.patience)
        exchange.require_json()
        require_origin(exchange, keyturn.settings)
        exchange.require_single_headers()
        admission = await self._admit(exchange, keyturn)
        await answer(exchange, keyturn, admission, self._complete)

    async def _admit(self, exchange: Exchange, keyturn: Keyturn) -> Admission[ChatRequest]:
        token = bearer(exchange)
        if token is not None and token.startswith("sk-"):
            return await self._admit_own_key(exchange, keyturn, SecretStr(token))

        shown = credentials(exchange, keyturn, token)

        async def read_request() -> ChatRequest:
            body = await exchange.read_body(keyturn.settings.max_body_bytes)
            identifier = safety_identifier(shown.visitor, keyturn)
            request = self._parse(body, keyturn.policy, safety_identifier=identifier)
            exchange.note.asked(request, stream=request.stream)
            return request

        return await keyturn.gate.admit(shown, read_request)

    async def _admit_own_key(
        self, exchange: Exchange, keyturn: Keyturn, own_key: SecretStr
    ) -> Admission[ChatRequest]:
        exchange.note.own_key = True
        if not keyturn.settings.byok:
            raise Rejection("byok_disabled")
        require_key(own_key)
        body = await exchange.read_body(keyturn.settings.max_body_bytes)
        request = self._parse(body, keyturn.own_key_policy)
        exchange.note.asked(request, stream=request.stream)
        return await keyturn.gate.admit_own_key(visitor(exchange, keyturn), own_key, request)

    async def _complete(self, exchange: Exchange, keyturn: Keyturn, turn: OpenTurn) -> bytes:
        """Relay the answer; what is returned is its end, sent once the turn is settled."""
        admission: Admission[ChatRequest] = turn.admission
        headers, request = admitted_headers(admission, keyturn), admission.request
        asking = keyturn.upstream.complete(admission, turn.meter, exchange.request_id)
        async with asking as upstream:
            scanner = scanner_for(request.api, keep_usage=request.keep_usage)
            turn.meter.scanner = scanner
            if request.stream:
                await exchange.start(200, _EVENT_STREAM + headers)
                keep_alive = keyturn.patience.keep_alive
                most = admission.hold.max_output if admission.hold else None
                answer = Watched(exchange, turn.meter)
                await relay_stream(upstream.content, answer, scanner, keep_alive, most)
                return b""
            body, said = await read_whole(upstream.content)
            scanner.take_whole(said)
        exchange.hold(200, _JSON + headers)
        return body


class OwnKeyChat:
    """POST /api/chat: a visitor's own key, in and out as plain text."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        keyturn: Keyturn = scope["app"].state.keyturn
        settings = keyturn.settings
        exchange = Exchange(scope, receive, send, keyturn.patience)
        exchange.note.own_key = True
        exchange.require_json()
        require_origin(exchange, settings)
        if not settings.byok:
            raise Rejection("byok_disabled")
        body = await exchange.read_body(settings.byok_max_body_bytes)
        request, own_key = parse_own_key(body, keyturn.own_key_policy)
        exchange.note.asked(request, stream=True)
        admission = await keyturn.gate.admit_own_key(visitor(exchange, keyturn), own_key, request)
        await answer(exchange, keyturn, admission, self._complete)

    async def _complete(self, exchange: Exchange, keyturn: Keyturn, turn: OpenTurn) -> bytes:
        admission = turn.admission
        async with keyturn.own_key_upstream.stream(admission) as texts:
            await exchange.start(200, _PLAIN_TEXT + admitted_headers(admission, keyturn))
            async for text in texts:
                await exchange.write(text)
        return b""


Complete = Callable[[Exchange, Keyturn, OpenTurn], Awaitable[bytes]]


async def answer(
    exchange: Exchange, keyturn: Keyturn, admission: Admission[Any], complete: Complete
) -> None:
    """Ask upstream for an admitted turn, relay what comes, settle, and only then end."""
    turn = keyturn.turns.open(admission)
    try:
        async with exchange.present():
            with turn.deadline:
                last = await complete(exchange, keyturn, turn)
        await turn.settle()
        await exchange.end(last)
    except ClientGone:
        if not turn.answered:  # many clients leave at [DONE], which is no hang-up
            raise
    except (SlowReader, asyncio.CancelledError):
        raise
    except Exception as error:
        await fail(exchange, keyturn, turn, as_rejection(error, exchange, keyturn))
    finally:
        turn.settle_soon()
        exchange.note.usage, exchange.note.cost_micro_usd = turn.usage, turn.charge()


async def fail(exchange: Exchange, keyturn: Keyturn, turn: OpenTurn, rejection: Rejection) -> None:
    """Say that an admitted turn failed: as a problem, as a frame, or by cutting plain text."""
    admission = turn.admission
    exchange.note.code = rejection.code
    turn.key_refused = rejection.code == "byok_key_rejected"
    await turn.settle()
    rejection.with_successor(admission.next_token).with_limits(admission.standing)
    if admission.own_key is not None:
        rejection.chain = "none"
    if not exchange.started:
        raise rejection
    if isinstance(admission.request, ChatRequest) and admission.request.stream:
        if keyturn.turns.draining:
            exchange.hurry()
        await exchange.write(last_event(rejection, turn))
        await exchange.end()
    else:
        exchange.abort()


def last_event(rejection: Rejection, turn: OpenTurn) -> bytes:
    """The event that says in the grammar of the stream why it ends here."""
    if isinstance(turn.meter.scanner, ResponsesScanner):
        return error_event(rejection, turn.meter.scanner.next_number)
    return error_frame(rejection)


def as_rejection(error: Exception, exchange: Exchange, keyturn: Keyturn) -> Rejection:
    """The row of the failure table for what went wrong after admission."""
    if isinstance(error, Rejection):
        return error
    if isinstance(error, TimeoutError):
        if keyturn.turns.draining:
            return Rejection("overloaded", "The server is restarting. Send it again.")
        return Rejection("upstream_timeout")
    log_unexpected(error, exchange.request_id)
    return Rejection("internal_error")


def admitted_headers(admission: Admission[Any], keyturn: Keyturn) -> Headers:
    """What goes with the first byte of an answer: the next token, and what is left of limits."""
    headers = limit_headers(admission.standing, limit_policy(keyturn.settings))
    if admission.next_token:
        headers.append((b"keyturn-token", admission.next_token.encode()))
    if admission.hold and admission.hold.max_output < admission.request.worst.max_output:
        headers.append((b"keyturn-max-output", str(admission.hold.max_output).encode()))
    return headers


class App(FastAPI):
    """FastAPI, but a POST to one of `spending` goes past its layers: each chunk would pass them.

    It takes the long way where requests are traced or measured, or somebody has added a layer.
    """

    def __init__(self, *, spending: Mapping[str, ASGIApp], **said: Any) -> None:
        super().__init__(**said)
        self.add_middleware(Edge, spending=spending)
        self._edge = Edge(super().__call__, spending)
        self._spending = spending
        self._goes_straight = False

    def look_around(self) -> None:
        """See who else is to be passed; to be asked when the app starts."""
        others = len(self.user_middleware) > 1 or self._native_telemetry.enabled()
        self._goes_straight = not others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        spends = scope.get("method") == "POST" and scope["path"] in self._spending
        if spends and self._goes_straight:
            scope["app"] = self
            await self._edge(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(
    open_keyturn: Callable[[], AbstractAsyncContextManager[Keyturn]] = from_environment,
) -> App:
    """The app around whatever `open_keyturn` opens; nothing is read or opened until it starts."""

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        async with open_keyturn() as keyturn:
            app.state.keyturn = keyturn
            app.look_around()
            yield

    spending: dict[str, ASGIApp] = {
        "/v1/chat/completions": GatedChat(parse_chat),
        "/v1/responses": GatedChat(parse_responses),
        "/api/chat": OwnKeyChat(),
    }
    app = App(
        spending=spending,
        title="Keyturn",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"logs": False},  # the text of an exception may quote a visitor
    )
    app.router.routes += [
        Route(path, spends, methods=["POST"]) for path, spends in spending.items()
    ]
    operator = OperatorPage()
    app.router.routes += [Route(path, operator) for path in (OPERATOR, OPERATOR + "/{rest:path}")]
    add_pages(app)
    add_metrics(app)
    return app


app = create_app()

if __name__ == "__main__":
    from command import main

    sys.exit(main(sys.argv[1:]))
