"""The pages about deployment: found from one, true in their links, open about what was tried."""

import re
from pathlib import Path

import pytest

from tests.stage import ROOT

PAGES = sorted((ROOT / "docs" / "deploy").glob("*.md"))
OVERVIEW = ROOT / "docs" / "deploy.md"
ANCHOR = re.compile(r"[^a-z0-9 -]")


def anchors(text: str) -> set[str]:
    """The names under which a page's headings can be linked to."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {ANCHOR.sub("", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", [OVERVIEW, *PAGES], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Each relative link is a file that is there, and its anchor a heading in it."""
    links = re.findall(r"\]\((?!https?:)([^)]*)\)", page.read_text())
    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_the_overview_leads_to_every_page() -> None:
    """Whoever reads docs/deploy.md finds them all."""
    text = OVERVIEW.read_text()
    assert [page.name for page in PAGES if f"(deploy/{page.name})" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_page_says_in_the_end_what_was_tried(page: Path) -> None:
    """Its last paragraph is that one."""
    assert page.read_text().rstrip().split("\n\n")[-1].startswith("**Tried**")
