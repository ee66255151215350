"""`python server.py check`, as an operator runs it: check.py, findings.py, at_hand.py."""

import asyncio
import re
import sys
import time
from pathlib import Path

import pytest
import redis
import redis.asyncio

from check import about_clock
from findings import Finding, as_lines, has_fault
from security.store import facts
from tests.check_stage import check
from tests.command_stage import (
    CANARY,
    SERVER_PY,
    ended,
    run,
    server_py,
    turn,
    without_a_store,
)
from tests.stage import OPERATORS_KEY, SECRET, redis_process

KEYS = {"OPENAI_API_KEY": OPERATORS_KEY, "API_SECRET_KEY": SECRET}


def test_one_line_per_finding() -> None:
    """In groups, and summed up; only a fault is a fault."""
    found = [
        Finding("redis", "ok", "there"),
        Finding("redis", "warning", "late"),
        Finding("budget", "fault", "none"),
    ]
    assert as_lines(found) == (
        "redis      ok       there\n"
        "           warning  late\n"
        "budget     fault    none\n"
        "\n"
        "1 fault and 1 warning."
    )
    assert as_lines(found[:1]).endswith("\n\nAll is well.")
    assert as_lines(found[1:2] * 2).endswith("\n\n2 warnings.")
    assert [has_fault(found), has_fault(found[:2])] == [True, False]


def test_an_empty_directory_is_well(tmp_path: Path) -> None:
    """With no setting every group is looked at, and all is well; nothing is asked upstream."""
    found = check(tmp_path)
    groups = list(dict.fromkeys(line.group for line in found.lines))
    assert groups == [
        *("settings", "prices", "budget", "proxies", "origins", "byok", "upstream"),
        *("redis", "store", "today"),
    ]
    assert found.code == 0
    assert found.said.endswith("\nAll is well.\n")
    assert found.of("upstream") == ["demo: answers are made up (set OPENAI_API_KEY)"]


def test_all_at_once(tmp_path: Path, redis_url: str) -> None:
    """Faults and warnings of every group stand in one report, with exit code 1."""
    (tmp_path / ".env").write_text("DAYLY_BUDGET_USD=1\n")
    found = check(
        tmp_path,
        REDIS_URL=redis_url,
        HOST="0.0.0.0",  # noqa: S104  # nobody listens there
        DAILY_BUDGET_USD="0.000001",
        KEYTURN_DOCS="on",
        BYOK_BASE_URL="http://own.example/v1",
        **KEYS,
    )
    assert found.code == 1
    assert {line.group for line in found.lines if line.state == "fault"} == {"prices"}
    warned = [line.group for line in found.lines if line.state == "warning"]
    assert warned[:4] == ["settings", "settings", "settings", "budget"]
    assert {"proxies", "byok", "store"} <= set(warned)
    assert found.said.endswith(f"\n3 faults and {len(warned)} warnings.\n")


def test_settings_that_cannot_be_used(tmp_path: Path) -> None:
    """Every mistake is a fault of its own line, names that are none stand beside; no value does."""
    (tmp_path / ".env").write_text(f"RATE_LIMITS={CANARY}\nPORT=eighty\n")
    found = check(tmp_path, RATE_LIMIT=CANARY, API_SECRET_KEY="too-short")
    assert found.code == 1
    faults = [text.partition(":")[0] for text in found.of("settings", "fault")]
    assert sorted(faults) == ["API_SECRET_KEY", "PORT", "RATE_LIMIT"]
    assert found.of("settings", "warning") == [
        "RATE_LIMITS is no setting: did you mean RATE_LIMIT?",
        "nothing else can be looked at before these are mended",
    ]
    assert CANARY not in found.said


def test_a_sound_store(tmp_path: Path, redis_url: str) -> None:
    """Its version, how long an admission takes, whose clock it has; and what was spent today."""
    found = check(tmp_path, REDIS_URL=redis_url)
    assert found.code == 0
    name, script, clock = found.of("redis", "ok")
    assert re.fullmatch(r"(redis|valkey) \d+\.\d+\.\d+, REDIS_URL", name)
    assert re.fullmatch(r"the admission script runs and writes, in \d+\.\d ms", script)
    assert re.fullmatch(r"its clock and ours are 0\.\d{3} s apart", clock)
    assert found.of("store", "ok") == ["it may forget, as a demo may"]
    assert found.of("today", "ok") == ["0.00 of 5.00 USD spent, 0.00 held"]


def test_a_store_that_forgets_money(tmp_path: Path, redis_url: str) -> None:
    """With a key that costs, a store without persistence is a warning; in production a fault."""
    found = check(tmp_path, REDIS_URL=redis_url, **KEYS)
    assert found.code == 0
    (warned,) = found.of("store")
    assert warned.startswith("it does not persist: ")
    assert found.of("store", "warning") == [warned]
    production = {"KEYTURN_ENV": "production", "ALLOWED_ORIGINS": "https://page.example"}
    found = check(tmp_path, REDIS_URL=redis_url, **KEYS, **production)
    assert found.code == 1
    assert found.of("store", "fault") == [warned]
    with redis_process("--appendonly", "yes") as url:
        found = check(tmp_path, REDIS_URL=url, **KEYS, **production)
    assert found.of("store") == ["nothing says that it might forget"]
    assert found.code == 0


