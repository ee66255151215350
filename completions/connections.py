"""The connections to upstream: one pool for a worker, and how a request is written to one."""

import asyncio
import socket
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http import StreamWriter
from yarl import URL

from completions.charge import Meter
from patience import Patience

# Bytes of an answer that may lie here while its visitor takes nothing in, of many visitors each.
# More would not make an answer faster that is written word by word.
_RECEIVED: Final = 24 << 10
_UNREAD: Final = 8 << 10
_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "keyturn"}
_WRITTEN_AT_ONCE: Final = 32 << 10  # bytes of a request for which no writer has to wait


def new_session(*, connections: int, patience: Patience) -> aiohttp.ClientSession:
    """The pooled HTTP client of this worker, with every limit said."""
    return aiohttp.ClientSession(
        connector=_Connector(limit=connections, socket_factory=_small_socket),
        read_bufsize=_UNREAD,
        cookie_jar=aiohttp.DummyCookieJar(),
        # Not `sock_connect`, which leaves out the time that it takes to look the name up.
        timeout=aiohttp.ClientTimeout(connect=patience.connect, sock_read=patience.silence),
        auto_decompress=False,
        trust_env=False,
        headers=_HEADERS,
    )


def _small_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket whose buffer holds an answer of a few seconds: what we do not read, waits there."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED)
    return made


class _Connector(aiohttp.TCPConnector):
    """A pool that uses no connection again on which upstream spoke without being asked.

    aiohttp would take what was said there for the answer to the next visitor.
    """

    async def _get(self, key: ConnectionKey, traces: list[Any]) -> Connection | None:
        while connection := await super()._get(key, traces):
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        return None


class Metered(aiohttp.BytesPayload):
    """A body that notes when it begins to leave: from then on upstream may bill it."""

    def __init__(self, body: bytes, meter: Meter) -> None:
        super().__init__(body)
        self.bytes = body
        self.meter = meter

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        self.meter.sent = True
        await super().write_with_length(writer, content_length)


async def post(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str], body: Metered
) -> aiohttp.ClientResponse:
    """Send a body, and return the answer whose head has come.

    It is what is left of `session.post` without redirects, cookies, proxies, retries, and a limit
    on the whole: a third of its work.
    """
    connector, limits = session.connector, session.timeout
    if connector is None:
        raise aiohttp.ClientConnectionError("Session is closed")
    loop, sent = asyncio.get_running_loop(), {**_HEADERS, **headers}
    request = _Request("POST", URL(url), headers=sent, data=body, loop=loop, session=session)
    connection = await connector.connect(request, traces=[], timeout=limits)
    response = None
    try:
        if connection.protocol is None:
            raise aiohttp.ClientConnectionError("Connection closed")
        connection.protocol.set_response_params(
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=limits.sock_read,
            read_bufsize=_UNREAD,
        )
        response = await request.send(connection)
        return await response.start(connection)
    except BaseException:
        if response is not None:
            response.close()
        connection.close()
        raise


class _Request(aiohttp.ClientRequest):
    """A request whose head and body leave in one piece.

    aiohttp starts a task for each body, which may have to wait for the connection; a short one
    never has to. Otherwise this is its own `send`, for a plain POST.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Send it, and return the answer that is to come."""
        body, protocol = self.body, conn.protocol
        if not isinstance(body, Metered) or len(body.bytes) > _WRITTEN_AT_ONCE:
            return await super().send(conn)
        if protocol is None or protocol.writing_paused:
            return await super().send(conn)
        body.meter.sent = True
        writer = StreamWriter(protocol, self.loop)
        await writer.write_headers(f"{self.method} {self.url.raw_path_qs} HTTP/1.1", self.headers)
        await writer.write(body.bytes, drain=False)
        protocol.start_timeout()
        self.response = self.response_class(
            self.method,
            self.original_url,
            writer=None,
            continue100=None,
            timer=self._timer,
            request_info=self.request_info,
            traces=[],
            loop=self.loop,
            session=self.session,
            stream_writer=writer,
        )
        return self.response
