"""The table of `make faults`: what was measured, beside its line and its control."""

import json
import os
from pathlib import Path

import pytest

from bench import proof
from bench.faults import keeps, noted, section, table, together
from tests.faults.figures import (
    CLOSED,
    DRAINED,
    FULL,
    LINES,
    LOST_REPLY,
    NAME,
    REPLAYED,
    Figure,
    Figures,
    as_many,
)


def test_what_a_test_notes_is_read_from_the_report() -> None:
    """As pytest writes it, with signs that XML takes for its own."""
    said: list[tuple[str, object]] = []
    Figures(lambda *pair: said.append(pair)).note(REPLAYED, 3, of=500, control=True)
    ((name, value),) = said
    quoted = str(value).replace('"', "&quot;")
    report = f'<r><property name="{name}" value="{quoted}"/><property name="x" value="y"/></r>'
    assert list(noted(report)) == [Figure(REPLAYED, 3, 500, control=True)]
    assert (name, json.loads(str(value))[0]) == (NAME, REPLAYED)


def test_counts_are_summed_and_of_times_the_worst_stands() -> None:
    """Over all tests that noted one."""
    counts = [Figure(REPLAYED, found, 50, control=False) for found in (1, 0, 2)]
    assert together(counts) == Figure(REPLAYED, 3, 150, control=False)
    times = [Figure(CLOSED, found, None, control=False) for found in (0.1, 0.4, 0.2)]
    assert together(times) == Figure(CLOSED, 0.4, None, control=False)
    assert together([]) is None


@pytest.mark.parametrize(
    ("name", "found", "of", "kept"),
    [
        (REPLAYED, 0, 5000, True),
        (REPLAYED, 1, 5000, False),
        (DRAINED, 50, 50, True),
        (DRAINED, 49, 50, False),
        (CLOSED, 0.5, None, True),
        (CLOSED, 0.51, None, False),
        (LOST_REPLY, 2, None, False),
    ],
)
def test_a_line_is_kept_or_crossed(name: str, found: float, of: int | None, kept: bool) -> None:
    """And the table says so, with what would be without."""
    figure, control = Figure(name, found, of, control=False), Figure(name, 9, 9, control=True)
    assert keeps(figure) is kept
    row = next(line for line in table([figure, control]) if line.startswith(f"| {name} |"))
    assert row.endswith("| 9 of 9 | kept |" if kept else "| 9 of 9 | CROSSED |")


def test_what_was_not_measured_is_named() -> None:
    """So that a table of some tests does not pass for the whole one."""
    *_, last = table([Figure(CLOSED, 0.1, None, control=False)])
    assert last.startswith("not measured: ")
    assert CLOSED not in last
    assert all(name in last for name in LINES if name != CLOSED)


def test_the_section_says_on_what_it_was_measured(tmp_path: Path) -> None:
    """Date, versions and machine stand above the table, under a heading of its own."""
    figures = [Figure(name, 0, None, control=False) for name in LINES]
    text = section(figures, 300)
    for said in ("cores", "Python 3", "Redis ", "aiohttp ", "5 minutes", f"| {CLOSED} | 0 | ≤ 0.5"):
        assert said in text
    page = tmp_path / "proof.md"
    page.write_text("# Proof\n\n## Under load\n\nBefore.\n")
    for told in (text, text.replace("5 minutes", "6 minutes")):
        proof.write("faults", told, page, heading=proof.FAULTS_HEADING)
    found = page.read_text()
    assert found.startswith("# Proof\n\n## Under load\n\nBefore.\n\n## Under faults\n")
    assert "5 minutes" not in found
    assert found.count("6 minutes") == 1


def test_many_only_where_figures_are_told() -> None:
    """The same tests are a short version among all others."""
    assert as_many(2, 9) == (9 if FULL in os.environ else 2)