def test_a_store_without_the_fence(tmp_path: Path, redis_url: str) -> None:
    """To go without it is a warning; a store that forbids it is a fault while it is on."""
    found = check(tmp_path, REDIS_URL=redis_url, FAILOVER_FENCE="off")
    assert found.code == 0
    (warned,) = found.of("store", "warning")
    assert warned.startswith("FAILOVER_FENCE=off: ")
    with redis_process() as url, redis.Redis.from_url(url) as client:
        client.acl_setuser(
            "guest", True, ["+word"], keys=["*"], categories=["+@all"], commands=["-info"]
        )
        hidden = url.replace("://", "://guest:word@")
        found = check(tmp_path, REDIS_URL=hidden)
        assert found.code == 1
        (fault,) = found.of("store", "fault")
        assert "or set FAILOVER_FENCE=off" in fault
        assert check(tmp_path, REDIS_URL=hidden, FAILOVER_FENCE="off").code == 0


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (
            ("--maxmemory-policy", "allkeys-lru"),
            "it may evict keys (allkeys-lru): run redis-cli CONFIG SET",
        ),
        (("--replicaof", "127.0.0.1", "9"), "it is a replica: name its primary"),
        (("--maxmemory", "1mb", "--maxmemory-policy", "noeviction"), "its memory"),
    ],
)
def test_a_store_that_cannot_be_relied_on(
    tmp_path: Path, options: tuple[str, ...], fault: str
) -> None:
    """One that evicts, is a replica or is full is a fault, with how to mend it."""
    with redis_process(*options) as url:
        found = check(tmp_path, REDIS_URL=url)
    assert found.code == 1
    faults = [line.text for line in found.lines if line.state == "fault"]
    assert [text for text in faults if fault in text], found.said


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    """It is one fault, and the settings are looked at all the same; no part of the URL is shown."""
    found = check(tmp_path, REDIS_URL=f"redis://:{CANARY}@127.0.0.1:9/0", DAILY_BUDGET_USD="off")
    assert found.code == 1
    assert found.of("redis") == [
        "it does not answer in time: look at REDIS_URL, and whether it runs"
    ]
    assert len(found.of("budget", "warning")) == 1
    assert CANARY not in found.said


async def test_two_clocks(redis_url: str) -> None:
    """Half a minute between Redis' clock and ours is a fault, in either direction."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        for skew in (-60, 0, 60):
            seen = await facts(
                client,
                fenced=True,
                clock=lambda skew=skew: time.time() - skew,  # type: ignore[misc]
            )
            assert seen is not None
            assert seen.ahead == pytest.approx(skew, abs=5)
    found = [about_clock(ahead).state for ahead in (-60, -30.1, -29.9, 0, 29.9, 30.1)]
    assert found == ["fault", "fault", "ok", "ok", "ok", "fault"]


def test_what_the_operator_ruled_in_redis(tmp_path: Path, redis_url: str) -> None:
    """A pause and a day whose money is spent are warnings, and a cap in Redis is named."""
    with redis.Redis.from_url(redis_url) as client:
        client.hset("keyturn:{main}:control", mapping={"paused": 1, "cap": 7})
        found = check(tmp_path, REDIS_URL=redis_url)
        assert found.code == 0
        assert "paused: HDEL keyturn:{main}:control paused" in found.of("today", "warning")[0]
        assert "0.00 of 0.000007 USD spent" in found.of("today", "warning")[0]
        client.hset("keyturn:{main}:control", mapping={"paused": 0, "cap": 0})
        found = check(tmp_path, REDIS_URL=redis_url)
        assert "nobody gets in before 00:00 UTC" in found.of("today", "warning")[0]


def test_a_day_with_too_little_left_for_a_turn(tmp_path: Path, redis_url: str) -> None:
    """The last cents, too few for the shortest turn, are a warning: nobody gets in for them."""
    wait = "; nobody gets in before "
    with redis.Redis.from_url(redis_url) as client:
        day = f"keyturn:{{main}}:spend:{client.time()[0] // 86_400}"
        for spent, held, said in [
            (4_999_000, 0, ""),
            (4_999_900, 0, f"{wait}00:00 UTC, or a higher cap"),
            (4_000_000, 999_900, f"{wait}turns that run have ended, 00:00 UTC, or a higher cap"),
        ]:
            client.hset(day, mapping={"spent": spent, "held": held})
            (text,) = check(tmp_path, REDIS_URL=redis_url).of("today", "warning" if said else "ok")
            assert text.partition(" held")[2] == said


def test_beside_a_running_server(tmp_path: Path) -> None:
    """In the directory of a server with a store of its own that very store is looked at."""
    with server_py(tmp_path) as running:
        asyncio.run(turn(running.url))
        found = check(tmp_path)
        assert found.code == 0
        assert "the store of the server that runs here" in found.of("redis", "ok")[0]
        assert not found.of("today")[0].startswith("0.00 of"), "a turn was taken there"
        assert not ended(running)
        assert running.err.read_text().count("\n") == 1, "but for that turn it says nothing"
    control = check(tmp_path)
    assert "child process, in memory" in control.of("redis", "ok")[0]
    assert control.of("today")[0].startswith("0.00 of")


def test_beside_a_server_with_a_store_in_its_memory(tmp_path: Path) -> None:
    """fakeredis cannot be looked at from outside: a warning, that says who can be asked."""
    no_store = without_a_store(tmp_path)
    command = (sys.executable, "-S", SERVER_PY[1])
    with server_py(tmp_path / "here", command, **no_store):
        came = run(*command, "check", cwd=tmp_path / "here", **no_store)
    assert came.returncode == 0
    assert re.search(r"^redis +warning +.*\(fakeredis\).*: ask its /readyz$", came.stdout, re.M)
