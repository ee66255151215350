"""GET /metrics: who may read it, what it counts, and that any worker answers for all."""

import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from metric_families import FAMILIES
from metrics import Metrics, added, as_json, as_text, from_json, money_of, state_of
from tests.command_stage import (
    START_LIMIT,
    UVICORN,
    answers,
    free_port,
    only,
    server_py,
    started,
    workers_of,
)
from tests.prometheus_stage import METRICS_TOKEN, NEEDS_PROMETHEUS, read, value
from tests.stage import (
    CHAT,
    OPERATORS_KEY,
    SECRET,
    Server,
    Upstream,
    at_rest,
    eventually,
    redis_process,
    serving,
    settings_with,
    visiting,
    wait_until,
)
from tests.test_turn_log import RECORD
from tests.upstream import play

SHOWN = {"Authorization": f"Bearer {METRICS_TOKEN}"}
MINI = "gpt-4.1-mini"


@asynccontextmanager
async def measured(redis_url: str, upstream: Upstream, **said: Any) -> AsyncIterator[Server]:
    """A server that shows its metrics."""
    urls = {"redis_url": redis_url, "openai_base_url": upstream.url, "byok_base_url": upstream.url}
    async with serving(settings_with(metrics_token=METRICS_TOKEN, **{**urls, **said})) as server:
        yield server


async def asked(url: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Status, content type and body of /metrics."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{url}/metrics", headers=headers) as answer,
    ):
        return answer.status, answer.headers.get("Content-Type", ""), await answer.text()


async def test_it_is_not_there_unless_a_token_is_set(server: Server) -> None:
    """Without METRICS_TOKEN it is no route at all, whatever is shown."""
    for headers in ({}, SHOWN):
        status, _, text = await asked(server.url, **headers)
        assert (status, '"code":"not_found"' in text) == (404, True)


async def test_only_who_shows_the_token_reads_it(redis_url: str, upstream: Upstream) -> None:
    """Exactly that one, by GET or HEAD; all else is 401, and nothing of it is told."""
    async with measured(redis_url, upstream) as server:
        wrong = [
            *("", "Bearer ", "Bearer keyturn", METRICS_TOKEN, f"Basic {METRICS_TOKEN}"),
            *(f"Bearer {METRICS_TOKEN[:-1]}", f"Bearer {METRICS_TOKEN}x", "Bearer \u00fc"),
        ]
        for each in wrong:
            status, kind, text = await asked(server.url, Authorization=each)
            assert (each, status, kind) == (each, 401, "application/problem+json")
            assert "keyturn_" not in text
            said = json.loads(text)
            assert (said["code"], "chain" in said) == ("operator_only", False)
            assert "METRICS_TOKEN" in said["detail"]
        status, kind, text = await asked(server.url, **SHOWN)
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert "# TYPE keyturn_turns_total counter" in text
        assert await asked(server.url, "HEAD", **SHOWN) == (200, kind, "")
        assert (await asked(server.url, "POST", **SHOWN))[0] == 405


async def test_it_counts_what_became_of_turns(redis_url: str, upstream: Upstream) -> None:
    """By route, status, code and model; tokens, money and times of those that were admitted."""
    async with measured(redis_url, upstream) as server, visiting(server) as visitor:
        for _ in range(3):
            assert (await visitor.say(play(prompt=1000))).status == 200
        assert (await visitor.say(stream=False, model="gpt-4o-mini")).status == 200
        assert (await visitor.say(play(status=500))).code == "upstream_unavailable"
        assert (await visitor.say(headers={"Keyturn_Timestamp": None})).status == 400
        await eventually(lambda: at_rest(server))
        found = await read(server.url)
    turns = "keyturn_turns_total"
    chat = {"route": CHAT, "model": MINI}
    assert value(found, turns, **chat, status="200", code="ok") == 3
    assert value(found, turns, **chat, status="502", code="upstream_unavailable") == 1
    refused = {"route": CHAT, "model": "none", "status": "400", "code": "timestamp_missing"}
    assert value(found, turns, **refused) == 1
    assert value(found, "keyturn_tokens_total", kind="input", model=MINI, key="operator") == 3000
    assert value(found, "keyturn_tokens_total", kind="output", model=MINI, key="operator") == 9
    assert value(found, "keyturn_turn_duration_seconds_count", **chat) == 4
    assert value(found, "keyturn_turn_ttfb_seconds_count", **chat) == 3
    assert value(found, "keyturn_turn_ttfb_seconds_bucket", **chat, le="+Inf") == 3
    spent = sum(number for (name, _), number in found.items() if name == "keyturn_cost_usd_total")
    assert spent == pytest.approx(value(found, "keyturn_budget_spent_usd"))
    assert spent > 0.001
    assert value(found, "keyturn_budget_cap_usd") == 5
    assert value(found, "keyturn_budget_held_usd") == 0
    assert value(found, "keyturn_redis_up") == 1
    assert value(found, "keyturn_redis_call_duration_seconds_count", script="admit") == 5
    assert value(found, "keyturn_redis_call_duration_seconds_count", script="settle") == 5
    assert value(found, "keyturn_streams_limit") == 1000


