"""What the tests stand on: real processes, a server in this loop, and a visitor."""

import asyncio
import contextlib
import http.client
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import redis
import uvicorn

from house import Keyturn, open_house
from patience import DEFAULT, Patience
from server import App, create_app
from settings import Settings
from tests.in_loop import Silent, SwiftServer, running
from tests.visitor import CHAT as CHAT
from tests.visitor import FINGERPRINT as FINGERPRINT
from tests.visitor import RESPONSES as RESPONSES
from tests.visitor import Answer as Answer
from tests.visitor import Visitor as Visitor
from tests.visitor import now_ms as now_ms

ROOT = Path(__file__).parent.parent
OPERATORS_KEY = "sk-operator-canary-0123456789abcdef"
# For whoever judges something else than how quickly Redis answers. A busy machine is no fault of
# the store: a turn that it makes wait would be sent twice.
PATIENT: Final[dict[str, int]] = {
    "redis_timeout_ms": 5000,
    "redis_connect_timeout_ms": 5000,
    "redis_deadline_ms": 15_000,
}
SECRET = "a-long-and-random-secret-for-tests-only-7Qz9"


@contextmanager
def redis_process(*options: str) -> Iterator[str]:
    """A real redis-server on a private Unix socket; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="kt-") as directory:
        socket = f"{directory}/s"
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        assert program, "redis-server is needed: apt-get install redis-server"
        process = subprocess.Popen(
            [program, "--port", "0", "--unixsocket", socket, "--save", "", *options],
            stdout=subprocess.DEVNULL,
            cwd=directory,
        )
        try:
            wait_until(lambda: answers(socket))
            yield f"unix://{socket}"
        finally:
            process.kill()
            process.wait(10)


def answers(socket: str) -> bool:
    """Whether a Redis answers on this socket."""
    with contextlib.suppress(redis.RedisError), redis.Redis(unix_socket_path=socket) as client:
        return bool(client.ping())
    return False


def wait_until(holds: Callable[[], Any], limit: float = 10) -> None:
    """Poll a condition until it holds; fails after `limit` seconds."""
    end = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < end, "the condition did not come to hold"
        time.sleep(0.01)


async def eventually(holds: Callable[[], Awaitable[Any]], limit: float = 10) -> None:
    """Poll an awaitable condition until it holds; fails after `limit` seconds."""
    end = time.monotonic() + limit
    while not await holds():
        assert time.monotonic() < end, "the condition did not come to hold"
        await asyncio.sleep(0.01)


@dataclass
class Upstream:
    """The scripted upstream as a process of its own."""

    url: str

    async def books(self) -> list[dict[str, Any]]:
        """Every POST that it got, with what became of it."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.url.removesuffix("/v1") + "/books") as answer,
        ):
            found: list[dict[str, Any]] = await answer.json()
            return found

    async def forget(self) -> None:
        """Begin new books."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url.removesuffix("/v1") + "/books"),
        ):
            pass

    async def answer_keys(self, **scripts: dict[str, Any]) -> None:
        """Answer these keys by a script from now on, whatever they ask, and others as they ask.

        An underscore stands for a hyphen.
        """
        said = {key.replace("_", "-"): script for key, script in scripts.items()}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url.removesuffix("/v1") + "/keys", json=said),
        ):
            pass


@contextmanager
def upstream_process() -> Iterator[Upstream]:
    """A real HTTP upstream, see `tests.upstream`."""
    with ready("tests.upstream") as (_, port):
        yield Upstream(f"http://127.0.0.1:{port}/v1")


@contextmanager
def ready(module: str) -> Iterator[tuple[int, int]]:
    """A module that runs as a process and says when it is ready; yields its pid and its port."""
    with subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout
        word, _, port = process.stdout.readline().partition(" ")
        assert word == "ready"
        try:
            yield process.pid, int(port)
        finally:
            process.kill()


def settings_with(**said: Any) -> Settings:
    """Settings for tests: nothing of the environment's .env, generous limits, a real secret."""
    chosen: dict[str, Any] = {
        "openai_api_key": OPERATORS_KEY,
        "api_secret_key": SECRET,
        "rate_limit": "100000/minute",
        "start_limit": "100000/minute",
        "start_limit_global": "100000/minute",
        "max_streams_per_ip": 10000,
        "allowed_origins": "https://page.example",
        "port": 0,
    }
    # A prefix that nobody uses: the environment of whoever runs the tests says nothing here.
    return Settings(_env_file=None, _env_prefix="KEYTURN_TESTS_ALONE_", **{**chosen, **said})


@dataclass
class Server:
    """A server under test."""

    url: str
    keyturn: Keyturn
    app: App
    uvicorn: uvicorn.Server


@asynccontextmanager
async def serving(
    settings: Settings,
    patience: Patience = DEFAULT,
    *,
    port: int = 0,
    around: Callable[[Keyturn], Keyturn] = lambda keyturn: keyturn,
) -> AsyncIterator[Server]:
    """Keyturn under uvicorn in this loop, on a free port or this one; stopped at the end.

    `around` may replace parts of the house, to show that a test fails without them.
    """
    opened: list[Keyturn] = []

    @asynccontextmanager
    async def opening() -> AsyncIterator[Keyturn]:
        async with open_house(settings, patience=patience) as keyturn:
            opened.append(around(keyturn))
            yield opened[0]

    app = create_app(opening)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http=Silent,
        ws="none",
        proxy_headers=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )
    server = SwiftServer(config)
    async with running(server) as url:
        yield Server(url, opened[0], app, server)


@asynccontextmanager
async def visiting(
    server: Server | str, *, tls: ssl.SSLContext | bool = True, **said: Any
) -> AsyncIterator[Visitor]:
    """A visitor of a server."""
    url = server if isinstance(server, str) else server.url
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(limit=0, ssl=tls)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        yield Visitor(session, url, **said)


async def send_raw(server: Server | str, *pieces: bytes, method: str = "POST") -> Answer:
    """Send exactly these bytes on a connection of their own and read the first answer."""
    return await asyncio.to_thread(_send_raw, server, pieces, method)


def _send_raw(server: Server | str, pieces: tuple[bytes, ...], method: str) -> Answer:
    parts = urlsplit(server if isinstance(server, str) else server.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as peer:
        for piece in pieces:
            with contextlib.suppress(ConnectionError):  # an early answer may end the connection
                peer.sendall(piece)
        response = http.client.HTTPResponse(peer, method=method)
        response.begin()
        return Answer(response.status, response.headers, response.read())


def head(method: str, path: str, headers: dict[str, str], *more: str) -> bytes:
    """The head of a request, written out; `more` are whole lines, for saying a header twice."""
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in {"Host": "127.0.0.1", **headers}.items()]
    return "\r\n".join([*lines, *more, "", ""]).encode("latin-1")


def commands(redis_url: str) -> dict[str, int]:
    """How often Redis was given each command, those by which one looks at it left out."""
    with redis.Redis.from_url(redis_url) as client:
        counted: dict[str, dict[str, Any]] = client.info("commandstats")
    looks = ("info", "hello", "client", "config", "ping", "select", "auth")
    names = {name.removeprefix("cmdstat_"): said["calls"] for name, said in counted.items()}
    return {name: calls for name, calls in names.items() if name.split("|")[0] not in looks}


async def at_rest(server: Server) -> bool:
    """Whether no turn is open or being settled, here and in Redis, and every place is free."""
    keyturn = server.keyturn
    turns, capacity = keyturn.turns, keyturn.turns._capacity
    in_redis = await keyturn.store.keys("*:inflight:*")
    return not (turns._open or turns._settling or capacity.taken or in_redis)
