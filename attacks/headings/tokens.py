"""Token surgery: every way of writing one token so that it is another one, or none."""

import base64
import hashlib
import zlib
from collections.abc import Callable
from typing import Any

from attacks.attacker import Attacker
from attacks.case import Case
from attacks.forging import claims_of, flipped, jwt, other_end, parts, resigned, signed, timed
from attacks.wire import Answer

MALFORMED = "401 token_malformed"
FORGED = "401 token_forged"
Make = Callable[[str], str | bytes]


def operation(
    name: str, sends: str, make: Make, back: str = MALFORMED, *, control: bool = False
) -> Case:
    """A case that shows a changed token: Redis is not asked, and the true one is kept."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.send(a.turn(token=make(a.token)))

    turns: dict[str, Any] = {"turns": 1, "keeps": True}
    return Case(name, sends, attack, (back,), untouched=True, control=control, **turns)


def after_use(name: str, sends: str, make: Make, back: str = MALFORMED) -> Case:
    """A case that shows a used token in another spelling."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.send(a.turn(token=make(a.spent)))

    return Case(name, sends, attack, (back,), untouched=True, turns=2, keeps=True, control=True)


def shown(
    name: str, sends: str, back: str, *, untouched: bool = True, **headers: Callable[[str], object]
) -> Case:
    """A case that shows the true token in the wrong place or form."""

    async def attack(a: Attacker) -> list[Answer]:
        said: dict[str, Any] = {header: make(a.token) for header, make in headers.items()}
        return await a.send(a.turn(**said))

    return Case(name, sends, attack, (back,), untouched=untouched, turns=1, keeps=True)


async def swapped(a: Attacker) -> list[Answer]:
    """The claims of one chain under the signature of another."""
    other = a.another(fingerprint=a.fingerprint)
    await other.take()
    token = parts(a.token)[0] + "." + parts(other.token)[1]
    return await a.send(a.turn(token=token))


def bomb(token: str) -> str:
    """A payload that would unpack to 8 MB, under a signature that is not ours."""
    packed = base64.urlsafe_b64encode(zlib.compress(b"A" * (8 << 20))).rstrip(b"=").decode()
    return "." + packed[:400] + "." + parts(token)[1]


def changed(claims: dict[str, object]) -> Make:
    """The token with other claims, signed by the true key."""
    return lambda token: resigned(token, **claims)


def compressed_or_not(token: str) -> str:
    """The mark of a compressed payload, put in front or taken away."""
    return token[1:] if token.startswith(".") else "." + token


def in_standard_base64(token: str) -> str:
    """With + and / for - and _, one of them put in if there is none."""
    return (token[:-2] + "-" + token[-1:]).replace("-", "+").replace("_", "/")


