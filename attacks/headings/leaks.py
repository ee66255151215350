"""Leaks: secrets in logs at their most talkative, in Redis, in refusals.

Runs last: the logs hold what all cases before left there. Redis is searched after each heading.
"""

import base64
import json
import re
from collections.abc import Callable
from typing import Any, Final

from attacks.attacker import CHAT, OWN, RESPONSES, Attacker
from attacks.case import Case, Harm, Outcome, any_of, tells
from attacks.forging import claims_of
from attacks.rogue import Keep, whole
from attacks.store import MARK
from attacks.wire import Answer
from tests.attacks.canaries import OPERATORS, TEXTS, UPSTREAMS, VISITORS, dump, hits

KEY: Final = VISITORS["own key"]
UNSUPPORTED: Final = "400 unsupported_parameter"
# A line of ours; anything else would be a line that somebody else had written into the log.
LINE: Final = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) "
    r"[a-z0-9_.]+ [^\x00-\x1f\x7f-\x9f]+"
    r'|\{"time": "[0-9T:.+-]+"(, "[a-z_]+": ([0-9.]+|true|false|null|"[A-Za-z0-9_./-]*"))+\}'
)
WORDS: Final = OPERATORS | VISITORS | TEXTS | UPSTREAMS
ERROR: Final = json.dumps({"error": {"message": UPSTREAMS["upstream's words"]}}).encode()


async def drive(a: Attacker) -> list[Answer]:
    """Good, wrong and failing requests that are full of secrets, on every route."""
    a.address, a.fingerprint = VISITORS["address"], VISITORS["fingerprint"]
    text = f"{TEXTS['message']} {a.mark}"
    said: dict[str, Any] = {"Idempotency_Key": VISITORS["idempotency key"]}
    history = [{"role": "ai", "content": TEXTS["history"]}]
    own = a.own(text, KEY, developer_message=TEXTS["developer message"], chat_history=history)
    told = await a.each(
        [
            a.turn(a.body(text), **said),
            a.turn(a.asks(text), path=RESPONSES),
            a.turn(own, path=OWN),
            a.turn(a.body(text), token=KEY),
            a.turn(a.body(text, n=2)),
            a.turn(a.body(text + "\0")),
            a.turn(a.body(text)[:-3]),
            a.turn(own, path=f"/{KEY}?api_key={KEY}"),
            a.turn(a.body(text), Content_Type=text),
            a.turn(a.body(text), Origin=f"https://{KEY}.example"),
            a.turn(a.body(text), Authorization=f"Basic {KEY}"),
            a.turn(a.body(text), X_Request_Id=f"<{KEY}>"),
        ]
    )
    a.will_say(whole(ERROR, "application/json", "400 Bad Request"), Keep())
    return [*told, *await a.each([a.turn(a.body(text), token=KEY), a.turn(own, path=OWN)])]


DRIVEN: Final = (
    *("200", "200", "200", "200", UNSUPPORTED, "422 invalid_request", "400 malformed_json"),
    *("404 not_found", "415 unsupported_media_type", "403 origin_forbidden", "401 token_malformed"),
    *("200", "502 upstream_rejected", "502 upstream_rejected"),
)


def logged(found: Callable[[Outcome, str], str | None]) -> Harm:
    """Something that is found in what the server has printed."""
    return lambda _, outcome: found(outcome, outcome.attacker.logs())


def secrets_in_it(_: Outcome, log: str) -> str | None:
    """A secret, in any dress."""
    found = hits(WORDS, log.encode())
    return f"the log holds the {found[0]}" if found else None


def texts_in_it(_: Outcome, log: str) -> str | None:
    """A word of what any attacker wrote."""
    forms = (MARK, MARK[::-1], base64.b64encode(MARK.encode()).decode()[:-4], "fingerprint-")
    found = [form for form in forms if form in log]
    return f"the log holds {found[0]!r}" if found else None


def tokens_in_it(outcome: Outcome, log: str) -> str | None:
    """A token, or the signature of one."""
    given = [answer.token for answer in outcome.attacker.heard if answer.token]
    found = [token for token in given if token in log or token[-43:] in log]
    return "the log holds a token" if found else None


def odd_lines(_: Outcome, log: str) -> str | None:
    """A line that is none of ours: somebody has written into the log."""
    lines = (
        log[log.index("  workers ") :].split("\n")[1:] if "  workers " in log else log.split("\n")
    )
    odd = [line for line in lines if line and not LINE.fullmatch(line)]
    return f"an odd line: {odd[0][:60]!r}" if odd else None


def stored(_: Case, outcome: Outcome) -> str | None:
    """A secret in Redis, in any dress."""
    return next(iter(outcome.attacker.store.secrets()), None)


async def into_the_log(a: Attacker) -> list[Answer]:
    """Line ends, escapes and whole lines of a log, in every place that might be logged."""
    line = "2026-01-01 00:00:00,000 INFO keyturn admitted"
    return await a.each(
        [
            a.turn(path=f"/%0a{line.replace(' ', '%20')}%0a"),
            a.turn(path="/%1b[2J%1b]0;evil%07"),
            a.turn(path=f"{CHAT}?%0d%0a{line.replace(' ', '%20')}"),
            a.turn(X_Request_Id="%0a" + line.replace(" ", "_")),
            a.turn(X_Request_Id="label\x85" + "x" * 20),
            a.turn(User_Agent=f"evil\t{line}"),
            a.turn(a.body(**{f"x\n{line}": 1})),
            a.turn(a.body(model=f"gpt\n{line}")),
            b"GET /\n" + line.encode() + b" HTTP/1.1\r\n\r\n",
        ]
    )


