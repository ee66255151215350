"""The floors of the house: a module imports from below only, and pure ones touch no world."""

import ast
from collections.abc import Iterator

import pytest

from tests.stage import ROOT

# From the ground up. A module may import from any floor below its own, and from no other.
FLOORS = [
    "patience findings door shared_look security.errors security.client_ip security.budget"
    " security.words security.day completions.text completions.alike completions.operator_keys"
    " embedded.errors embedded.demo_answers",
    "security.store_url security.tls security.wire security.breaker"
    " security.timestamp security.fingerprint"
    " security.keyed_hash completions.prices completions.scanner"
    " embedded.child_process embedded.demo_shapes",
    "security.scripts security.capacity security.one_time_token completions.grammars"
    " completions.refusals"
    " embedded.child_store embedded.child_upstream embedded.demo_upstream security.session",
    "security.sentinel security.cluster completions.charge embedded.parts money_report",
    "security.store completions.connections",
    "security.calls security.spending",
    "security.ledger embedded",
    "security.control security.history security.gate security.trust completions.body setting_types",
    "completions.messages completions.request setting_keys",
    "completions.plain completions.items",
    "completions.chat",
    "completions.responses completions.own_key_request completions.upstream completions.turns",
    "completions.own_key completions.relay",
    "problems settings signals turn_record metric_families",
    "metrics turn_history raw_answers",
    "exchange protocol standing turn_log turn_trace shared_metrics rotation recording",
    "edge console provisions",
    "policies",
    "house schema",
    "pages metrics_page operator_api credentials at_hand check_live check_settings",
    "check spend operator_page",
    "command",
    "server",
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}

PURE = {
    *("security.errors", "security.client_ip", "security.timestamp", "security.fingerprint"),
    *("security.keyed_hash", "security.one_time_token", "security.breaker", "security.capacity"),
    *(
        "completions.text",
        "completions.prices",
        "completions.scanner",
        "completions.alike",
        "completions.body",
    ),
    *(
        "security.budget",
        "security.scripts",
        "security.words",
        "security.store_url",
        "completions.charge",
        "security.day",
        "money_report",
        "findings",
        "turn_record",
        "metrics",
        "metric_families",
        "turn_history",
        "security.session",
    ),
    *("completions.messages", "completions.request", "completions.plain"),
    *(
        "completions.own_key_request",
        "completions.operator_keys",
        "completions.refusals",
        "completions.chat",
        "completions.items",
        "completions.responses",
        "completions.grammars",
    ),
}
WORLD = {"redis", "fastapi", "starlette", "openai", "aiohttp", "httpx2", "fakeredis"}
WORLD |= {"os", "time", "datetime", "random", "secrets", "asyncio", "socket", "importlib"}

# Who alone may import what; house, pages, console and provisions name Redis' types and errors.
DOORS = {
    "redis": {
        *("security.calls", "security.ledger", "security.store", "security.trust"),
        *("security.sentinel", "security.cluster", "security.wire", "security.spending"),
        *("security.control", "security.history"),
        *("house", "pages", "console", "provisions"),
    },
    "fakeredis": {"security.store"},
    "openai": {"completions.own_key"},
    "opentelemetry": {"turn_trace"},
    "httpx2": {"completions.own_key"},
}


def sources() -> dict[str, str]:
    """The text of every module; an `__init__` that imports nothing is none."""
    found = {}
    for folder in ("", "security", "completions", "embedded"):
        for path in (ROOT / folder).glob("*.py"):
            text, name = path.read_text(), path.relative_to(ROOT).with_suffix("").as_posix()
            if path.stem != "__init__" or imports(text):
                found[name.removesuffix("/__init__").replace("/", ".")] = text
    found.pop("test_client", None)  # a program of its own, which knows us by HTTP only
    return found


def imports(source: str) -> set[str]:
    """Every module that a source imports, wherever in it; of packages also what is taken out."""
    return set(_imports(ast.parse(source)))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "a relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from [name for name in inner if name in FLOOR] or [str(node.module)]


def breaches(name: str, source: str) -> list[str]:
    """What a module of this name and text does that it may not."""
    used = imports(source)
    found = [f"{each} is not below" for each in used if FLOOR.get(each, -1) >= FLOOR[name]]
    outside = {each.split(".")[0] for each in used}
    guarded = {each for each in outside & set(DOORS) if name not in DOORS[each]}
    found += [f"{each} is no door of ours" for each in guarded]
    if name in PURE:
        found += [f"{each} is the world" for each in outside & WORLD]
        found += [f"{each} is not pure" for each in used if each in FLOOR and each not in PURE]
    found += ["a relative import"] if "a relative import" in used else []
    found += ["makes an Admission"] if name != "security.gate" and admits(source) else []
    return sorted(found)


def admits(source: str) -> bool:
    """Whether a source makes an `Admission`, the one key to both doors upstream."""
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    bare = (call.value if isinstance(call, ast.Subscript) else call for call in calls)
    return any(ast.unparse(call).split(".")[-1] == "Admission" for call in bare)


def test_every_module_has_a_floor() -> None:
    """Whoever adds one says where it stands; none that is gone is still spoken of."""
    assert set(sources()) == set(FLOOR)
    assert set(FLOOR) >= PURE


@pytest.mark.parametrize("name", FLOOR)
def test_a_module_imports_from_below_only(name: str) -> None:
    """And through its own doors only; a pure one imports pure ones and no world."""
    assert breaches(name, sources()[name]) == []


def test_only_the_gate_admits() -> None:
    """It does, so the search finds what it looks for."""
    assert admits(sources()["security.gate"])


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("security.gate", "import server", ["server is not below"]),
        ("security.gate", "from security.gate import Gate", ["security.gate is not below"]),
        ("security.errors", "from security import client_ip", ["security.client_ip is not below"]),
        ("security.timestamp", "def f():\n    import time", ["time is the world"]),
        ("security.timestamp", "from os.path import join", ["os is the world"]),
        (
            "completions.request",
            "import settings as s",
            ["settings is not below", "settings is not pure"],
        ),
        ("completions.request", "from security.store import x", ["security.store is not pure"]),
        ("edge", "from redis.asyncio import Redis", ["redis is no door of ours"]),
        ("house", "import openai", ["openai is no door of ours"]),
        ("edge", "from . import exchange", ["a relative import"]),
        ("edge", "from exchange import Exchange\nimport asyncio, time", []),
        ("server", "gate.Admission[int](1)", ["makes an Admission"]),
        ("server", "x: Admission[int] = y", []),
    ],
)
def test_a_breach_would_be_found(name: str, source: str, found: list[str]) -> None:
    """The control: made-up sources, each with one fault or none."""
    assert breaches(name, source) == found
