"""Scripts on connections that are kept for them, past the library's pool and retries.

Those cost more than the call itself: they look at each connection, at each argument and at each
field of a reply again and again. Here a command is written in one piece, and the scripts reply in
one, a field in a line.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, cast

import redis.asyncio as redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError


class OwnScripts(redis.Redis):
    """A client of the library's, whichever of them, but for its scripts."""

    def __init__(self, *said: Any, **named: Any) -> None:
        super().__init__(*said, **named)
        self._idle: list[AbstractConnection] = []  # one that was closed connects when it is used
        self._limit: float | None = None  # seconds for a command and its reply

    def register_script(self, script: Any) -> Any:
        """The script, to be called by its keys and arguments; it replies in lines."""
        return Script(self, script)

    async def ask(self, command: bytes) -> bytes:
        """The reply to a command; raises what the library raises.

        After a failure every idle connection is closed too, the library's among them: what ended
        one may have ended all.
        """
        connection = await self._connection()
        try:
            if not connection.is_connected:
                await connection.connect()  # type: ignore[no-untyped-call]
            async with asyncio.timeout(self._limit):
                await connection.send_packed_command(command)
                return cast(bytes, await connection.read_response())
        except (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OSError):
            for each in (connection, *self._idle):
                await each.disconnect(nowait=True)
            await self.connection_pool.disconnect(inuse_connections=False)
            raise
        finally:
            self._idle.append(connection)

    async def _connection(self) -> AbstractConnection:
        if self._idle:
            return self._idle.pop()
        connection = await self.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        # Ours to keep: the library makes a task of each write that it limits.
        self._limit, connection.socket_timeout = connection.socket_timeout, None
        return cast(AbstractConnection, connection)


class Script:
    """A script that replies in lines."""

    def __init__(self, store: OwnScripts, script: str) -> None:
        self.script = script
        self._store = store
        self._sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], argv: Sequence[str | int]) -> list[bytes]:
        """The fields of its reply."""
        said = (len(keys), *keys, *argv)
        try:
            reply = await self._store.ask(packed("EVALSHA", self._sha, *said))
        except NoScriptError:
            reply = await self._store.ask(packed("EVAL", self.script, *said))
        return reply.split(b"\n")


def packed(*words: str | int) -> bytes:
    """A command as Redis reads it (RESP): how many words, and each behind its length in bytes."""
    texts = [str(word) for word in words]
    sizes = [len(text) if text.isascii() else len(text.encode()) for text in texts]
    lines = [f"${size}\r\n{text}\r\n" for size, text in zip(sizes, texts, strict=True)]
    return f"*{len(words)}\r\n{''.join(lines)}".encode()
