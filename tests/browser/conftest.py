"""One browser for the tests of a module, and a page for each."""

from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.client_page import Chat, chat_of
from tests.browser.page_stage import Browse, Window, chromium, page_of
from tests.stage import Upstream
from tests.wire import ByHand, upstream_by_hand


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A real Chromium."""
    async with chromium() as browser:
        yield browser


@pytest.fixture
def browse(
    browser: Browser, redis_url: str, upstream: Upstream, other_upstream: Upstream
) -> Browse:
    """Open the page of a server with these settings; own keys have the other upstream."""
    return partial(page_of, browser, redis_url, upstream, other_upstream)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(browser: Browser, _redis_url: str, _upstream: Upstream) -> AsyncIterator[Window]:
    """One window for tests that only look how answers are rendered."""
    async with page_of(browser, _redis_url, _upstream, _upstream) as window:
        yield window


@pytest_asyncio.fixture(loop_scope="module")
async def hand() -> AsyncIterator[ByHand]:
    """An upstream whose every answer the test gives, in the loop of the module's tests."""
    async with upstream_by_hand() as hand:
        yield hand


@pytest.fixture
def chat(redis_url: str, upstream: Upstream) -> Chat:
    """Make another site, and a Keyturn with these settings that lets it chat."""
    return partial(chat_of, redis_url, upstream)
