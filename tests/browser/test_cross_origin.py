"""A page of another origin in a real Chromium: what it may do, and what it can read."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page

from tests.browser.page_stage import COMPLETIONS, NEEDS_CHROMIUM
from tests.causes import break_part
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.other_origin import other_origin
from tests.stage import PATIENT, Upstream, now_ms, serving, settings_with

pytestmark = [NEEDS_CHROMIUM, pytest.mark.asyncio(loop_scope="module")]

FIRST: Final = {"Keyturn-Fingerprint": "fingerprint-of-a-page"}
FORGED: Final = {**FIRST, "Authorization": "Bearer no-token-of-ours"}

CHAT: Final = """async ([url, texts]) => {
  const { createFetch } = await import(`${url}/client.js`);
  const chained = createFetch({ baseURL: url });
  const answers = [];
  for (const content of texts) {
    const body = JSON.stringify({ messages: [{ role: 'user', content }] });
    const headers = { 'Content-Type': 'application/json' };
    const answer = await chained('/v1/chat/completions', { method: 'POST', headers, body });
    answers.push((await answer.json()).choices[0].message.content);
  }
  return answers;
}"""
ASK: Final = """async ([url, method, headers, body]) => {
  const answer = await fetch(url, { method, headers, body });
  return [answer.status, Object.fromEntries(answer.headers), await answer.json()];
}"""
REFUSED: Final = "([url, ...said]) => (%s)([url, ...said]).then(() => '', (error) => error.name)"


@dataclass
class Elsewhere:
    """A page of another origin, and all that came from it."""

    page: Page
    proxy: CuttingProxy

    async def chat(self, *texts: str) -> Any:
        """Take these turns by client.js."""
        return await self.page.evaluate(CHAT, [self.proxy.url, texts])

    def _turn(self, headers: dict[str, str]) -> list[Any]:
        sent = {"Content-Type": "application/json", "Keyturn-Timestamp": f"{now_ms()}", **headers}
        body = '{"messages": [{"role": "user", "content": "hello"}]}'
        return [self.proxy.url + COMPLETIONS, "POST", sent, body]

    async def ask(self, headers: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        """Take a turn by hand: what the page can read of its answer."""
        status, read, said = await self.page.evaluate(ASK, self._turn(headers))
        return status, read, said

    async def is_refused(self) -> bool:
        """Whether the page gets nothing of a turn but an error without words."""
        refused = await self.page.evaluate(REFUSED % ASK, self._turn(FIRST))
        return bool(refused == "TypeError")

    async def get(self, path: str) -> tuple[int, dict[str, str], Any]:
        """What the page can read of a GET."""
        said: list[Any] = [self.proxy.url + path, "GET", {}, None]
        status, read, body = await self.page.evaluate(ASK, said)
        return status, read, body


Open = Callable[..., AbstractAsyncContextManager[Elsewhere]]


@asynccontextmanager
async def opened(
    browser: Browser,
    redis_url: str,
    upstream: Upstream,
    folder: Path,
    broken: str | None = None,
    **said: Any,
) -> AsyncIterator[Elsewhere]:
    """An empty page of another origin, which a Keyturn with these settings allows."""
    (folder / "index.html").write_text("<!doctype html>")
    async with other_origin(folder) as origin, await browser.new_page() as page:
        urls = {"redis_url": redis_url, "openai_base_url": upstream.url}
        settings = settings_with(**{**urls, **PATIENT, "allowed_origins": origin, **said})
        around = break_part(broken) if broken else (lambda keyturn: keyturn)
        async with (
            serving(settings, around=around) as server,
            cutting_proxy(server.url) as proxy,
        ):
            await page.goto(origin)
            yield Elsewhere(page, proxy)


@pytest.fixture
def elsewhere(browser: Browser, redis_url: str, upstream: Upstream, tmp_path: Path) -> Open:
    """Open a page of another origin."""
    return partial(opened, browser, redis_url, upstream, tmp_path)


async def test_an_allowed_page_chats(elsewhere: Open, upstream: Upstream) -> None:
    """By the module of Keyturn's own origin, in one chain."""
    async with elsewhere() as page:
        assert await page.chat("one", "two") == ["one one one ", "two two two "]
    assert len(await upstream.books()) == 2


async def test_any_other_page_does_not(elsewhere: Open, upstream: Upstream) -> None:
    """Its browser does not even send the turn; what is for everybody it can read."""
    async with elsewhere(allowed_origins="https://page.example") as page:
        assert await page.is_refused()
        assert page.proxy.of("POST") == []
        assert [(asked.method, asked.path) for asked in page.proxy.carried] == [
            ("OPTIONS", COMPLETIONS)
        ]
        status, _, body = await page.get("/v1/models")
        assert (status, body["object"]) == (200, "list")
    assert await upstream.books() == []


async def test_a_page_asks_once_whether_it_may(elsewhere: Open) -> None:
    """One preflight does for all turns of a page, the first, which shows no token, included."""
    async with elsewhere() as page:
        await page.chat("one", "two", "three")
        await page.ask(FIRST)
        assert [asked.path for asked in page.proxy.of("OPTIONS")] == [COMPLETIONS]
        assert len(page.proxy.of("POST")) == 4


async def test_a_page_reads_the_next_token(elsewhere: Open) -> None:
    """And all else that an answer says in headers of ours."""
    async with elsewhere() as page:
        status, read, _ = await page.ask(FIRST)
        assert status == 200
        shown = {"keyturn-token", "keyturn-budget", "ratelimit", "ratelimit-policy"}
        assert read.keys() >= shown | {"x-request-id", "date"}
        again, after, _ = await page.ask(
            FIRST | {"Authorization": f"Bearer {read['keyturn-token']}"}
        )
        assert again == 200
        assert after["keyturn-token"] != read["keyturn-token"]


async def test_a_page_reads_why_a_token_is_refused(elsewhere: Open) -> None:
    """401, with its code, and whether an SDK should repeat it."""
    async with elsewhere() as page:
        status, read, said = await page.ask(FORGED)
        assert (status, said["code"]) == (401, "token_malformed")
        assert read["x-should-retry"] == "false"


async def test_a_page_reads_how_long_to_wait(elsewhere: Open) -> None:
    """429, with Retry-After."""
    async with elsewhere(rate_limit="1/minute") as page:
        assert (await page.ask(FIRST))[0] == 200
        status, read, said = await page.ask(FIRST)
        assert (status, said["code"]) == (429, "rate_limited")
        assert 1 <= int(read["retry-after"]) <= 60


async def test_a_page_reads_that_we_are_broken(elsewhere: Open) -> None:
    """500, with the token for the next try."""
    async with elsewhere(broken="upstream") as page:
        status, read, said = await page.ask(FIRST)
        assert (status, said["code"]) == (500, "internal_error")
        assert read["keyturn-token"]
