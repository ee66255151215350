"""The tables of cases, a file for each heading, in the order of the scoreboard."""

from collections.abc import Iterator
from typing import Final

from attacks.case import Case
from attacks.headings import (
    addresses,
    asked,
    bombs,
    doors,
    encodings,
    first_lines,
    floods,
    framing,
    heads,
    keys,
    leaks,
    money,
    origins,
    own_keys,
    races,
    replay,
    slow,
    stolen,
    theft,
    tokens,
    unicode,
    upstream,
    upstream_answers,
    upstream_streams,
)
from attacks.run import named

HEADINGS: Final = {
    "replay": replay.CASES,
    "races": races.CASES,
    "token surgery and spelling": tokens.CASES,
    "key confusion": keys.CASES,
    "forged and stolen tokens": stolen.CASES,
    "theft by a captured request": theft.CASES,
    "spoofed addresses": addresses.CASES,
    "start floods": floods.CASES,
    "Origin games": origins.CASES,
    "smuggling and framing": [*framing.CASES, *first_lines.CASES],
    "slow heads, bodies, readers": slow.CASES,
    "size and depth bombs": [*bombs.CASES, *heads.CASES],
    "encodings": encodings.CASES,
    "Unicode and prompts": unicode.CASES,
    "own keys and destinations": own_keys.CASES,
    "upstream misbehaves": [*upstream.CASES, *upstream_answers.CASES, *upstream_streams.CASES],
    "money": [*asked.CASES, *money.CASES],
    "doors that should not be": doors.CASES,
    "leaks": leaks.CASES,
}


def cases(*only: str) -> Iterator[Case]:
    """Every case whose heading or name holds one of the words; all of them for no word."""
    for heading, table in HEADINGS.items():
        for case in named(heading, table):
            if not only or any(word in f"{heading}: {case.name}" for word in only):
                yield case
