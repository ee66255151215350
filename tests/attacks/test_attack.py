"""Every case of `make attack`, and its controls: a test for each heading."""

import asyncio
from collections.abc import Iterator

import pytest

from attacks.board import Board
from attacks.headings import HEADINGS, cases
from attacks.run import Run
from attacks.stage import Stage, stage

LEAST = 150


@pytest.fixture(scope="module")
def place() -> Iterator[Stage]:
    """What is attacked, started once."""
    with stage() as place:
        yield place


@pytest.mark.timeout(300)  # the first one starts everything; a busy machine takes its time
@pytest.mark.parametrize("heading", HEADINGS)
def test_all_is_as_expected(place: Stage, heading: str) -> None:
    """Each attack is told what it should be and does no harm; the controls do theirs."""
    board, run = Board(), Run(place)
    table = [case for case in cases() if case.heading == heading]
    told = asyncio.run(run.heading(board, table))
    assert board.well, told


def test_the_table_is_as_long_as_is_said() -> None:
    """At least 150 cases, each named once in its heading, and a control in every heading."""
    table = list(cases())
    assert len(table) >= LEAST
    names = [(case.heading, case.name) for case in table]
    assert len(set(names)) == len(names)
    assert {case.heading for case in table if case.control} == set(HEADINGS)
