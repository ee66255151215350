"""The chain decision again, in plain Python: what the script must agree with.

It knows nothing of Redis. Time is counted in seconds since the last turn and since the birth.
"""

from dataclasses import dataclass, field

from security.scripts import Turn, Verdict

Outcome = tuple[str, str]

UNKNOWN: Outcome = ("chain_unknown", "none")
CONFLICT: Outcome = ("idempotency_conflict", "kept")
ADMITTED: Outcome = ("admitted", "advanced")
STOLEN: Outcome = ("token_reused", "revoked")
TOO_SOON: Outcome = ("token_reused", "kept")
AGAIN: Outcome = ("duplicate_request", "advanced")
REVOKED: Outcome = ("chain_revoked", "revoked")
RENEWED: Outcome = ("chain_unknown", "advanced")


@dataclass
class Life:
    """A chain from its birth to its end, and the last turn that was honoured."""

    born_ms: int
    newest: int
    last: Turn
    last_ms: int
    rid: str
    age: int = 0
    idle: int = 0
    revoked: bool = False
    renewed: bool = False
    foreign: bool = False  # of another server, or of this one before it was started again


@dataclass
class Model:
    """Every chain, with the three windows in seconds."""

    grace: int
    recovery: int
    lifetime: int
    lives: dict[str, Life] = field(default_factory=dict)

    def redeem(self, rid: str, turn: Turn) -> Outcome:
        """What becomes of this turn; a chain that is ended by it is remembered as such."""
        life = self.lives.get(turn.chain)
        if life is None:
            return ADMITTED if turn.number == 0 else UNKNOWN
        if rid == life.rid:
            return STOLEN if life.revoked else RENEWED if life.renewed else ADMITTED
        outcome = self._of_known(life, turn)
        if outcome in (STOLEN, RENEWED):
            life.revoked, life.renewed, life.rid = outcome == STOLEN, outcome == RENEWED, rid
        return outcome

    def _of_known(self, life: Life, turn: Turn) -> Outcome:
        of_another_life = turn.number > 0 and turn.born_ms != life.born_ms
        if of_another_life or life.age > self.lifetime:
            return UNKNOWN
        if life.revoked:
            return REVOKED
        if life.renewed:
            return UNKNOWN
        behind = life.newest - turn.number
        if behind <= 0 and life.foreign:
            return RENEWED
        repeated = turn.idempotency != "" and turn.idempotency == life.last.idempotency
        if behind in (0, 1) and repeated:
            return self._of_repeat(life, turn, behind)
        if turn.number == 0:
            return CONFLICT
        if behind == 0:
            return ADMITTED
        if behind < 0:
            return UNKNOWN
        return TOO_SOON if behind == 1 and life.idle <= self.grace else STOLEN

    def _of_repeat(self, life: Life, turn: Turn, behind: int) -> Outcome:
        same = (turn.body, turn.fingerprint) == (life.last.body, life.last.fingerprint)
        return AGAIN if behind == 1 and same and life.idle <= self.recovery else CONFLICT

    def honoured(self, rid: str, turn: Turn, verdict: Verdict) -> None:
        """Remember a turn that was admitted for the first time."""
        life = self.lives.get(turn.chain)
        self.lives[turn.chain] = Life(
            born_ms=verdict.born_ms,
            newest=turn.number + 1,
            last=turn,
            last_ms=verdict.last_ms,
            rid=rid,
            age=life.age if life else 0,
        )

    def goes_on(self, rid: str, turn: Turn, verdict: Verdict) -> None:
        """Remember the chain as which an ended one goes on: nothing of it can be repeated."""
        old = self.lives[turn.chain]
        old.last_ms = verdict.last_ms
        nothing = Turn(rid, 0, 0, "", "", "")
        self.lives[rid] = Life(old.born_ms, 1, nothing, verdict.last_ms, rid="", age=old.age)

    def fail_over(self) -> None:
        """Let every chain be of another server."""
        for life in self.lives.values():
            life.foreign = True

    def age(self, seconds: int) -> None:
        """Let every chain be so much older."""
        for life in self.lives.values():
            life.age += seconds
            life.idle += seconds
            life.born_ms -= seconds * 1000
            life.last_ms -= seconds * 1000
