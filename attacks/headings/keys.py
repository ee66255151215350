"""Key confusion: credentials of one kind in the place of another."""

import base64
from typing import Any

from attacks.attacker import OWN, RESPONSES, Attacker, Said
from attacks.case import Case, Harm, Outcome, any_of, reaches_upstream
from attacks.wire import Answer
from tests.attacks.canaries import OPERATORS

OPERATORS_KEY = OPERATORS["operator's key"]
VISITORS_KEY = "sk-visitor-of-keys-0123456789"
MALFORMED = "401 token_malformed"
NO_KEY = "401 byok_key_malformed"
INVALID = "422 invalid_request"


def crosswise(_: Case, outcome: Outcome) -> str | None:
    """The operator's key goes to the operator's upstream, any other key to the other."""
    for post in outcome.posts:
        is_operators = post["authorization"] == f"Bearer {OPERATORS_KEY}"
        if is_operators != (post["at"] == "scripted"):
            return f"a key went to the {post['at']} upstream"
    return None


NEVER: tuple[Harm, ...] = (crosswise,)


def authorization(
    name: str,
    value: Said,
    back: str,
    *,
    sends: str = "",
    posts: int = 0,
    admitted: int = 0,
    **more: Any,
) -> Case:
    """A first turn that shows this in Authorization."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.send(a.turn(Authorization=value))

    shown = sends or (value.decode("latin-1") if isinstance(value, bytes) else str(value))
    said: dict[str, Any] = {"untouched": not posts, "also": NEVER, **more}
    return Case(name, f"Authorization: {shown}", attack, (back,), posts, admitted, **said)


def own_body(
    name: str, back: str, *, sends: str = "", control: bool = False, **changed: Any
) -> Case:
    """A turn of /api/chat with such a body; the key never is the operator's instead."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.send(a.turn(a.own(**changed), path=OWN))

    words = sends or f"POST /api/chat, {', '.join(f'{n}: {v!r}' for n, v in changed.items())}"
    return Case(name, words, attack, (back,), untouched=True, also=NEVER, control=control)


async def own_key_at_the_gate(a: Attacker) -> list[Answer]:
    """An own key on both gated routes."""
    return await a.each([a.turn(token=VISITORS_KEY), a.turn(token=VISITORS_KEY, path=RESPONSES)])


async def own_key_beside(a: Attacker) -> list[Answer]:
    """An own key in every header where some server would look for it; a first turn, no more."""
    names = ("X_Api_Key", "Api_Key", "OpenAI_Api_Key", "X_Provider_Key", "X_Portkey_Api_Key")
    said: dict[str, Any] = dict.fromkeys(names, VISITORS_KEY)
    return await a.send(a.turn(**said))


async def own_key_in_the_body(a: Attacker) -> list[Answer]:
    """An own key, and the operator's, among the parameters."""
    keys = (VISITORS_KEY, OPERATORS_KEY, "")
    return await a.each([a.turn(a.body(api_key=key)) for key in keys])


async def token_as_key(a: Attacker) -> list[Answer]:
    """A good token where /api/chat wants a key, and in its Authorization."""
    return await a.each(
        [a.turn(a.own(key=a.token), path=OWN), a.turn(a.own(key=None), path=OWN, token=a.token)]
    )


async def key_beside_a_token(a: Attacker) -> list[Answer]:
    """A token and an own key in two Authorization headers, in either order."""
    both = [f"Bearer {a.token}", f"Bearer {VISITORS_KEY}"]
    return await a.each([a.turn(Authorization=both), a.turn(Authorization=both[::-1])])


def passed_on(_: Case, outcome: Outcome) -> str | None:
    """The visitor's key got upstream by a way that was not offered."""
    seen = any(VISITORS_KEY in repr(post) for post in outcome.posts)
    return "the visitor's key went upstream" if seen else None


def gives_tokens(_: Case, outcome: Outcome) -> str | None:
    """Who pays has no chain."""
    return "an own key was given a token" if any(a.token for a in outcome.answers) else None


FIRST: dict[str, Any] = {"posts": 1, "admitted": 1}
PAIR = base64.b64encode(f"operator:{OPERATORS_KEY}".encode()).decode()

