"""A redis-server under `deploy/redis/users.acl`, as an operator would start it."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.stage import ROOT, wait_until

FILE = ROOT / "deploy" / "redis" / "users.acl"
PASSWORD = "a-password-for-tests-only"
_OURS = "user tests on nopass ~* &* +@all"  # looks on, and is no part of the file


def _line_of(user: str) -> str:
    lines = [line for line in FILE.read_text().splitlines() if line.startswith(f"user {user} ")]
    (line,) = lines
    return line


def commands_of(user: str) -> list[str]:
    """The commands that the file allows a user, as it writes them, but for those in parentheses."""
    return re.findall(r" \+(\S+)", _line_of(user).partition(" (")[0])


def selector_without(command: str = "") -> str:
    """The part of the app's line in parentheses, which is for `ADMIN_TOKEN`; less one command."""
    _, _, rest = _line_of("keyturn").partition(" (")
    words = rest.removesuffix(")").split()
    return f"({' '.join(word for word in words if word != f'+{command}')})"


def commands_of_page() -> list[str]:
    """The commands in parentheses."""
    return re.findall(r"\+([^\s)]+)", selector_without())


def filled_in(text: str) -> str:
    """The file with the hash of our password wherever one is to be put."""
    return re.sub(r"#[A-Z]+_SHA256", f"#{hashlib.sha256(PASSWORD.encode()).hexdigest()}", text)


@dataclass
class Guarded:
    """The server, by its socket."""

    socket: str

    def url(self, user: str) -> str:
        """Its URL for a user."""
        return f"unix://{user}:{PASSWORD}@{self.socket}"

    def client(self, user: str = "tests") -> "redis.Redis":
        """A connection as a user."""
        return redis.Redis(
            unix_socket_path=self.socket, username=user, password=PASSWORD, driver_info=None
        )

    def tell(self, *command: str) -> Any:
        """What it says to the user that may do anything."""
        with self.client() as client:
            return client.execute_command(*command)

    def denied(self) -> list[str]:
        """What it denied to whom since it was last asked."""
        with self.client() as client:
            found: list[dict[str, Any]] = client.acl_log()
            client.acl_log_reset()
        return [f"{each['username']}: {each['object']} ({each['reason']})" for each in found]


@contextmanager
def guarded(directory: Path) -> Iterator[Guarded]:
    """The server, started with the file."""
    acl = directory / "users.acl"
    acl.write_text(filled_in(FILE.read_text()) + _OURS + "\n")
    server = Guarded(str(directory / "s"))
    program = shutil.which("redis-server")
    assert program, "redis-server is needed: apt-get install redis-server"
    words = ["--port", "0", "--unixsocket", server.socket, "--save", "", "--aclfile", str(acl)]
    process = subprocess.Popen([program, *words], cwd=directory, stdout=subprocess.DEVNULL)

    def is_up() -> bool:
        try:
            return bool(server.tell("PING"))
        except redis.RedisError:
            return False

    try:
        wait_until(is_up)
        yield server
    finally:
        process.kill()
        process.wait(10)
