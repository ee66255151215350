"""What Keyturn costs, beside others that stand between the same two ends. `make bench` runs this.

Rounds are interleaved: in each, every peer is measured once, in turns forwards and backwards, so
that a machine that is slow for a while is slow for all; CPU in slices of a round, since such a
while may be of seconds. It says what was measured on, what was found, and which promises are kept;
exit code 0 when all that were measured are, 1 when not. `--peers` installs the proxies of others
into `.peers/`. `--write` puts what was found into `docs/proof.md`, with a drawing beside it.
"""

import argparse
import asyncio
import os
import resource
import signal
import sys
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

import uvloop

from bench import measures, proof
from bench.findings import Findings, judged
from bench.install import install_peers
from bench.measures import Broken, Numbers
from bench.peers import OTHERS_CORE, PEERS, NotStarted, Peer, Served, serving
from bench.processes import pin
from bench.speed_stage import Scene, scene
from command import open_many_files

GROUPS: Final = ("cpu", "latency", "streams", "deaf", "start", "redis")
STARTS: Final = 3
SLICES: Final = 4  # of a round of CPU
LIMIT: Final = 240.0  # seconds for one measure of one peer


@dataclass
class Run:
    """One run: what it was asked for, and what it has found."""

    scene: Scene
    peers: list[Peer]
    asked: argparse.Namespace
    findings: Findings = field(default_factory=Findings)

    async def note(self, peer: str, round_: int, work: Awaitable[Numbers]) -> None:
        """Measure, and keep the numbers or say why there are none."""
        try:
            async with asyncio.timeout(LIMIT):
                found = await work
        except (Broken, NotStarted, TimeoutError, OSError, ExceptionGroup) as failure:
            reason = str(failure).strip().splitlines()
            why = f"{type(failure).__name__} {reason[-1] if reason else ''}".strip()
            self.findings.failures.append(f"{peer}: {why}")
            return say(f"  {peer}: {why}")
        self.findings.add(peer, round_, found)
        told = ", ".join(f"{name} {value:,.2f}" for name, value in found.items())
        return say(f"  {peer}: {told}")


def say(text: str) -> None:
    """Tell whoever waits."""
    print(text, file=sys.stderr, flush=True)


async def in_rounds(run: Run) -> None:
    """CPU and latency, with all peers up at once and each measured alone."""
    wanted = {"cpu", "latency"} & set(run.asked.only)
    if not wanted:
        return
    async with AsyncExitStack() as stack:
        served = await _all_served(run, stack)
        for round_ in range(run.asked.rounds):
            say(f"round {round_ + 1} of {run.asked.rounds}")
            order = served if round_ % 2 == 0 else dict(reversed(served.items()))
            if "cpu" in wanted:
                await _cpu(run, order, round_)
            if "latency" in wanted:
                await _latency(run, order, round_)


async def _cpu(run: Run, order: dict[str, Served], round_: int) -> None:
    for measure in measures.CPU:
        for part in range(SLICES):
            for name, peer in order.items():
                work = measures.cpu(peer, measure, run.asked.seconds / SLICES)
                await run.note(name, round_ * SLICES + part, work)


async def _all_served(run: Run, stack: AsyncExitStack) -> dict[str, Served]:
    served = {"direct": run.scene.direct}
    for peer in run.peers:
        try:
            served[peer.name] = await stack.enter_async_context(serving(peer, run.scene.place))
        except (NotStarted, OSError) as failure:
            run.findings.failures.append(f"{peer.name}: it did not start")
            say(f"{peer.name} did not start: {failure}")
    return served


async def _latency(run: Run, order: dict[str, Served], round_: int) -> None:
    rates = {peer.name: peer.rate for peer in run.peers}
    seconds, seed = 4 * run.asked.seconds, run.asked.seed + round_
    plain = max(rates.values(), default=40.0)
    try:
        direct = await measures.latency(order["direct"], plain, seconds, seed)
    except Broken as failure:
        run.findings.failures.append(f"waiting, round {round_ + 1}: {failure}")
        return

    async def of(name: str) -> Numbers:
        if name == "direct":
            return {"chunk_p99_ms": measures.percentile(direct.chunk_ms, 99)}
        found = await measures.latency(order[name], rates[name], seconds, seed)
        return measures.added(found, direct)

    for name in order:
        await run.note(name, round_, of(name))


async def alone(run: Run) -> None:
    """What needs a fresh process: start-up, open streams, deaf clients, calls to Redis."""
    asked, place = run.asked, run.scene.place
    keyturn = [peer for peer in run.peers if peer.name == "keyturn"]
    if "start" in asked.only:
        for round_ in range(min(STARTS, asked.rounds)):
            say(f"start {round_ + 1}")
            for peer in run.peers:
                await run.note(peer.name, round_, measures.start(peer, place))
    if "redis" in asked.only:
        say("redis")
        for peer in (each for each in run.peers if each.name in ("keyturn", "naive")):
            await run.note(peer.name, 0, _redis(run, peer))
    if "streams" in asked.only:
        counts = asked.streams * 2 // 5, asked.streams
        say(f"{counts[1]} streams")
        for each in (None, *run.peers):
            work = measures.streams(each, run.scene, counts, 5 * asked.seconds)
            await run.note(each.name if each else "direct", 0, work)
    if "deaf" in asked.only:
        say(f"{asked.deaf} clients that read nothing")
        for peer in keyturn:
            await run.note(peer.name, 0, measures.deaf(peer, run.scene, asked.deaf))


async def _redis(run: Run, peer: Peer) -> Numbers:
    async with serving(peer, run.scene.place) as served:
        return await measures.redis_commands(served, run.scene.place, 20)


def arguments(given: list[str]) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure beside others.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of one measure of CPU")
    parser.add_argument("--streams", type=int, default=5000, help="open at once")
    parser.add_argument("--deaf", type=int, default=500, help="clients that read nothing")
    parser.add_argument("--seed", type=int, default=1, help="of when people come")
    parser.add_argument("--only", action="append", choices=GROUPS, help="may be said again")
    names = [peer.name for peer in PEERS]
    parser.add_argument("--peer", action="append", choices=names, help="may be said again")
    parser.add_argument("--peers", action="store_true", help="install the proxies of others")
    parser.add_argument("--write", action="store_true", help="into docs/proof.md")
    asked = parser.parse_args(given)
    asked.only = asked.only or list(GROUPS)
    return asked


async def measured(asked: argparse.Namespace) -> Findings:
    """Everything that is asked for, from the start of both ends to their end."""
    wanted = [each for each in PEERS if not asked.peer or each.name in asked.peer]
    missing = [each.name for each in wanted if not each.there()]
    if missing:
        say(f"not here, so left out (--peers gets them): {', '.join(missing)}")
    with scene() as place:
        run = Run(place, [each for each in wanted if each.there()], asked)
        await in_rounds(run)
        await alone(run)
    return run.findings


def main(given: list[str]) -> int:
    """Measure, tell, and judge."""
    asked = arguments(given)
    if asked.peers:
        install_peers()
    open_many_files()
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if "streams" in asked.only and files < 2 * asked.streams + 500:
        say(f"only {files:,} files may be open: not every peer can have {asked.streams:,} streams")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop what was started
    pin([os.getpid()], OTHERS_CORE)
    findings = uvloop.run(measured(asked))
    text = proof.bench_section(findings, asked)
    print(text)
    if asked.write:
        proof.write("bench", text)
        proof.draw(findings)
    return int(not all(kept for _, _, kept in judged(findings)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
