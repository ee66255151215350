"""Every command in the documentation is run here, by a named test, or is said not to be run."""

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

from tests.command_stage import Running, answers, ended, scrubbed, server_py, started
from tests.docs.markdown import Command, commands, named, pages
from tests.docs.table import ROWS, By, NotRun, Row, Run
from tests.stage import ROOT, wait_until

LIMIT: Final = 90.0
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
OURS: Final = ("-o", ".venv/.made", "-o", ".venv/.runtime", "-o", ".venv/.dev")  # installed already
SAID: Final = {  # to the server, and to the shell that asks it
    "ADMIN_TOKEN": "of-the-operator-for-the-tests-alone-3hQ",
    "METRICS_TOKEN": "of-a-prometheus-for-the-tests-alone-8wT",
}
COMMANDS: Final = [each for page in pages() for each in commands(page, page.read_text())]
HINT: Final = "no row of tests/docs/table.py fits: say there how this command is known to work"


def row_of(command: Command, rows: tuple[Row, ...] = ROWS) -> Row | None:
    """The first row that fits."""
    for row in rows:
        fits = re.fullmatch(row.pattern, command.text, re.DOTALL)
        if fits and row.page in named(command.page):
            return row
    return None


def faults(command: Command, page: str, rows: tuple[Row, ...] = ROWS) -> str | None:
    """What is wrong about a command on a page of this text, if anything."""
    row = row_of(command, rows)
    if row is None:
        return HINT
    if isinstance(row, NotRun) and "not run" not in " ".join(page.split()):
        return f'it is not run ({row.why}), and the page does not say "not run"'
    if isinstance(row, By):
        return why_not(row)
    return None


def why_not(row: By) -> str | None:
    """What is wrong about the test that a row names, if anything."""
    file, _, name = row.test.partition("::")
    if not (ROOT / file).exists():
        return f"there is no {file}"
    text = (ROOT / file).read_text()
    if name and not re.search(rf"def {re.escape(name)}\(", text):
        return f"there is no {name} in {file}"
    return None if row.holds in text else f"{file} does not hold {row.holds!r}"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.where)
def test_every_command_is_known_to_work(command: Command) -> None:
    """It is run here, or by a test that is there, or its page says that it is not."""
    assert faults(command, command.page.read_text()) is None, f"{command.where}: {command.text}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.pattern)
def test_every_row_is_of_a_command(row: Row) -> None:
    """What no page says any more needs no row."""
    assert [each.where for each in COMMANDS if row_of(each) == row]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.where)
def test_every_target_is_in_the_makefile(command: Command) -> None:
    """`make` knows what it is asked for, with these arguments; nothing is made."""
    words = command.text.split()
    if "make" in words:
        asked = command.text[command.text.index("make ") :].replace("make ", "make -n ", 1)
        said = shell(f"{asked} {' '.join(OURS)}", ROOT)
        assert said.returncode == 0, said.stderr


def test_every_target_in_the_text_is_in_the_makefile() -> None:
    """Also where it stands in a sentence."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    found = {
        (named(page), target)
        for page in pages()
        for target in re.findall(r"`make ([a-z]+)", page.read_text())
    }
    assert {each for each in found if each[1] not in targets} == set()
    assert len(found) > 10


# -- run here


def copied(to: Path) -> Path:
    """A copy of the repository, to be written into."""
    shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (to / ".venv").symlink_to(sys.prefix)
    return to


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy that commands are run in."""
    return copied(tmp_path_factory.mktemp("docs") / "keyturn")


