"""What can be seen of a page: colours, contrasts, and what axe-core finds amiss for anybody."""

import re
from typing import Any, Final

import pytest
from playwright.async_api import Page

from tests.stage import ROOT

AXE: Final = ROOT / "tests" / "sdk" / "node_modules" / "axe-core" / "axe.min.js"
NEEDS_AXE: Final = pytest.mark.skipif(
    not AXE.exists(), reason="axe-core is not there: apt-get install npm && make sdks"
)


async def violations(page: Page) -> list[tuple[str, Any]]:
    """The rules of axe-core that the page breaks as it stands, with where; all rules but drafts."""
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("() => axe.run()")
    return [
        (broken["id"], [node["target"] for node in broken["nodes"]])
        for broken in found["violations"]
    ]


def contrast(one: str, other: str) -> float:
    """The contrast of two CSS colours (WCAG 2.2, 1.4.3): from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """The relative luminance of an opaque CSS colour as browsers compute it, `rgb(r, g, b)`."""
    channels = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert channels, f"{colour} is not opaque"
    shares = (int(channel) / 255 for channel in channels.groups())
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


# Every text that can be seen: itself, its colour, and the nearest ground that is not transparent.
SEEN_TEXTS: Final = """() => {
  const ground = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return colour === 'rgba(0, 0, 0, 0)' ? ground(element.parentElement) : colour;
  };
  const seen = [...document.body.querySelectorAll('*')].filter((e) => e.checkVisibility());
  const texts = seen.filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((e) => [e.textContent.trim(), getComputedStyle(e).color, ground(e)]);
  const fields = seen.filter((e) => e.matches('input, textarea'));
  return texts
    .concat(fields.map((e) => [`in ${e.id}`, getComputedStyle(e).color, ground(e)]))
    .concat(fields.map((e) => [`hint in ${e.id}`,
      getComputedStyle(e, '::placeholder').color, ground(e)]));
}"""
