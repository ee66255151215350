"""SECURITY.md shows what it says: each attack names what can be run, and that exists."""

import re

from attacks.headings import HEADINGS
from tests.stage import ROOT

PAGE = (ROOT / "SECURITY.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("## Attack by attack")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith(("| Attack", "| ---"))
]


def test_each_attack_says_what_shows_it_and_what_remains() -> None:
    """Four cells, none empty; a heading of `make attack` or a test that is there, or both."""
    assert len(ROWS) > 20
    for row in ROWS:
        assert len(row) == 4, row
        assert all(row), row
        assert re.search(r"\*[^*]+\*|`tests/", row[2]), row


def test_every_heading_is_named_once() -> None:
    """Those of `make attack`, and no other."""
    named = [heading for row in ROWS for heading in re.findall(r"\*([^*]+)\*", row[2])]
    assert sorted(named) == sorted(HEADINGS)


def test_what_it_points_to_is_there() -> None:
    """Tests and pages, by their paths."""
    paths = re.findall(r"`((?:tests|docs)/[^`]+)`", PAGE) + re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_nobody_is_made_up() -> None:
    """Reports go where the repository is; no address or name stands for a person."""
    assert not re.search(r"\S+@\S+\.\S+|https?://", PAGE)
