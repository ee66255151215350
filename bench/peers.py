"""Those who are measured beside each other: each a process between the same two ends.

Every one listens on 127.0.0.1, has one worker, one upstream and no log of what it serves.
"""

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.connection import Door, Shape, ask_once
from bench.install import LITELLM, PORTKEY, nginx_program
from bench.processes import family, pin
from tests.command_stage import SERVER_PY, ended, free_port, started
from tests.stage import ROOT, SECRET

READY_LIMIT: Final = 90.0
OFTEN: Final = "999999/second"
PROXIES_CORE, OTHERS_CORE = 0, 1
UVICORN: Final = ("-m", "uvicorn", "--no-access-log", "--log-level", "warning", "--port")


class NotStarted(Exception):
    """A peer did not begin to answer; the text is what it said last."""


@dataclass(frozen=True, slots=True)
class Place:
    """What stands on both sides of a peer, and a folder for its files."""

    home: Path
    upstream: str
    redis_url: str


@dataclass(frozen=True, slots=True)
class Start:
    """How a peer is started, and how it is asked."""

    command: tuple[str, ...]
    environment: dict[str, str]
    door: Door


@dataclass(frozen=True, slots=True)
class Peer:
    """One of those who are compared; `there` tells whether it can be started here."""

    name: str
    title: str
    start: Callable[[Place], Start]
    there: Callable[[], bool] = lambda: True
    rate: float = 40.0  # a second, of which it serves every one easily


@dataclass(frozen=True, slots=True)
class Served:
    """A peer that answers."""

    door: Door
    pids: list[int]
    seconds: float  # from its start to its first answer


def keyturn(place: Place) -> Start:
    """`python server.py` with every gate and the ledger on, and limits that nobody reaches."""
    port = free_port()
    return Start(
        SERVER_PY,
        {
            "PORT": port,
            "REDIS_URL": place.redis_url,
            "OPENAI_BASE_URL": place.upstream,
            "BYOK_BASE_URL": place.upstream,
            "OPENAI_API_KEY": "sk-operator-of-a-run-0123456789abcdef",
            "API_SECRET_KEY": SECRET,
            "RATE_LIMIT": OFTEN,
            "START_LIMIT": OFTEN,
            "START_LIMIT_GLOBAL": OFTEN,
            "MAX_STREAMS": "10000",
            "MAX_STREAMS_PER_IP": "10000",
            "DAILY_BUDGET_USD": "100000",
            "VISITOR_DAILY_BUDGET_USD": "100000",
            "MAX_OUTPUT_TOKENS": "1000000",
            # Two cores for all of this: a machine that is slow for a moment is not looked at.
            "REDIS_TIMEOUT_MS": "2000",
            "REDIS_DEADLINE_MS": "5000",
        },
        Door(int(port), gated=True),
    )


def leaky(place: Place) -> Start:
    """The same with a leak, see `bench.leaky`."""
    start = keyturn(place)
    command = (sys.executable, *UVICORN, str(start.door.port), "bench.leaky:app")
    return Start(command, start.environment, start.door)


def bare(place: Place) -> Start:
    """See `bench.bare`."""
    port = free_port()
    command = (sys.executable, *UVICORN, port, "bench.bare:app")
    return Start(command, {"OPENAI_BASE_URL": place.upstream}, Door(int(port)))


def tutorial(place: Place) -> Start:
    """See `bench.tutorial`."""
    port = free_port()
    said = {"OPENAI_BASE_URL": place.upstream, "REDIS_URL": place.redis_url}
    command = (sys.executable, *UVICORN, port, "bench.tutorial:app")
    return Start(command, said, Door(int(port), gated=True))


NGINX_CONF: Final = """
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile 20000;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 18000; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  keepalive_requests 1000000;
  upstream model {{ server {upstream}; keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://model;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 300s;
    }}
  }}
}}
"""


