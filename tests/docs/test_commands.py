"""Every command in the documentation is run here, by a named test, or is said not to be run."""

import re
from typing import Final

import pytest

from tests.docs.markdown import Command, commands, named, pages
from tests.docs.shell_stage import OURS, shell
from tests.docs.table import COMMANDS, ROWS, By, NotRun, Row, row_of
from tests.stage import ROOT

SAID_SO: Final = re.compile(r"not\s+(?:run|tried)", re.IGNORECASE)
HINT: Final = "no row of tests/docs/table.py fits: say there how this command is known to work"


def faults(command: Command, page: str, rows: tuple[Row, ...] = ROWS) -> str | None:
    """What is wrong about a command on a page of this text, if anything."""
    row = row_of(command, rows)
    if row is None:
        return HINT
    if isinstance(row, NotRun) and not SAID_SO.search(page):
        return f'it is not run ({row.why}), and the page says neither "not run" nor "not tried"'
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
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    found = {
        (named(page), target)
        for page in pages()
        for target in re.findall(r"`make ([a-z-]+)", page.read_text())
    }
    assert {each for each in found if each[1] not in targets} == set()
    assert len(found) > 10


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
    assert faults(command, "**Not tried**: a container.", rows) is None
    assert (faults(command, "It works.", rows) or "").startswith("it is not run (no engine)")


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
