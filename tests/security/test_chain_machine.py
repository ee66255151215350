"""Whatever is shown, in whatever order: the script and a model in Python decide alike."""

import asyncio
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    precondition,
    rule,
)

from security.errors import Rejection
from security.scripts import Duplicate, Renewed, Turn, Verdict
from security.store import MEMORY, connect
from tests.security.chain_model import ADMITTED, AGAIN, RENEWED, Model, Outcome
from tests.security.ledger_stage import HOME, PREFIX, Altered, Store, become_another, ledger_on
from tests.security.machines import run

# Time moves in threes and no window is one, so that real milliseconds never decide.
GRACE, RECOVERY, LIFETIME = 10, 181, 3001
AGES = st.sampled_from([3, 12, 180, 1500])
AHEAD = st.sampled_from([0, 0, 0, -1, -1, 1])
NAMES = st.sampled_from(["a", "b"])
KEYS = st.sampled_from(["", "k", "l"])
TWO = st.sampled_from(["x", "y"])


class Token(NamedTuple):
    """A token: turn `number` of the chain of that name, in its so-manieth life."""

    chain: str
    life: int
    number: int


class Chains(RuleBasedStateMachine):
    """Visitors, thieves, second tabs and lost answers over a few chains."""

    url = MEMORY
    change: tuple[str, str] | None = None
    tokens: Bundle[Token] = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = Model(GRACE, RECOVERY, LIFETIME)
        self.lives = {"a": 0, "b": 0}
        self.spent: set[Token] = set()
        self.last: tuple[str, Token, Turn] | None = None
        self.asked = 0

    @initialize()
    def open(self) -> None:
        """An empty store, and a ledger over it."""
        self.store: Store = self.runner.run(self._opened())

    def teardown(self) -> None:
        """Close what was opened."""
        if hasattr(self, "store"):
            self.runner.run(self.store.aclose())
        self.runner.close()

    @rule(target=tokens, chain=NAMES, key=KEYS, body=TWO, browser=TWO)
    def begin(self, chain: str, key: str, body: str, browser: str) -> Any:
        """Come without a token, to a chain that may be there."""
        return self.show(Token(chain, self.lives[chain], 0), key, body, browser)

    @rule(target=tokens, token=tokens, key=KEYS, body=TWO, browser=TWO)
    def redeem(self, token: Token, key: str, body: str, browser: str) -> Any:
        """Show any token that was ever given out, the newest or a stolen one."""
        return self.show(token, key, body, browser)

    @precondition(lambda self: self.model.lives)
    @rule(target=tokens, data=st.data(), key=KEYS, ahead=AHEAD)
    def go_on(self, data: st.DataObject, key: str, ahead: int) -> Any:
        """Show a chain's newest token, the one before it, or one from its future."""
        chain = data.draw(st.sampled_from(sorted(self.model.lives)))
        number = self.model.lives[chain].newest + ahead
        return self.show(Token(chain, self.lives[chain], number), key, "x", "x")

    @precondition(lambda self: self.last)
    @rule(target=tokens)
    def repeat(self) -> Any:
        """A lost answer: the same turn in a new request."""
        assert self.last
        _, token, turn = self.last
        return self.show(token, turn.idempotency, turn.body, turn.fingerprint)

    @precondition(lambda self: self.last)
    @rule(target=tokens)
    def call_again(self) -> Any:
        """A lost reply: the same request again."""
        assert self.last
        rid, token, turn = self.last
        return self.show(token, turn.idempotency, turn.body, turn.fingerprint, rid)

    @precondition(lambda self: self.model.lives)
    @rule(seconds=AGES, ends=st.sampled_from(["", "", "a", "b"]))
    def wait(self, seconds: int, ends: str) -> None:
        """Time passes, and perhaps a chain's idle life is over."""
        self.runner.run(self._aged(seconds, ends))
        self.model.age(seconds)
        self.model.lives.pop(ends, None)

    @precondition(lambda self: self.url != MEMORY)
    @rule()
    def fail_over(self) -> None:
        """The store becomes another one, which knows the same."""
        self.runner.run(become_another(self.store))
        self.model.fail_over()

    def show(self, token: Token, key: str, body: str, browser: str, rid: str = "") -> Any:
        """Ask the ledger and the model, and look into the store; the next token if there is one."""
        self.asked += 1
        rid = rid or f"rid-{self.asked:04}"
        turn = Turn(token.chain, token.number, self.born_ms(token), browser, key, body)
        before = self.model.lives.get(token.chain)
        known = before is not None and before.rid == rid
        expected = self.model.redeem(rid, turn)
        verdict, outcome = self.runner.run(self._asked(rid, turn))
        assert outcome == expected
        self.last = (rid, token, turn)
        if outcome == ADMITTED and not known:
            token = self.spend(token)
            self.model.honoured(rid, turn, verdict)
        if outcome == RENEWED:
            return self.goes_on(rid, turn, verdict, known=known)
        life = self.model.lives.get(token.chain)
        stored = self.runner.run(self._stored(token.chain))
        assert stored == (life and (life.newest, life.revoked))
        if outcome not in (ADMITTED, AGAIN):
            return multiple()
        assert life
        assert verdict.number == life.newest
        assert (verdict.born_ms, verdict.last_ms) == (life.born_ms, life.last_ms)
        return Token(token.chain, token.life, verdict.number)

    def goes_on(self, rid: str, turn: Turn, verdict: Verdict, *, known: bool) -> Token:
        """Note the chain as which another goes on; the first token of it."""
        if not known:
            self.model.goes_on(rid, turn, verdict)
            self.lives[rid] = 1
        old = self.model.lives[turn.chain]
        assert (verdict.number, verdict.born_ms, verdict.last_ms) == (1, old.born_ms, old.last_ms)
        return Token(rid, 1, 1)

    def spend(self, token: Token) -> Token:
        """Note a token that was honoured: no token is, twice."""
        if token.number == 0:
            self.lives[token.chain] += 1
            token = token._replace(life=self.lives[token.chain])
        assert token not in self.spent
        self.spent.add(token)
        return token

    def born_ms(self, token: Token) -> int:
        """The birth that a token tells; those of an earlier life tell another one."""
        life = self.model.lives.get(token.chain)
        if token.number == 0:
            return 0
        return life.born_ms if life and token.life == self.lives[token.chain] else 1

    async def _opened(self) -> Store:
        store = connect(self.url, timeout=5, connect_timeout=5)
        await store.flushall()
        under = Altered(store, *self.change) if self.change else store
        self.ledger = ledger_on(
            under, reuse_grace=GRACE, recovery_window=RECOVERY, chain_ttl=LIFETIME
        )
        return store

    async def _asked(self, rid: str, turn: Turn) -> tuple[Any, Outcome]:
        try:
            verdict: Verdict = await self.ledger.redeem(rid, HOME, turn)
        except Duplicate as again:
            return again.verdict, AGAIN
        except Renewed as renewed:
            return renewed.verdict, RENEWED
        except Rejection as refused:
            return None, (refused.code, refused.chain or "")
        return verdict, ADMITTED

    async def _aged(self, seconds: int, ends: str) -> None:
        async with self.store.pipeline() as together:
            for name in self.model.lives:
                for moment in ("last", "born"):
                    together.hincrby(f"{PREFIX}chain:{name}", moment, -seconds * 1000)
            await together.delete(f"{PREFIX}chain:{ends}").execute()

    async def _stored(self, chain: str) -> tuple[int, bool] | None:
        n, state = await self.store.hmget(f"{PREFIX}chain:{chain}", "n", "state")
        return (int(n), state == b"revoked") if n is not None else None


