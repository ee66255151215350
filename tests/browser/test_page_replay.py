"""The wire's replay button in a real Chromium: a spent token, really shown again."""

import pytest
import redis
from playwright.async_api import Locator, expect

from tests.browser.page_stage import NEEDS_CHROMIUM, Browse, Window
from tests.browser.wire_cards import turn
from tests.stage import Upstream

pytestmark = [NEEDS_CHROMIUM, pytest.mark.asyncio(loop_scope="module")]

DESKTOP = {"viewport": {"width": 1440, "height": 900}}
AN_HOUR_AHEAD = "const now = Date.now; Date.now = () => now() + 3_600_000;"


async def replayed(window: Window, number: int) -> Locator:
    """What came of showing that turn's token again."""
    card = await turn(window, number)
    await card.get_by_role("button", name="Replay this token").click()
    await expect(card.locator(".result p")).to_have_count(2)
    return card.locator(".result")


async def test_a_token_replayed_at_once_is_refused(browse: Browse, upstream: Upstream) -> None:
    """Within the grace: really sent, really refused, and the chain goes on."""
    async with browse(view=DESKTOP) as window:
        await window.part("wire-toggle").click()
        await window.chat("first")
        await expect(window.page.locator(".replay")).to_have_count(0)
        await window.chat("second")
        result = await replayed(window, 2)
        await expect(result).to_contain_text("401 token_reused")
        await expect(result).to_contain_text("The chain is kept")
        once, again = window.turns[1:]
        assert (await once.all_headers())["authorization"] == (await again.all_headers())[
            "authorization"
        ]
        await window.chat("third")
        assert len(window.turns) == 4
        assert window.faults == []
    assert len(await upstream.books()) == 3, "nothing was spent for it"


async def test_a_token_replayed_later_revokes_the_chain(
    browse: Browse, upstream: Upstream, redis_url: str
) -> None:
    """As for a stolen one, and the page says so; the next turn begins a new chain by itself."""
    async with browse(reuse_grace=0) as window:
        await window.part("wire-toggle").click()
        await window.chat("first")
        await window.chat("second")
        result = await replayed(window, 2)
        await expect(result).to_contain_text("401 token_reused")
        await expect(result).to_contain_text("revoked, as for a stolen token")
        await expect(result).to_contain_text("begins a new chain by itself")
        await window.chat("third")
        attempts = (await turn(window, 3)).locator(".attempts")
        await expect(attempts).to_contain_text("401 chain_revoked")
        await expect(attempts).to_contain_text("new chain begun")
        with redis.Redis.from_url(redis_url) as operator:
            states = [operator.hget(key, "state") for key in operator.keys("*:chain:*")]
        assert sorted(map(str, states)) == ["b'open'", "b'revoked'"]
        assert window.faults == []
    assert len(await upstream.books()) == 3


async def test_a_replay_is_fresh_on_a_wrong_clock(browse: Browse) -> None:
    """It shows the corrected time, as the module does, so that the token is what is refused."""
    async with browse() as window:
        await window.page.add_init_script(AN_HOUR_AHEAD)
        await window.open()
        await window.part("wire-toggle").click()
        await window.chat("first")
        await window.chat("second")
        await expect(await replayed(window, 2)).to_contain_text("401 token_reused")