SPELLINGS = [
    operation("one =", "the token with = behind it", lambda t: t + "=", control=True),
    operation("two =", "with == behind it", lambda t: t + "=="),
    operation(
        "another last character", "the same bits, written otherwise", other_end, control=True
    ),
    after_use("used, one =", "a used token with = behind it", lambda t: t + "="),
    after_use("used, another last character", "a used token, written otherwise", other_end),
    operation("standard base64", "+ and / for - and _", in_standard_base64),
    operation(
        "upper case", "in capitals, but for the end", lambda t: t[:-1].upper() + t[-1], FORGED
    ),
    operation("swapped case", "a for A, A for a", lambda t: t[:-1].swapcase() + t[-1], FORGED),
    operation("percent-encoded", "%2E for its point", lambda t: t.replace(".", "%2E")),
    operation("in quotes", 'the token in "', lambda t: f'"{t}"'),
    operation("in angle brackets", "the token in < >", lambda t: f"<{t}>"),
    operation("a blank inside", "a blank after its point", lambda t: t.replace(".", ". ")),
    operation("a tab before", "Bearer, blank, tab, token", lambda t: "\t" + t),
    operation("two blanks", "Bearer, two blanks, token", lambda t: " " + t),
    operation("a no-break space behind", "U+00A0 behind it", lambda t: t + "\u00a0"),
    operation("a full-width point", "U+FF0E for its point", lambda t: t.replace(".", "．")),
    operation("Bearer twice", "Bearer Bearer token", lambda t: "Bearer " + t),
    operation("with a comma", "token, comma, token", lambda t: f"{t},{t}"),
    operation("with a parameter", "token; q=1", lambda t: t + ";q=1"),
    operation("two points", "its point twice", lambda t: t.replace(".", "..")),
    operation("a point before", "as if it were compressed, or not", compressed_or_not, FORGED),
    operation("a point behind", "a third, empty part", lambda t: t + "."),
]
CUTS = [
    operation("one character short", "without its last one", lambda t: t[:-1]),
    operation("half of it", "the first half", lambda t: t[: len(t) // 2]),
    operation("one character more", "an A behind it", lambda t: t + "A"),
    operation("its payload alone", "no point, no signature", lambda t: parts(t)[0]),
    operation("unsigned", "payload and point", lambda t: parts(t)[0] + "."),
    operation("its signature alone", "point and signature", lambda t: "." + parts(t)[1]),
    operation("513 characters", "As before it", lambda t: t.rjust(513, "A")),
    operation("12,000 characters", "As before it", lambda t: t.rjust(12_000, "A")),
    operation("a changed payload", "another first character", lambda t: flipped(t, 0), FORGED),
    operation("a changed signature", "another character of it", lambda t: flipped(t, -10), FORGED),
    operation("a zip bomb", "a compressed payload of 8 MB, cut", bomb, FORGED),
    operation("empty", "Bearer and a blank", lambda t: ""),
    operation("a word", "Bearer null", lambda t: "null"),
    Case(
        "another chain's signature",
        "claims of one chain, signature of another",
        swapped,
        (FORGED,),
        posts=1,
        admitted=1,
        turns=1,
        keeps=True,
    ),
]
SIGNERS = [
    operation(
        "of another tenant",
        "signed by our key for the tenant other",
        lambda t: signed(claims_of(t), salt="keyturn.one-time-token.v1.other"),
        FORGED,
    ),
    operation(
        "of another purpose",
        "signed by our key with another salt",
        lambda t: signed(claims_of(t), salt="itsdangerous"),
        FORGED,
    ),
    operation(
        "by SHA-1",
        "signed by our key with the library's own digest",
        lambda t: signed(claims_of(t), digest=hashlib.sha1),
    ),
    operation(
        "by another derivation",
        "signed by our key, derived as the library does",
        lambda t: signed(claims_of(t), derivation="django-concat"),
        FORGED,
    ),
    operation("by the empty key", 'signed by ""', lambda t: signed(claims_of(t), keys=""), FORGED),
    operation(
        "by a guessed key",
        "signed by the word secret",
        lambda t: signed(claims_of(t), keys="secret"),
        FORGED,
    ),
    operation("with the time", "by a signer that adds the time", timed),
    operation("JWT, alg none", "its claims, unsigned", lambda t: jwt(claims_of(t), "none")),
    operation("JWT, alg nOnE", "its claims, unsigned", lambda t: jwt(claims_of(t), "nOnE")),
    operation(
        "JWT, HS256", "signed by the word secret", lambda t: jwt(claims_of(t), "HS256", "secret")
    ),
]
CLAIMS = [
    operation("turn 1.0", "by the true key: a float", changed({"n": 1.0})),
    operation("turn true", "by the true key: a switch", changed({"n": True})),
    operation("turn -1", "by the true key: negative", changed({"n": -1})),
    operation("turn 2^53", "by the true key: not exact in Lua", changed({"n": 1 << 53})),
    operation('turn "1"', "by the true key: a text", changed({"n": "1"})),
    operation("a chain that is a key", "by the true key: }:control", changed({"c": "x}:control"})),
    operation("a chain that is a list", "by the true key", changed({"c": ["x"]})),
    operation("no claims", "by the true key: a list", lambda t: signed([1, 2])),
]
PLACES = [
    shown(
        "two tokens",
        "two Authorization headers",
        "400 header_repeated",
        Authorization=lambda t: [f"Bearer {t}", f"Bearer {t}"],
    ),
    shown(
        "a token and none",
        "two Authorization headers, the second one Bearer keyturn",
        "400 header_repeated",
        Authorization=lambda t: [f"Bearer {t}", "Bearer keyturn"],
    ),
    shown("without a scheme", "the token alone", MALFORMED, Authorization=lambda t: t),
    shown("as Basic", "Basic token", MALFORMED, Authorization=lambda t: f"Basic {t}"),
    shown("as Token", "Token token", MALFORMED, Authorization=lambda t: f"Token {t}"),
    shown("a colon", "Bearer:token", MALFORMED, Authorization=lambda t: f"Bearer:{t}"),
    shown("a NUL", "NUL behind the token", "400", Authorization=lambda t: f"Bearer {t}\0"),
]


async def in_a_cookie(a: Attacker) -> list[Answer]:
    """The token in a cookie, the query and other headers: as if it were not there."""
    said: dict[str, Any] = {
        "Cookie": f"keyturn-token={a.token}",
        "Proxy_Authorization": f"Bearer {a.token}",
    }
    return await a.send(a.turn(Keyturn_Token=a.token, X_Api_Key=a.token, **said))


CASES = [
    *SPELLINGS,
    *CUTS,
    *SIGNERS,
    *CLAIMS,
    *PLACES,
    Case(
        "in all other places",
        "in a cookie, in Proxy-Authorization, Keyturn-Token and X-Api-Key: a first turn, no more",
        in_a_cookie,
        ("200",),
        posts=1,
        admitted=1,
        turns=1,
        keeps=True,
    ),
]
