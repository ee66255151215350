"""The demo page in a real Chromium, in every state, by day and by night, on a desk and a phone.

Each run takes a picture of all of them, for eyes: into the folder that KEYTURN_PICTURES names,
else into one of pytest's (`--basetemp`).
"""

import os
from pathlib import Path

import pytest

from tests.browser.page_stage import NEEDS_CHROMIUM, Browse
from tests.browser.sight import NEEDS_AXE, violations
from tests.browser.states import STATES, VIEWS

pytestmark = [NEEDS_CHROMIUM, NEEDS_AXE, pytest.mark.asyncio(loop_scope="module")]

SIDEWAYS = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES)
async def test_everybody_can_use_it(
    browse: Browse, tmp_path: Path, state: str, scheme: str, view: str
) -> None:
    """All rules of axe-core hold, nothing lies beside the window, and nothing is amiss."""
    pictures = Path(os.environ.get("KEYTURN_PICTURES") or tmp_path)
    async with browse(view={**VIEWS[view], "color_scheme": scheme}) as window:
        await STATES[state](window)
        picture = await window.page.screenshot(path=pictures / f"{view}-{scheme}-{state}.png")
        assert await violations(window.page) == []
        assert await window.page.evaluate(SIDEWAYS) == 0
        assert window.faults == []
    assert picture.startswith(b"\x89PNG")


async def test_a_broken_rule_would_be_found(browse: Browse) -> None:
    """The control of every empty list of violations: a button without a name, a pale text."""
    async with browse() as window:
        await window.page.evaluate(
            """() => {
              document.querySelector('#transcript').append(document.createElement('button'));
              document.querySelector('.note').style.color = '#bbb';
            }"""
        )
        rules = [rule for rule, _ in await violations(window.page)]
    assert rules == ["button-name", "color-contrast"]
