"""What so many chats a day need: measured on this machine, and reckoned from there.

    make grow                                  measure, and print all tables
    make grow ARGS=--write                     write them into docs/grow.md and bench/grow.json, too
    python -m bench.grow --chats 1000000       reckon only, by what was written down
    python -m bench.grow --chats 50000 --turns 8 --tokens 400 --cost worker_chunk_us=80

Exit code 1 where the simulation did not foretell what was measured (`bench.validation`).
"""

import argparse
import os
import signal
import sys
from dataclasses import asdict, fields, replace
from typing import Final

import uvloop

from bench import grow_page, redis_cost, validation, worker_cost
from bench.grow_record import Record, here_and_now, load, save
from bench.growth import Costs, Demand, Plan, walls
from bench.peak import Waits, waits
from bench.peers import OTHERS_CORE
from bench.processes import pin
from bench.speed_stage import scene
from command import open_many_files

ASSUMED: Final = [each for each in fields(Demand) if each.name != "chats"]


def arguments(given: list[str]) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="make grow", description="What so many chats need.")
    parser.add_argument("--write", action="store_true", help="into docs/grow.md")
    parser.add_argument("--calls", type=int, default=4000, help="of each kind, to Redis")
    parser.add_argument("--streams", type=int, default=1500, help="open at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="of one measure")
    parser.add_argument("--seed", type=int, default=1, help="of when people come")
    parser.add_argument("--chats", type=float, nargs="+", help="a day: reckon, measure nothing")
    for each in ASSUMED:
        told = f"--{each.name.replace('_', '-')}"
        parser.add_argument(told, type=type(each.default), default=each.default)
    parser.add_argument("--cost", action="append", default=[], metavar="NAME=NUMBER", type=_cost)
    return parser.parse_args(given)


def _cost(said: str) -> tuple[str, float]:
    name, _, number = said.partition("=")
    if name not in {each.name for each in fields(Costs)}:
        raise argparse.ArgumentTypeError(f"one of {', '.join(each.name for each in fields(Costs))}")
    return name, float(number)


def say(text: str) -> None:
    """Tell whoever waits."""
    print(text, file=sys.stderr, flush=True)


async def measured(asked: argparse.Namespace) -> Record:
    """Everything, from Redis alone to the simulation."""
    taken = here_and_now()
    say("Redis")
    alone = await redis_cost.measure(asked.calls)
    replicated = await redis_cost.measure(asked.calls, replicas=1)
    pin([os.getpid()], OTHERS_CORE)
    with scene() as place:
        say("a worker")
        worker = await worker_cost.measure(place, asked.rounds, asked.seconds, asked.streams)
        say("one worker and two, foretold and measured")
        found = await validation.measure(place, 1.5 * asked.seconds, asked.seed)
    say("the busiest minutes, simulated")
    record = Record(taken, alone, replicated, worker, found, {})
    return replace(record, waits=dict(_simulated(record.costs, asked.seed)))


def _simulated(costs: Costs, seed: int) -> list[tuple[str, Waits]]:
    plans = [Plan(costs, Demand(chats)) for chats in grow_page.SCALES]
    return [(f"{plan.demand.chats:.0f}", waits(plan, seed)) for plan in plans]


def reckoned(costs: Costs, demands: list[Demand], seed: int) -> str:
    """The tables for these demands."""
    plans = [Plan(costs, demand) for demand in demands]
    found = {f"{plan.demand.chats:.0f}": waits(plan, seed) for plan in plans}
    needed = grow_page.turned(grow_page.plan_rows(plans, found), "Chats a day")
    full = grow_page.table(grow_page.wall_rows(walls(costs, demands[0])), "Chats a day")
    return f"{needed}\n\n{full}"


def main(given: list[str]) -> int:
    """Measure or reckon, and tell."""
    asked = arguments(given)
    if asked.chats:
        assumed = {each.name: getattr(asked, each.name) for each in ASSUMED}
        costs = Costs(**{**asdict(load().costs), **dict(asked.cost)})
        print(reckoned(costs, [Demand(chats, **assumed) for chats in asked.chats], asked.seed))
        return 0
    open_many_files()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop what was started
    record = uvloop.run(measured(asked))
    found = grow_page.parts(record)
    print("\n\n".join(found.values()))
    if asked.write:
        save(record)
        grow_page.write(found)
    return int(not all(each.kept for each in record.validation))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