def nginx(place: Place) -> Start:
    """`proxy_pass` that buffers no answer, and keeps its connections."""
    port, home = free_port(), place.home / "nginx"
    home.mkdir(exist_ok=True)
    authority = place.upstream.split("/")[2]
    # A master that is root would give its worker to a user that may not exist here.
    user = f"user {home.owner()};" if home.owner() == "root" else ""
    conf = NGINX_CONF.format(port=port, upstream=authority, user=user)
    (home / "nginx.conf").write_text(conf)
    program = nginx_program()
    assert program
    command = (program, "-p", str(home), "-c", "nginx.conf", "-e", "stderr")
    return Start(command, {}, Door(int(port)))


LITELLM_CONF: Final = """
model_list:
  - model_name: gpt-4.1-mini
    litellm_params:
      model: openai/gpt-4.1-mini
      api_base: {upstream}
      api_key: sk-operator
      input_cost_per_token: 0.0000004
      output_cost_per_token: 0.0000016
router_settings: {{num_retries: 0}}
litellm_settings: {{num_retries: 0, telemetry: false}}
general_settings: {{master_key: sk-bench}}
"""


def litellm(place: Place) -> Start:
    """LiteLLM's proxy at its best: a known model with prices, no database, no callbacks."""
    port, conf = free_port(), place.home / "litellm.yaml"
    conf.write_text(LITELLM_CONF.format(upstream=place.upstream))
    at = ("--host", "127.0.0.1", "--port", port, "--num_workers", "1", "--telemetry", "False")
    said = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "PYTHONPATH": ""}
    door = Door(int(port), (("Authorization", "Bearer sk-bench"),))
    return Start((str(LITELLM), "--config", str(conf), *at), said, door)


def portkey(place: Place) -> Start:
    """Portkey's gateway; see `portkey.mjs` for what it needs to stream and to stay at home."""
    port = free_port()
    node = shutil.which("node")
    assert node
    preload = ("--import", str(ROOT / "bench" / "portkey.mjs"))
    headers = {
        "Authorization": "Bearer sk-operator",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": place.upstream,
    }
    said = {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1"}
    command = (node, *preload, str(PORTKEY), f"--port={port}", "--headless")
    return Start(command, said, Door(int(port), tuple(headers.items())))


KEYTURN: Final = Peer("keyturn", "**Keyturn**, every check and the ledger", keyturn)
LEAKY: Final = Peer("leaky", "Keyturn with a leak", leaky)
PEERS: Final = (
    Peer("nginx", "nginx `proxy_pass`", nginx, lambda: nginx_program() is not None),
    Peer("bare", "bare pass-through (uvicorn, aiohttp)", bare),
    KEYTURN,
    Peer("naive", "FastAPI, openai SDK, four calls to Redis", tutorial),
    Peer("portkey", "Portkey gateway", portkey, PORTKEY.exists),
    Peer("litellm", "LiteLLM proxy", litellm, LITELLM.exists, rate=8.0),
)


@asynccontextmanager
async def serving(peer: Peer, place: Place) -> AsyncIterator[Served]:
    """Start a peer, and yield once it has answered a turn; raises `NotStarted`."""
    start = peer.start(place)
    since = time.monotonic()
    said = {"PYTHONDONTWRITEBYTECODE": "", **start.environment}
    with started(start.command, place.home / f"{peer.name}-{start.door.port}", **said) as running:
        try:
            pin([running.process.pid], PROXIES_CORE)
            async with asyncio.timeout(READY_LIMIT):
                while not await answers(start.door):
                    if ended(running):
                        raise NotStarted(running.said[-400:])
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise NotStarted(running.said[-400:]) from None
        seconds = time.monotonic() - since
        pids = family(running.process.pid)
        pin(pids, PROXIES_CORE)
        yield Served(start.door, pids, seconds)


async def answers(door: Door) -> bool:
    """Whether a turn is answered whole."""
    try:
        connection = await ask_once(door, Shape(stream=False), READY_LIMIT)
    except OSError:
        return False
    return connection.done and connection.status == 200
