"""The operator, as the tests play one: with the token, or as a browser with a session."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from settings import Settings
from tests.stage import Answer, Server, Upstream, serving, settings_with

TOKEN = "an-operators-token-that-nobody-guesses-Xy81-canary"
API = "/admin/api/"
POSTS = ("pause", "resume", "cap", "block", "unblock", "revoke")
GETS = ("state", "history", "visitors")


def settings_for(redis_url: str, upstream: Upstream, **said: Any) -> Settings:
    """Settings with an operator's page."""
    urls = {"openai_base_url": upstream.url, "byok_base_url": upstream.url}
    return settings_with(**{"redis_url": redis_url, "admin_token": TOKEN, **urls, **said})


# A busy machine is no fault of Redis; one command may not take as long as all for the operator may.
SLOWLY = {"redis_timeout_ms": 1000, "redis_deadline_ms": 3000}


@dataclass
class Operator:
    """Whoever asks the operator's API: by a token, by a cookie, or by nothing."""

    session: aiohttp.ClientSession
    url: str
    token: str | None = TOKEN
    extra: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, body: bytes = b"", /, **headers: str) -> Answer:
        """Send exactly this; underscores in names of headers stand for hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        async with self.session.request(
            method,
            self.url + path,
            data=body or None,
            headers={**self.extra, **sent},
            skip_auto_headers=["Content-Type"],
            allow_redirects=False,
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def look(self, what: str) -> Any:
        """What a GET says."""
        answer = await self.ask("GET", API + what)
        assert answer.status == 200, answer.body
        return answer.json

    async def decide(self, what: str, **said: Any) -> Answer:
        """A decision, by POST."""
        body = json.dumps(said).encode()
        return await self.ask("POST", API + what, body, Content_Type="application/json")


@asynccontextmanager
async def operating(server: Server | str, token: str | None = TOKEN) -> AsyncIterator[Operator]:
    """An operator whose session keeps no cookies by itself."""
    url = server if isinstance(server, str) else server.url
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield Operator(session, url, token)


@asynccontextmanager
async def two_workers(
    redis_url: str, upstream: Upstream, **said: Any
) -> AsyncIterator[tuple[Server, Server]]:
    """Two servers that share a store, as two workers do."""
    settings = settings_for(redis_url, upstream, **{**SLOWLY, **said})
    async with serving(settings) as one, serving(settings) as other:
        yield one, other


async def session_of(operator: Operator, token: str = TOKEN, **headers: str) -> str:
    """Log in as the page does; the cookie, as a browser sends it back."""
    said = {"Content_Type": "application/json", "Origin": operator.url, **headers}
    body = json.dumps({"token": token}).encode()
    quiet = Operator(operator.session, operator.url, None)
    answer = await quiet.ask("POST", API + "login", body, **said)
    assert answer.status == 200, answer.body
    return str(answer.headers["Set-Cookie"]).partition(";")[0]
