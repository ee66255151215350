"""Who attacks: builds requests as they stand on the wire, sends them, and reads what comes back."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from attacks.rogue import Rogue
from attacks.store import Store
from attacks.wire import LIMIT, QUIET, Answer, Connection, connected, request

CHAT: Final = "/v1/chat/completions"
RESPONSES: Final = "/v1/responses"
OWN: Final = "/api/chat"
PAGE: Final = "https://page.example"

Value = str | bytes | None
Said = Value | list[Any]


@dataclass(frozen=True)
class Target:
    """A server to be attacked, and how one speaks to it.

    `credentials` stand in the place of Keyturn's own headers where the server knows none of them.
    """

    name: str
    port: int
    model: str
    forwarded: bool = True
    origin: str | None = None
    credentials: Mapping[str, str] | None = None

    @property
    def is_gated(self) -> bool:
        """Whether it takes Keyturn's headers, and gives tokens."""
        return self.credentials is None


@dataclass
class Attacker:
    """One attacker, or one visitor: an address, a browser, and the tokens they were given.

    `mark` is a word that stands in all that they write, by which it is found again upstream.
    `store` lets time pass, and things happen, that an attacker would have to wait for; `logs` are
    what the server printed, for whoever should get hold of it.
    """

    target: Target
    rogue: Rogue
    mark: str
    store: Store
    logs: Callable[[], str]
    address: str = "203.0.113.7"
    fingerprint: str = "fingerprint-of-a-browser"
    tokens: list[str] = field(default_factory=list)
    heard: list[Answer] = field(default_factory=list)

    @property
    def token(self) -> str:
        """The newest token: not used yet."""
        return self.tokens[-1]

    @property
    def spent(self) -> str:
        """The token before it."""
        return self.tokens[-2]

    # What is sent

    def body(self, content: Any = None, **changed: Any) -> bytes:
        """A good body of Chat Completions; None leaves a name out."""
        said = self.mark if content is None else content
        good = {"messages": [{"role": "user", "content": said}]}
        return self.said(**{**good, **changed})

    def asks(self, content: Any = None, **changed: Any) -> bytes:
        """A good body of Responses."""
        return self.said(**{"input": self.mark if content is None else content, **changed})

    def said(self, **named: Any) -> bytes:
        """A body of these names, for this target's model, streamed unless said otherwise."""
        whole = {"model": self.target.model, "stream": True, **named}
        return json.dumps(
            {name: value for name, value in whole.items() if value is not None}
        ).encode()

    def own(self, content: Any = None, key: Any = "sk-visitor-0123456789", **changed: Any) -> bytes:
        """A good body of POST /api/chat."""
        said = self.mark if content is None else content
        good = {"user_message": said, "api_key": key, "model": self.target.model, **changed}
        return json.dumps(
            {name: value for name, value in good.items() if value is not None}
        ).encode()

    def play(self, **script: Any) -> str:
        """A text that tells the scripted upstream how to answer."""
        return json.dumps({"play": {"text": self.mark + " ", **script}})

    def will_say(self, *reply: bytes | Any) -> None:
        """Have the rogue upstream answer this attacker's requests so."""
        self.rogue.replies[self.mark] = reply

    def turn(
        self,
        body: bytes | None = None,
        *,
        path: str | bytes = CHAT,
        method: str = "POST",
        version: str = "HTTP/1.1",
        more: Iterable[tuple[str | bytes, str | bytes]] = (),
        token: str | bytes | None = None,
        **changed: Said,
    ) -> bytes:
        """A turn as it stands on the wire.

        Underscores in names stand for hyphens; None leaves a header out, a list says it several
        times; `more` come last, as they are. `token` is shown as Bearer.
        """
        if body is None:
            body = self.asks() if path == RESPONSES else self.own() if path == OWN else self.body()
        headers: dict[str, Said] = {"Host": "keyturn.example", **self._credentials(token)}
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        headers["Connection"] = "close"
        headers |= {name.replace("_", "-"): value for name, value in changed.items()}
        pairs = [
            (name, each)
            for name, value in headers.items()
            for each in (value if isinstance(value, list) else [value])
            if each is not None
        ]
        return request(method, path, [*pairs, *more], body, version)

    def _credentials(self, token: str | bytes | None) -> dict[str, Said]:
        shown: dict[str, Said] = {
            "X-Forwarded-For": self.address if self.target.forwarded else None
        }
        shown["Origin"] = self.target.origin
        if self.target.credentials is not None:
            return {**shown, **self.target.credentials}
        bearer = token.encode() if isinstance(token, str) else token
        return {
            **shown,
            "Keyturn-Timestamp": str(now_ms()),
            "Keyturn-Fingerprint": self.fingerprint,
            "Authorization": None if bearer is None else b"Bearer " + bearer,
        }

    # How it is sent

    async def send(
        self, *pieces: bytes, limit: float = LIMIT, quiet: float | None = None, head: bool = False
    ) -> list[Answer]:
        """Send pieces on one connection; every answer that comes back.

        With `quiet` the server need not close: so long without a word is the end.
        """
        async with connected(self.target.port) as connection:
            for piece in pieces:
                await connection.send(piece)
            return self.note(await connection.answers(limit=limit, quiet=quiet, bodiless=head))

    async def listen(self, *pieces: bytes, limit: float = LIMIT) -> list[Answer]:
        """The same where the server may keep the connection open."""
        return await self.send(*pieces, limit=limit, quiet=QUIET)

    async def each(self, requests: Iterable[bytes]) -> list[Answer]:
        """One after the other, each on a connection of its own."""
        return [answer for sent in requests for answer in await self.send(sent)]

    async def at_once(self, requests: list[bytes]) -> list[Answer]:
        """All but the last byte of each first, then all last bytes in one moment; sorted."""
        together = asyncio.Barrier(len(requests))

        async def one(sent: bytes) -> list[Answer]:
            async with connected(self.target.port) as connection:
                await connection.send(sent[:-1])
                await together.wait()
                await connection.send(sent[-1:])
                return self.note(await connection.answers())

        told = await asyncio.gather(*(one(sent) for sent in requests))
        return sorted((answer for each in told for answer in each), key=lambda answer: answer.told)

    async def drip(
        self, fast: bytes, slow: bytes, gap: float = 0.5, *, limit: float = LIMIT
    ) -> tuple[list[Answer], Connection]:
        """Some bytes at once and the rest one by one, as long as the server listens."""
        async with connected(self.target.port) as connection:
            await connection.send(fast)
            await connection.drip(slow, gap)
            answers = await connection.answers(limit=limit, quiet=QUIET)
            return self.note(answers), connection

    def note(self, answers: list[Answer]) -> list[Answer]:
        """Keep what was heard."""
        self.heard += answers
        return answers

    # A visitor who means well

    async def take(self, **changed: Any) -> Answer:
        """A good turn along the chain; keeps the successor."""
        token = self.tokens[-1] if self.tokens else None
        answer = (await self.send(self.turn(token=token, **changed)))[0]
        if answer.token:
            self.tokens.append(answer.token)
        return answer

    def another(self, **changed: Any) -> "Attacker":
        """Somebody else, without a token."""
        said = {
            "mark": self.mark,
            "store": self.store,
            "logs": self.logs,
            "address": self.address,
            **changed,
        }
        return Attacker(self.target, self.rogue, heard=self.heard, **said)


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
