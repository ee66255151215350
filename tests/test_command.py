"""The command line, from outside: command.py. Each test starts what an operator would start."""

import json
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from command import address
from house import UNGUARDED
from tests.command_stage import (
    CANARY,
    SERVER_PY,
    START_LIMIT,
    Running,
    alive,
    run,
    server_py,
    started,
    turn,
)
from tests.stage import wait_until

SHORT = "much-too-short-Zq7"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`python server.py` in an empty directory, with no setting but PORT=0."""
    with server_py(tmp_path_factory.mktemp("demo")) as running:
        yield running


def test_the_banner_says_what_is_made_up(demo: Running) -> None:
    """A few lines say where to look, and what of it is not the real thing."""
    banner = demo.out.read_text()
    assert re.search(r"^Keyturn \(development\)\n  open      http://127.0.0.1:\d+/\n", banner)
    assert "  upstream  demo: answers are made up (set OPENAI_API_KEY)\n" in banner
    assert re.search(r"  redis     \w+-server [\d.]+ \(child process, in memory\)\n", banner)
    assert "  budget    5.00 USD a day, 0.50 USD a visitor\n" in banner
    assert "  secret    one for this run only (set API_SECRET_KEY)\n" in banner
    assert "  workers   1\n" in banner
    assert UNGUARDED not in demo.said


async def test_a_chat_needs_no_configuration(demo: Running) -> None:
    """Three turns work, the server is ready, and says that its upstream is a demo."""
    token = None
    for _ in range(3):
        answer = await turn(demo.url, token)
        assert (answer.status, bool(answer.text)) == (200, True)
        token = answer.token
    with urlopen(f"{demo.url}/readyz") as ready:  # noqa: ASYNC210, S310  # once, from a test
        assert json.load(ready)["upstream"] == "demo"


async def test_its_own_page_may_chat_on_whatever_port(demo: Running) -> None:
    """With PORT=0 the allowed origins name the port that it became."""
    port = demo.url.rpartition(":")[2]
    assert (await turn(demo.url, Origin=f"http://localhost:{port}")).status == 200
    assert (await turn(demo.url, Origin=f"http://127.0.0.1:{port}")).status == 200
    assert (await turn(demo.url, Origin="http://localhost:0")).code == "origin_forbidden"


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is read from /proc")
def test_a_thousand_idle_connections_are_not_too_many(tmp_path: Path) -> None:
    """Started under a low limit of open files, as services often are, it lifts it."""
    few = ("sh", "-c", 'ulimit -Sn 300; exec "$@"', "sh")
    with server_py(tmp_path, (*few, *SERVER_PY)) as running:
        assert open_files(running) > 2048
    with started((*few, "sleep", "60"), tmp_path) as control:
        wait_until(lambda: open_files(control) == 300, START_LIMIT)


def open_files(running: Running) -> int:
    """How many files its process may have open."""
    limits = Path(f"/proc/{running.process.pid}/limits").read_text()
    found = re.search(r"^Max open files +(\d+)", limits, re.MULTILINE)
    return int(found[1]) if found else 0


@pytest.mark.parametrize(
    ("workers", "end"),
    [
        ("1", Running.end),
        ("1", Running.press_ctrl_c),
        ("2", Running.press_ctrl_c),
    ],
)
def test_told_to_stop(tmp_path: Path, workers: str, end: Callable[[Running], int]) -> None:
    """SIGTERM and Ctrl-C, which reaches the whole group, end all of it well and quietly."""
    with server_py(tmp_path, WORKERS=workers) as running:
        family = running.family()
        assert len(family) >= 4, "a store, a demo upstream, and who watches over each"
        assert end(running) == 0
        wait_until(lambda: not alive(family), START_LIMIT)
        assert running.err.read_text() == ""


def test_told_to_stop_while_it_starts(tmp_path: Path) -> None:
    """A signal that comes while the embedded parts start is obeyed, and they are stopped."""
    with started(SERVER_PY, tmp_path, PORT="0") as running:
        wait_until(running.family, START_LIMIT)
        assert "Keyturn" not in running.said, "it has started already"
        assert running.end() == 0
        assert not running.family()


def test_a_port_in_use_is_said_plainly(tmp_path: Path) -> None:
    """A port that is taken is one plain line, before anything was started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        came = run(*SERVER_PY, cwd=tmp_path, PORT=port)
    assert (came.returncode, came.stdout) == (1, "")
    assert came.stderr == (
        "Keyturn cannot start:\n"
        f"  - PORT: {port} is in use; stop what listens there, or set another one\n"
    )
    assert not (tmp_path / ".keyturn").exists()


