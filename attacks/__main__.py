"""`make attack`: every attack on a live Keyturn, and the scoreboard.

Exit code 0 when all is as expected and every control falls, 1 when not. `--only WORD …` takes the
headings and cases that hold one of the words, `--list` prints the table of the cases and runs
nothing, `--peers` sends what makes sense without our headers to two other gateways as well.
"""

import argparse
import asyncio
import sys
import time

from attacks.board import Board, SideBySide
from attacks.case import Case
from attacks.headings import cases
from attacks.peers import UNCLAIMED, Peer, peers
from attacks.run import Run
from attacks.stage import stage


def main(arguments: list[str]) -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="make attack", description="Attack a live Keyturn.")
    parser.add_argument("--only", nargs="+", default=(), metavar="WORD", help="of these names")
    parser.add_argument("--peers", action="store_true", help="two other gateways beside us")
    parser.add_argument("--list", action="store_true", help="print the cases, run nothing")
    said = parser.parse_args(arguments)
    chosen, board, started = list(cases(*said.only)), Board(), time.monotonic()
    if said.list:
        print(board.listing(chosen))
        return 0
    if said.peers:
        return beside([case for case in chosen if case.peers])
    with stage(controls=any(case.control for case in chosen)) as place:
        asyncio.run(attack(Run(place), board, chosen))
    print(board.total(time.monotonic() - started))
    return int(not board.well)


async def attack(run: Run, board: Board, chosen: list[Case]) -> None:
    """Each heading in turn."""
    print(board.head(), flush=True)
    for heading in dict.fromkeys(case.heading for case in chosen):
        table = [case for case in chosen if case.heading == heading]
        print(await run.heading(board, table), flush=True)


def beside(chosen: list[Case]) -> int:
    """The cases that make sense without our headers, here and at two other gateways."""
    with stage(controls=False) as place, peers(place) as others:
        board = SideBySide([peer.name for peer in others])
        print(board.head(), flush=True)
        for heading in dict.fromkeys(case.heading for case in chosen):
            table = [case for case in chosen if case.heading == heading]
            print(asyncio.run(compare(Run(place), board, others, table)), flush=True)
    print(board.total())
    return int(not board.well)


async def compare(run: Run, board: SideBySide, others: list[Peer], table: list[Case]) -> str:
    """A heading at all three; what nobody claims is not asked."""
    ours = Board()
    await run.heading(ours, table)
    heading = table[0].heading
    asked = [] if heading in UNCLAIMED else table
    harms = [await run.all_at(peer.target, asked) for peer in others]
    return board.row(heading, ours.results, harms)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
