"""A page of another site that chats through client.js, in a real Chromium."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web
from playwright.async_api import Browser, BrowserContext, Page

from settings import Settings
from tests.browser.page_stage import TIMEOUT_MS
from tests.stage import Server, Upstream, eventually, serving, settings_with

# What docs/browser.md says a page's policy needs, and nothing more.
POLICY: Final = "default-src 'none'; script-src 'self' {keyturn}; connect-src {keyturn}"
SANDBOX: Final = '<iframe sandbox="allow-scripts" src="/"></iframe>'

PAGE: Final = """<!doctype html><meta charset="utf-8"><title>Elsewhere</title>
<script type="module" src="/chat.js"></script>"""

CHAT: Final = """
import { createFetch, readEvents } from '%(keyturn)s/client.js';

const storage = location.pathname === '/shared' ? localStorage : undefined;
const exchanges = [];
const keyturn = createFetch({
  baseURL: '%(keyturn)s/v1', storage,
  onExchange({ sent, response, problem, remedy }) {
    const [shown, key, print] =
      ['Authorization', 'Idempotency-Key', 'Keyturn-Fingerprint'].map((name) => sent.get(name));
    const successor = response?.headers.get('Keyturn-Token');
    const { status } = response ?? {};
    exchanges.push({ status, code: problem?.code, remedy, shown, key, print, successor });
  },
});
const stop = { now() {} };

/** Says a text and returns the answer; what came so far is in `words`. */
async function say(content) {
  const controller = new AbortController();
  stop.now = () => controller.abort();
  let text = '';
  const response = await keyturn('/v1/chat/completions', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ stream: true, messages: [{ role: 'user', content }] }),
    signal: controller.signal,
  });
  if (!response.ok) throw new Error((await response.json()).code);
  for await (const data of readEvents(response)) {
    if (data !== '[DONE]') text += JSON.parse(data).choices[0].delta.content ?? '';
    globalThis.words = text;
  }
  return text;
}
Object.assign(globalThis, { say, stop, exchanges });
"""


@dataclass
class Tab:
    """A tab on the page: what is said there, and what client.js did for it."""

    page: Page
    faults: list[str] = field(default_factory=list)

    async def open(self, url: str) -> None:
        """Go there, and be ready to chat."""
        self.page.set_default_timeout(TIMEOUT_MS)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda said: self.faults.append(said.text))
        await self.page.goto(url)
        await self.ready()

    async def ready(self) -> None:
        """Wait until the module runs."""
        await self.page.wait_for_function("() => globalThis.say")

    async def say(self, text: str) -> str:
        """Take a turn; returns its whole answer."""
        answer: str = await self.page.evaluate("(text) => say(text)", text)
        return answer

    async def begin(self, text: str) -> None:
        """Begin a turn, and leave it to itself; how it ends is in `ended`."""
        await self.page.evaluate(
            "(text) => void (globalThis.ended = say(text).catch((error) => error.name))", text
        )

    async def ended(self) -> str:
        """The answer of the turn that was begun, or the name of the error."""
        answer: str = await self.page.evaluate("() => ended")
        return answer

    async def stop(self) -> None:
        """Stop the turn under way."""
        await self.page.evaluate("() => stop.now()")

    async def exchanges(self) -> list[dict[str, Any]]:
        """Every attempt since the page was loaded."""
        told: list[dict[str, Any]] = await self.page.evaluate("() => exchanges")
        return told

    async def statuses(self) -> list[int | None]:
        """What each attempt was answered."""
        return [exchange.get("status") for exchange in await self.exchanges()]

    async def until(self, remedy: str) -> None:
        """Wait until this is done about the last attempt."""

        async def so() -> bool:
            told = await self.exchanges()
            return bool(told) and told[-1].get("remedy") == remedy

        await eventually(so)

    async def until_words(self, words: str) -> None:
        """Wait until this much of an answer is there."""
        await self.page.wait_for_function("(words) => globalThis.words === words", arg=words)


@dataclass
class Site:
    """Another origin, which knows where its Keyturn is."""

    url: str
    keyturn: str = ""

    def may_chat(self, settings: Settings) -> Settings:
        """The settings of a Keyturn that lets this site chat."""
        return settings.model_copy(update={"allowed_origins": (self.url,)})

    async def answer(self, request: web.Request) -> web.Response:
        """The page at every address, and its script."""
        policy = {"Content-Security-Policy": POLICY.format(keyturn=self.keyturn)}
        if request.path == "/chat.js":
            script = CHAT % {"keyturn": self.keyturn}
            for_all = {"Access-Control-Allow-Origin": "*"}
            return web.Response(text=script, content_type="text/javascript", headers=for_all)
        if request.path == "/sandbox":
            return web.Response(text=SANDBOX, content_type="text/html")
        return web.Response(text=PAGE, content_type="text/html", headers=policy)


@asynccontextmanager
async def another_site() -> AsyncIterator[Site]:
    """A site on a port of its own."""
    site = Site("")
    app = web.Application()
    app.router.add_get("/{path:.*}", site.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield site
    finally:
        await runner.cleanup()


@asynccontextmanager
async def window(browser: Browser, **view: Any) -> AsyncIterator[BrowserContext]:
    """A window that remembers nothing; its tabs share what they store."""
    async with await browser.new_context(**view) as context:
        yield context


async def tab_on(context: BrowserContext, url: str) -> Tab:
    """A new tab there."""
    tab = Tab(await context.new_page())
    await tab.open(url)
    return tab


Chat = Callable[..., AbstractAsyncContextManager[tuple[Site, Server]]]


@asynccontextmanager
async def chat_of(
    redis_url: str, upstream: Upstream, **said: Any
) -> AsyncIterator[tuple[Site, Server]]:
    """A site, and a Keyturn with these settings that lets it chat."""
    urls = {"redis_url": redis_url, "openai_base_url": upstream.url}
    async with another_site() as site:
        settings = site.may_chat(settings_with(**{**urls, **said}))
        async with serving(settings) as server:
            site.keyturn = server.url
            yield site, server


async def says(upstream: Upstream) -> list[str]:
    """What upstream was asked, turn by turn."""
    return [entry["body"]["messages"][-1]["content"] for entry in await upstream.books()]


async def require_unbroken(*tabs: Tab) -> None:
    """Every attempt was admitted, and showed the successor that the one before had brought."""
    for tab in tabs:
        told = await tab.exchanges()
        assert set(fields(told, "status")) == {200}
        shown = [f"Bearer {successor}" for successor in fields(told, "successor")]
        assert fields(told, "shown")[1:] == shown[:-1]


def fields(exchanges: list[dict[str, Any]], name: str) -> list[Any]:
    """One field of each exchange."""
    return [exchange.get(name) for exchange in exchanges]
