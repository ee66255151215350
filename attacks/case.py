"""A case: what is sent, what must come back, and what must not happen. Cases are data."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from attacks.attacker import Attacker
from attacks.wire import Answer
from tests.attacks.canaries import OPERATORS, hits

Attack = Callable[[Attacker], Awaitable[list[Answer]]]
Place = Literal["main", "strict"]
SLOW: Final = 5.0  # seconds; an answer that takes longer has been made to work for it


@dataclass
class Outcome:
    """All that became of a case: `posts` are upstream's books of what reached it meanwhile."""

    attacker: Attacker
    answers: list[Answer]
    posts: list[dict[str, Any]]
    seconds: float
    admitted: int = 0
    calls: int = 0
    spent: int = 0
    open_holds: int = 0


# Names the harm that was done, or returns None.
Harm = Callable[["Case", Outcome], str | None]


def reaches_upstream(case: "Case", outcome: Outcome) -> str | None:
    """More POSTs got upstream than may."""
    return f"{len(outcome.posts)} POSTs upstream" if len(outcome.posts) > case.posts else None


@dataclass(frozen=True)
class Case:
    """One attack.

    name, sends: what it is called, and what is sent, in words. attack: does it.
    back: what Keyturn must tell, answer by answer. posts, admitted: how many POSTs reach upstream
    and how many turns Redis admits, exactly. untouched: Redis is not even asked.
    harm: what must not happen, at any server. also: what else must not happen at Keyturn.
    turns: good turns before, whose tokens the attacker has. keeps: the newest works after.
    where: at which of the two servers, see `attacks.stage`. slow: runs beside the other slow ones.
    control: at the naive proxy the harm must be done. peers: it makes sense without our headers,
    and without our own choice of limits.
    """

    name: str
    sends: str
    attack: Attack
    back: tuple[str, ...]
    posts: int = 0
    admitted: int = 0
    untouched: bool = False
    harm: Harm = reaches_upstream
    also: tuple[Harm, ...] = ()
    turns: int = 0
    keeps: bool = False
    where: Place = "main"
    slow: bool = False
    control: bool = False
    peers: bool = False
    seconds: float = SLOW
    heading: str = ""


@dataclass
class Result:
    """A case and what was wrong with how it ended; nothing, when all is as expected."""

    case: Case
    faults: list[str] = field(default_factory=list)
    seconds: float = 0


def judge(case: Case, outcome: Outcome) -> list[str]:
    """What was not as it must be, at Keyturn."""
    told = tuple(answer.told for answer in outcome.answers)
    wrong = [
        *_differs("told", _counted(told), _counted(case.back)),
        *_differs("POSTs upstream", len(outcome.posts), case.posts),
        *_differs("turns admitted", outcome.admitted, case.admitted),
        *_differs("holds left open", outcome.open_holds, 0),
        *(["Redis was asked"] if case.untouched and outcome.calls else []),
        *([f"took {outcome.seconds:.1f} s"] if outcome.seconds > case.seconds else []),
    ]
    harms = (case.harm, *case.also, *ALWAYS)
    return wrong + [found for harm in harms if (found := harm(case, outcome))]


def _differs(what: str, is_: object, should: object) -> list[str]:
    return [] if is_ == should else [f"{what}: {is_}, should be {should}"]


def _counted(told: tuple[str, ...]) -> str:
    """`200, 3 × 401 token_reused`: the order is kept, repetitions are counted."""
    runs: list[tuple[str, int]] = []
    for each in told:
        if runs and runs[-1][0] == each:
            runs[-1] = (each, runs[-1][1] + 1)
        else:
            runs.append((each, 1))
    return ", ".join(each if count == 1 else f"{count} × {each}" for each, count in runs)


def in_words(case: Case) -> str:
    """What must come back, in short."""
    return _counted(case.back)


# What must not happen, whatever is sent.


def token_for_nothing(_: Case, outcome: Outcome) -> str | None:
    """Only an admitted turn and its repetition are given a token."""
    given = [each for each in outcome.answers if each.token and each.status not in (200, 409)]
    spent = [each for each in given if each.chain != "advanced"]
    return f"a token came with {spent[0].told}" if spent else None


def echo(_: Case, outcome: Outcome) -> str | None:
    """No refusal repeats what was sent."""
    words = (outcome.attacker.mark, outcome.attacker.fingerprint)
    refusals = [each.raw for each in outcome.answers if each.status >= 400]
    found = [word for word in words for raw in refusals if word.encode() in raw]
    return "a refusal repeats what was sent" if found else None


def unreadable(_: Case, outcome: Outcome) -> str | None:
    """What comes back is HTTP, and each of our refusals says that it may not be sniffed."""
    if any(answer.status == 999 for answer in outcome.answers):
        return f"no HTTP came back: {outcome.answers[-1].body[:60]!r}"
    problems = [answer for answer in outcome.answers if answer.code]
    return "a problem may be sniffed" if any(not _sound(each) for each in problems) else None


def _sound(answer: Answer) -> bool:
    return answer.header("x-content-type-options") == "nosniff" and bool(
        answer.header("x-request-id")
    )


def breaks(_: Case, outcome: Outcome) -> str | None:
    """Nothing that a visitor sends breaks anything on our side."""
    return "something broke" if any(answer.status == 500 for answer in outcome.answers) else None


def tells_secrets(_: Case, outcome: Outcome) -> str | None:
    """Nothing of the operator's is in any answer, in whatever dress."""
    found = hits(OPERATORS, b"\n".join(answer.raw for answer in outcome.answers))
    return f"an answer holds the {found[0]}" if found else None


ALWAYS: Final[tuple[Harm, ...]] = (token_for_nothing, echo, unreadable, breaks, tells_secrets)


# Further harms, to be chosen from.


def tells(*needles: str | bytes) -> Harm:
    """An answer holds one of these texts."""
    sought = [each.encode() if isinstance(each, str) else each for each in needles]

    def harm(_: Case, outcome: Outcome) -> str | None:
        found = [each for each in sought if any(each in answer.raw for answer in outcome.answers)]
        return f"an answer holds {found[0][:40]!r}" if found else None

    return harm


def has_header(*names: str) -> Harm:
    """An answer has one of these headers."""

    def harm(_: Case, outcome: Outcome) -> str | None:
        found = [name for name in names if any(each.header(name) for each in outcome.answers)]
        return f"an answer has the header {found[0]}" if found else None

    return harm


def takes_longer(than: float) -> Harm:
    """It holds the server, or its connection, for longer than so many seconds."""

    def harm(_: Case, outcome: Outcome) -> str | None:
        return f"lasted {outcome.seconds:.1f} s" if outcome.seconds > than else None

    return harm


def passes(most: int) -> Harm:
    """More than so many requests are served."""

    def harm(_: Case, outcome: Outcome) -> str | None:
        served = sum(200 <= answer.status < 300 for answer in outcome.answers)
        return f"{served} were served" if served > most else None

    return harm


def any_of(*harms: Harm) -> Harm:
    """The first of these harms."""

    def harm(case: Case, outcome: Outcome) -> str | None:
        return next((found for each in harms if (found := each(case, outcome))), None)

    return harm


def posts_hold(sought: Callable[[dict[str, Any]], bool], what: str) -> Harm:
    """A POST that got upstream has what it may not have."""

    def harm(_: Case, outcome: Outcome) -> str | None:
        return what if any(sought(post) for post in outcome.posts) else None

    return harm