async def labels(a: Attacker) -> list[Answer]:
    """Labels that are none: none of them comes back."""
    wrong = (f"<{a.mark}>", a.mark + "\u00e9", a.mark * 9, f"{a.mark} x", f"{a.mark};x=y")
    return await a.each(
        a.turn(b"", method="GET", path="/nowhere", X_Request_Id=each) for each in wrong
    )


async def names(a: Attacker) -> list[Answer]:
    """Parameters whose names are secrets, or whole texts: none comes back but a plain name."""
    wrong = (f"<b>{a.mark}</b>", f"{a.mark} {KEY}", "x" * 65 + a.mark, f"{a.mark}\u00e9")
    return await a.each(a.turn(a.body(**{name: 1})) for name in wrong)


async def values(a: Attacker) -> list[Answer]:
    """Wrong values, which a framework would say back."""
    text = f"{TEXTS['message']} {a.mark}"
    wrong = ({"temperature": text}, {"model": text}, {"stop": [text] * 5}, {"stream": text})
    bodies = [a.body(**each) for each in wrong]
    bodies += [a.body(text).replace(b"{", b"{{", 1), a.body([{"type": text, "text": 1}])]
    return await a.each(map(a.turn, bodies))


async def a_token(a: Attacker) -> list[Answer]:
    """A token, to be taken apart."""
    return await a.send(a.turn())


def token_says_much(_: Case, outcome: Outcome) -> str | None:
    """A token that tells more than its chain, turn, times and a keyed hash."""
    claims = claims_of(outcome.answers[0].token or "")
    said = repr(claims)
    if set(claims) != set("cnbief") or outcome.attacker.address in said:
        return "the token tells more than it has to"
    return "the token holds the fingerprint" if outcome.attacker.fingerprint in said else None


async def same_visitor_twice(a: Attacker) -> list[Answer]:
    """Two visitors of one browser: their hashes are the same, and no plain one of anything."""
    return await a.each([a.turn(), a.turn()])


def guessable(_: Case, outcome: Outcome) -> str | None:
    """A name in Redis that everybody can compute."""
    address = outcome.attacker.address
    plain = {f"{address}/32", address, base64.b64encode(address.encode()).decode()}
    kept = dump(outcome.attacker.store.url).decode("latin-1")
    return "Redis holds an address" if any(each in kept for each in plain) else None


CASES = [
    Case(
        "secrets in the log",
        "14 requests full of canaries, at LOG_LEVEL=debug, after all cases before: plain, "
        "reversed, halved, in hex, base64, percent and JSON escapes",
        drive,
        DRIVEN,
        posts=7,
        admitted=3,
        harm=logged(secrets_in_it),
        control=True,
        seconds=10,
    ),
    Case(
        "texts in the log",
        "a word that stood in everything that was ever sent",
        a_token,
        ("200",),
        posts=1,
        admitted=1,
        harm=logged(texts_in_it),
        control=True,
    ),
    Case(
        "tokens in the log",
        "every token that was given",
        drive,
        ("422 idempotency_conflict", *DRIVEN[1:]),
        posts=6,
        admitted=2,
        harm=logged(tokens_in_it),
    ),
    Case(
        "lines written into the log",
        "line ends, escapes and forged lines in paths, labels, agents, names, a first line",
        into_the_log,
        (
            *("404 not_found", "404 not_found", "200", "200", "200", "200", UNSUPPORTED),
            *("422 invalid_request", "400"),
        ),
        posts=4,
        admitted=4,
        harm=logged(odd_lines),
        control=True,
    ),
    Case(
        "secrets in Redis",
        "the same requests, then every key and value, and no canary in any dress",
        drive,
        ("422 idempotency_conflict", *DRIVEN[1:]),
        posts=6,
        admitted=2,
        harm=stored,
    ),
    Case(
        "addresses in Redis",
        "plain, or hashed without a key",
        same_visitor_twice,
        ("200", "200"),
        posts=2,
        admitted=2,
        harm=guessable,
    ),
    Case(
        "what a token tells",
        "its claims: no fingerprint, no address, no text",
        a_token,
        ("200",),
        posts=1,
        admitted=1,
        also=(token_says_much,),
    ),
    Case(
        "labels said back",
        "five X-Request-Ids that are none",
        labels,
        ("404 not_found",) * 5,
        untouched=True,
    ),
    Case(
        "names said back",
        "parameters called <b>, a key, 70 letters, an umlaut",
        names,
        (UNSUPPORTED,) * 4,
        untouched=True,
        harm=tells("<b>", KEY, "x" * 65),
    ),
    Case(
        "values said back",
        "six bodies with a private text for a value",
        values,
        (
            *("422 invalid_request",) * 4,
            "400 malformed_json",
            UNSUPPORTED,
        ),
        untouched=True,
        harm=any_of(tells("Quokka", TEXTS["message"])),
        control=True,
    ),
]
