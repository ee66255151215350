"""The operator's page in each of its states, by day and by night, on a desk and a phone.

Each run takes a picture of all of them, for eyes: into the folder that KEYTURN_PICTURES names,
else into one of pytest's (`--basetemp`). Two of them stand in docs/pictures.
"""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.browser.admin_stage import Desk, desk_at, desk_of
from tests.browser.page_stage import NEEDS_CHROMIUM
from tests.browser.sight import NEEDS_AXE, violations
from tests.browser.states import VIEWS
from tests.browser.test_page_states import SIDEWAYS
from tests.history_stage import NAMES, fill_day
from tests.operator_stage import settings_for
from tests.stage import ROOT, Upstream, serving

pytestmark = [NEEDS_CHROMIUM, NEEDS_AXE, pytest.mark.asyncio(loop_scope="module")]


async def with_a_day(desk: Desk) -> None:
    """A day of history, all of it shown."""
    await desk.page.get_by_label("24 hours").check()
    await expect(desk.part("step")).to_contain_text("15 minutes")


async def paused(desk: Desk) -> None:
    """Paused, with a cap of the day that was set here, and a visitor who is blocked."""
    await desk.part("cap").fill("8.00")
    await desk.part("cap").press("Enter")
    await expect(desk.part("status")).to_contain_text("8.00 USD")
    await desk.part("visitors").get_by_role("button", name=f"Block {NAMES[1]}").click()
    await expect(desk.part("blocked")).to_contain_text(NAMES[1])
    await desk.part("pause").click()
    await expect(desk.part("admissions")).to_have_text("Paused")


async def with_tables(desk: Desk) -> None:
    """Plots as tables."""
    for summary in await desk.page.locator("summary:visible").all():
        await summary.click()


STATES: dict[str, Callable[[Desk], Awaitable[None]]] = {
    "day": with_a_day,
    "paused": paused,
    "tables": with_tables,
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", [*STATES, "empty", "login"])
async def test_everybody_can_use_it(
    browser: Browser,
    redis_url: str,
    upstream: Upstream,
    tmp_path: Path,
    state: str,
    scheme: str,
    view: str,
) -> None:
    """All rules of axe-core hold, nothing lies beside the window, and nothing is amiss."""
    shown: Any = {**VIEWS[view], "color_scheme": scheme}
    settings = settings_for(redis_url, upstream)
    pictures = Path(os.environ.get("KEYTURN_PICTURES") or tmp_path)
    picture = pictures / f"admin-{view}-{scheme}-{state}.png"
    if state in STATES:
        fill_day(redis_url)
    if state == "login":
        async with serving(settings) as server, desk_at(browser, server.url, **shown) as desk:
            await require_usable(desk, picture)
        return
    async with desk_of(browser, settings, **shown) as (desk, _):
        if state in STATES:
            await STATES[state](desk)
        await require_usable(desk, picture)


LARGEST = 150_000  # bytes


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("operator.png", {"viewport": {"width": 1000, "height": 900}}),
        ("operator-phone.png", {**VIEWS["phone"], "color_scheme": "dark"}),
    ],
)
async def test_the_docs_show_it(
    browser: Browser, redis_url: str, upstream: Upstream, tmp_path: Path, name: str, view: Any
) -> None:
    """Two small pictures; KEYTURN_PICTURES=docs/pictures takes them anew."""
    fill_day(redis_url)
    async with desk_of(browser, settings_for(redis_url, upstream), **view) as (desk, _):
        await with_a_day(desk)
        await expect(desk.part("visitors").get_by_role("table")).to_be_visible()
        await desk.page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
        pictures = Path(os.environ.get("KEYTURN_PICTURES") or tmp_path)
        taken = await desk.page.screenshot(path=pictures / name)
    shown = ROOT / "docs" / "pictures" / name
    assert f"(pictures/{name})" in (ROOT / "docs" / "operate.md").read_text()
    assert max(len(taken), shown.stat().st_size) < LARGEST


async def require_usable(desk: Desk, picture: Path) -> None:
    """Look at the page as it stands."""
    taken = await desk.page.screenshot(path=picture, full_page=True)
    assert await violations(desk.page) == []
    assert await desk.page.evaluate(SIDEWAYS) == 0
    assert desk.faults == []
    assert taken.startswith(b"\x89PNG")
