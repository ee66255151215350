"""`python server.py spend`, as an operator runs it: spend.py, security/spending.py, at_hand.py."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from completions.prices import read_prices
from security.budget import WIDE_FACTOR
from security.spending import read_day, read_spenders
from tests.command_stage import (
    CANARY,
    SERVER_PY,
    START_LIMIT,
    alive,
    ended,
    run,
    server_py,
    turn,
    without_a_store,
)
from tests.money.books import total
from tests.security.ledger_stage import Chain, ledger_on
from tests.stage import (
    OPERATORS_KEY,
    ROOT,
    SECRET,
    Server,
    Upstream,
    at_rest,
    commands,
    eventually,
    redis_process,
    serving,
    settings_with,
    visiting,
    wait_until,
)
from tests.upstream import play

SPEND = (*SERVER_PY, "spend")
PRICES = read_prices((ROOT / "prices.toml").read_bytes())
READS = {"time", "hmget", "zcount", "scan", "hello", "client", "info", "ping", "select"}


@pytest.fixture
async def behind_a_proxy(redis_url: str, upstream: Upstream) -> AsyncIterator[Server]:
    """Keyturn with generous limits, whose visitors say by X-Forwarded-For who they are."""
    settings = settings_with(
        redis_url=redis_url, openai_base_url=upstream.url, trusted_proxies="127.0.0.1"
    )
    async with serving(settings) as server:
        yield server


async def ask(cwd: Path, *options: str, **said: str) -> Any:
    """What `spend` prints, beside what runs in this loop; it must succeed, and say nothing else."""
    came = await asyncio.to_thread(run, *SPEND, *options, cwd=cwd, **said)
    assert (came.returncode, came.stderr) == (0, "")
    return json.loads(came.stdout) if "--json" in options else came.stdout


async def say(server: Server, address: str, content: str = "hello") -> None:
    """One turn of a visitor with this address, answered in full."""
    async with visiting(server, extra={"X-Forwarded-For": address}) as visitor:
        assert (await visitor.say(content)).status == 200


async def test_a_day_without_a_turn(tmp_path: Path, redis_url: str) -> None:
    """Nothing was spent and nothing is held, of the caps as they are set; nobody is listed."""
    said = await ask(
        *(tmp_path, "--json"), REDIS_URL=redis_url, DAILY_BUDGET_USD="1.5", TENANT="other"
    )
    assert (said["spent_micro_usd"], said["held_micro_usd"]) == (0, 0)
    assert (said["cap_micro_usd"], said["left_micro_usd"]) == (1_500_000, 1_500_000)
    assert (said["visitor_cap_micro_usd"], said["cap_set_in"]) == (500_000, "DAILY_BUDGET_USD")
    assert (said["visitors"], said["top"], said["holds"]) == (0, [], 0)
    table = await ask(tmp_path, REDIS_URL=redis_url)
    assert re.search(r"^today +0\.00 +0\.00 +5\.00 +5\.00$", table, re.MULTILINE)
    assert table.endswith("No visitor has spent anything today.\n")


async def test_it_says_what_upstream_bills(
    tmp_path: Path, behind_a_proxy: Server, upstream: Upstream, redis_url: str
) -> None:
    """To the µUSD, for all together and for each; an IPv6 /48 counts its visitors once more."""
    script = play(words=20, prompt=100, cached=10)
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"):
        await say(behind_a_proxy, address, script)
    said = await ask(tmp_path, "--json", REDIS_URL=redis_url)
    billed = total(await upstream.books(), PRICES)
    assert said["spent_micro_usd"] == billed > 0
    assert said["left_micro_usd"] == 5_000_000 - billed
    assert said["visitors"] == 4
    spent = sorted((each["spent_micro_usd"] * 5 // billed, each["ipv6_48"]) for each in said["top"])
    assert spent == [(1, False), (1, False), (1, False), (2, False), (2, True)]
    caps = {each["ipv6_48"]: each["cap_micro_usd"] for each in said["top"]}
    assert caps == {False: 500_000, True: 500_000 * WIDE_FACTOR}
    table = await ask(tmp_path, REDIS_URL=redis_url)
    assert len(re.findall(r"^\S{22} /48 ", table, re.MULTILINE)) == 1
    assert max(map(len, table.splitlines())) <= 80


async def test_what_is_held_is_shown_while_it_is(
    tmp_path: Path, behind_a_proxy: Server, redis_url: str
) -> None:
    """An answer under way is a hold of its worst case, taken from what is left."""
    async with visiting(behind_a_proxy) as visitor:
        body = visitor.body(play(words=9, hang_after=1))
        async with visitor.session.post(
            f"{behind_a_proxy.url}/v1/chat/completions", data=body, headers=visitor.headers()
        ) as answer:
            await answer.content.readany()
            said = await ask(tmp_path, "--json", REDIS_URL=redis_url)
            assert (said["holds"], said["spent_micro_usd"]) == (1, 0)
            assert said["held_micro_usd"] == said["top"][0]["held_micro_usd"] > 0
            assert said["left_micro_usd"] == 5_000_000 - said["held_micro_usd"]
    await eventually(lambda: at_rest(behind_a_proxy))
    after = await ask(tmp_path, "--json", REDIS_URL=redis_url)
    assert (after["holds"], after["held_micro_usd"]) == (0, 0)
    assert after["spent_micro_usd"] > 0


async def test_what_went_wrong_is_counted(
    tmp_path: Path, behind_a_proxy: Server, redis_url: str
) -> None:
    """An answer that cost more than its hold is `over`; one that was too long is `past` too."""
    await say(behind_a_proxy, "192.0.2.1", play(words=1, prompt=100_000))
    await say(behind_a_proxy, "192.0.2.2", play(words=2000, ignore_limit=True))
    await eventually(lambda: at_rest(behind_a_proxy))
    said = await ask(tmp_path, "--json", REDIS_URL=redis_url)
    assert (said["over"], said["past"]) == (2, 1)


async def test_what_the_operator_ruled_in_redis(tmp_path: Path, redis_url: str) -> None:
    """A cap and a pause in `control` are shown as what holds, and where they were set."""
    with redis.Redis.from_url(redis_url) as client:
        client.hset("keyturn:{main}:control", mapping={"cap": 2_000_000, "paused": 1})
        said = await ask(tmp_path, "--json", REDIS_URL=redis_url)
        assert (said["cap_micro_usd"], said["cap_set_in"]) == (2_000_000, "control")
        assert said["paused"] is True
        client.hset("keyturn:{main}:control", mapping={"cap": -1, "paused": 0})
        said = await ask(tmp_path, "--json", REDIS_URL=redis_url)
        assert (said["cap_micro_usd"], said["paused"]) == (None, False)
        client.hset("keyturn:{main}:control", "cap", "five")
        came = run(*SPEND, cwd=tmp_path, REDIS_URL=redis_url)
    assert (came.returncode, came.stdout) == (1, "")
    assert "the cap set in Redis is no number" in came.stderr


async def test_of_many_visitors_those_who_spent_most(tmp_path: Path, redis_url: str) -> None:
    """Ten are shown, the largest first; the others are counted, among keys of all kinds."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        day = (await client.time())[0] // 86_400
        pipe = client.pipeline(transaction=False)
        for number in range(3000):
            pipe.hset(f"keyturn:{{main}}:spend:{day}:visitor-{number:04d}", "spent", number)
            pipe.hset(f"keyturn:{{main}}:spend:{day - 1}:visitor-{number}", "spent", 9**9)
            pipe.hset(f"keyturn:{{others}}:spend:{day}:visitor-{number}", "spent", 9**9)
            pipe.set(f"keyturn:{{main}}:rate:{number}", 1)
        await pipe.execute()
        await client.config_resetstat()
    said = await ask(tmp_path, "--json", REDIS_URL=redis_url)
    assert [each["visitor"] for each in said["top"]] == [
        f"visitor-{number}" for number in range(2999, 2989, -1)
    ]
    assert said["visitors"] == 3000
    asked = commands(redis_url)
    assert set(asked) <= READS, "it reads, and never by KEYS"
    assert asked["scan"] >= 12, "the control: not all at once"
    assert "visitor (10 of 3000)" in await ask(tmp_path, REDIS_URL=redis_url)


