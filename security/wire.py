"""Scripts on one connection that is kept for them, past the library's pool and retries.

Those cost more than the call itself. Here all that is asked in one turn of the event loop leaves in
one write, and Redis replies in the order in which it was asked. The library connects, and knows of
TLS, users and passwords; then the connection is a `Pipe`.

The law: whatever is wrong with a reply, nobody in flight is told anything but that the connection
is lost, and the next call is on a new one.
"""

import asyncio
import hashlib
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import redis.asyncio as redis
from redis._parsers import BaseParser
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError

from security.words import Words, packed

_BULK, _ERROR = b"$-"
_NO_NAMES: Final[Mapping[str, str]] = {}
_UNREAD: Final = 0.02  # seconds in which a reply that is there is read


class Pipe(asyncio.Protocol):
    """A connection of the library's on which many ask at once."""

    def __init__(self, connection: AbstractConnection) -> None:
        self.is_closed = False
        self.limit = connection.socket_timeout or math.inf  # seconds from a question to its reply
        self._loop = asyncio.get_running_loop()
        self._unsent: list[tuple[bytes, asyncio.Future[bytes]]] = []
        self._sent: deque[tuple[float, asyncio.Future[bytes]]] = deque()  # each with when it is due
        self._timer: asyncio.TimerHandle | None = None
        self._rest = b""  # of a reply that has not come wholly
        self._transport = cast(asyncio.Transport, cast(Any, connection)._writer.transport)
        self._library = self._transport.get_protocol()
        self._transport.set_protocol(self)

    def ask(self, command: bytes) -> asyncio.Future[bytes]:
        """The reply to come; whoever gives it up leaves it to be read and thrown away."""
        if self.is_closed:
            raise RedisConnectionError("the connection was lost")
        if not self._unsent:
            self._loop.call_soon(self._send)
        reply: asyncio.Future[bytes] = self._loop.create_future()
        self._unsent.append((command, reply))
        return reply

    def close(self, failure: type[Exception] = RedisConnectionError) -> None:
        """End the connection; all in flight fail."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._timer:
            self._timer.cancel()
        for _, reply in (*self._sent, *self._unsent):
            if not reply.done():
                reply.set_exception(failure("the connection was lost"))
        self._sent.clear()
        self._unsent.clear()
        self._transport.abort()

    def _send(self) -> None:
        asked = [each for each in self._unsent if not each[1].done()]
        self._unsent.clear()
        if not asked:
            return
        due = self._loop.time() + self.limit
        self._sent.extend([(due, reply) for _, reply in asked])
        self._transport.write(b"".join([command for command, _ in asked]))
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        """One timer for all: when it is due, the oldest may have had its reply long ago."""
        self._timer = None
        if not self._sent:
            return
        due, _ = self._sent[0]
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._look)
        else:  # a worker that was busy meanwhile hears its timers before what has come
            self._timer = self._loop.call_later(_UNREAD, self._give_up, due)

    def _give_up(self, due: float) -> None:
        self._timer = None
        if self._sent and self._sent[0][0] <= due:
            self.close(RedisTimeoutError)
        else:
            self._look()

    def data_received(self, data: bytes) -> None:
        """Read every reply that has come wholly: a string, or the line of an error."""
        data = self._rest + data
        at = 0
        while (line := data.find(b"\r\n", at)) >= 0:
            end = line
            if data[at] == _BULK and data[at + 1 : line].isdigit():
                end += 2 + int(data[at + 1 : line])
                if len(data) < end + 2:
                    break
            elif data[at] != _ERROR:
                return self.close()
            if not self._sent:  # nobody asked
                return self.close()
            _, reply = self._sent.popleft()
            if reply.done():
                pass
            elif data[at] == _ERROR:
                reply.set_exception(_failure(data[at + 1 : line].decode(errors="replace")))
            else:
                reply.set_result(data[line + 2 : end])
            at = end + 2
        self._rest = data[at:]

    def connection_lost(self, error: Exception | None) -> None:
        """All in flight fail, and the library, which may wait for the end, hears of it."""
        self.close()
        self._library.connection_lost(error)


def _failure(line: str) -> Exception:
    return cast(Exception, BaseParser.parse_error(line))  # type: ignore[no-untyped-call]


class OwnScripts(redis.Redis):
    """A client of the library's, but for its scripts."""

    def __init__(self, *said: Any, **named: Any) -> None:
        super().__init__(*said, **named)
        self._connection: AbstractConnection | None = None
        self._pipe: Pipe | None = None
        self._opening = asyncio.Lock()

    def register_script(self, script: Any) -> Any:
        """The script, to be called by its keys and arguments; it replies in lines."""
        return Script(self, script)

    async def ask(self, command: bytes, end: float = math.inf) -> bytes:
        """The reply to a command, before `end` on the monotonic clock; raises what the library
        raises."""
        pipe, left = self._pipe, end - time.monotonic()
        try:
            if pipe and not pipe.is_closed and left >= pipe.limit:  # which is limit enough
                return await pipe.ask(command)
            async with asyncio.timeout(left if left < math.inf else None):
                pipe = await self._open()
                return await pipe.ask(command)
        except (RedisConnectionError, RedisTimeoutError, ReadOnlyError):
            if pipe:
                await self._close(pipe)
            raise

    async def _open(self) -> Pipe:
        async with self._opening:
            if self._pipe and self._pipe.is_closed:
                await self._close(self._pipe)
            if self._pipe:
                return self._pipe
            if self._connection:
                await self._connection.connect()  # type: ignore[no-untyped-call]
            else:  # ours to keep
                self._connection = await self.connection_pool.get_connection()  # type: ignore[no-untyped-call]
            self._pipe = Pipe(self._connection)
            return self._pipe

    async def _close(self, pipe: Pipe) -> None:
        """End the connection, and the library's idle ones: what ended one may have ended all."""
        pipe.close()
        if self._pipe is not pipe or not self._connection:
            return
        self._pipe = None
        await self._connection.disconnect(nowait=True)
        await self.connection_pool.disconnect(inuse_connections=False)


class Script:
    """A script that replies in lines."""

    def __init__(self, store: OwnScripts, script: str) -> None:
        self.script = script
        self._store = store
        sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._by_digest = packed(("EVALSHA", sha))
        self._whole = packed(("EVAL", script))

    async def __call__(self, keys: Sequence[str], argv: Sequence[str | int]) -> list[bytes]:
        """The fields of its reply."""
        return (await self.ask(Words(keys, argv), _NO_NAMES)).split(b"\n")

    async def ask(self, words: Words, names: Mapping[str, str], end: float = math.inf) -> bytes:
        """Its reply as it came, to words with these names in them; `end` as above."""
        count, said = words.count + 2, words.packed(names)
        try:
            return await self._store.ask(f"*{count}\r\n{self._by_digest}{said}".encode(), end)
        except NoScriptError:
            return await self._store.ask(f"*{count}\r\n{self._whole}{said}".encode(), end)


class InLines:
    """A script that the library calls, word by word; it replies in lines."""

    def __init__(self, script: Any) -> None:
        self._script = script

    async def __call__(self, keys: Sequence[str], argv: Sequence[str | int]) -> list[bytes]:
        """The fields of its reply."""
        reply: bytes = await self._script(keys, argv)
        return reply.split(b"\n")