async def test_it_tells_of_what_runs(redis_url: str, upstream: Upstream) -> None:
    """A turn in flight, a drain, and a pause by the operator, as they stand."""
    async with measured(redis_url, upstream) as server, visiting(server) as visitor:
        body = visitor.body(play(words=9, hang_after=1))
        url = server.url + CHAT
        async with visitor.session.post(url, data=body, headers=visitor.headers()) as answer:
            await answer.content.readany()
            found = await read(server.url)
            assert value(found, "keyturn_streams_in_flight") == 1
            assert value(found, "keyturn_holds", state="open") == 1
            assert value(found, "keyturn_budget_held_usd") > 0
            assert value(found, "keyturn_workers_draining") == 0
        await eventually(lambda: at_rest(server))
        await server.keyturn.store.hset("keyturn:{main}:control", "paused", "1")
        server.keyturn.turns.drain(1)
        found = await read(server.url)
    assert value(found, "keyturn_streams_in_flight") == 0
    assert value(found, "keyturn_workers_draining") == 1
    assert value(found, "keyturn_admissions_paused") == 1


async def test_it_answers_without_redis(upstream: Upstream) -> None:
    """In time, with all that the workers know, and it says that the money is not known."""
    with redis_process() as url:
        async with measured(url, upstream) as server, visiting(server) as visitor:
            await visitor.say()
            os.kill((await server.keyturn.store.info("server"))["process_id"], signal.SIGKILL)
            for _ in range(5):
                await visitor.say()
            found = await read(server.url)
            status = {"route": CHAT, "model": MINI, "status": "503", "code": "store_unavailable"}
            assert value(found, "keyturn_turns_total", **status) == 5
            failed = {"script": "admit", "reason": "failed"}
            assert value(found, "keyturn_redis_failures_total", **failed) == 3
            not_asked = {"script": "admit", "reason": "not_asked"}
            assert value(found, "keyturn_redis_failures_total", **not_asked) >= 1
            assert value(found, "keyturn_breaker_open", dependency="redis") == 1
            assert value(found, "keyturn_redis_up") == 0
            assert not [name for name, _ in found if name.startswith("keyturn_budget")]


async def test_no_visitor_makes_series(redis_url: str, upstream: Upstream) -> None:
    """Models, paths, methods and labels of their own making add none."""
    async with measured(redis_url, upstream) as server, visiting(server) as visitor:
        await visitor.say(model="none-such")
        before = set(await read(server.url))
        for number in range(20):
            await visitor.say(
                model=f"made-up-{number}", headers={"X_Request_Id": f"label-{number}"}
            )
            await visitor.post(b"{}", visitor.headers(), f"{CHAT}/{number}")
            await visitor.post(visitor.body(model=f"made-up-{number}"), visitor.headers(), CHAT)
        assert set(await read(server.url)) == before


def test_a_model_that_is_not_on_the_list_is_other() -> None:
    """A record can name what it will."""
    metrics = Metrics([MINI])
    metrics.turn(RECORD)
    for name in ("x", 'y"\n', "z\\"):
        metrics.turn(RECORD.__class__(**{**fields_of(RECORD), "model": name}))
    labels = {labels[3] for labels in metrics.counts["keyturn_turns_total"]}
    assert labels == {MINI, "other"}


def fields_of(record: Any) -> dict[str, Any]:
    """The fields of a record."""
    return {name: getattr(record, name) for name in record.__slots__}


