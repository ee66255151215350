"""The demo page in each of its states: how a window is brought there."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from playwright.async_api import expect

from tests.browser.page_stage import OWN_KEY, Window
from tests.upstream import play

RICH: Final = """# Three ways to brew coffee

Each has its **charm**, and *each* its `own` pot. See [notes](https://example.org) or ~~guess~~.

## Compared

| Way | Minutes | Grind | Taste | Good for |
| --- | ---: | :---: | --- | --- |
| French press | 4 | coarse | full, a little muddy | slow mornings |
| Pour over | 3 | medium | clear and bright | tasting |

#### In code

```python
def strength(grams: float, water: float) -> float:
    \"\"\"The share of coffee in the cup, which is what most of us mean by strong.\"\"\"
    return grams / water
```

1. Boil the water
2. Grind the beans
   - coarse for the press
   - fine for espresso

- [x] buy beans
- [ ] clean the grinder

> A cup of coffee is a letter that you write to yourself.

Markup stays text: <b>bold</b>. ![A cup](https://example.org/cup.png)
"""


async def at_rest(_: Window) -> None:
    """Nothing said yet."""


async def with_answer(window: Window) -> None:
    """Every kind of Markdown."""
    await window.chat("How do I brew coffee?")
    await window.chat(play(text=RICH, words=1))


async def with_wire(window: Window) -> None:
    """The wire open, with a turn whose token was replayed."""
    await window.chat("How do I brew coffee?")
    await window.chat("And tea?")
    await window.part("wire-toggle").click()
    await window.page.locator(".replay").first.click()
    await expect(window.page.locator(".result p").last).to_contain_text("The chain is kept")


async def with_lines(window: Window) -> None:
    """The wire open at the lines for other pages."""
    await window.part("wire-toggle").click()
    await window.page.get_by_text("The lines your page needs").click()


async def without_money(window: Window) -> None:
    """The budget is gone, and an own key is asked for."""
    await window.chat("How do I brew coffee?")
    await window.ask(play(prompt=10_000_000))
    await expect(window.part("status")).to_be_empty()
    await window.ask("And tea?")
    await expect(window.part("key")).to_be_focused()


async def with_own_key_asked(window: Window) -> None:
    """The form for an own key, with a mistake in it."""
    await window.part("own-key-toggle").click()
    await window.give("no key")


async def with_own_key(window: Window) -> None:
    """An own key in use."""
    await window.part("own-key-toggle").click()
    await window.give(OWN_KEY)
    await window.chat("How do I brew coffee?")


async def with_edit(window: Window) -> None:
    """An earlier message being changed."""
    await window.chat("How do I brew coffee?")
    await window.action("Edit", of=0).click()


async def with_excess(window: Window) -> None:
    """A message that is too long, and said to be."""
    await window.ask("too long " * 1200)
    await expect(window.part("status")).to_contain_text("too long")


async def answering(window: Window) -> None:
    """An answer under way."""
    await window.ask(play(text="One moment: ", hang_after=1))
    await expect(window.page.locator(".text").last).to_have_text("One moment:")


STATES: Final[dict[str, Callable[[Window], Awaitable[None]]]] = {
    "empty": at_rest,
    "chat": with_answer,
    "wire": with_wire,
    "lines": with_lines,
    "budget-gone": without_money,
    "own-key-asked": with_own_key_asked,
    "own-key": with_own_key,
    "edit": with_edit,
    "excess": with_excess,
    "answering": answering,
}
VIEWS: Final[dict[str, dict[str, Any]]] = {
    "desktop": {"viewport": {"width": 1440, "height": 900}},
    "phone": {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True},
}
