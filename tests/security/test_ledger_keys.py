"""What stands in Redis: everything with an end, nothing raw, all in one slot, one call each."""

import random
from typing import Any

import pytest

from security.errors import Rejection
from security.ledger import Ledger, Rate, Visitor, new_rid
from security.store import connect
from tests.security.ledger_stage import (
    HOME,
    HOUR_US,
    PREFIX,
    Altered,
    Chain,
    Store,
    contents,
    ledger_on,
    outcome,
)
from tests.stage import Upstream, eventually, redis_process, serving, settings_with, visiting

ENDLESS = {PREFIX + "control", PREFIX + "blocked"}
LIMITS: dict[str, Any] = {
    "rate": Rate(40, HOUR_US),
    "start": Rate(5, HOUR_US),
    "start_of_all": Rate(20, HOUR_US),
    "refused_own_keys": Rate(2, HOUR_US),
    "streams_per_address": 6,
    "streams_per_chain": 3,
}


class Crowd:
    """Visitors who do everything one can do, good and bad, in an order drawn from a seed."""

    def __init__(self, ledger: Ledger, store: Store, seed: int) -> None:
        self.draw = random.Random(seed)
        self.ledger, self.store = ledger, store
        self.visitors = [HOME, *(Visitor(f"n{i}", f"w{i % 2}") for i in range(5))]
        self.chains: list[Chain] = []
        self.open: list[tuple[str, Visitor, str | None]] = []
        self.codes: set[str] = set()

    async def act(self, times: int) -> None:
        """Do that many things; what is refused is noted."""
        deeds = [self.begin, self.go_on, self.go_on, self.go_back, self.guess, self.pay, self.end]
        for _ in range(times):
            try:
                await self.draw.choice(deeds)()
            except Rejection as refused:
                self.codes.add(refused.code)

    async def begin(self) -> None:
        """Begin a chain."""
        self.chains.append(Chain(self.ledger, self.store, self.draw.choice(self.visitors)))
        await self.take(self.chains[-1], 0)

    async def go_on(self) -> None:
        """Take the next turn of some chain."""
        if self.chains:
            chain = self.draw.choice(self.chains)
            await self.take(chain, chain.number)

    async def go_back(self) -> None:
        """Show an older token, or one from the future."""
        if self.chains:
            chain = self.draw.choice(self.chains)
            await self.take(chain, max(0, chain.number + self.draw.choice((-2, -1, 1))))

    async def take(self, chain: Chain, number: int) -> None:
        """Show this token of that chain."""
        rid = new_rid()
        key = self.draw.choice(("", "k", new_rid()))
        await chain.redeem(number, rid=rid, idempotency=key)
        self.open.append((rid, chain.visitor, chain.name))

    async def guess(self) -> None:
        """Show a wrong fingerprint."""
        await self.ledger.probe(new_rid(), self.draw.choice(self.visitors))

    async def pay(self) -> None:
        """Come with an own key."""
        rid, visitor = new_rid(), self.draw.choice(self.visitors)
        await self.ledger.admit_own_key(rid, visitor)
        self.open.append((rid, visitor, None))

    async def end(self) -> None:
        """Settle some turn."""
        if self.open:
            rid, visitor, chain = self.open.pop(self.draw.randrange(len(self.open)))
            refused = chain is None and self.draw.random() < 0.5
            await self.ledger.settle(rid, visitor, chain=chain, key_refused=refused)


async def _endless(store: Store, under: Any, seed: int) -> set[str]:
    """The keys without an end after a crowd was there."""
    crowd = Crowd(ledger_on(under, **LIMITS), store, seed)
    await store.hset(PREFIX + "control", "paused", "0")
    await store.zadd(PREFIX + "blocked", {"n4": 9e12})
    await crowd.act(250)
    assert {"rate_limited", "visitor_blocked", "too_many_streams", "token_reused"} <= crowd.codes
    return {key.decode() for key in await store.keys("*") if await store.pttl(key) == -1}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_key_of_a_visitor_ends(store: Store, seed: int) -> None:
    """After a crowd did everything, only the operator's two keys have no TTL."""
    assert await _endless(store, store, seed) == ENDLESS


@pytest.mark.parametrize(
    "line",
    [
        "redis.call('PEXPIRE', KEYS[9], whole(math.max(1, life)))",
        "redis.call('PEXPIRE', key, whole(length))",
        ", 'PX', whole(math.ceil((limit.after - now_us) / 1000) + 1000)",
    ],
)
async def test_a_key_without_an_end_is_found(real_store: Store, line: str) -> None:
    """Control: without any one of the lines that give an end, the scan finds a key."""
    assert await _endless(real_store, Altered(real_store, line, ""), 1) > ENDLESS


async def test_a_lease_ends_with_its_stream(store: Store) -> None:
    """A rate is forgotten a second after it is full again; places in flight end with the lease."""
    chain = await Chain(ledger_on(store, rate=Rate(3, 10_000_000), lease=60), store).take(2)
    assert 20_000 < await store.pttl(PREFIX + "rate:home") <= 21_000
    for name in ("home", chain.name):
        assert 59_000 < await store.pttl(f"{PREFIX}inflight:{name}") <= 60_000


CANARIES = {
    "address": "203.0.113.77",
    "fingerprint": "canary-of-a-fingerprint",
    "key": "canary-of-an-idempotency-key",
    "body": "canary of a message",
    "own key": "sk-canary-of-a-visitor-0123456789",
    "label": "canary-of-a-request-id",
}


def _found(everything: object) -> set[str]:
    return {name for name, canary in CANARIES.items() if canary in repr(everything)}


