"""Keyturn with a leak, the control of `bench.soak`: it keeps 16 KiB of every request for ever."""

from typing import Final

from starlette.types import Receive, Scope, Send

from server import create_app

KEPT: Final = 16 << 10  # bytes


class Leaky:
    """The real app, and a list that only grows."""

    def __init__(self) -> None:
        self._app = create_app()
        self._kept: list[bytearray] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._kept.append(bytearray(b"x" * KEPT))
        await self._app(scope, receive, send)


app = Leaky()
