"""What is attacked: real servers before a real Redis, with two upstreams that keep books.

`main` is set up as for production: two workers, own keys taken, a proxy on 127.0.0.1 that is
trusted. `strict` shares its Redis under another tenant: it trusts nobody, takes no own keys, wants
an Origin and has a prompt of its own; its upstream is the rogue one, which is also where main sends
visitors' own keys. Both log all that they can be told to.
"""

import contextlib
import http.client
import json
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from attacks.attacker import PAGE, Target
from attacks.rogue import Rogue, rogue
from attacks.store import Store
from tests.attacks.canaries import OPERATORS
from tests.command_stage import Running, answers, ended, free_port, server_py, started
from tests.stage import Upstream, redis_process, upstream_process, wait_until

MAIN: Final = {
    "KEYTURN_ENV": "production",
    "WORKERS": "2",
    "ALLOWED_ORIGINS": PAGE,
    "TRUSTED_PROXIES": "127.0.0.1,198.51.100.0/24",
    "RATE_LIMIT": "200/day",
    "START_LIMIT_GLOBAL": "170/day",
    "MAX_STREAMS_PER_IP": "12",
}
STRICT: Final = {
    "TENANT": "other",
    "ALLOWED_ORIGINS": PAGE,
    "REQUIRE_ORIGIN": "on",
    "BYOK": "off",
    "RATE_LIMIT": "200/day",
    "SYSTEM_PROMPT": "You are the operator's own Wombat-4f3e2d.",
}
BOTH: Final = {
    "OPENAI_API_KEY": OPERATORS["operator's key"],
    "API_SECRET_KEY": f"{OPERATORS['secret']},{OPERATORS['newer secret']}",
    "IDENTITY_KEY": OPERATORS["identity key"],
    "LOG_LEVEL": "debug",
    "OPENAI_LOG": "debug",
    "DRAIN_SECONDS": "1",
    # Slowness of a busy machine is not what is looked at.
    "REDIS_TIMEOUT_MS": "5000",
    "REDIS_DEADLINE_MS": "15000",
}


@dataclass
class Stage:
    """Everything that runs."""

    store: Store
    scripted: Upstream
    rogue: Rogue
    main: Target
    strict: Target
    running: dict[str, Running]
    naive: Target | None = None
    _seen: int = 0
    _seen_by_rogue: int = 0

    def logs_of(self, target: Target) -> str:
        """All that a server has printed so far."""
        return self.running[target.name].said

    def new_posts(self) -> list[dict[str, Any]]:
        """What reached either upstream since this was asked last."""
        scripted = self._scripted_from(self._seen)
        by_rogue = self.rogue.books[self._seen_by_rogue :]
        self._seen += len(scripted)
        self._seen_by_rogue += len(by_rogue)
        return [{**each, "at": "scripted"} for each in scripted] + [
            {**vars(each), "at": "rogue"} for each in by_rogue
        ]

    def _scripted_from(self, first: int) -> list[dict[str, Any]]:
        host = self.scripted.url.removeprefix("http://").removesuffix("/v1")
        line = http.client.HTTPConnection(host, timeout=10)
        with contextlib.closing(line):
            line.request("GET", f"/books?from={first}")
            found: list[dict[str, Any]] = json.loads(line.getresponse().read())
            return found


@contextmanager
def stage(*, controls: bool = True) -> Iterator[Stage]:
    """All of it, ready; stopped at the end. `controls` start the naive proxy too."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kt-attack-")))
        redis_url = stack.enter_context(
            redis_process("--appendonly", "yes", "--maxmemory-policy", "noeviction")
        )
        scripted, evil = stack.enter_context(upstream_process()), stack.enter_context(rogue())
        main_said = {**BOTH, **MAIN, "OPENAI_BASE_URL": scripted.url, "BYOK_BASE_URL": evil.url}
        strict_said = {**BOTH, **STRICT, "OPENAI_BASE_URL": evil.url, "BYOK_BASE_URL": evil.url}
        starting = [
            lambda: server_py(home / "main", REDIS_URL=redis_url, **main_said),
            lambda: server_py(home / "strict", REDIS_URL=redis_url, **strict_said),
        ]
        if controls:
            starting.append(lambda: naive(home / "naive", scripted.url, evil.url))
        with ThreadPoolExecutor() as pool:  # each takes seconds to start
            running = list(pool.map(lambda start: stack.enter_context(start()), starting))
        store = Store(redis_url)
        stack.callback(store.close)
        main, strict = (_port(each.url) for each in running[:2])
        place = Stage(
            *(store, scripted, evil),
            Target("main", main, "gpt-4.1-mini"),
            Target("strict", strict, "gpt-4o-mini", forwarded=False, origin=PAGE),
            dict(zip(("main", "strict", "naive"), running, strict=False)),
        )
        if controls:
            port = int((home / "naive" / "port").read_text())
            place.naive = Target("naive", port, "gpt-4.1-mini")
        yield place


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


@contextmanager
def naive(home: Path, upstream: str, evil: str) -> Iterator[Running]:
    """The control, see `attacks.naive`, under uvicorn as it comes."""
    port = free_port()
    home.mkdir()
    (home / "port").write_text(port)
    command = (
        sys.executable,
        "-m",
        "uvicorn",
        "attacks.naive:app",
        "--http",
        "h11",
        "--port",
        port,
    )
    said = {"UPSTREAM": upstream, "ROGUE": evil, "OPENAI_API_KEY": OPERATORS["operator's key"]}
    with started(command, home, **said) as running:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(url) or ended(running), 40)
        assert not ended(running), running.said
        yield running