async def test_nothing_raw_reaches_redis(
    redis_url: str, upstream: Upstream, real_store: Store
) -> None:
    """After real turns, good and bad, no address, fingerprint, key, text or token is in Redis."""
    settings = settings_with(
        redis_url=redis_url,
        openai_base_url=upstream.url,
        byok_base_url=upstream.url,
        trusted_proxies="127.0.0.1",
    )
    said = {"X-Forwarded-For": CANARIES["address"], "X-Request-Id": CANARIES["label"]}
    seen, tokens = "", []
    async with serving(settings) as server, visiting(server, extra=said) as visitor:
        visitor.fingerprint = CANARIES["fingerprint"]
        for headers in ({"Idempotency-Key": CANARIES["key"]}, {}):
            assert (await visitor.say(CANARIES["body"], headers=headers)).status == 200
            tokens.append(visitor.token or "no token")
            seen += repr(await contents(real_store))
        wrong = await visitor.say(headers={"Keyturn-Fingerprint": CANARIES["fingerprint"] + "2"})
        assert wrong.code == "fingerprint_mismatch"
        own_key = {"Authorization": f"Bearer {CANARIES['own key']}"}
        assert (await visitor.say(CANARIES["body"], headers=own_key)).status == 200
    seen += repr(await contents(real_store))
    assert seen.count("chain:") >= 3
    assert _found(seen) == set()
    assert not [token for token in tokens if token in seen]


async def test_raw_values_would_be_found(store: Store) -> None:
    """Control: a ledger that is handed values as they came has every one of them in Redis."""
    raw = Chain(ledger_on(store), store, Visitor(CANARIES["address"]), CANARIES["label"])
    await raw.redeem(
        fingerprint=CANARIES["fingerprint"], idempotency=CANARIES["key"], body=CANARIES["body"]
    )
    await raw.ledger.admit_own_key(CANARIES["own key"], raw.visitor)
    assert _found(await contents(store)) == set(CANARIES)


async def test_every_key_is_under_one_tag(store: Store) -> None:
    """All keys of a tenant share its hash tag, and another tenant's keys are others."""
    for tenant in ("one", "two"):
        ledger = ledger_on(store, tenant=tenant)
        await Chain(ledger, store, Visitor("n", "w"), "c").take(2)
    keys = set(await contents(store))
    ours = {key for key in keys if key.startswith("keyturn:{one}:")}
    assert {key.replace("{one}", "{two}") for key in ours} == keys - ours
    assert len(ours) == 9


@pytest.fixture(scope="module")
def cluster_url() -> Any:
    """One node that is a whole cluster: it refuses a script whose keys live in two slots."""
    with redis_process("--cluster-enabled", "yes") as url:
        yield url


async def _serves(store: Store) -> bool:
    return bool((await store.execute_command("CLUSTER INFO"))["cluster_state"] == "ok")


@pytest.fixture
async def cluster(cluster_url: str) -> Any:
    """A plain client of it, once it serves every slot."""
    store: Store = connect(cluster_url, timeout=5, connect_timeout=5)
    info = await store.execute_command("CLUSTER INFO")
    if info["cluster_slots_assigned"] == "0":
        await store.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    await eventually(lambda: _serves(store))
    await store.flushall()
    yield store
    await store.aclose()


async def test_a_cluster_takes_the_scripts(cluster: Store) -> None:
    """Both scripts, in every mode, are legal on a node of a cluster."""
    ledger = ledger_on(cluster)
    crowd = Crowd(ledger, cluster, 4)
    await crowd.act(100)
    assert "store_unavailable" not in crowd.codes
    assert await outcome(Chain(ledger, cluster).redeem()) == ("admitted", "advanced")


async def test_a_cluster_refuses_keys_without_a_tag(cluster: Store) -> None:
    """Control: with an empty tag the keys fall into many slots and nothing is admitted."""
    untagged = Chain(ledger_on(cluster, tenant=""), cluster)
    assert await outcome(untagged.redeem()) == ("store_unavailable", "kept")


async def _calls(store: Store) -> dict[str, int]:
    """How often clients (not scripts) were served, by command."""
    stats = await store.info("commandstats")
    asked = ("evalsha", "eval", "script|load", "multi")
    return {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in asked}


async def _spent(store: Store, ledger: Ledger) -> dict[str, int]:
    """The calls that five turns and their five settlements cost."""
    before = await _calls(store)
    chain = Chain(ledger, store)
    for _ in range(5):
        rid = new_rid()
        await chain.redeem(rid=rid)
        await ledger.settle(rid, HOME, chain=chain.name)
    after = await _calls(store)
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


async def test_a_turn_costs_one_call_and_its_end_another(real_store: Store) -> None:
    """One EVALSHA admits, one settles, and nothing else is asked of Redis."""
    ledger = ledger_on(real_store)
    await ledger.load()
    assert await _spent(real_store, ledger) == {"evalsha": 10}


async def test_other_calls_would_be_counted(real_store: Store) -> None:
    """Control: where the scripts were forgotten, the same count shows two calls more of each."""
    ledger = ledger_on(real_store)
    await real_store.script_flush()
    assert await _spent(real_store, ledger) == {"evalsha": 12, "script|load": 2}


async def test_refusals_cost_one_call_too(real_store: Store) -> None:
    """Whatever the outcome, it is one round trip."""
    ledger = ledger_on(real_store, **LIMITS)
    await ledger.load()
    before = (await _calls(real_store))["evalsha"]
    chain = Chain(ledger, real_store)
    for number in (0, 1, 1, 0, 9):
        await outcome(chain.redeem(number))
    await ledger.probe(new_rid(), HOME)
    await ledger.admit_own_key(new_rid(), HOME)
    assert (await _calls(real_store))["evalsha"] - before == 7