async def test_what_the_ledger_settles_is_what_is_read(redis_url: str) -> None:
    """The two agree on every key, on the day, and on what was charged above its hold."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        ledger = ledger_on(client, tenant="main")
        chain = Chain(ledger, client)
        verdict = await chain.redeem(rid="a-turn")
        await ledger.settle("a-turn", chain.visitor, chain=chain.name, charge=7)
        day = await read_day(client, tenant="main", cap=None)
        spenders, visitors = await read_spenders(client, tenant="main", day=day.number, most=3)
    assert day.number == verdict.hold.day
    assert (day.spent, day.held, day.over, day.left) == (7, 0, 1, None)
    assert [(each.name, each.spent) for each in spenders] == [(chain.visitor.address, 7)]
    assert visitors == 1


async def test_beside_a_running_server(tmp_path: Path) -> None:
    """In the directory of a server with a store of its own its money is seen, and not disturbed."""
    with server_py(tmp_path) as running:
        before = await ask(tmp_path, "--json")
        token = (await turn(running.url)).token
        after = await ask(tmp_path, "--json")
        assert (before["spent_micro_usd"], before["visitors"]) == (0, 0)
        assert (after["visitors"], after["holds"]) == (1, 0)
        assert after["spent_micro_usd"] > 0
        assert (await turn(running.url, token)).status == 200
        assert not ended(running)
    came = run(*SPEND, cwd=tmp_path)
    assert (came.returncode, came.stdout) == (1, "")
    assert came.stderr.startswith("There is nothing to see: no server runs here")


async def test_after_the_server_has_ended(tmp_path: Path, upstream: Upstream) -> None:
    """Books that are kept are opened for the moment, and nothing of it is left running."""
    said = {
        "OPENAI_API_KEY": OPERATORS_KEY,
        "OPENAI_BASE_URL": upstream.url,
        "API_SECRET_KEY": SECRET,
    }
    with server_py(tmp_path, **said) as running:
        assert (await turn(running.url)).status == 200
        during = await ask(tmp_path, "--json", **said)
        family = running.family()
        assert running.end() == 0
    wait_until(lambda: not alive(family), START_LIMIT)
    after = await ask(tmp_path, "--json", **said)
    assert after["spent_micro_usd"] == during["spent_micro_usd"] > 0
    assert after["top"] == during["top"]
    again = run(*SERVER_PY, "check", cwd=tmp_path, **said)
    assert again.returncode == 0, "the lock and the files are free"


def test_money_in_the_memory_of_another_process(tmp_path: Path) -> None:
    """Beside a server on fakeredis one line says that nobody can look there."""
    no_store = without_a_store(tmp_path)
    command = (sys.executable, "-S", SERVER_PY[1])
    with server_py(tmp_path / "here", command, **no_store):
        came = run(*command, "spend", cwd=tmp_path / "here", **no_store)
    assert (came.returncode, came.stdout) == (1, "")
    assert re.fullmatch(r"There is nothing to see: .* \(fakeredis\), .*\n", came.stderr)


def test_redis_is_down(tmp_path: Path) -> None:
    """One friendly line without the URL, whose password is a secret, and exit code 1."""
    came = run(*SPEND, cwd=tmp_path, REDIS_URL=f"redis://:{CANARY}@127.0.0.1:9/0")
    assert (came.returncode, came.stdout) == (1, "")
    assert came.stderr == (
        "There is nothing to see: Redis cannot be read: it does not answer in time\n"
    )


def test_settings_that_cannot_be_used(tmp_path: Path) -> None:
    """They are listed as at start, without their values, and nothing is opened."""
    came = run(*SPEND, cwd=tmp_path, TENANT="not one", RATE_LIMIT=CANARY)
    assert (came.returncode, came.stdout) == (1, "")
    assert came.stderr.startswith("The settings cannot be used:\n  - TENANT: ")
    assert CANARY not in came.stderr
    assert not (tmp_path / ".keyturn").exists()


def test_redis_refuses_us(tmp_path: Path) -> None:
    """A wrong password and a user who may read too little are told apart, and not echoed."""
    with redis_process() as url, redis.Redis.from_url(url) as client:
        client.config_set("requirepass", "the-right-one")
        came = run(*SPEND, cwd=tmp_path, REDIS_URL=url.replace("://", f"://:{CANARY}@"))
        assert came.returncode == 1
        assert "it refuses the user or the password in REDIS_URL" in came.stderr
        client.acl_setuser("few", enabled=True, nopass=True, commands=["+ping", "+hmget"])
        came = run(*SPEND, cwd=tmp_path, REDIS_URL=url.replace("://", "://few:any@"))
    assert came.returncode == 1
    assert "Redis lets this user read too little" in came.stderr
    assert CANARY not in came.stderr


@pytest.mark.parametrize("usage", [("spend", "--live"), ("check", "--json"), ("--json",)])
def test_wrong_usage(tmp_path: Path, usage: tuple[str, ...]) -> None:
    """An option of another subcommand is exit code 2."""
    came = run(*SERVER_PY, *usage, cwd=tmp_path)
    assert (came.returncode, came.stdout) == (2, "")
    assert "unrecognized arguments" in came.stderr
