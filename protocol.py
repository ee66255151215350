"""The few limits that ASGI cannot keep, on top of uvicorn's httptools protocol.

The law: a connection that is answering nothing always runs against one clock, uvicorn's keep-alive
timer between two requests and ours from the first byte of the next one on, or, while the last bytes
of an answer are still leaving, the kernel's; what is read before the app can see it stays bounded;
and nothing that a client sends behind a request harms its answer.

Where uvicorn is run without this class these limits belong to the proxy in front of it.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.types import Message, Send
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from raw_answers import begin_joined, refusal
from security.errors import Code

# In scope["extensions"]:
ABORT: Final = "keyturn.abort"  # a Callable[[], None]
GONE: Final = "keyturn.gone"  # a Callable[[Callable[[], None] | None], None]
JOIN: Final = "keyturn.join"  # a Callable[[Send, Message], bool]
HEARD: Final = "keyturn.heard"  # a Callable[[], bool]
WAITS: Final = "keyturn.waits"  # a Callable[[], bool]

_INVALID = "Invalid HTTP request received."  # as uvicorn says it
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class KeyturnProtocol(HttpToolsProtocol):
    """Times and counts request heads, stalls early, and lets the app abort its connection.

    `scope["extensions"]["keyturn.abort"]()` drops the connection at once, so that an unfinished
    answer cannot be taken for a whole one: `receive()` says `http.disconnect`, a `send()` that
    waits for the client returns. After the answer it does nothing. Who is given to `keyturn.gone`
    is told when the client has gone, without a task that waits for it, until None is given. The
    head of an answer that is shown to `keyturn.join`, with the `send` that it is meant for, leaves
    with what follows it at once; where it says False, the head is still to be sent, as always where
    a layer stands in between. `keyturn.heard` tells whether the whole request is there,
    `keyturn.waits` whether a `send()` would wait for it: where they say so, `receive()` and
    `send()` return at once and need no timer.
    """

    # Beside uvicorn's own attributes, of which a dictionary that is shared by all instances has
    # room for no more: one of its own would cost each connection a KiB.
    __slots__ = (
        *("_clock", "_head_begun", "_leaving", "_refused", "_running", "_turn", "_unclaimed"),
        *("_tell_gone",),
    )

    HEAD_SECONDS = 5.0
    HEAD_LIMIT = 64 * 1024  # bytes of one head; also of the trailers behind a chunked body
    PIPELINE_LIMIT = 16  # requests that may wait behind the one being answered
    LINGER_SECONDS = 1.0
    LAST_CALL_SECONDS = 1.0  # for whoever was let in before the server closed its door
    SEND_BUFFER = 64 * 1024  # bytes; left to itself the kernel takes in megabytes for a deaf client
    WRITE_BUFFER = 32 * 1024  # bytes of an answer that may wait for it here, of 64 by default
    DEAF_SECONDS = 30.0  # until the kernel drops a client that takes nothing in, also after a close

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._clock: asyncio.TimerHandle | None = None
        self._unclaimed = 0  # bytes read since the parser last made something of them
        self._head_begun = False
        self._leaving = False  # from then on each answer is the last of its connection
        self._upgrading = False  # a head was read that wants another protocol; it is read anew
        self._refused = False  # from then on all that comes is dropped, and an answer is the last
        self._running: RequestResponseCycle | None = None
        self._turn = 0
        self._tell_gone: Callable[[], None] | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _set_option(transport, socket.SOL_SOCKET, socket.SO_SNDBUF, self.SEND_BUFFER)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            deaf_ms = int(self.DEAF_SECONDS * 1000)
            _set_option(transport, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, deaf_ms)
        transport.set_write_buffer_limits(self.WRITE_BUFFER)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._unset_keepalive_if_required()  # uvicorn forgets it after a reset
        if self._running is not None and not self._running.response_complete:
            # uvicorn tells the last request, which may still be queued
            self._disconnect(self._running)
        super().connection_lost(exc)
        # The scope leads back here through its abort: left alone, each connection would be garbage
        # that only the collector finds.
        self.scope = self.cycle = self._running = None  # type: ignore[assignment]
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        while data and not self._refused and not self.transport.is_closing():
            room = self.HEAD_LIMIT - self._unclaimed
            self._feed(data[:room])
            data = data[room:]
        if self._clock is None and self.timeout_keep_alive_task is None and not self._answering():
            self._start_clock()

    def _feed(self, piece: bytes) -> None:
        self._unclaimed += len(piece)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(piece)
        except HttpParserUpgrade as upgrade:
            if not self._refused:  # else one piece could hold a thousand of them
                self._ignore_upgrade(piece[upgrade.args[0] :])
        except HttpParserError:
            self.logger.warning(_INVALID)
            self.send_400_response(_INVALID)
        if self._unclaimed >= self.HEAD_LIMIT:
            self._refuse("headers_too_large")

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Reads the request anew without its Upgrade, which is ignored (RFC 9110, 7.8).

        The parser takes all that follows for another protocol: the body would be lost, and what
        of it comes later would be parsed as the next request.
        """
        fields = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        version = self.parser.get_http_version().encode()
        line = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)
        self._upgrading, self.parser = False, HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._feed(b"\r\n".join([line, *fields, b"", rest]))

    def shutdown(self) -> None:
        """The server ends: a request that is on its way here is still answered, for a proxy that
        has sent one can neither take it back nor send it to another server."""
        self._leaving = True
        if self._answering():
            super().shutdown()
        elif not self._refused:
            self._unset_keepalive_if_required()
            self._stop_clock()
            self._clock = self.loop.call_later(self.LAST_CALL_SECONDS, self._time_is_up)

    # The parser

    def on_message_begin(self) -> None:
        self._head_begun = True
        self._unset_keepalive_if_required()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"CONNECT" or self.parser.get_http_version() == "0.9":
            raise ValueError  # which the parser reports as one of its own errors
        self._unclaimed = 0
        self._upgrading = self.parser.should_upgrade()
        if self._upgrading:
            return
        self._head_begun = False
        self._stop_clock()
        if len(self.pipeline) >= self.PIPELINE_LIMIT:
            self._refused = True
            return
        super().on_headers_complete()
        self.headers = []  # trailers go here, not among the headers that the app trusts

    def on_body(self, body: bytes) -> None:
        self._unclaimed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unclaimed = 0
        if self._upgrading:
            return
        super().on_message_complete()
        if not self._answering():  # the answer came before the end of the body
            self._stop_clock()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _should_upgrade(self) -> bool:
        return False

    # The answer

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        self._turn += 1
        if self._leaving:
            cycle.keep_alive = False
        scope = cast(dict[str, Any], cycle.scope)
        scope["extensions"] = {
            ABORT: partial(self._abort, self._turn),
            GONE: self._tell_when_gone,
            JOIN: self._join,
            HEARD: self._has_heard,
            WAITS: self._waits,
        }
        super()._start_asgi_task(cycle, app)

    def _answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _heard_all(self) -> bool:
        """Whether an answer is due or running, and what comes now is no part of its request."""
        running = self._running
        if running is None or running.response_complete:
            return False
        return running.response_started or not running.more_body

    def _abort(self, turn: int) -> None:
        if turn != self._turn or self._running is None or self._running.response_complete:
            return
        self._disconnect(self._running)
        self.flow.resume_writing()
        _set_option(self.transport, socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()

    def _tell_when_gone(self, tell: Callable[[], None] | None) -> None:
        self._tell_gone = tell
        if tell and (self._running is None or self._running.disconnected):
            tell()

    def _disconnect(self, cycle: RequestResponseCycle) -> None:
        cycle.disconnected = True
        cycle.message_event.set()
        tell, self._tell_gone = self._tell_gone, None
        if tell:
            tell()

    def _has_heard(self) -> bool:
        return self._running is not None and not self._running.more_body

    def _waits(self) -> bool:
        return self.flow.write_paused

    def _join(self, send: Send, message: Message) -> bool:
        return self._running is not None and begin_joined(self._running, self.loop, send, message)

    def on_response_complete(self) -> None:
        if not self._refused or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._hang_up()

    # The refusals

    def _start_clock(self) -> None:
        self._clock = self.loop.call_later(self.HEAD_SECONDS, self._time_is_up)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _time_is_up(self) -> None:
        if self._head_begun:
            self._refuse("request_timeout")
        else:
            self.transport.close()

    def _refuse(self, code: Code) -> None:
        if self.transport.is_closing():
            return
        self._refused = True
        if self._heard_all():
            return
        self._stop_clock()
        if self._running is not None:
            self._disconnect(self._running)
        self.transport.write(refusal(code, self.server_state.default_headers))
        self._hang_up()

    def _hang_up(self) -> None:
        """Says goodbye and waits a moment: a close with bytes unread would reset the connection
        and take the answer with it."""
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        with contextlib.suppress(OSError):  # asyncio's, if the client has gone
            self.transport.write_eof()
        self._clock = self.loop.call_later(self.LINGER_SECONDS, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        if self._heard_all():
            self._refused = True  # another status line would land inside or before the answer
        else:
            super().send_400_response(msg)


def _set_option(transport: asyncio.Transport, level: int, option: int, value: int | bytes) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # a Unix socket knows no TCP option
            sock.setsockopt(level, option, value)