async def test_any_worker_answers_for_all(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Four workers, each with turns of its own: whoever is asked tells the same sum; and what one
    that is killed had counted stays, while it is no longer counted among those that serve."""
    said = {"REDIS_URL": redis_url, "OPENAI_BASE_URL": upstream.url, "WORKERS": "4"}
    keys = {"OPENAI_API_KEY": OPERATORS_KEY, "API_SECRET_KEY": SECRET}
    with server_py(tmp_path, **said, **keys, METRICS_TOKEN=METRICS_TOKEN) as running:
        workers = workers_of(running)
        for number, worker in enumerate(workers):
            with only(worker, workers):
                async with visiting(running.url) as visitor:
                    for _ in range(number + 1):
                        await visitor.say()
        ok = {"route": CHAT, "model": MINI, "status": "200", "code": "ok"}

        async def is_told(turns: int, serving: int) -> bool:
            found = await read(running.url)
            told = value(found, "keyturn_turns_total", **ok), value(found, "keyturn_workers")
            return told == (turns, serving)

        shared = directories(running.process.pid)
        assert len(shared) == 1
        wait_until(lambda: written_in(shared[0]) == 10)
        for worker in workers:
            with only(worker, workers):
                assert value(await read(running.url), "keyturn_turns_total", **ok) == 10
        assert mode_of(shared[0]) == 0o700
        os.kill(workers[3], signal.SIGKILL)
        wait_until(lambda: "a worker died" in running.said, START_LIMIT)
        await eventually(lambda: is_told(10, 4), START_LIMIT)
        assert running.end() == 0
    assert mode_of(shared[0]) is None


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    """After SIGKILL of the process that made it, the workers take the directory along."""
    with server_py(tmp_path, WORKERS="2", METRICS_TOKEN=METRICS_TOKEN) as running:
        (shared,) = directories(running.process.pid)
        assert mode_of(shared) == 0o700
        assert running.end(signal.SIGKILL) == -signal.SIGKILL
        wait_until(lambda: mode_of(shared) is None, START_LIMIT)


async def test_workers_of_another_server_share_what_they_are_given(
    redis_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Two of uvicorn's own, with a directory in KEYTURN_SHARED: each tells the sum; the control:
    without one a worker knows of itself alone."""
    said = {"REDIS_URL": redis_url, "OPENAI_BASE_URL": upstream.url}
    keys = {"OPENAI_API_KEY": OPERATORS_KEY, "API_SECRET_KEY": SECRET}
    for number, shared in enumerate((str(tmp_path), "")):
        port = free_port()
        command = (*UVICORN, "--port", port, "--workers", "2")
        more = {"METRICS_TOKEN": METRICS_TOKEN, "PORT": port, "KEYTURN_SHARED": shared}
        with started(command, tmp_path / f"{number}", **said, **keys, **more) as running:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: answers(url), START_LIMIT)  # noqa: B023
            expected = 2 if shared else 1
            await eventually(lambda: workers_are(url, expected), START_LIMIT)  # noqa: B023
            assert running.end() == 0


async def workers_are(url: str, number: int) -> bool:
    """Whether so many workers are told of, by whichever is asked."""
    told = {value(await read(url), "keyturn_workers") for _ in range(8)}
    return told == {number}


def directories(pid: int) -> list[str]:
    """Where the workers of this process tell each other what they counted."""
    found = set()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found |= {each for each in environment if each.startswith(b"KEYTURN_SHARED=")}
    return [each.decode().partition("=")[2] for each in sorted(found)]


def written_in(directory: str) -> float:
    """How many good turns stand in the files of all workers together."""
    files = [json.loads(file.read_text()) for file in Path(directory).glob("*.json")]
    turns = [row for file in files for row in file["counts"]["keyturn_turns_total"]]
    return float(sum(count for labels, (count,) in turns if "ok" in labels))


def mode_of(directory: str) -> int | None:
    """Who may use a directory; None where there is none."""
    path = Path(directory)
    return path.stat().st_mode & 0o777 if path.exists() else None


def everything() -> str:
    """A text in which every family has series, with a model whose name must be escaped."""
    odd = 'a "quoted" \\ name'
    metrics = Metrics([MINI, odd])
    metrics.turn(RECORD)
    metrics.turn(RECORD.__class__(**{**fields_of(RECORD), "model": odd}))
    metrics.redis_call("admit", None, 0.003)
    metrics.redis_call("settle", "failed", 0.6)
    state = state_of(streams=3, limit=1000, draining=False, breakers={"redis": True})
    return as_text(added([metrics.counts, state, money_of(None)]))


@NEEDS_PROMETHEUS
def test_prometheus_own_tool_finds_no_fault() -> None:
    """`promtool check metrics` reads it all and has nothing to say; the control: it would."""
    for text, code in ((everything(), 0), (everything().replace("_total", "_Total"), 3)):
        run = subprocess.run(
            ["promtool", "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == code, run.stdout + run.stderr


def test_sums_are_those_of_all_numbers() -> None:
    """Through JSON and back, bucket by bucket."""
    one, other = Metrics([MINI]), Metrics([MINI])
    for metrics, times in ((one, 2), (other, 3)):
        for _ in range(times):
            metrics.turn(RECORD)
    both = added([one.counts, from_json(as_json(other.counts))])
    text = as_text(both)
    assert f'code="ok",model="{MINI}"}} 5\n' in text
    assert re.search(r'ttfb_seconds_bucket\{[^}]+le="0.05"\} 5\n', text)
    assert re.search(r"keyturn_turn_duration_seconds_sum\{[^}]+\} 1\.359", text)
    assert added([both])["keyturn_turns_total"] is not both["keyturn_turns_total"]


def test_each_family_has_its_series_in_the_text() -> None:
    """Names, types and help of all of them, also of those that nothing was counted of yet."""
    text = as_text({})
    assert re.findall(r"^# TYPE (\S+)", text, re.M) == [family.name for family in FAMILIES]
