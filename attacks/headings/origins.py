"""Origin games: a foreign page in a visitor's browser, and what it would like to be taken for."""

from collections.abc import Callable
from typing import Any

from attacks.attacker import PAGE, RESPONSES, Attacker, Said
from attacks.case import Case, has_header, reaches_upstream, tells
from attacks.wire import Answer

FORBIDDEN = "403 origin_forbidden"
MEDIA = "415 unsupported_media_type"
UNREADABLE = has_header("access-control-allow-origin")


def page(name: str, origin: Said, *, control: bool = False, sends: str = "") -> Case:
    """A good first turn by a page of such an origin, on both APIs."""

    async def attack(a: Attacker) -> list[Answer]:
        return await a.each([a.turn(Origin=origin), a.turn(path=RESPONSES, Origin=origin)])

    words = sends or f"Origin: {origin!r}"
    case = Case(name, words, attack, (FORBIDDEN,) * 2, untouched=True, also=(UNREADABLE,))
    return case if not control else with_control(case)


def with_control(case: Case) -> Case:
    """The same, which the naive proxy must not withstand."""
    return Case(**{**vars(case), "control": True})


def simple(name: str, kind: Said, body: Callable[[Attacker], bytes] | None = None) -> Case:
    """What a page can send without a preflight: a form, or text."""

    async def attack(a: Attacker) -> list[Answer]:
        said = body(a) if body else None
        return await a.send(a.turn(said, Content_Type=kind, Origin=PAGE))

    return Case(
        name, f"Content-Type: {kind!r}", attack, (MEDIA,), untouched=True, control=body is None
    )


def preflight(
    name: str, origin: str, back: str, wanted: str = "authorization", **more: Any
) -> Case:
    """What a browser asks first."""

    async def attack(a: Attacker) -> list[Answer]:
        asks: dict[str, Any] = {
            "Access_Control_Request_Method": "POST",
            "Access_Control_Request_Headers": wanted,
        }
        return await a.send(a.turn(b"", method="OPTIONS", Origin=origin, **asks))

    words = f"OPTIONS by {origin}, asking for {wanted[:40]!r}"
    return Case(name, words, attack, (back,), untouched=True, **more)


async def without(a: Attacker) -> list[Answer]:
    """No Origin where one is required, on every route that spends."""
    paths = ("/v1/chat/completions", RESPONSES, "/api/chat")
    return await a.each(a.turn(path=path, Origin=None) for path in paths)


async def right_elsewhere(a: Attacker) -> list[Answer]:
    """A foreign Origin, and the right one in every other header that could name a page."""
    said: dict[str, Any] = {
        "Referer": f"{PAGE}/chat",
        "X_Forwarded_Host": "page.example",
        "Host": "page.example",
    }
    more: dict[str, Any] = {
        "X_Origin": PAGE,
        "X_Forwarded_Origin": PAGE,
        "Sec_Fetch_Site": "same-origin",
    }
    return await a.send(a.turn(Origin="https://evil.example", **said, **more))


async def form(a: Attacker) -> list[Answer]:
    """JSON dressed as the one field of a form of type text/plain."""
    body = a.body().replace(b'"stream"', b'"user": "=", "stream"')
    return await a.send(a.turn(body, Content_Type="text/plain", Origin="null"))


def multipart(_: Attacker) -> bytes:
    """A form with a file."""
    return b'--x\r\nContent-Disposition: form-data; name="messages"\r\n\r\nhi\r\n--x--\r\n'


CASES = [
    page("a foreign page", "https://evil.example"),
    page("none at all", "null"),
    page("an empty one", ""),
    page("its name in front", "https://page.example.evil.example", control=True),
    page("its name behind", "https://evilpage.example", control=True),
    page("a page below it", "https://sub.page.example", control=True),
    page("a page above it", "https://example"),
    page("another port", "https://page.example:8443", control=True),
    page("its own port, said", "https://page.example:443"),
    page("without TLS", "http://page.example"),
    page("in capitals", "https://PAGE.example"),
    page("a capital scheme", "HTTPS://page.example"),
    page("with a slash", "https://page.example/"),
    page("with a path", "https://page.example/chat"),
    page("with a point behind", "https://page.example."),
    page("as a user name", "https://page.example@evil.example"),
    page("as a password", "https://a:page.example@evil.example"),
    page("as a query", "https://evil.example?https://page.example"),
    page("as a fragment", "https://evil.example#https://page.example"),
    page("behind a percent sign", "https://page.example%00.evil.example"),
    page("behind a tab", "https://page.example\thttps://evil.example"),
    page("two in one", "https://page.example, https://evil.example"),
    page("two in one, by a blank", "https://page.example https://evil.example"),
    page("two, the right one first", [PAGE, "https://evil.example"]),
    page("two, the right one last", ["https://evil.example", PAGE]),
    page("the right one twice", [PAGE, PAGE]),
    page("a letter that looks alike", "https://pаge.example", sends="Origin with a Cyrillic а"),
    page("punycode", "https://xn--pge-7cd.example"),
    page("an extension", "chrome-extension://abcdefghijklmnop"),
    page("a file", "file://"),
    page("a star", "*"),
    page("this server", "http://127.0.0.1"),
    Case(
        "none where one is required",
        "no Origin, with REQUIRE_ORIGIN=on: both APIs, and /api/chat",
        without,
        (FORBIDDEN,) * 3,
        where="strict",
        untouched=True,
    ),
    Case(
        "the right one elsewhere",
        "a foreign Origin; the right one in Referer, Host, X-Forwarded-Host, Sec-Fetch-Site",
        right_elsewhere,
        (FORBIDDEN,),
        untouched=True,
        also=(UNREADABLE,),
    ),
    Case(
        "a form of text",
        "what a page may send without asking: text/plain, Origin: null",
        form,
        (MEDIA,),
        untouched=True,
        harm=reaches_upstream,
    ),
    simple("text without a preflight", "text/plain"),
    simple("a form", "application/x-www-form-urlencoded", lambda a: b"messages=hi"),
    simple("a form with a file", "multipart/form-data; boundary=x", multipart),
    simple("JSON of no type", None),
    preflight("asked first, foreign", "https://evil.example", FORBIDDEN, also=(UNREADABLE,)),
    preflight("asked first, null", "null", FORBIDDEN, also=(UNREADABLE,)),
    preflight(
        "asked first, for odd headers",
        PAGE,
        "204",
        "x-a: b\tset-cookie",
        also=(tells("x-a: b", "set-cookie"), has_header("access-control-allow-credentials")),
    ),
    preflight(
        "asked first, well",
        PAGE,
        "204",
        also=(has_header("access-control-allow-credentials", "set-cookie"),),
    ),
]