def test_an_address_of_another_machine_is_said_plainly(tmp_path: Path) -> None:
    """A HOST that is not ours is one plain line with what would be right."""
    came = run(*SERVER_PY, cwd=tmp_path, PORT="0", HOST="192.0.2.1")
    assert came.returncode == 1
    assert came.stderr.splitlines()[1].startswith("  - HOST: 192.0.2.1 is no address")


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000/"),
        ("chat.example", "http://chat.example:8000/"),
        ("::1", "http://[::1]:8000/"),
        (
            "0.0.0.0",  # noqa: S104  # a word here, not an address to listen on
            "http://localhost:8000/ (another name of this machine: add it to ALLOWED_ORIGINS)",
        ),
        ("::", "http://localhost:8000/ (another name of this machine: add it to ALLOWED_ORIGINS)"),
    ],
)
def test_the_address_shown_can_be_opened(host: str, shown: str) -> None:
    """The banner shows an address that a browser takes, also where all of them are listened on."""
    assert address(host, 8000) == shown


@pytest.mark.parametrize("said", [{"KEYTURN_ENV": "production"}, {"VERCEL": "1"}])
def test_production_embeds_nothing(tmp_path: Path, said: dict[str, str]) -> None:
    """In production all that is missing is named at once, and nothing is started."""
    came = run(*SERVER_PY, cwd=tmp_path, **said)
    assert (came.returncode, came.stdout) == (1, "")
    named = re.findall(r"^  - (\w+): is required in production", came.stderr, re.MULTILINE)
    assert set(named) == {"REDIS_URL", "OPENAI_API_KEY", "API_SECRET_KEY", "ALLOWED_ORIGINS"}
    assert not (tmp_path / ".keyturn").exists()


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    """Mistakes in single settings and in the whole are listed together, and no value is echoed."""
    came = run(
        *SERVER_PY,
        cwd=tmp_path,
        KEYTURN_ENV="production",
        PORT="eighty",
        RATE_LIMIT="lots",
        API_SECRET_KEY=SHORT,
        IDENTITY_KEY=SHORT,
        OPENAI_API_KEY=CANARY,
        REDIS_URL=f"http://user:{CANARY}@redis.example",
        DEFAULT_MODEL="unheard-of",
    )
    assert (came.returncode, came.stdout) == (1, "")
    named = re.findall(r"^  - (\w+): ", came.stderr, re.MULTILINE)
    assert sorted(named) == [
        "ALLOWED_ORIGINS",
        "API_SECRET_KEY",
        "DEFAULT_MODEL",
        "IDENTITY_KEY",
        "PORT",
        "RATE_LIMIT",
        "REDIS_URL",
    ]
    assert CANARY not in came.stderr
    assert SHORT not in came.stderr
    assert "Traceback" not in came.stderr


def test_env_file_is_read(tmp_path: Path) -> None:
    """Settings stand in `.env` of the directory; the environment goes before it."""
    (tmp_path / ".env").write_text("KEYTURN_ENV=production\nPORT=1\nTENANT=not one\n")
    came = run(*SERVER_PY, cwd=tmp_path, PORT="eighty")
    assert came.returncode == 1
    assert "  - TENANT: " in came.stderr
    assert "  - PORT: " in came.stderr
    assert "  - REDIS_URL: is required in production" in came.stderr


def test_an_unreadable_env_file_is_said_plainly(tmp_path: Path) -> None:
    """A `.env` in another encoding, as some editors write it, is one plain line."""
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY={CANARY}\n", encoding="utf-16")
    came = run(*SERVER_PY, cwd=tmp_path)
    assert came.returncode == 1
    assert came.stderr.splitlines()[1:] == ["  - .env: should be a readable text file in UTF-8"]


def test_wrong_usage(tmp_path: Path) -> None:
    """A subcommand that does not exist is exit code 2."""
    came = run(*SERVER_PY, "swerve", cwd=tmp_path)
    assert came.returncode == 2
    assert "invalid choice: 'swerve'" in came.stderr


def test_a_name_that_is_mistyped_is_said_at_start(tmp_path: Path) -> None:
    """A cap that was misspelt is no cap: the log says which one may have been meant."""
    with server_py(tmp_path, DAILY_BUDGET_USDD="0.002") as running:
        assert "  budget    5.00 USD a day" in running.out.read_text()
        said = running.err.read_text()
    assert "WARNING keyturn DAILY_BUDGET_USDD is no setting: did you mean DAILY_BUDGET_USD?" in said
