"""Visitors' own keys, and where requests go: to the two upstreams that the operator set."""

from collections.abc import Callable
from typing import Any, Final

from attacks.attacker import CHAT, OWN, RESPONSES, Attacker
from attacks.case import (
    Case,
    Harm,
    Outcome,
    any_of,
    has_header,
    passes,
    posts_hold,
    reaches_upstream,
    tells,
)
from attacks.headings.keys import crosswise
from attacks.rogue import Keep, Reply, events, stream, whole
from attacks.wire import Answer

KEY: Final = "sk-visitor-of-own-keys-0123456789"
UNSUPPORTED: Final = "400 unsupported_parameter"
INVALID: Final = "422 invalid_request"
ELSEWHERE: Final = (
    *("base_url", "baseURL", "api_base", "api_url", "endpoint", "url", "host", "proxy", "server"),
    *("api_version", "api_type", "organization", "project", "deployment_id", "extra_headers"),
    *("extra_body", "extra_query", "headers", "default_headers", "timeout", "fallbacks"),
    *("callbacks", "custom_llm_provider", "mock_response", "litellm_params", "provider"),
)
STOLEN: Final = "/stolen"


def is_stolen(_: Case, outcome: Outcome) -> str | None:
    """A request went where the visitor said."""
    gone = any(STOLEN in post["path"] for post in outcome.posts)
    return "a request went where the visitor said" if gone else None


def to(a: Attacker) -> str:
    """The attacker's own server."""
    return f"http://127.0.0.1:{a.rogue.port}{STOLEN}"


def parameter(name: str) -> Case:
    """A body that names a destination, on every route."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.each(
            [
                a.turn(a.body(**{name: to(a)})),
                a.turn(a.asks(**{name: to(a)}), path=RESPONSES),
                a.turn(a.own(**{name: to(a)}), path=OWN),
                a.turn(a.body(**{name: to(a)}), token=KEY),
            ]
        )

    return Case(
        f"{name} in the body",
        f"{name}: a server of the attacker's, on every route and by an own key",
        attack,
        (UNSUPPORTED,) * 4,
        untouched=True,
        harm=is_stolen,
        also=(reaches_upstream,),
        control=name == "base_url",
        peers=name in ("base_url", "api_base"),
    )


HEADERS: Final = (
    *("X_Base_Url", "X_Api_Base", "OpenAI_Base_Url", "X_Portkey_Custom_Host", "X_Target_Url"),
    *("X_Litellm_Api_Base", "X_Forwarded_Host", "X_Upstream", "OpenAI_Organization"),
    *(
        "OpenAI_Project",
        "OpenAI_Beta",
        "X_Original_Host",
        "X_Portkey_Provider",
        "Helicone_Target_Url",
    ),
)


async def headers(a: Attacker) -> list[Answer]:
    """Every header by which some gateway lets a client choose; by our key and by an own one."""
    said: dict[str, Any] = dict.fromkeys(HEADERS, to(a))
    return await a.each([a.turn(**said), a.turn(token=KEY, **said), a.turn(path=OWN, **said)])


def passed_on(post: dict[str, Any]) -> bool:
    """Whether a header that a visitor sent got upstream."""
    return STOLEN in repr(post["headers"])


def model(name: str) -> Case:
    """A model that is a path, on both APIs and by an own key."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.each(
            [
                a.turn(a.body(model=name)),
                a.turn(a.asks(model=name), path=RESPONSES),
                a.turn(a.own(model=name), path=OWN),
            ]
        )

    return Case(
        f"the model {name}",
        "on both APIs and by an own key",
        attack,
        (INVALID,) * 3,
        untouched=True,
    )


def answered(
    name: str,
    sends: str,
    reply: Callable[[Attacker], Reply],
    back: str,
    *,
    path: str = OWN,
    harm: Harm = reaches_upstream,
    body: Callable[[Attacker], bytes] = lambda a: a.own(key=KEY),
    control: bool = False,
) -> Case:
    """What the upstream of own keys says to one; then it says well again, twice for each worker."""

    async def attack(a: Attacker) -> list[Answer]:
        a.will_say(*reply(a))
        token = None if path == OWN else KEY
        told = await a.send(a.turn(body(a), path=path, token=token))
        well = a.another(mark=f"{a.mark}-well")
        a.rogue.replies[well.mark] = a.rogue.replies.pop(a.mark)[:0]
        for _ in range(4):
            await well.send(well.turn(token=KEY))
        return told

    return Case(
        name, sends, attack, (back,), posts=5, harm=harm, also=(crosswise,), control=control
    )


def away(status: str) -> Callable[[Attacker], Reply]:
    """A redirect to the attacker's own server."""
    return lambda a: [whole(b"{}", "application/json", status, f"Location: {to(a)}"), Keep()]


REFUSED: Final = (
    b'{"error":{"message":"Incorrect API key provided: sk-visit*****6789 of Mx. Qwerty"}}'
)


