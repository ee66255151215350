"""The line of JSON that a turn leaves: what it holds, and what it can never hold."""

import io
import json
import logging
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import turn_log
from security.errors import Code
from tests.attacks.canaries import TEXTS, VISITORS, hits
from tests.command_stage import only, server_py, workers_of
from tests.stage import CHAT, OPERATORS_KEY, ROOT, SECRET, Server, Upstream, visiting, wait_until
from turn_log import Lines, as_line, log, write_turn
from turn_record import TurnRecord

WHEN = 1_795_355_112_345  # in ms
RECORD = TurnRecord(
    **{"request_id": "a-label-of-mine", "route": CHAT, "status": 200, "code": "ok"},  # type: ignore[arg-type]
    **{"model": "gpt-4.1-mini", "visitor": "5RxEyiRceuL6Ck6daB_FdA", "own_key": False},  # type: ignore[arg-type]
    **{"stream": True, "input_tokens": 7, "output_tokens": 3, "cost_micro_usd": 8},  # type: ignore[arg-type]
    **{"ttfb_ms": 31.4159, "duration_ms": 271.8281},  # type: ignore[arg-type]
)


def test_a_line_says_all_of_the_record() -> None:
    """One line, in an order that a person can read, numbers as numbers."""
    line = as_line(RECORD, WHEN)
    assert line == (
        '{"time": "2026-11-22T13:45:12.345+00:00", "request_id": "a-label-of-mine", '
        '"route": "/v1/chat/completions", "status": 200, "code": "ok", "model": "gpt-4.1-mini", '
        '"visitor": "5RxEyiRceuL6Ck6daB_FdA", "own_key": false, "stream": true, '
        '"input_tokens": 7, "output_tokens": 3, "cost_micro_usd": 8, '
        '"ttfb_ms": 31.4, "duration_ms": 271.8}'
    )


def test_its_time_is_that_of_the_clock() -> None:
    """In UTC and to the millisecond, from one second to the next and back again."""
    for now_ms in (WHEN, WHEN + 654, WHEN + 655, WHEN):
        said = datetime.fromisoformat(json.loads(as_line(RECORD, now_ms))["time"])
        assert said == datetime.fromtimestamp(now_ms / 1000, UTC)


def test_what_is_not_known_is_null() -> None:
    """Every field stands in every line."""
    unknown = replace(RECORD, model=None, visitor=None, ttfb_ms=None, cost_micro_usd=None)
    said = json.loads(as_line(unknown, WHEN))
    assert list(said) == list(json.loads(as_line(RECORD, WHEN)))
    assert [said[name] for name in ("model", "visitor", "ttfb_ms", "cost_micro_usd")] == [None] * 4


@pytest.mark.parametrize("model", ['a "quoted" one', "back\\slash", "größer", "line\nend"])
def test_it_is_json_whatever_a_model_is_called(model: str) -> None:
    """Read by a machine it is the record again, and it stays one line."""
    record = replace(RECORD, model=model, code="gone", status=0, own_key=True)
    said = json.loads(line := as_line(record, WHEN))
    said.pop("time")
    rounded = replace(record, ttfb_ms=31.4, duration_ms=271.8)
    assert said == {name: getattr(rounded, name) for name in RECORD.__slots__}
    assert len(line.splitlines()) == 1


def test_a_quieter_level_has_no_turns(caplog: pytest.LogCaptureFixture) -> None:
    """At warning none is written; the control: at info it is."""
    for level, lines in ((logging.WARNING, 0), (logging.INFO, 1)):
        caplog.set_level(level, "keyturn")
        write_turn(RECORD)
        assert len(caplog.records) == lines


