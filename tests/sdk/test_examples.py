"""Each example as it stands, on a page of another origin than Keyturn's, in a real Chromium."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, Request, expect

from tests.browser.page_stage import NEEDS_CHROMIUM, TIMEOUT_MS
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.other_origin import other_origin
from tests.sdk.bundles import EXAMPLES, NEEDS_SDKS, WITH_SDKS
from tests.sdk.chain import tokens_shown
from tests.stage import OPERATORS_KEY, PATIENT, Upstream, serving, settings_with

pytestmark = [NEEDS_CHROMIUM, NEEDS_SDKS, pytest.mark.asyncio(loop_scope="module")]

KEYTURN: Final = "localhost:8000"  # in every example
SAID: Final = "Good morning! " * 3 + "And again. " * 3
PATHS: Final = {
    "openai-js": ["/v1/chat/completions", "/v1/responses"],
    "ai-sdk": ["/v1/responses", "/v1/chat/completions"],
    "langchain": ["/v1/chat/completions"] * 2,
    "plain-fetch": ["/v1/chat/completions"] * 2,
}


@dataclass
class Visit:
    """A page of another origin, and what it did."""

    page: Page
    proxy: CuttingProxy
    asked: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def note(self, request: Request) -> None:
        """Keep whom the page asked."""
        self.asked.append(urlsplit(request.url).netloc)


Run = Callable[[str], AbstractAsyncContextManager[Visit]]


@asynccontextmanager
async def running(
    browser: Browser, redis_url: str, upstream: Upstream, tmp_path: Path, script: str
) -> AsyncIterator[Visit]:
    """A page of another origin that runs this script, with the port of a Keyturn of its own."""
    async with other_origin(tmp_path) as origin, await browser.new_page() as page:
        settings = settings_with(
            redis_url=redis_url, openai_base_url=upstream.url, allowed_origins=origin, **PATIENT
        )
        async with serving(settings) as server, cutting_proxy(server.url) as proxy:
            (tmp_path / "index.html").write_text('<body><script type="module" src="a.js"></script>')
            source = script.replace(KEYTURN, urlsplit(proxy.url).netloc)
            (tmp_path / "a.js").write_text(source)
            page.set_default_timeout(TIMEOUT_MS)
            visit = Visit(page, proxy)
            page.on("request", visit.note)
            page.on("pageerror", lambda error: visit.faults.append(str(error)))
            await page.route("https://**", lambda route: route.abort())
            await page.goto(origin)
            yield visit


@pytest.fixture
def run(browser: Browser, redis_url: str, upstream: Upstream, tmp_path: Path) -> Run:
    """Run a script on a page."""
    return partial(running, browser, redis_url, upstream, tmp_path)


def script_of(example: str, bundles: Path) -> str:
    """What a page runs: the bundle, or the file itself where there is no SDK in it."""
    folder = bundles / "examples" if example in WITH_SDKS else EXAMPLES
    return (folder / f"{example}.js").read_text()


def ordinary_of(example: str, bundles: Path) -> str:
    """The same without the lines that are Keyturn's."""
    return (bundles / "ordinary" / f"{example}.js").read_text()


@pytest.mark.parametrize("example", PATHS)
async def test_an_example_chats(run: Run, bundles: Path, upstream: Upstream, example: str) -> None:
    """Two turns in one chain, shown to their last word, and nobody else is asked anything."""
    async with run(script_of(example, bundles)) as visit:
        await expect(visit.page.locator("body")).to_have_text(SAID)
        assert visit.faults == []
        assert tokens_shown(visit.proxy) == ["–", "a1"]
        assert set(visit.asked) == {urlsplit(u).netloc for u in (visit.page.url, visit.proxy.url)}
    books = await upstream.books()
    assert [entry["path"] for entry in books] == PATHS[example]
    assert {entry["authorization"] for entry in books} == {f"Bearer {OPERATORS_KEY}"}
    body = books[1]["body"]
    assert len(body.get("messages") or body["input"]) == 3


@pytest.mark.parametrize("example", WITH_SDKS)
async def test_without_its_marked_lines_an_example_asks_openai(
    run: Run, bundles: Path, upstream: Upstream, example: str
) -> None:
    """What is left is the SDK as anybody uses it: so those lines are all that Keyturn needs."""
    async with run(ordinary_of(example, bundles)) as visit:
        await visit.page.wait_for_event("pageerror")
        assert "api.openai.com" in visit.asked
        assert visit.proxy.carried == []
    assert await upstream.books() == []


MARKED: Final = ("import { createFetch } from", "baseURL:", "fetch:")


@pytest.mark.parametrize("example", WITH_SDKS)
async def test_three_kinds_of_lines_are_marked(example: str) -> None:
    """The import, the address and the fetch: no example needs another."""
    lines = (EXAMPLES / f"{example}.js").read_text().splitlines()
    marked = [line.strip() for line in lines if line.endswith("// Keyturn")]
    assert {kind for kind in MARKED for line in marked if line.startswith(kind)} == set(MARKED)
    assert all(line.startswith(MARKED) for line in marked)
    assert all(KEYTURN in line for line in marked)
