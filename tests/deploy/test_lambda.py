"""What Lambda does to a server, as far as it can be done without Lambda: to freeze and thaw it."""

import os
import re
import signal
from pathlib import Path

import redis

from tests.command_stage import server_py
from tests.deploy.test_manifests import ENVIRONMENTS
from tests.faults.test_drain import environment, in_flight
from tests.stage import Upstream, redis_process, visiting

THAWS = 3


async def test_a_frozen_instance_has_lost_nothing(upstream: Upstream, tmp_path: Path) -> None:
    """With the image's and the adapter's settings: when a turn's answer has ended it is settled,
    so a freeze in that moment, in which all connections to Redis die, costs nobody anything."""
    said = {name: value for name, value in ENVIRONMENTS["lambda"].items() if value}
    with redis_process("--appendonly", "yes", "--maxmemory-policy", "noeviction") as store:
        said |= environment(store, upstream.url, ALLOWED_ORIGINS="https://page.example", PORT="0")
        with server_py(tmp_path / "kt", **said) as running:
            async with visiting(running.url) as visitor:
                for _ in range(THAWS):
                    answer = await visitor.say()
                    os.kill(running.process.pid, signal.SIGSTOP)
                    assert (answer.status, in_flight(store)) == (200, [])
                    disconnect_all(store)
                    os.kill(running.process.pid, signal.SIGCONT)
            assert running.end() == 0
            assert not re.search("Traceback|ERROR", running.said)
    assert len(await upstream.books()) == THAWS


def disconnect_all(store: str) -> None:
    """What a Redis does to connections that are silent for too long."""
    with redis.Redis.from_url(store) as client:
        client.client_kill_filter(_type="normal", skipme=True)