def _machine(at: str, without: tuple[str, str] | None = None) -> type[Chains]:
    class Here(Chains):
        url = at
        change = without

    return Here


def test_the_script_decides_as_the_model_does(store_url: str) -> None:
    """Over every store, random histories of chains end as the model says, turn by turn."""
    run(_machine(store_url), 10 if store_url == MEMORY else 60, Phase.generate, Phase.shrink)


CONFLICT = "return reply('idempotency_conflict', 'kept') end"


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("chain.rid == rid", "false"),
        ("if chain.state == 'revoked' then return reply('token_reused', 'revoked') end", ""),
        ("local begins = turn == 0 and not chain", "local begins = not chain"),
        ("tonumber(ARGV[21]) ~= chain.born", "false"),
        ("now - chain.born > tonumber(ARGV[17])", "false"),
        ("if chain.state == 'revoked' then return reply('chain_revoked', 'revoked') end", ""),
        ("idem ~= '' and idem == chain.idem", "idem == chain.idem"),
        ("body == chain.body and ", ""),
        ("and fp == chain.fp", ""),
        ("and now - chain.last <= recovery", ""),
        ("if turn == 0 then " + CONFLICT, ""),
        ("if turn == chain.n and same_key then " + CONFLICT, ""),
        ("turn == chain.n - 1 and now - chain.last <= grace", "turn == chain.n - 1"),
        ("turn == chain.n - 1 and now - chain.last <= grace", "now - chain.last <= grace"),
        ("turn == chain.n - 1 and now - chain.last <= grace", "false"),
        ("redis.call('HSET', KEYS[9], 'state', 'revoked', 'rid', rid)", ""),
        ("if turn > chain.n then return reply('chain_unknown', 'none') end", ""),
        ("whole(turn + 1), 'state'", "whole(turn), 'state'"),
        ("'born', whole(born), 'last', whole(now)", "'born', whole(born), 'last', whole(born)"),
        ("turn >= chain.n and life ~= '' and chain.life ~= life", "false"),
        ("turn >= chain.n and life ~= '' and", "life ~= '' and"),
        ("if chain.state == 'renewed' then return reply('chain_unknown', 'none') end", ""),
        (
            "if chain.state == 'renewed' then return reply('chain_unknown', 'advanced'",
            "if false then return reply('x', 'y'",
        ),
        (
            "redis.call('HSET', KEYS[9], 'state', 'renewed', 'rid', rid",
            "redis.call('HSET', KEYS[9], 'rid', rid",
        ),
        ("'state', 'open', 'rid', '', 'idem', ''", "'state', 'open', 'rid', rid, 'idem', idem"),
        ("'last', whole(now), 'life', life)\n  redis", "'last', whole(now), 'life', '')\n  redis"),
    ],
)
def test_every_line_of_the_decision_is_needed(redis_url: str, line: str, instead: str) -> None:
    """Control: without any one line of the chain decision a history is found that differs."""
    with pytest.raises(AssertionError):
        run(_machine(redis_url, (line, instead)), 2000, Phase.generate)