def test_it_is_logged_as_anything_is(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever formats it by a layout of their own finds in it what the library would have said."""
    caplog.set_level(logging.INFO, "keyturn")
    write_turn(RECORD)
    write_turn(RECORD)
    path = turn_log.__file__
    log.handle(logging.LogRecord(log.name, logging.INFO, path, 0, "a line", None, None))
    _, ours, librarys = (vars(record) for record in caplog.records)
    clocks = {"created": 0.1, "msecs": 1000, "relativeCreated": 100}
    for clock, apart in clocks.items():
        assert abs(ours.pop(clock) - librarys.pop(clock)) <= apart
    assert json.loads(ours.pop("message")) == json.loads(ours.pop("msg"))
    assert {librarys.pop("message"), librarys.pop("msg")} == {"a line"}
    assert ours == librarys


KILLED = """
import logging.config, os, signal
from command import logs
from tests.test_turn_log import RECORD
from turn_log import write_turn

logging.config.dictConfig(logs("info"))
write_turn(RECORD)
logging.getLogger("keyturn").warning("a line in plain words")
write_turn(RECORD)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_line_leaves_at_once() -> None:
    """A process that is killed has lost none, and they stand in order with all other lines."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    first, plain, last = killed.stderr.splitlines()
    assert plain.endswith("WARNING keyturn a line in plain words")
    assert [json.loads(line)["code"] for line in (first, last)] == ["ok", "ok"]


def test_a_log_that_is_closed_stops_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """Where a line cannot be written, the turn that it tells of ends all the same."""
    closed = io.StringIO()
    closed.close()
    Lines(closed).handle(logging.LogRecord(log.name, logging.INFO, "", 0, "{}", None, None))
    assert "--- Logging error ---" in capsys.readouterr().err


async def test_it_says_a_refusal_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A turn that is refused is one line, and a page's request too, in plain words."""
    caplog.set_level(logging.INFO, "keyturn")
    async with visiting(server, token="not-a-token") as visitor:
        answer = await visitor.say()
        async with visitor.session.get(f"{server.url}/v1/models/none") as other:
            label = other.headers["X-Request-Id"]
    turn, plain = [r.getMessage() for r in caplog.records if r.name.startswith("keyturn")]
    assert json.loads(turn)["code"] == answer.code == "token_malformed"
    assert json.loads(turn)["request_id"] == answer.headers["X-Request-Id"]
    assert plain == f"404 not_found request_id={label}"


async def test_no_line_holds_what_a_visitor_sent(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Texts, tokens, keys, fingerprint and address, in every place, of turns that end well or not;
    two workers write whole lines each."""
    said = {"REDIS_URL": redis_url, "OPENAI_BASE_URL": upstream.url, "BYOK_BASE_URL": upstream.url}
    keys = {"OPENAI_API_KEY": OPERATORS_KEY, "API_SECRET_KEY": SECRET, "WORKERS": "2"}
    tokens: dict[str, str] = {}
    with server_py(tmp_path, **said, **keys, TRUSTED_PROXIES="127.0.0.1") as running:
        extra = {"X-Forwarded-For": VISITORS["address"], "Connection": "close"}
        for worker in workers_of(running):
            with only(worker, workers_of(running)):
                async with visiting(
                    running.url, extra=extra, fingerprint=VISITORS["fingerprint"]
                ) as visitor:
                    for text in TEXTS.values():
                        await visitor.say(text)
                        tokens |= {f"token {len(tokens)}": visitor.token or "none"}
                    await visitor.say(model=TEXTS["message"])
                    key = VISITORS["own key"]
                    await visitor.say(TEXTS["message"], headers={"Authorization": f"Bearer {key}"})
        expected = 2 * (len(TEXTS) + 2)
        wait_until(lambda: running.said.count('{"time": ') >= expected)
        assert running.end() == 0
        lines = [line for line in running.err.read_text().splitlines() if line.startswith("{")]
    codes: list[Code] = [json.loads(line)["code"] for line in lines]
    assert len(codes) == expected
    assert {"ok", "invalid_request"} <= {*codes}
    secret = VISITORS | TEXTS | tokens | {"operator's key": OPERATORS_KEY}
    assert hits(secret, "\n".join(lines).encode()) == []
    assert hits(secret, f"{lines[0]}{VISITORS['fingerprint']}".encode()) == ["fingerprint"]
