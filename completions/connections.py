"""The way to upstream: one pool of connections for a worker, and how a request is asked on one."""

import asyncio
import socket
from functools import cached_property, partial
from typing import Any, Final

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.helpers import _EXC_SENTINEL
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.http_writer import _serialize_headers
from yarl import URL

from completions.charge import Meter
from patience import Patience

# Bytes of an answer that may lie here while its visitor takes nothing in, of many visitors each.
# More would not make an answer faster that is written word by word.
_RECEIVED: Final = 24 << 10
_UNREAD: Final = 8 << 10
_NO_HTTP: Final = "upstream's answer is no HTTP"
_HEADERS: Final = {hdrs.ACCEPT_ENCODING: "identity", hdrs.USER_AGENT: "keyturn"}


class Answer:
    """What upstream answers: its status and headers, then all that it says.

    The connection is free for another request as soon as all was read; who leaves before closes it.
    """

    def __init__(
        self, connection: Connection, head: RawResponseMessage, content: aiohttp.StreamReader
    ) -> None:
        self.status = head.code
        self.headers = head.headers
        if type(content) is aiohttp.StreamReader:  # the parser makes no other; another is empty
            content.__class__ = _Content
        self.content = content
        self._connection = connection
        content.on_eof(connection.release)

    @property
    def media_type(self) -> str:
        """The Content-Type without its parameters."""
        return self.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()

    def leave(self) -> None:
        """Close the connection, unless all was read."""
        self._connection.close()


class _Content(aiohttp.StreamReader):
    """What upstream says. All that waits is taken at once: aiohttp takes one HTTP chunk after the
    other, begins to receive again after each, and notes for others where they end."""

    __slots__ = ()  # so that one of aiohttp's can become one

    def _read_nowait(self, n: int) -> bytes:
        if n != -1 or self._buffer_offset:  # a part, or what is left of one
            return super()._read_nowait(n)
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._size = 0
        # Where it has ended, the connection may be another answer's already.
        if self._protocol._reading_paused and not self._eof:
            self._protocol.resume_reading()
        return data

    def end_http_chunk_receiving(self) -> None:
        if len(self._buffer) > self._high_water_chunks:
            self._protocol.pause_reading()


class Pool:
    """The HTTP client of this worker, with every limit said.

    Of aiohttp it has the connections and the parser. What a `ClientSession` adds is all off here:
    redirects, cookies, proxies, retries, decompression; and takes longer than the rest.
    """

    def __init__(
        self, *, connections: int, patience: Patience, resolver: AbstractResolver | None = None
    ) -> None:
        self._connector = _Connector(
            limit=connections, socket_factory=_small_socket, resolver=resolver
        )
        # Not `sock_connect`, which leaves out the time that it takes to look the name up.
        self._limits = aiohttp.ClientTimeout(connect=patience.connect)
        self._silence = patience.silence
        self._places: dict[str, _Place] = {}  # by URL

    async def post(self, url: str, headers: dict[str, str], body: bytes, meter: Meter) -> Answer:
        """The answer to a body, its head read; `meter` notes when it begins to leave.

        From then on upstream may bill it. Raises `aiohttp.ClientError`, `OSError` or `TimeoutError`
        when there is no answer in time.
        """
        place = self._places.get(url) or self._place(url)
        connection = await self._connector.connect(place, traces=[], timeout=self._limits)
        try:
            protocol = self._send(connection, place.head(headers, len(body)) + body, meter)
            while True:
                head, content = await protocol.read()
                if head.code >= 200 or head.code == 101:
                    return Answer(connection, head, content)
        except HttpProcessingError:
            connection.close()
            raise aiohttp.ClientPayloadError(_NO_HTTP) from None
        except BaseException:
            connection.close()
            raise

    def _place(self, url: str) -> "_Place":
        loop = asyncio.get_running_loop()
        place = _Place(hdrs.METH_POST, URL(url), headers=_HEADERS, loop=loop)
        self._places[url] = place
        return place

    def _send(self, connection: Connection, request: bytes, meter: Meter) -> ResponseHandler:
        protocol = connection.protocol
        if protocol is None or protocol.transport is None or protocol.transport.is_closing():
            raise aiohttp.ClientConnectionError("the connection was lost")
        protocol.set_response_params(
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=self._silence,
            read_bufsize=_UNREAD,
        )
        meter.sent = True
        protocol.transport.write(request)  # in memory it is anyway: nobody waits for the rest
        protocol.start_timeout()
        return protocol

    async def close(self) -> None:
        """End every connection."""
        await self._connector.close()


class _Place(aiohttp.ClientRequest):
    """What connections to a URL are made for, and what each request there begins with."""

    @cached_property
    def connection_key(self) -> ConnectionKey:
        """Under which they are kept: the same for all of them."""
        return super().connection_key

    @cached_property
    def _begin(self) -> bytes:
        said = self.headers.copy()
        del said[hdrs.CONTENT_LENGTH]
        line = f"{self.method} {self.url.raw_path_qs} HTTP/1.1"
        return _serialize_headers(line, said).removesuffix(b"\r\n")

    def head(self, headers: dict[str, str], length: int) -> bytes:
        """The head of a request, by aiohttp's hand, which lets no header hold another.

        `headers` are none that the place says already.
        """
        line = f"Content-Length: {length}"  # a first line to it, as one of a request is
        return self._begin + _serialize_headers(line, headers)  # type: ignore[arg-type]  # any map


def _small_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket whose buffer holds an answer of a few seconds: what we do not read, waits there."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED)
    return made


class _Handler(ResponseHandler):
    """One connection. Its timer stays while an answer comes, and looks when it is due since when
    nothing came: aiohttp sets one anew for each piece."""

    _heard = 0.0

    def is_connected(self) -> bool:
        """Whether it can be used again: not where upstream spoke without being asked.

        aiohttp would take what was said there for the answer to the next visitor.
        """
        return super().is_connected() and not self.should_close

    def set_exception(self, exc: BaseException, exc_cause: BaseException = _EXC_SENTINEL) -> None:
        """Tell whoever reads the answer, too: of broken HTTP in its midst aiohttp tells nobody."""
        super().set_exception(exc, exc_cause)
        if isinstance(exc, HttpProcessingError) and self._payload and not self._payload.is_eof():
            self._payload.set_exception(aiohttp.ClientPayloadError(_NO_HTTP))

    def _reschedule_timeout(self) -> None:
        self._heard = self._loop.time()
        if self._read_timeout_handle is None and self._read_timeout:
            self._look_in(self._read_timeout)

    def _look_in(self, seconds: float) -> None:
        self._read_timeout_handle = self._loop.call_later(seconds, self._on_read_timeout)

    def _on_read_timeout(self) -> None:
        self._read_timeout_handle = None
        left = self._heard + (self._read_timeout or 0) - self._loop.time()
        if left > 0:
            self._look_in(left)
        else:
            super()._on_read_timeout()


class _Connector(aiohttp.TCPConnector):
    """A pool of such connections."""

    def __init__(self, **said: Any) -> None:
        super().__init__(**said)
        made = partial(_Handler, loop=asyncio.get_running_loop())
        self._factory = made  # type: ignore[assignment]  # partials of a subclass are one, too
