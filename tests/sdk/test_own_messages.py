"""The AI SDK sends its own messages back whole where it knows that nothing is stored."""

import pytest
from playwright.async_api import Page

from tests.browser.page_stage import NEEDS_CHROMIUM
from tests.sdk.bundles import NEEDS_SDKS
from tests.stage import PATIENT, Upstream, serving, settings_with

pytestmark = [NEEDS_CHROMIUM, NEEDS_SDKS, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize(
    ("store", "said", "turns"), [(False, "two two two ", 2), (None, "unsupported_parameter", 1)]
)
async def test_messages_go_back_whole_where_nothing_is_stored(
    drivers: Page, redis_url: str, upstream: Upstream, store: bool | None, said: str, turns: int
) -> None:
    """Told so it chats on; untold, which is the control, it refers to what nobody stored."""
    urls = {"openai_base_url": upstream.url, "allowed_origins": drivers.url.rstrip("/")}
    async with serving(settings_with(redis_url=redis_url, **urls, **PATIENT)) as server:
        call = "(argument) => sdks.ownMessages(argument)"
        assert await drivers.evaluate(call, {"url": server.url, "store": store}) == said
    books = await upstream.books()
    assert len(books) == turns
    if store is False:
        roles = [item["role"] for item in books[-1]["body"]["input"]]
        assert roles == ["user", "assistant", "user"]
