"""What a run stands on: a real Redis, the scripted upstream, four real workers of a server."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal

from bench.plan import MAX_OUTPUT, PRICES, Turn
from bench.rush import Ended
from tests.command_stage import START_LIMIT, answers, ended, free_port, server_py, started
from tests.stage import ROOT, SECRET, Upstream, redis_process, upstream_process, wait_until

Kind = Literal["keyturn", "read-then-add", "plain-finally"]
CLIENTS = 2
AT_ONCE = 48  # of each client
RUSH_LIMIT = 240
OFTEN = "999999/second"


@dataclass(frozen=True, slots=True)
class Caps:
    """Caps of a day in µUSD: of all together and of a visitor; a /48 has four times the latter."""

    day: int
    visitor: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Where everything is."""

    url: str
    redis_url: str
    upstream: Upstream
    caps: Caps


def caps_for(turns: list[Turn]) -> Caps:
    """Caps into which about a fifth of the turns fit, and not all of what busy visitors ask."""
    day = sum(turn.cost() for turn in turns if turn.script.get("status", 200) == 200) // 5
    return Caps(day, max(day // 20, 2000))


@contextmanager
def scene(kind: Kind, caps: Caps) -> Iterator[Scene]:
    """A fresh store, a fresh upstream and a fresh server between them."""
    with (
        tempfile.TemporaryDirectory(prefix="kt-money-") as directory,
        redis_process("--maxmemory-policy", "noeviction") as redis_url,
        upstream_process() as upstream,
    ):
        home = Path(directory)
        (home / "prices.toml").write_bytes(PRICES)
        said = {
            "REDIS_URL": redis_url,
            "OPENAI_BASE_URL": upstream.url,
            "DAILY_BUDGET_USD": usd(caps.day),
            "VISITOR_DAILY_BUDGET_USD": usd(caps.visitor),
            "PRICES_FILE": str(home / "prices.toml"),
            "API_SECRET_KEY": SECRET,
        }
        with keyturn(home, said) if kind == "keyturn" else naive(home, kind, said) as url:
            yield Scene(url, redis_url, upstream, caps)


def usd(micro_usd: int) -> str:
    """As it is written in settings."""
    return f"{Decimal(micro_usd).scaleb(-6):f}"


@contextmanager
def keyturn(home: Path, said: dict[str, str]) -> Iterator[str]:
    """`python server.py` with four workers, and with no other limit that would be in the way."""
    more = {
        "WORKERS": "4",
        "OPENAI_API_KEY": "sk-operator-of-a-run-0123456789abcdef",
        "ALLOWED_MODELS": "plain,odd,thinker",
        "DEFAULT_MODEL": "plain",
        "MAX_OUTPUT_TOKENS": str(MAX_OUTPUT),
        "RATE_LIMIT": OFTEN,
        "START_LIMIT": OFTEN,
        "START_LIMIT_GLOBAL": OFTEN,
        "MAX_STREAMS_PER_IP": "10000",
        "TRUSTED_PROXIES": "127.0.0.1",
        "BYOK": "off",
        "LOG_LEVEL": "error",
        # Two cores for nine processes: their slowness is not what is looked at.
        "REDIS_TIMEOUT_MS": "5000",
        "REDIS_DEADLINE_MS": "15000",
    }
    with server_py(home, **said, **more) as running:
        yield running.url


@contextmanager
def naive(home: Path, kind: Kind, said: dict[str, str]) -> Iterator[str]:
    """A control, see `bench.naive`, with four workers of plain uvicorn."""
    port = free_port()
    uvicorn = (sys.executable, "-m", "uvicorn", "bench.naive:app", "--workers", "4", "--port", port)
    quiet = ("--log-level", "error", "--timeout-worker-healthcheck", "60")
    url = f"http://127.0.0.1:{port}"
    with started((*uvicorn, *quiet), home, KIND=kind, **said) as running:
        wait_until(lambda: answers(url) or ended(running), START_LIMIT)
        assert not ended(running), running.said
        yield url


def rush(url: str, seed: int, turns: int, *, exact: bool) -> list[Ended]:
    """All turns of a seed, by clients that are processes of their own."""
    crowd = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.rush"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(CLIENTS)
    ]
    work = {"url": url, "seed": seed, "turns": turns, "exact": exact, "at_once": AT_ONCE}
    try:
        for part, client in enumerate(crowd):
            assert client.stdin
            client.stdin.write(json.dumps(work | {"part": part, "parts": CLIENTS}) + "\n")
            client.stdin.flush()
        told = [json.loads(client.communicate(timeout=RUSH_LIMIT)[0]) for client in crowd]
    finally:
        for client in crowd:
            client.kill()
            client.wait(10)
    return [Ended(**each) for part in told for each in part]
