"""The pages hang together: every link leads somewhere, and every page can be found."""

import os
import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.markdown import anchors, links, named, pages, slug
from tests.stage import ROOT

INDEX = ROOT / "docs" / "README.md"
PAGES = pages()


def faults(page: Path, text: str, root: Path = ROOT) -> list[str]:
    """Every link of a page that leads nowhere, with its line."""
    found = []
    for line, address in links(text):
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        target = page.parent / unquote(parts.path) if parts.path else page
        if target == page:
            here = text
        elif not target.exists() or not target.resolve().is_relative_to(root.resolve()):
            found.append(f"{line}: there is no {address}")
            continue
        else:
            here = target.read_text() if target.suffix == ".md" else ""
        name = unquote(parts.fragment)
        if name and target.suffix == ".md" and name not in anchors(here):
            found.append(f"{line}: no heading there is named by {address}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file that is there, under a heading that is there."""
    assert faults(page, page.read_text()) == []


def test_every_page_of_the_docs_can_be_found() -> None:
    """Each is linked from the index, or from a page that is."""
    found, fresh = set[Path](), [INDEX]
    while fresh:
        page = fresh.pop().resolve()
        if page in found:
            continue
        found.add(page)
        for _, address in links(page.read_text()):
            target = page.parent / urlsplit(address).path
            if not urlsplit(address).scheme and target.suffix == ".md" and target.exists():
                fresh.append(target)
    ours = {page for page in PAGES if page.is_relative_to(INDEX.parent)}
    assert {named(page) for page in ours - found} == set()


def test_the_index_names_every_page_beside_it() -> None:
    """What is in a folder of its own is listed by the page above it."""
    here = {(INDEX.parent / urlsplit(address).path).resolve() for _, address in links(read(INDEX))}
    beside = {page for page in PAGES if page.parent == INDEX.parent and page != INDEX}
    assert {named(page) for page in beside - here} == set(), "add a line to docs/README.md"


def read(page: Path) -> str:
    """A page."""
    return page.read_text(encoding="utf-8")


def order() -> list[Path]:
    """The pages beside the index in its order, and the list of decisions."""
    there = ((INDEX.parent / urlsplit(address).path).resolve() for _, address in links(read(INDEX)))
    ours = (INDEX.parent, INDEX.parent / "adr")
    found = [page for page in there if page.suffix == ".md" and page.exists()]
    return list(dict.fromkeys(page for page in found if page.parent in ours))


def title(page: Path) -> str:
    """What a page calls itself."""
    return page.read_text().splitlines()[0].removeprefix("# ")


@pytest.mark.parametrize(("page", "after"), [*pairwise(order())], ids=named)
def test_every_page_ends_with_the_next(page: Path, after: Path) -> None:
    """So that all can be read one after the other, in the order of the index."""
    there = Path(os.path.relpath(after, page.parent)).as_posix()
    *_, last = page.read_text().rstrip().splitlines()
    assert last == f"Next: [{title(after)}]({there})"


def test_the_last_page_leads_back() -> None:
    """To the index."""
    *_, last = order()
    assert last.read_text().rstrip().endswith("Back to the [index](../README.md).")


def test_every_decision_is_listed_in_its_order() -> None:
    """docs/adr/README.md has a line for each, by its number and its title."""
    folder = ROOT / "docs" / "adr"
    listed = re.findall(r"^(\d+)\. \[(.+)\]\((.+)\)$", (folder / "README.md").read_text(), re.M)
    files = sorted(path for path in folder.glob("0*.md"))
    titles = [path.read_text().splitlines()[0].removeprefix("# ") for path in files]
    assert [f"{number}. {title}" for number, title, _ in listed] == titles
    assert [name for _, _, name in listed] == [path.name for path in files]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[a](here.md)", []),
        ("[a](gone.md)", ["1: there is no gone.md"]),
        ("[a](../../etc/passwd)", ["1: there is no ../../etc/passwd"]),
        ("\n[a](here.md#a-heading)", []),
        ("[a](here.md#none)", ["1: no heading there is named by here.md#none"]),
        ("# Two words\n[a](#two-words)", []),
        ("[a](#two-words)", ["1: no heading there is named by #two-words"]),
        ("![drawn](gone.svg)", ["1: there is no gone.svg"]),
        ("[`code` in it](gone.md)", ["1: there is no gone.md"]),
        ("[a]: gone.md", ["1: there is no gone.md"]),
        ("[a](https://example.org/gone.md) and `[b](gone.md)`", []),
        ("```text\n[a](gone.md)\n```", []),
    ],
)
def test_a_dead_link_would_be_found(tmp_path: Path, text: str, found: list[str]) -> None:
    """The control: made-up pages, each with one fault or none."""
    (tmp_path / "here.md").write_text("# Title\n## A heading\n")
    assert faults(tmp_path / "page.md", text, tmp_path) == found


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("What is full first", "what-is-full-first"),
        ("In the browser: client.js", "in-the-browser-clientjs"),
        ("`make run`, and more", "make-run-and-more"),
        ("Under [load](x.md) – now", "under-load--now"),
    ],
)
def test_headings_are_named_as_github_names_them(heading: str, name: str) -> None:
    """By which links into a page find them."""
    assert slug(heading) == name
    assert anchors(f"# {heading}\n\n## {heading}\n") == {name, f"{name}-1"}
