"""Doors that should not be there: debug, administration, other APIs, odd paths and methods."""

from typing import Any, Final

from attacks.attacker import CHAT, Attacker
from attacks.case import Case, Harm, any_of, has_header, passes, reaches_upstream, tells
from attacks.wire import Answer

NOWHERE: Final = "404 not_found"
ONLY: Final = "405 method_not_allowed"
INTERNALS: Final = (
    *("unix://", "redis://", "site-packages", "Traceback", "SECRET", "OPENAI_API_KEY"),
    *("Wombat-4f3e2d", "sk-operator"),
)
SHOWN: Final = tells(*INTERNALS)


def page(path: str, back: str = NOWHERE, *, control: bool = False, **said: Any) -> Case:
    """A GET of a path."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.send(a.turn(b"", method="GET", path=path, Content_Type=None))

    chosen: dict[str, Any] = {"harm": any_of(passes(0), SHOWN), "untouched": True, **said}
    return Case(f"GET {path}", "as it stands", attack, (back,), control=control, **chosen)


def post(name: str, path: str, back: str = NOWHERE, *, control: bool = False, **said: Any) -> Case:
    """A good turn, sent to another path."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.send(a.turn(path=path))

    return Case(name, f"a good first turn: POST {path}", attack, (back,), control=control, **said)


def method(verb: str, back: str = ONLY, *, harm: Harm = reaches_upstream, **said: Any) -> Case:
    """A good turn by another method."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.send(a.turn(method=verb), head=verb == "HEAD")

    return Case(
        f"{verb} of a turn", f"{verb} {CHAT}", attack, (back,), harm=harm, untouched=True, **said
    )


async def overridden(a: Attacker) -> list[Answer]:
    """GET that says it is a POST."""
    said: dict[str, Any] = dict.fromkeys(
        ("X_HTTP_Method_Override", "X_HTTP_Method", "X_Method_Override"), "POST"
    )
    return await a.send(a.turn(method="GET", path=f"{CHAT}?_method=POST", **said))


async def rewritten(a: Attacker) -> list[Answer]:
    """Headers by which some servers change the path."""
    said: dict[str, Any] = dict.fromkeys(
        ("X_Original_URL", "X_Rewrite_URL", "X_Forwarded_Prefix"), "/debug"
    )
    return await a.send(a.turn(b"", method="GET", path="/api/health", **said))


async def open_pages(a: Attacker) -> list[Answer]:
    """What anybody may read: none of it shows how the server is set up inside."""
    paths = ("/readyz", "/healthz?verbose=1", "/api/health", "/v1/models", "/", "/client.js")
    return await a.each(a.turn(b"", method="GET", path=path) for path in paths)


async def described(a: Attacker) -> list[Answer]:
    """The description of the API, where the operator shows it."""
    return await a.each(
        a.turn(b"", method="GET", path=path) for path in ("/openapi.json", "/docs", "/redoc")
    )


async def heads(a: Attacker) -> list[Answer]:
    """Answers of every kind."""
    asked = [a.turn(), a.turn(a.body(n=2)), a.turn(path="/nowhere"), b"GARBAGE\r\n\r\n"]
    return await a.each([*asked, a.turn(b"", method="GET", path="/")])


READ: Final = ("/docs", "/redoc", "/openapi.json", "/metrics", "/debug", "/debug/pprof/", "/admin")
FILES: Final = (
    *("/.env", "/.git/config", "/server.py", "/settings.py", "/prices.toml", "/requirements.txt"),
    *("/.keyturn/redis", "/public/index.html", "/index.html", "/security/gate.py"),
)
TRAVERSALS: Final = (
    *("/../.env", "/client.js/../../.env", "/%2e%2e/.env", "/..%2f.env", "/..%5c.env"),
    *("/%252e%252e/.env", "/client.js%00.png", "/client.js/", "//client.js", "/./client.js"),
    *("/v1/models/../../.env", "/v1/models/..%2f..%2f.env", "/v1/models/%2e%2e", "/v1/models/"),
)
OTHER_APIS: Final = (
    *("/v1/completions", "/v1/embeddings", "/v1/images/generations", "/v1/audio/speech"),
    *("/v1/files", "/v1/batches", "/v1/fine_tuning/jobs", "/v1/assistants", "/v1/threads"),
    *("/v1/moderations", "/v1/vector_stores", "/v1/realtime/sessions", "/v1/messages"),
    *("/v1/responses/resp_1/cancel", "/v1/responses/input_tokens", "/v1/organization/api_keys"),
    *("/key/generate", "/user/new", "/config/update", "/v1/chat/completions/chatcmpl-1"),
)
SPELLINGS: Final = (
    *(f"{CHAT}/", "/V1/chat/completions", "//v1/chat/completions", "/v1//chat/completions"),
    *("/v1/./chat/completions", "/v1/x/../chat/completions", "/v1/chat/completions;a=b"),
    *("/v1/chat%2fcompletions/", "/v1/chat/completions%00", "/v1/chat/completions%20"),
    *("/v1/chat/completions%0d%0a", "/v1/chat/completions.json", "/api/v1/chat/completions"),
    *("/openai/v1/chat/completions", "/v1/chat", "/chat/completions", "/v1/chat/completions%252f"),
)

CASES = [
    *(page(path, control=path in ("/docs", "/debug", "/openapi.json")) for path in READ),
    *(page(path) for path in FILES),
    *(page(path) for path in TRAVERSALS),
    page("/v1/responses/resp_1"),
    page("/v1/chat/completions", ONLY),
    page("/v1/chat/completions?messages=x", ONLY),
    *(
        post(
            path.removeprefix("/v1/"),
            path,
            untouched=True,
            control=path == "/v1/embeddings",
            **({"where": "strict"} if path == "/v1/embeddings" else {}),
        )
        for path in OTHER_APIS
    ),
    *(post(f"spelled {path}", path, untouched=True) for path in SPELLINGS),
    post("spelled with %63", "/v1/chat/%63ompletions", "200", posts=1, admitted=1),
    *(method(verb) for verb in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND")),
    method("HEAD", "405"),
    method("TRACE", harm=tells("fingerprint-of-a-browser"), control=True),
    method("PURGE"),
    Case(
        "a method in a header",
        "GET with X-HTTP-Method-Override: POST and ?_method=POST",
        overridden,
        (ONLY,),
        untouched=True,
    ),
    Case(
        "a path in a header",
        "X-Original-URL and X-Rewrite-URL: /debug",
        rewritten,
        ("200",),
        untouched=True,
        harm=SHOWN,
    ),
    Case(
        "what anybody may read",
        "readiness, health, models, the page: nothing of the inside",
        open_pages,
        ("200",) * 6,
        harm=SHOWN,
    ),
    Case(
        "the description, where it is shown",
        "openapi.json, docs, redoc in development: nothing of the inside",
        described,
        ("200",) * 3,
        where="strict",
        harm=SHOWN,
    ),
    Case(
        "what it runs on",
        "no answer names software: a turn, refusals, a page, and what is no HTTP",
        heads,
        ("200", "400 unsupported_parameter", NOWHERE, "400", "200"),
        posts=1,
        admitted=1,
        harm=any_of(has_header("server", "x-powered-by", "via"), tells("uvicorn", "Starlette")),
        control=True,
        peers=True,
    ),
]
