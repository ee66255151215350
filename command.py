"""The command line: `python server.py` serves, `check` says what is wrong, `spend` what was spent.

The law: what can be refused is refused before anything is started, what was started is stopped, and
the exit code is 0 when all is well, 1 when not, 2 on wrong usage. To be told to stop is well.
"""

import argparse
import asyncio
import contextlib
import errno
import logging.config
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from check import ENV_FILE, check, names_of
from check_settings import about_names
from door import Server, Worker
from embedded import EmbeddedError, Parts
from money_report import usd
from protocol import KeyturnProtocol
from provisions import SHARED, embedded_for, hand_over, require_safe_store
from security.budget import Caps
from settings import Settings, SettingsError, read_settings
from shared_metrics import shared_directory
from signals import Terminal
from spend import spend

log = logging.getLogger("keyturn")

_LAST_RESORT: Final = 5
_MANY_FILES: Final = 65_536
_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_NOT_YET: Final = (signal.SIGINT, signal.SIGHUP)


def main(arguments: list[str]) -> int:
    """Run a subcommand; 0 when all is well, 1 when not, 2 on wrong usage."""
    asked = usage().parse_args(arguments)
    logging.config.dictConfig(logs("critical"))  # what a question finds, it prints itself
    try:
        if asked.command == "check":
            return check(live=asked.live)
        settings = read_settings()
        if asked.command == "spend":
            return spend(settings, for_scripts=asked.json)
        logging.config.dictConfig(logs(settings.log_level))
        return serve(settings)
    except SettingsError as error:
        spending = asked.command == "spend"
        head = "The settings cannot be used:" if spending else "Keyturn cannot start:"
        print(head, *error.reasons, sep="\n  - ", file=sys.stderr)
    except EmbeddedError as error:
        print(f"Keyturn cannot start: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(file=sys.stderr)
    return 1


def usage() -> argparse.ArgumentParser:
    """The subcommands and their options."""
    parser = argparse.ArgumentParser(prog="server.py", description="A secure AI chat API.")
    commands = parser.add_subparsers(dest="command", metavar="serve | check | spend")
    commands.add_parser("serve", help="serve until told to stop, as without a command")
    looking = commands.add_parser("check", help="say what stands in the way of serving")
    looking.add_argument(
        "--live", action="store_true", help="ask each allowed model for one token, which costs"
    )
    money = commands.add_parser("spend", help="show what was spent today, by whom, what is left")
    money.add_argument("--json", action="store_true", help="for scripts, in whole micro-USD")
    return parser


def serve(settings: Settings) -> int:
    """Serve until told to stop; embedded parts are started once, here, for all workers."""
    told: list[int] = []
    for odd in about_names(names_of(ENV_FILE)):
        log.warning(odd.text)
    open_many_files()
    for number in _STOP:  # noted only: whoever starts a child must get to know its pid
        signal.signal(number, lambda number, _: told.append(number))
    terminal = Terminal()
    with (
        listen(settings.host, settings.port) as door,
        embedded_for(settings) as parts,
        shared_by_workers(settings),
    ):
        asyncio.run(require_safe_store(settings, parts))
        hand_over(parts)
        port = door.getsockname()[1]
        os.environ["PORT"] = str(port)  # PORT=0 has become one, and its own page may chat
        print(banner(settings, parts, port), flush=True)
        return run(settings, door, told, terminal)


@contextlib.contextmanager
def shared_by_workers(settings: Settings) -> Iterator[None]:
    """Where several workers tell each other what they counted; raises `SettingsError`."""
    if settings.metrics_token is None or settings.workers == 1:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            os.environ[SHARED] = str(stack.enter_context(shared_directory()))
        except OSError:
            reason = "METRICS_TOKEN: several workers need a temporary directory; set TMPDIR to one"
            raise SettingsError([reason]) from None
        yield


def open_many_files() -> None:
    """Lift this process's limit as far as the system lets us, up to 65,536.

    A stream takes two, and a thousand idle connections would use up the usual 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):  # where the system says no all the same
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def listen(host: str, port: int) -> socket.socket:
    """Open the door before anything is started; who comes early waits in line.

    Raises `SettingsError` when the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        reason = f"HOST: {host} is no address of this machine; try 127.0.0.1 or 0.0.0.0"
        if error.errno == errno.EADDRINUSE:
            reason = f"PORT: {port} is in use; stop what listens there, or set another one"
        if error.errno == errno.EACCES:
            reason = f"PORT: {port} is reserved; set one from 1024"
        raise SettingsError([reason]) from None


def run(settings: Settings, door: socket.socket, told: list[int], terminal: Terminal) -> int:
    """Run the workers until told to stop, also by a signal that came a moment ago."""
    config = uvicorn.Config(
        "server:app",
        workers=settings.workers,
        http=KeyturnProtocol,
        ws="none",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=logs(settings.log_level),  # a worker begins without
        timeout_keep_alive=75,
        timeout_graceful_shutdown=settings.drain_seconds + _LAST_RESORT,
    )
    if config.workers > 1:
        return run_many(Workers(config, [door], terminal), told)
    return run_one(config, door, told)


def run_one(config: uvicorn.Config, door: socket.socket, told: list[int]) -> int:
    """Run the only worker, in this process."""
    server = Server(config)
    for number in _STOP:  # also afterwards: uvicorn raises it again when it is done
        signal.signal(number, server.handle_exit)
    if told:
        return 0
    with contextlib.suppress(SystemExit):  # uvicorn's way to say that it cannot start
        server.run(sockets=[door])
    return 0 if server.started else 1


def run_many(workers: "Workers", told: list[int]) -> int:
    """Run workers as processes, until told to stop or until one cannot start."""
    if told:
        return 0
    workers.run()
    return 1 if any(each.exitcode == STARTUP_FAILURE for each in workers.processes) else 0


class Workers(Multiprocess):
    """Worker processes, each replaced when it has died.

    Uvicorn's own watch also asks each worker whether it is well and waits for the answer: it kills
    one that is slow to start, and is deaf to signals until then.
    """

    def __init__(
        self, config: uvicorn.Config, sockets: list[socket.socket], terminal: Terminal
    ) -> None:
        super().__init__(config, sockets)  # takes the signals
        self._terminal = terminal

    def handle_hup(self) -> None:
        """Let every worker take up new keys; uvicorn would start them all anew."""
        if self._terminal.is_gone:
            self.handle_term()
            return
        for worker in self.processes:
            if worker.pid is not None and worker.process.is_alive():
                os.kill(worker.pid, signal.SIGHUP)

    def init_processes(self) -> None:
        self.processes = [self.new_worker() for _ in range(self.processes_num)]

    def keep_subprocess_alive(self) -> None:
        for place, worker in enumerate(self.processes):
            if self.should_exit.is_set() or worker.process.is_alive():
                continue
            if worker.exitcode == STARTUP_FAILURE:
                self.should_exit.set()
            else:
                log.warning("a worker died (exit code %s) and is replaced", worker.exitcode)
                self.processes[place] = self.new_worker()

    def terminate_all(self) -> None:
        for door in self.sockets:  # else who comes now waits at a door that nobody opens again
            door.close()
        super().terminate_all()

    def new_worker(self) -> Process:
        """Start one; signals reach it too, and until it can take them well it leaves them to us."""
        worker = Worker(self.config, self.sockets)
        before = {each: signal.signal(each, signal.SIG_IGN) for each in _NOT_YET}
        worker.start()
        for number, handler in before.items():
            signal.signal(number, handler)
        return worker


def banner(settings: Settings, parts: Parts, port: int) -> str:
    """What runs, what is embedded, and where to look, in a few lines."""
    upstream = "demo: answers are made up (set OPENAI_API_KEY)"
    if not parts.upstream_url:
        upstream = settings.openai_base_url
    secret = "one for this run only (set API_SECRET_KEY)" if parts.secret else "set"
    lines = [
        f"Keyturn ({'production' if settings.production else 'development'})",
        f"  open      {address(settings.host, port)}",
        f"  upstream  {upstream}",
        f"  redis     {parts.store_name or 'REDIS_URL'}",
        f"  budget    {in_words(settings.caps)}",
        f"  secret    {secret}",
        f"  workers   {settings.workers}",
    ]
    return "\n".join(lines)


def in_words(caps: Caps) -> str:
    """How much may be spent."""
    day = "no cap" if caps.day is None else f"{usd(caps.day)} USD"
    visitor = "no cap" if caps.visitor is None else f"{usd(caps.visitor)} USD"
    return f"{day} a day, {visitor} a visitor"


def address(host: str, port: int) -> str:
    """What to type into a browser on this machine."""
    if host in ("0.0.0.0", "::"):  # noqa: S104  # not listened on here
        return f"http://localhost:{port}/ (another name of this machine: add it to ALLOWED_ORIGINS)"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class Ours(logging.Filter):
    """Lets libraries only warn, whatever level the environment told them (OPENAI_LOG=debug)."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name.partition(".")[0] == "keyturn"


def logs(level: str) -> dict[str, Any]:
    """One plain line per event on stderr, of a turn one of JSON; libraries may only warn."""
    quiet = max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()])
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
        "filters": {"ours": {"()": Ours}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "filters": ["ours"],
            },
            "turns": {"class": "turn_log.Lines"},
        },
        "root": {"handlers": ["stderr"], "level": quiet},
        "loggers": {
            "keyturn": {"level": level.upper()},
            "keyturn.turn": {"handlers": ["turns"], "propagate": False},
        },
    }
