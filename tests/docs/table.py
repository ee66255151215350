"""How each command of the documentation is known to work. The first row that fits counts.

A command that no row fits fails tests/docs/test_commands.py, which says so. Then add a row:

- `Run(pattern, says)` where it can be run here, for real: in a scratch copy of the repository, all
  commands of a page in one shell and in their order, beside a server with its demo upstream, whose
  port stands in for 8000. ADMIN_TOKEN and METRICS_TOKEN are set for both. It must exit 0, and print
  what `says` finds.
- `By(pattern, test, holds)` where a test runs it already, in another way: one that is named, and
  whose file holds these words.
- `NotRun(pattern, why)` where it cannot be run here: the page must say "not run" or "not
  tried" of it itself.

A pattern is a regular expression for the whole command, without its comment. `page` is a part of
the page's path, where a row is for that page alone.
"""

import re
from dataclasses import dataclass
from typing import Final

from tests.docs.markdown import Command, commands, named, pages


@dataclass(frozen=True, slots=True)
class Run:
    """Run here, for real."""

    pattern: str
    says: str = ""
    page: str = ""


@dataclass(frozen=True, slots=True)
class By:
    """Run by a test, named as pytest names it, whose file holds these words."""

    pattern: str
    test: str
    holds: str
    page: str = ""


@dataclass(frozen=True, slots=True)
class NotRun:
    """Not run here, and why."""

    pattern: str
    why: str
    page: str = ""


Row = Run | By | NotRun

PYTHON: Final = r"(WORKERS=\d+ )?\.venv/bin/python "
MAKE: Final = "tests/docs/test_commands_run.py::test_make_run_serves"

ROWS: Final[tuple[Row, ...]] = (
    # -- docs/runbook.md
    By(
        r".+",
        "tests/faults/test_runbook.py::test_a_night_goes_as_the_page_says",
        "steps",
        page="docs/runbook",
    ),
    # -- deploy/redis/README.md
    By(
        r".+",
        "tests/test_redis_acl.py::test_passwords_are_put_in_as_the_page_says",
        "README",
        page="deploy/redis/",
    ),
    # -- docs/deploy/
    NotRun(r"docker .+|for n in .+docker.+", "there is no engine here", page="docs/deploy/"),
    NotRun(r"(fly|kubectl|sam) .+", "it needs a platform", page="docs/deploy/"),
    NotRun(r".*pip install .+", "it would download packages", page="docs/deploy/"),
    NotRun(r"(git clone|install|cp|systemctl) .+", "it changes the machine", page="docs/deploy/"),
    By(
        r"\.venv/bin/gunicorn -c deploy/gunicorn\.conf\.py server:app",
        "tests/deploy/test_gunicorn.py",
        "gunicorn.conf.py",
        page="docs/deploy/",
    ),
    # -- docs/operate.md
    Run(r"curl -s http://localhost:8000/metrics .+", says="(?m)^keyturn_", page="docs/operate"),
    By(
        r"URL=.+|(ask|tell)(\(\))? .+",
        "tests/test_operator_docs.py::test_every_line_for_curl_works",
        "operate.md",
        page="docs/operate",
    ),
    NotRun(r"docker compose .+", "there is no engine here", page="docs/operate"),
    NotRun(r".+pip install .+otel.+", "it would download packages", page="docs/operate"),
    By(
        r"FASTAPI_OTEL.+",
        "tests/test_turn_trace.py::test_a_turn_can_be_traced",
        "FASTAPI_OTEL_AUTO_CONFIGURE",
        page="docs/operate",
    ),
    # -- started by make
    By(r"(ALLOWED_ORIGINS=\S+ )?make run", MAKE, '"run"'),
    By("make test", ".ci/run", "make test"),
    By("make bench .+", "tests/bench/test_harness.py::test_a_small_run_measures_and_judges", "cpu"),
    By("make soak .+", "tests/bench/test_counts.py::test_a_worker_does_not_grow", "soak("),
    By(
        "make grow( .+)?",
        "tests/docs/test_commands_run.py::test_a_short_run_measures_all_and_writes_it",
        "bench.grow",
    ),
    # -- server.py
    By(rf"{PYTHON}server\.py", "tests/test_workers.py::test_nothing_outlives_it", 'WORKERS="2"'),
    Run(rf"{PYTHON}server\.py check", says="All is well."),
    # -- visitors
    By(
        rf"{PYTHON}test_client\.py",
        "tests/test_test_client.py::test_all_is_well_with_a_server_of_default_settings",
        '"--url", running.url',
    ),
    Run(rf"{PYTHON}examples/python_sdk\.py --url http://localhost:8000", says="> Thank you!"),
    # -- reckoning
    Run(rf"{PYTHON}-m bench\.grow --chats .+", says=r"\| workers \| "),
    # -- README: a chat by plain HTTP, in one shell
    Run(r"HEAD=\$\(mktemp\)"),
    Run(
        r'curl -sN -D "\$HEAD" http://localhost:8000/v1/chat/completions .+', says=r"data: \[DONE\]"
    ),
    Run(r'TOKEN=\$\(sed .+ "\$HEAD" \| tr .+\)'),
    Run(
        r'curl -s http://localhost:8000/v1/chat/completions .+Bearer \$TOKEN".+',
        says=r'"object": ?"chat\.completion"',
    ),
    Run(r"curl -sN http://localhost:8000/api/chat .+sk-your-own-key.+", says="byok_key_rejected"),
    # -- docs/deploy.md
    NotRun(r"python3 -m venv \.venv && .+pip install .+", "it would download all packages"),
    # -- docs/compatible-servers.md
    NotRun(r"(python3 -m venv llama && )?llama/bin/.+", "it needs a model of 250 MB"),
    Run(r"export .+", page="compatible-servers"),
    NotRun(r".+test_client\.py --model gemma-3-270m", "it needs that model"),
)

COMMANDS: Final = [each for page in pages() for each in commands(page, page.read_text())]


def row_of(command: Command, rows: tuple[Row, ...] = ROWS) -> Row | None:
    """The first row that fits."""
    for row in rows:
        fits = re.fullmatch(row.pattern, command.text, re.DOTALL)
        if fits and row.page in named(command.page):
            return row
    return None