CASES = [
    authorization("the word for a first turn", "Bearer keyturn", "200", **FIRST),
    authorization("a small scheme", "bearer keyturn", "200", **FIRST),
    authorization("a capital scheme", "BEARER keyturn", "200", **FIRST),
    authorization("the word in capitals", "Bearer KEYTURN", MALFORMED),
    authorization("the word and more", "Bearer keyturn2", MALFORMED),
    authorization("the word, two blanks before", "Bearer  keyturn", MALFORMED),
    authorization("the word and a comma", "Bearer keyturn, Bearer keyturn", MALFORMED),
    authorization("the word twice", ["Bearer keyturn", "Bearer keyturn"], "400 header_repeated"),
    authorization("nothing", "", MALFORMED, sends="(empty)"),
    authorization("a scheme alone", "Bearer", MALFORMED),
    authorization("Basic", f"Basic {PAIR}", MALFORMED, sends="Basic operator:operator's key"),
    authorization("Basic, the word", "Basic keyturn", MALFORMED),
    authorization("Digest", 'Digest username="keyturn"', MALFORMED),
    authorization("a key without a scheme", VISITORS_KEY, MALFORMED),
    authorization("a key as Token", f"Token {VISITORS_KEY}", MALFORMED),
    authorization("the start of a key", "Bearer sk-", NO_KEY),
    authorization("a key in capitals", "Bearer SK-VISITOR-0123456789", MALFORMED),
    authorization("a key with a blank", "Bearer sk-visitor 0123456789", NO_KEY),
    authorization("two keys", f"Bearer {VISITORS_KEY}, Bearer sk-two", NO_KEY),
    authorization("a key that is no ASCII", "Bearer sk-visité-0123456789".encode(), NO_KEY),
    authorization(
        "a key of 600 characters", "Bearer sk-" + "a" * 600, NO_KEY, sends="Bearer sk-aaa…"
    ),
    authorization("a key with a tab", b"Bearer sk-visitor\t0123", NO_KEY),
    authorization(
        "the operator's key, guessed",
        f"Bearer {OPERATORS_KEY}x",
        "200",
        sends="nearly the operator's key: taken for a visitor's own, sent where those go",
        posts=1,
    ),
    Case(
        "an own key at the gate",
        "Bearer sk-… on both APIs: it goes to the upstream of own keys, and no chain begins",
        own_key_at_the_gate,
        ("200",) * 2,
        posts=2,
        also=(crosswise, gives_tokens),
    ),
    Case(
        "an own key in other headers",
        "X-Api-Key and the like: not looked at, not passed on",
        own_key_beside,
        ("200",),
        posts=1,
        admitted=1,
        also=(crosswise, passed_on),
    ),
    Case(
        "a key among the parameters",
        "api_key in the body of the gate: the visitor's, the operator's, an empty one",
        own_key_in_the_body,
        ("400 unsupported_parameter",) * 3,
        untouched=True,
        harm=any_of(passed_on, reaches_upstream),
        control=True,
    ),
    Case(
        "a token and a key",
        "two Authorization headers, in either order",
        key_beside_a_token,
        ("400 header_repeated",) * 2,
        turns=1,
        keeps=True,
        untouched=True,
    ),
    Case(
        "a token as a key",
        "a good token as api_key, and as Bearer of /api/chat",
        token_as_key,
        (INVALID,) * 2,
        turns=1,
        keeps=True,
        untouched=True,
        also=NEVER,
    ),
    own_body("no key", INVALID, key=None, sends="POST /api/chat without api_key", control=True),
    own_body("an empty key", INVALID, key="", control=True),
    own_body("a blank key", INVALID, key=" "),
    own_body("a key that is an object", INVALID, key={"value": "sk-visitor"}),
    own_body("a key that is a number", INVALID, key=1),
    own_body("a key that is true", INVALID, key=True),
    own_body("a key that is a list", INVALID, key=["sk-visitor"]),
    own_body("the placeholder for a key", INVALID, key="keyturn"),
    own_body("a key with a line end", NO_KEY, key="sk-visitor\r\nX-Evil: 1"),
    own_body("a key with a NUL", NO_KEY, key="sk-visitor\0"),
    own_body("a key with an umlaut", NO_KEY, key="sk-vïsitor"),
    own_body("a key with a lone surrogate", NO_KEY, key="sk-visitor\ud800"),
]
