"""The tables of cases, a file for each heading, in the order of the scoreboard."""

from collections.abc import Iterator
from typing import Final

from attacks.case import Case
from attacks.headings import races, replay, tokens
from attacks.run import named

HEADINGS: Final = {
    "replay": replay.CASES,
    "races": races.CASES,
    "tokens": tokens.CASES,
}


def cases(only: str = "") -> Iterator[Case]:
    """Every case whose heading or name holds the word."""
    for heading, table in HEADINGS.items():
        for case in named(heading, table):
            if only in heading or only in f"{heading}: {case.name}":
                yield case
