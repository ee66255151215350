"""What clients that go wrong leave in the log of a real server: one line of JSON each."""

import asyncio
import contextlib
import json
import signal
from pathlib import Path

from tests.command_stage import server_py
from tests.faults.test_drain import environment, exit_code, in_flight
from tests.protocol_stage import connect
from tests.stage import Upstream, eventually, visiting
from tests.upstream import play
from tests.wire import deaf, port_of, raw_turn

STARTING = "WARNING keyturn the store may forget today's money"  # that of the tests does
CROWD = 30
FLOOD = play(words=1_000_000, text="x" * 1000)
TRICKLE = play(words=1000, gap_ms=20)
SILENT = play(silent=True)


async def test_clients_that_go_wrong_are_one_line_each(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Hang-ups in every stage and one that never reads: no traceback, no words of the server's."""
    with server_py(tmp_path / "kt", **environment(redis_url, upstream.url)) as running:
        port = port_of(running.url)
        async with visiting(running.url) as visitor:
            turns = [
                raw_turn(visitor, visitor.body(content, stream=stream))
                for content in (FLOOD, TRICKLE, SILENT, "short")
                for stream in (True, False)
            ]
            with deaf(port, turns[0]):
                for number in range(CROWD * len(turns)):
                    await hang_up(port, turns[number % len(turns)], number)
                await eventually(lambda: none_in_flight(redis_url), 25)
        running.process.send_signal(signal.SIGTERM)
        assert await exit_code(running, 5) == 0
    lines = running.err.read_text().splitlines()
    assert STARTING in lines.pop(0)
    assert [line for line in lines if not line.startswith("{")] == []
    said = [json.loads(line)["code"] for line in lines]
    assert {*said} <= {"ok", "gone", "slow_reader"}
    assert said.count("slow_reader") == 1
    assert said.count("gone") > CROWD


async def hang_up(port: int, request: bytes, number: int) -> None:
    """Leave after a while of one's own: before, in and after the answer."""
    async with connect(port) as client:
        await client.send(request[: len(request) - (number % 5 == 0)])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01 * (number % 7)):
                await client.reader.read(1 + 5000 * (number % 3))


async def none_in_flight(redis_url: str) -> bool:
    """Whether every turn was settled."""
    return not in_flight(redis_url)
