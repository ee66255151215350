"""A Redis of a test's own, to be broken in every way, and a wire to it that loses replies."""

import asyncio
import contextlib
import math
import secrets
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.stage import answers, wait_until

KEYS = "keyturn:{main}:"


class OwnRedis:
    """A redis-server that can be killed, stopped and started again where it was."""

    def __init__(self, directory: Path) -> None:
        self.socket = str(directory / "s")
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it; returns at once."""
        program = shutil.which("redis-server") or shutil.which("valkey-server") or ""
        self._process = subprocess.Popen(
            [program, "--port", "0", "--unixsocket", self.socket, "--save", "", *options],
            stdout=subprocess.DEVNULL,
            cwd=self._directory,
        )

    def ready(self) -> None:
        """Wait until it answers."""
        wait_until(lambda: answers(self.socket))

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        if self._process:
            self._process.kill()
            self._process.wait(10)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process
        self._process.send_signal(number)

    def client(self) -> "redis.Redis":
        """A connection for the test itself."""
        return redis.Redis(unix_socket_path=self.socket, decode_responses=True)

    def config(self, name: str, value: str) -> None:
        """Change its configuration while it runs."""
        with self.client() as client:
            client.config_set(name, value)

    def tell(self, *command: str) -> None:
        """Give it one command."""
        with self.client() as client:
            client.execute_command(*command)


class Wire:
    """What lies between Keyturn and Redis: it may be slow, or lose replies of scripts."""

    def __init__(self, far_end: str) -> None:
        self.delay = 0.0  # seconds that every reply takes longer
        self.lose: float = 0  # so many replies of scripts and counters, and then no more
        self.cut = False  # whether a lost reply ends its connection too
        self._far_end = far_end
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either end closes it."""
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError), contextlib.closing(writer):
            far_reader, far_writer = await asyncio.open_unix_connection(self._far_end)
            with contextlib.closing(far_writer):
                await self._carry(reader, writer, far_reader, far_writer)

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        while asked := await reader.read(1 << 16):
            far_writer.write(asked)
            reply = await far_reader.read(1 << 16)
            await asyncio.sleep(self.delay)
            if self.lose > 0 and (b"EVALSHA" in asked or b"INCR" in asked):
                self.lose -= 1
                if self.cut:
                    return
                continue
            writer.write(reply)

    async def close(self) -> None:
        """End every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def wired(far_end: str, directory: Path) -> AsyncIterator[tuple[Wire, str]]:
    """A wire to the Redis at this socket, and the URL of its near end."""
    wire = Wire(far_end)
    near_end = directory / "near"
    server = await asyncio.start_unix_server(wire.connect, near_end)
    try:
        yield wire, f"unix://{near_end}"
    finally:
        server.close()
        await wire.close()


@dataclass(frozen=True)
class Fault:
    """A way for a store to break, and how it heals."""

    name: str
    strike: Callable[[OwnRedis, Wire], None]
    heal: Callable[[OwnRedis, Wire], None]


def kill(store: OwnRedis, _: Wire) -> None:
    """SIGKILL: connections are reset and refused."""
    store.kill()


def start_again(store: OwnRedis, _: Wire) -> None:
    """Start it, empty: every chain is forgotten."""
    store.start()
    store.ready()


def lock(store: OwnRedis, _: Wire) -> None:
    """A password that Keyturn was not told, and no connection from before."""
    with store.client() as client:
        client.config_set("requirepass", "a-password")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal")


def unlock(store: OwnRedis, _: Wire) -> None:
    """No password again."""
    with redis.Redis(unix_socket_path=store.socket, password="a-password") as client:
        client.config_set("requirepass", "")


def load_slowly(store: OwnRedis, _: Wire) -> None:
    """Restarted, it reads its file for some seconds and says LOADING."""
    with store.client() as client, client.pipeline() as pipe:
        for number in range(1000):
            pipe.set(f"ballast:{number}", secrets.token_bytes(1100))
        pipe.execute()
        client.save()
    store.kill()
    store.start("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
    wait_until(lambda: says_loading(store))


def says_loading(store: OwnRedis) -> bool:
    """Whether it says LOADING, asked once."""
    once = redis.Redis(unix_socket_path=store.socket, retry=Retry(NoBackoff(), 0))
    with once as client:
        try:
            client.ping()
        except redis.BusyLoadingError:
            return True
        except redis.ConnectionError:
            return False
    return False


def wedge(store: OwnRedis, _: Wire) -> None:
    """A script of somebody else's runs without end: BUSY."""
    store.config("lua-time-limit", "5")
    endless = redis.Redis(unix_socket_path=store.socket, socket_timeout=0.05)
    with endless as client, contextlib.suppress(redis.RedisError):
        client.eval("while true do end", 0)


def sets(**changed: float) -> Callable[[OwnRedis, Wire], None]:
    """Change how the wire behaves."""
    return lambda _, wire: wire.__dict__.update(changed)


def tells(*command: str) -> Callable[[OwnRedis, Wire], None]:
    """Give Redis a command."""
    return lambda store, _: store.tell(*command)


FAULTS = [
    Fault("killed", kill, start_again),
    Fault(
        "stopped",
        lambda store, _: store.signal(signal.SIGSTOP),
        lambda store, _: store.signal(signal.SIGCONT),
    ),
    Fault("slow", sets(delay=3), sets(delay=0)),
    Fault("silent", sets(lose=math.inf), sets(lose=0)),
    Fault("cutting", sets(lose=math.inf, cut=True), sets(lose=0, cut=False)),
    Fault("read-only", tells("REPLICAOF", "127.0.0.1", "1"), tells("REPLICAOF", "NO", "ONE")),
    Fault(
        "full",
        tells("CONFIG", "SET", "maxmemory", "1"),
        tells("CONFIG", "SET", "maxmemory", "0"),
    ),
    Fault("wrong type", tells("SET", f"{KEYS}control", "x"), tells("DEL", f"{KEYS}control")),
    Fault("locked", lock, unlock),
    Fault("loading", load_slowly, lambda store, _: store.ready()),
    Fault("busy", wedge, tells("SCRIPT", "KILL")),
]
