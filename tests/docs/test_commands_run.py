"""Commands of the documentation, run as they stand there: in a copy, beside a real server."""

import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

from tests.command_stage import Running, answers, ended, server_py, started
from tests.docs.markdown import commands, named
from tests.docs.shell_stage import LIMIT, OURS, in_one_shell, shell
from tests.docs.table import COMMANDS, Run, row_of
from tests.stage import ROOT, wait_until

LEFT_OUT: Final = (
    ".git",
    ".venv*",
    ".peers",
    "node_modules",
    "__pycache__",
    ".*_cache",
    ".keyturn",
    ".env",
)
SAID: Final = {  # to the server, and to the shell that asks it
    "ADMIN_TOKEN": "of-the-operator-for-the-tests-alone-3hQ",
    "METRICS_TOKEN": "of-a-prometheus-for-the-tests-alone-8wT",
}


def copied(to: Path) -> Path:
    """A copy of the repository, to be written into."""
    shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (to / ".venv").symlink_to(sys.prefix)
    return to


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy that commands are run in."""
    return copied(tmp_path_factory.mktemp("docs") / "keyturn")


class NoSuchKey(BaseHTTPRequestHandler):
    """An upstream that takes nobody's key."""

    def do_POST(self) -> None:
        """As OpenAI refuses one."""
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}'
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def no_such_key() -> Iterator[str]:
    """In place of OpenAI, to which own keys would go: nothing leaves this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), NoSuchKey) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def demo(scratch: Path) -> Iterator[Running]:
    """What `make run` starts, on a port that is free."""
    with no_such_key() as url, server_py(scratch, BYOK_BASE_URL=url, **SAID) as running:
        yield running


def asking(running: Running, text: str) -> str:
    """A command, with the port that is free in place of 8000."""
    return re.sub(r"http://(localhost|127\.0\.0\.1):8000", running.url, text)


PAGES: Final = sorted({each.page for each in COMMANDS})


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_a_page_says_to_run_runs(
    page: Path, scratch: Path, demo: Running, tmp_path: Path
) -> None:
    """In one shell, as it stands there; each command ends and says as its row says."""
    here = [(each, row_of(each)) for each in commands(page, page.read_text())]
    ours = [(command, row) for command, row in here if isinstance(row, Run)]
    texts = [asking(demo, command.text) for command, _ in ours]
    for (command, row), (code, said) in zip(
        ours, in_one_shell(texts, scratch, tmp_path, **SAID), strict=True
    ):
        assert code == 0, f"{command.where}: {command.text}\n{said}"
        assert re.search(row.says, said), f"{command.where}: {command.text}\n{said}"


def test_a_token_of_the_readme_is_spent_by_its_second_use(
    scratch: Path, demo: Running, tmp_path: Path
) -> None:
    """ "The same command once more", it says, is 401 token_reused."""
    here = [each.text for each in COMMANDS if each.page == ROOT / "README.md"]
    chat = [text for text in here if "HEAD" in text or "TOKEN" in text]
    texts = [asking(demo, text) for text in [*chat, chat[-1]]]
    *_, (_, once), (_, again) = in_one_shell(texts, scratch, tmp_path, **SAID)
    assert '"chat.completion"' in once
    assert '"token_reused"' in again


def test_make_run_serves(tmp_path: Path) -> None:
    """The target itself, with what is installed here; Ctrl-C ends all of it."""
    command = ("make", "-C", str(copied(tmp_path / "keyturn")), *OURS, "run")
    with started(command, tmp_path, PORT="0") as running:
        wait_until(lambda: "  workers " in running.said or ended(running), LIMIT)
        assert answers(running.url), running.said
        running.press_ctrl_c()


def test_the_servers_before_a_model_of_ones_own_can_be_set_so(
    scratch: Path, tmp_path: Path
) -> None:
    """The page's settings and its price list are what `check` calls well."""
    page = ROOT / "docs" / "compatible-servers.md"
    prices = page.read_text().partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "local-prices.toml").write_text(prices)
    exports = [each.text for each in commands(page, page.read_text()) if "export" in each.text]
    checks = f"{sys.executable} {scratch}/server.py check"
    said = shell("\n".join([*exports, f"exec {checks}"]), tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "gemma-3-270m" in said.stdout


def test_a_short_run_measures_all_and_writes_it(scratch: Path) -> None:
    """What `make grow ARGS=--write` runs, with little of everything: the page is written anew."""
    small = "--write --calls 60 --streams 40 --rounds 1 --seconds 0.2"
    page, record = scratch / "docs" / "grow.md", scratch / "bench" / "grow.json"
    before = page.read_text(), record.read_text()
    run = shell(f"exec .venv/bin/python -m bench.grow {small}", scratch, PYTHONPATH="")
    # Exit code 1 says that the simulation was off, which so short a run may be.
    assert run.returncode in (0, 1), run.stderr
    assert "| memory of each of 40 open streams |" in page.read_text()
    assert "Traceback" not in run.stderr
    assert page.read_text() != before[0]
    assert record.read_text() != before[1]


def test_a_shell_keeps_what_one_command_leaves_to_the_next(tmp_path: Path) -> None:
    """And tells how each of them ended."""
    said = in_one_shell(["X=1", "echo $X; false", "echo $X"], tmp_path, tmp_path)
    assert said == [(0, ""), (1, "1\n"), (0, "1\n")]
