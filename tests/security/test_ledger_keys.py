"""What stands in Redis: everything with an end, nothing raw, all in one slot, one call each."""

import random
from typing import Any

import pytest

from security.budget import Caps
from security.errors import Rejection
from security.ledger import Ledger, new_rid
from security.scripts import Rate, Visitor
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
from tests.security.money_stage import per_token
from tests.stage import Upstream, eventually, redis_process, serving, settings_with, visiting

ENDLESS = {PREFIX + "control", PREFIX + "blocked"}
LIMITS: dict[str, Any] = {
    "rate": Rate(40, HOUR_US),
    "start": Rate(5, HOUR_US),
    "start_of_all": Rate(20, HOUR_US),
    "refused_own_keys": Rate(2, HOUR_US),
    "streams_per_address": 6,
    "streams_per_chain": 3,
    "caps": Caps(day=15_000, visitor=3500),
}
REFUSALS = {
    *("rate_limited", "visitor_blocked", "too_many_streams", "token_reused"),
    *("budget_visitor", "budget_exhausted"),
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
        worst = per_token(10, 1, self.draw.randrange(1500))
        await chain.redeem(number, rid=rid, idempotency=key, worst=worst)
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
            charge = self.draw.randrange(1000)
            await self.ledger.settle(
                rid, visitor, chain=chain, charge=charge, key_refused=refused, went_past=refused
            )


async def _endless(store: Store, under: Any, seed: int) -> set[str]:
    """The keys without an end after a crowd was there."""
    crowd = Crowd(ledger_on(under, **LIMITS), store, seed)
    await store.hset(PREFIX + "control", "paused", "0")
    await store.zadd(PREFIX + "blocked", {"n4": 9e12})
    await crowd.act(250)
    assert crowd.codes >= REFUSALS
    return {key.decode() for key in await store.keys("*") if await store.pttl(key) == -1}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_key_of_a_visitor_ends(store: Store, seed: int) -> None:
    """After a crowd did everything, only the operator's two keys have no TTL."""
    assert await _endless(store, store, seed) == ENDLESS


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("Admits", "redis.call('PEXPIRE', KEYS[9], idle_life(born))"),
        ("Admits", "redis.call('PEXPIRE', key, whole(length))"),
        ("Admits", ", 'PX', whole(math.ceil((limit.after - now_us) / 1000) + 1000)"),
        ("Money", "redis.call('PEXPIRE', key, KEPT)"),
        ("Money", "redis.call('PEXPIRE', BASE .. 'hold:' .. rid, KEPT)"),
        ("Money", "redis.call('PEXPIRE', BASE .. 'holds', KEPT)"),
    ],
)
async def test_a_key_without_an_end_is_found(real_store: Store, script: str, line: str) -> None:
    """Control: without any one of the lines that give an end, the scan finds a key."""
    assert await _endless(real_store, Altered(real_store, line, "", script=script), 1) > ENDLESS


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
        chain = Chain(ledger_on(store, tenant=tenant), store, Visitor("n", "w"), "c")
        for rid in ("r1", "r2"):
            await chain.redeem(rid=rid)
    keys = set(await contents(store))
    ours = {key for key in keys if key.startswith("keyturn:{one}:")}
    assert {key.replace("{one}", "{two}") for key in ours} == keys - ours
    assert len(ours) == 15


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
    """All scripts, in every mode, are legal on a node of a cluster, also after a loss."""
    ledger = ledger_on(cluster)
    crowd = Crowd(ledger, cluster, 4)
    await crowd.act(100)
    assert "store_unavailable" not in crowd.codes
    open_holds = len(await cluster.keys(PREFIX + "hold:*"))
    await cluster.flushall()
    assert await outcome(Chain(ledger, cluster).redeem()) == ("admitted", "advanced")
    assert len(await cluster.keys(PREFIX + "hold:*")) == open_holds + 1 > 5


async def test_a_cluster_refuses_keys_without_a_tag(cluster: Store) -> None:
    """Control: with an empty tag the keys fall into many slots and nothing is admitted."""
    untagged = Chain(ledger_on(cluster, tenant=""), cluster)
    assert await outcome(untagged.redeem()) == ("store_unavailable", "kept")
