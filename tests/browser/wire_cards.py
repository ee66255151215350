"""The wire's cards: what it shows of each turn."""

from typing import Final

from playwright.async_api import Locator

from tests.browser.page_stage import Window

ALL: Final = ["Timestamp", "Fingerprint", "Body", "Address rate", "One-time token", "Budget"]
_VERDICTS: Final = """(card) => [...card.querySelectorAll('.checks li')].map((check) =>
  [check.querySelector('.name').textContent.replace(/^[0-9]. /, ''), check.dataset.verdict])"""
_OPENED: Final = "(card) => { card.open = true; }"


async def turn(window: Window, number: int) -> Locator:
    """The card of a turn, unfolded."""
    card = window.page.locator(f'.turn[data-number="{number}"]')
    await card.evaluate(_OPENED)
    return card


async def verdicts(window: Window, number: int) -> dict[str, str]:
    """What the checks of a turn are said to have found, in their order."""
    found: list[tuple[str, str]] = await (await turn(window, number)).evaluate(_VERDICTS)
    assert [name for name, _ in found] == ALL
    return dict(found)


def until(refused: str) -> dict[str, str]:
    """All passed before this one, which refused; none after was reached."""
    at = ALL.index(refused)
    words = ["passed"] * at + ["refused"] + ["not reached"] * (len(ALL) - at - 1)
    return dict(zip(ALL, words, strict=True))
