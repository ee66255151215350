"""There is no way upstream but through the gate: read from the source itself."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from completions.own_key import OwnKeyUpstream
from completions.upstream import Upstream
from security.gate import Admission
from tests.stage import ROOT

SOURCES = sorted(
    path
    for path in ROOT.rglob("*.py")
    if not path.relative_to(ROOT)
    .parts[0]
    .startswith(("tests", "attacks", "bench", "examples", "."))
)
HTTP_CLIENTS = {"aiohttp", "httpx", "httpx2", "openai", "requests", "urllib.request", "http.client"}


def makers(source: str) -> Iterator[int]:
    """The lines that make an Admission, by whatever name it is reached, or copy one changed."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func.value if isinstance(node.func, ast.Subscript) else node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            first = node.args[0] if node.args else None
            copied = name == "replace" and "admission" in ast.dump(first or node).lower()
            if name == "Admission" or copied:
                yield node.lineno
        if isinstance(node, ast.alias) and node.name == "Admission" and node.asname:
            yield node.lineno


def speaks_http(source: str) -> bool:
    """Whether a module imports an HTTP client, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return any(
        name == each or name.startswith(f"{each}.") for name in found for each in HTTP_CLIENTS
    )


def test_admissions_are_made_by_the_gate_alone() -> None:
    """`Admission(` stands in security/gate.py and nowhere else."""
    made = {str(path.relative_to(ROOT)) for path in SOURCES if list(makers(path.read_text()))}
    assert made == {"security/gate.py"}


@pytest.mark.parametrize(
    "forged",
    [
        "Admission(rid, visitor, request, standing)",
        "gate.Admission[Any](rid, visitor)",
        "replace(admission, own_key=None)",
        "dataclasses.replace(turn.admission, own_key=None)",
        "from security.gate import Admission as Ticket",
    ],
)
def test_a_forged_one_would_be_found(forged: str) -> None:
    """The control: each way of making one elsewhere is seen."""
    assert list(makers(forged))
    assert not list(makers("gate.admit(shown); replace(policy, models=models)"))


@pytest.mark.parametrize("door", [Upstream, OwnKeyUpstream])
def test_every_door_asks_for_an_admission(door: type) -> None:
    """Each public way of a door, but closing it, takes an Admission by its annotation."""
    ways = {
        name: inspect.signature(way)
        for name, way in vars(door).items()
        if inspect.isfunction(way) and not name.startswith("_") and name != "close"
    }
    assert ways
    for name, signature in ways.items():
        asked = [each.annotation for each in signature.parameters.values()]
        origins = [getattr(annotation, "__origin__", None) for annotation in asked]
        assert Admission in origins, name


def test_no_other_module_speaks_http() -> None:
    """HTTP clients are imported by the doors and what belongs to them, so there is no third one."""
    speaking = {str(path.relative_to(ROOT)) for path in SOURCES if speaks_http(path.read_text())}
    doors = {"completions/upstream.py", "completions/own_key.py"}
    belonging = {"completions/relay.py", "completions/connections.py"}  # read, and ask for a door
    outside = {"embedded/demo_upstream.py", "embedded/child_upstream.py", "test_client.py"}
    assert doors <= speaking
    assert speaking <= doors | belonging | outside
    asking = {path for path in SOURCES if "completions.connections" in path.read_text()}
    assert {str(path.relative_to(ROOT)) for path in asking} == {
        "completions/upstream.py",
        "house.py",
    }


def test_the_walk_sees_the_whole_house() -> None:
    """The control of all this: the files that matter are among those read."""
    names = {path.relative_to(ROOT) for path in SOURCES}
    assert {Path("server.py"), Path("house.py"), Path("security/gate.py")} <= names
