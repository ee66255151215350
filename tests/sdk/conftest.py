"""One browser and one bundle of everything for the tests of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.browser.page_stage import chromium
from tests.other_origin import other_origin
from tests.sdk.bundles import EXAMPLES, FOLDER, WITH_SDKS, bundle, ordinary
from tests.sdk.matrix import EXPECTED, SEEN, table


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all that was bundled, by its names: once, since it takes a second."""
    out = tmp_path_factory.mktemp("bundles")
    entries = {name: FOLDER / "drivers" / f"{name}.js" for name in ("index", "fingerprints")}
    for example in WITH_SDKS:
        entries[f"examples/{example}"] = EXAMPLES / f"{example}.js"
        entries[f"ordinary/{example}"] = out / f"{example}.js"
        entries[f"ordinary/{example}"].write_text(ordinary(example))
    bundle(out, entries)
    return out


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A real Chromium."""
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def drivers(browser: Browser, bundles: Path) -> AsyncIterator[Page]:
    """A page of an origin of its own, with every SDK in it."""
    (bundles / "index.html").write_text('<script type="module" src="index.js"></script>')
    async with other_origin(bundles) as origin:
        page = await browser.new_page()
        await page.goto(origin)
        await page.wait_for_function("globalThis.sdks")
        yield page


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table of what was seen, when all of it was."""
    seen = config.stash.get(SEEN, {})
    if seen.keys() == EXPECTED.keys():
        terminalreporter.section("SDKs that were tried")
        terminalreporter.write_line(table(seen))