async def checker(a: Attacker) -> list[Answer]:
    """Twelve keys that upstream refuses: by the second ten, nobody is told any more."""
    a.will_say(whole(REFUSED, "application/json", "401 Unauthorized"), Keep())
    keys = [f"sk-stolen-{number:04}-0123456789" for number in range(12)]
    return await a.each(
        a.turn(token=key) if number % 2 else a.turn(a.own(key=key), path=OWN)
        for number, key in enumerate(keys)
    )


async def other_models(a: Attacker) -> list[Answer]:
    """What the operator does not allow is not allowed by an own key either."""
    wrong = [a.body(model="gpt-5-pro"), a.body(n=2), a.body(tools=[]), a.body(store=True)]
    return await a.each(a.turn(body, token=KEY) for body in wrong)


async def where_it_is_off(a: Attacker) -> list[Answer]:
    """With BYOK=off, on every route."""
    return await a.each([a.turn(token=KEY), a.turn(token=KEY, path=RESPONSES), a.turn(path=OWN)])


async def odd_history(a: Attacker) -> list[Answer]:
    """Roles that a history has not."""
    roles = ("system", "developer", "assistant", "tool", "USER", "")
    return await a.each(
        a.turn(a.own(chat_history=[{"role": role, "content": "x"}]), path=OWN) for role in roles
    )


async def as_a_page(a: Attacker) -> list[Answer]:
    """An answer that is a page: it is plain text, and may not be sniffed."""
    a.will_say(stream(events("<script>alert(1)</script>")), Keep())
    return await a.send(a.turn(path=OWN))


def is_a_page(_: Case, outcome: Outcome) -> str | None:
    """The answer could be shown as a page."""
    answer = outcome.answers[0]
    plain = answer.header("content-type") == "text/plain; charset=utf-8"
    sniffed = answer.header("x-content-type-options") != "nosniff"
    return None if plain and not sniffed else "it could be shown as a page"


CASES = [
    *map(parameter, ELSEWHERE),
    Case(
        "destinations in headers",
        "14 headers that name a server, an organisation, a project",
        headers,
        ("200",) * 3,
        posts=3,
        admitted=1,
        harm=any_of(is_stolen, posts_hold(passed_on, "a visitor's header got upstream")),
        also=(crosswise,),
        peers=True,
    ),
    *map(
        model,
        ("../../files", "gpt-4.1-mini/../../x", "http://127.0.0.1/", "gpt-4.1-mini?x=1", "", "*"),
    ),
    answered(
        "a redirect, 302",
        "by upstream, POST /api/chat",
        away("302 Found"),
        "502 upstream_unavailable",
    ),
    answered(
        "a redirect, 307",
        "by upstream, POST /api/chat",
        away("307 Temporary Redirect"),
        "502 upstream_unavailable",
        harm=is_stolen,
        control=True,
    ),
    answered(
        "a redirect, 308",
        "by upstream, Bearer sk-…",
        away("308 Permanent Redirect"),
        "502 upstream_unavailable",
        path=CHAT,
        body=Attacker.body,
    ),
    answered(
        "a refused key",
        "upstream repeats it with the name of its owner",
        lambda a: [whole(REFUSED, "application/json", "401 Unauthorized"), Keep()],
        "401 byok_key_rejected",
        harm=tells("Qwerty", "sk-visit", "Incorrect"),
        control=True,
    ),
    answered(
        "headers of upstream's",
        "Set-Cookie and openai-organization",
        lambda a: [
            stream(events(a.mark), "Set-Cookie: a=b", "openai-organization: of-the-visitor"),
            Keep(),
        ],
        "200",
        harm=has_header("set-cookie", "openai-organization"),
        control=True,
    ),
    answered(
        "cut in the middle",
        "upstream leaves: the text is cut, so that it is not taken for the whole",
        lambda a: [stream(events(a.mark))[:-99]],
        "200 cut",
    ),
    Case(
        "a checker of stolen keys",
        "12 keys that upstream refuses: ten are told so, by turns on both routes",
        checker,
        (*("401 byok_key_rejected",) * 10, *("429 rate_limited",) * 2),
        posts=10,
        harm=any_of(reaches_upstream, tells("Qwerty")),
        control=True,
    ),
    Case(
        "more than is allowed, by an own key",
        "another model, n, tools, store",
        other_models,
        (INVALID, *(UNSUPPORTED,) * 3),
        untouched=True,
    ),
    Case(
        "own keys where they are off",
        "Bearer sk-… on both APIs, and POST /api/chat, with BYOK=off",
        where_it_is_off,
        ("403 byok_disabled",) * 3,
        untouched=True,
        where="strict",
    ),
    Case(
        "roles that a history has not",
        "system, developer, assistant, tool, USER and none in chat_history",
        odd_history,
        (INVALID,) * 6,
        untouched=True,
        harm=passes(0),
    ),
    Case(
        "an answer that is a page",
        "upstream writes <script>",
        as_a_page,
        ("200",),
        posts=1,
        harm=is_a_page,
    ),
]
