"""The auth's flow, driven by hand: each code of the failure table, and who is let alone."""

from typing import Any

import httpx2
import pytest

from keyturn_auth import DEAD_CHAIN, KeyturnAuth
from problems import PROBLEMS

KEYTURN = "https://keyturn.example/v1"
URL = f"{KEYTURN}/chat/completions"


def refusal(code: Any) -> httpx2.Response:
    """What Keyturn says to a request that it refuses."""
    body = {"code": code, "server_time_ms": 1_795_300_000_000}
    return httpx2.Response(PROBLEMS[code].status, json=body)


def send(auth: KeyturnAuth, *answers: httpx2.Response) -> list[httpx2.Headers]:
    """Send a turn that is answered like this; the headers of each request that was made."""
    flow = auth.sync_auth_flow(httpx2.Request("POST", URL, json={}))
    sent = [httpx2.Headers(next(flow).headers)]
    try:
        for answer in answers:
            sent.append(httpx2.Headers(flow.send(answer).headers))
    except StopIteration:
        return sent
    finally:
        flow.close()
    return sent


def with_token(token: str) -> httpx2.Response:
    """An admitted turn."""
    return httpx2.Response(200, headers={"Keyturn-Token": token}, content=b"")


def test_every_code_that_asks_for_a_new_chain_is_known() -> None:
    """The table of problems and the auth agree on when a chain is dead."""
    told = {code for code, problem in PROBLEMS.items() if "new chain" in problem.detail}
    assert told | {"token_reused"} == DEAD_CHAIN


@pytest.mark.parametrize("code", PROBLEMS)
def test_what_is_tried_for_each_code(code: str) -> None:
    """A remedy is tried once and not twice, and for all other codes none is."""
    auth = KeyturnAuth(KEYTURN)
    send(auth, with_token("token-1"))
    sent = send(auth, refusal(code), refusal(code))
    remedied = {*DEAD_CHAIN, "timestamp_stale", "duplicate_request"}
    assert len(sent) == (2 if code in remedied else 1)
    assert sent[0]["authorization"] == "Bearer token-1"
    assert ("authorization" in sent[-1]) == (code not in DEAD_CHAIN)
    same_key = sent[0]["idempotency-key"] == sent[-1]["idempotency-key"]
    assert same_key == (code not in DEAD_CHAIN)


def test_a_chain_that_died_is_not_shown_again() -> None:
    """Where a new chain was refused too, the next turn begins one as well."""
    auth = KeyturnAuth(KEYTURN)
    send(auth, with_token("token-1"))
    send(auth, refusal("token_expired"), refusal("start_limited"))
    assert "authorization" not in send(auth, with_token("token-2"))[0]
    assert send(auth, with_token("token-3"))[0]["authorization"] == "Bearer token-2"


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"null", b'{"code": []}', b'{"code": "timestamp_stale"}', b"\xff"]
)
def test_an_answer_that_is_not_keyturns_is_left_as_it_is(body: bytes) -> None:
    """A refusal by something in between is the program's to see."""
    auth = KeyturnAuth(KEYTURN)
    assert len(send(auth, httpx2.Response(401, content=body))) == 1


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("POST", "https://other.example/v1/chat/completions"),
        ("POST", "https://keyturn.example.evil.example/v1/chat/completions"),
        ("POST", "https://keyturn.example@evil.example/v1/chat/completions"),
        ("POST", "https://keyturn.example:444/v1/chat/completions"),
        ("POST", "http://keyturn.example/v1/chat/completions"),
        ("POST", "https://keyturn.example/v1x/chat/completions"),
        ("POST", "https://keyturn.example/v1/../api/chat"),
        ("POST", "https://keyturn.example/api/chat"),
    ],
)
def test_no_other_address_is_shown_anything(method: str, url: str) -> None:
    """Other hosts, ports, schemes and paths get what the program said, and nothing of ours."""
    auth = KeyturnAuth(KEYTURN, fingerprint="the-fingerprint-of-it")
    send(auth, with_token("token-1"))
    request = httpx2.Request(method, url, headers={"Authorization": "Bearer keyturn"})
    before = list(request.headers.items())
    assert list(next(auth.sync_auth_flow(request)).headers.items()) == before


def test_a_question_without_a_token_carries_no_key() -> None:
    """`GET /v1/models` goes without a key and without a token, which stays good."""
    auth = KeyturnAuth(KEYTURN)
    send(auth, with_token("token-1"))
    headers = {"Authorization": "Bearer sk-of-somebody"}
    request = httpx2.Request("GET", "https://keyturn.example/v1/models", headers=headers)
    sent = next(auth.sync_auth_flow(request)).headers
    assert "authorization" not in sent
    assert not [name for name in sent if name.startswith("keyturn-")]


def test_fingerprints_are_random_and_well_formed() -> None:
    """Each auth has one of its own and keeps it, unless one is given."""
    shown = [
        send(auth, with_token("t"))[0]["keyturn-fingerprint"]
        for auth in (
            KeyturnAuth(KEYTURN),
            KeyturnAuth(KEYTURN),
            KeyturnAuth(KEYTURN, fingerprint="f" * 16),
        )
    ]
    assert len(set(shown)) == 3
    assert shown[2] == "f" * 16
    assert all(len(each) == 32 and each.isascii() for each in shown[:2])
    auth = KeyturnAuth(KEYTURN)
    assert send(auth)[0]["keyturn-fingerprint"] == send(auth)[0]["keyturn-fingerprint"]