def shell(text: str, cwd: Path, **said: str) -> "subprocess.CompletedProcess[str]":
    """What a shell makes of this."""
    return subprocess.run(
        ["bash", "-c", text],
        cwd=cwd,
        env=scrubbed(**said),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def in_one_shell(texts: list[str], cwd: Path, out: Path) -> list[tuple[int, str]]:
    """Exit code and words of each command, one after the other in the same shell."""
    parts = [
        f"{{ {text}\n}} >{out}/{at} 2>&1; echo $? >{out}/{at}.code" for at, text in enumerate(texts)
    ]
    shell("\n".join(parts), cwd, **SAID)
    found = [(out / f"{at}.code", out / f"{at}") for at, _ in enumerate(texts)]
    return [(int(code.read_text()), said.read_text()) for code, said in found]


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


PAGES: Final = [page for page in pages() if any(each.page == page for each in COMMANDS)]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_a_page_says_to_run_runs(
    page: Path, scratch: Path, demo: Running, tmp_path: Path
) -> None:
    """In one shell, as it stands there; each command ends and says as its row says."""
    here = [(each, row_of(each)) for each in commands(page, page.read_text())]
    ours = [(command, row) for command, row in here if isinstance(row, Run)]
    texts = [asking(demo, command.text) for command, _ in ours]
    for (command, row), (code, said) in zip(
        ours, in_one_shell(texts, scratch, tmp_path), strict=True
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
    *_, (_, once), (_, again) = in_one_shell(texts, scratch, tmp_path)
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


# -- the controls


def test_a_command_that_nobody_knows_is_found() -> None:
    """A new line in a block fails until a row says how it is known to work."""
    text = "```sh\nmake run\nrm -rf everything  # not yet\n```\n"
    first, second = commands(ROOT / "README.md", text)
    assert faults(first, text) is None
    assert second.text == "rm -rf everything"
    assert faults(second, text) == HINT


def test_a_command_that_is_not_run_is_said_not_to_be() -> None:
    """The page itself tells its reader."""
    rows = (NotRun("docker .+", "no engine"),)
    command = Command(ROOT / "README.md", 1, "docker compose up")
    assert faults(command, "It was not\nrun.", rows) is None
    assert (
        faults(command, "It works.", rows)
        == 'it is not run (no engine), and the page does not say "not run"'
    )


@pytest.mark.parametrize(
    ("test", "holds", "why"),
    [
        ("tests/test_server.py", "def test", None),
        ("tests/test_gone.py::test_x", "", "there is no tests/test_gone.py"),
        ("tests/test_server.py::test_gone", "", "there is no test_gone in tests/test_server.py"),
        (
            "tests/test_server.py",
            "no such words",
            "tests/test_server.py does not hold 'no such words'",
        ),
    ],
)
def test_a_test_that_is_gone_is_found(test: str, holds: str, why: str | None) -> None:
    """By its file, its name or what it has to do with the command."""
    assert why_not(By("x", test, holds)) == why


@pytest.mark.parametrize(
    ("block", "found"),
    [
        ("```sh\none\n\n# a comment\ntwo --x  # why\n```", ["one", "two --x"]),
        ("```bash\none \\\n  --more 'a # b'\n```", ["one --more 'a # b'"]),
        ("```sh\ncurl -d '{\n  1}' url\n```", ["curl -d '{\n  1}' url"]),
        ("```sh\ncat > f <<'END'\nmake x\nEND\ntwo\n```", ["cat > f <<'END'\nmake x\nEND", "two"]),
        ("```sh\nX=$(one |\n  two)\nthree\n```", ["X=$(one |\n  two)", "three"]),
        ("```sh\nfor x in 1; do\n  one\ndone\ntwo\n```", ["for x in 1; do\n  one\ndone", "two"]),
        ("```console\n$ one\nits answer\n$ two\n```", ["one", "two"]),
        ("* a list\n\n  ```sh\n  one\n  ```", ["one"]),
        ("```text\nnone\n```\n```\nnone\n```", []),
    ],
)
def test_commands_are_found_as_a_shell_reads_them(block: str, found: list[str]) -> None:
    """Over several lines, in quotes, without comments, and in no other kind of block."""
    assert [each.text for each in commands(ROOT / "x.md", block)] == found


def test_a_shell_keeps_what_one_command_leaves_to_the_next(tmp_path: Path) -> None:
    """And tells how each of them ended."""
    said = in_one_shell(["X=1", "echo $X; false", "echo $X"], tmp_path, tmp_path)
    assert said == [(0, ""), (1, "1\n"), (0, "1\n")]
