"""The table of problems and the body that each becomes."""

import json
import string
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseErrorEvent

from problems import (
    PROBLEMS,
    body_of,
    chain_of,
    error_event,
    error_frame,
    headers_of,
    openai_error,
)
from security.errors import Chain, Code, Quota, Rejection, Standing
from standing import LimitPolicy, limit_headers

POLICY = LimitPolicy(address='"address";q=30;w=60', start='"start";q=10;w=600')


def said(rejection: Rejection) -> dict[str, Any]:
    """The body as a client reads it."""
    found: dict[str, Any] = json.loads(body_of(rejection, request_id="label-42", now_ms=7))
    return found


def headers(rejection: Rejection) -> dict[str, str]:
    """The headers by name; none comes twice."""
    pairs = [(name.decode(), value.decode()) for name, value in headers_of(rejection)]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("code", PROBLEMS)
def test_a_row_says_what_happened_and_what_to_do(code: Code) -> None:
    """Every row has a title, a sentence of help, a status of an error, and one code."""
    problem = PROBLEMS[code]
    assert 400 <= problem.status < 600
    assert problem.title[0].isupper()
    assert not problem.title.endswith(".")
    assert problem.detail
    assert problem.chain is None or problem.chain in get_args(Chain)
    assert set(code) <= set(string.ascii_lowercase + "_")
    body = said(Rejection(code))
    assert body["error"]["code"] == body["code"] == code
    assert body["status"] == problem.status


@pytest.mark.parametrize("code", PROBLEMS)
def test_only_what_may_change_by_itself_is_repeated(code: Code) -> None:
    """An SDK may repeat only a busy server's refusal that left the token as it was."""
    problem = PROBLEMS[code]
    if problem.retry:
        assert problem.status in (429, 503)
        assert problem.chain == "kept"
    assert ("x-should-retry" in headers(Rejection(code))) is not problem.retry
    spent = Rejection(code).with_successor("next")
    assert headers(spent)["x-should-retry"] == "false"
    assert headers(spent)["keyturn-token"] == "next"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (3600, "3600")],
)
def test_a_wait_is_rounded_up_to_whole_seconds(seconds: float | None, told: str) -> None:
    """Retry-After is never a fraction and never too short (RFC 9110, 10.2.3)."""
    assert headers(Rejection("rate_limited", retry_after=seconds))["retry-after"] == told


def test_a_status_of_its_own_decides_the_headers() -> None:
    """A row that can have two statuses is consistent in either."""
    rejection = Rejection("upstream_rejected", status=400)
    assert said(rejection)["status"] == 400
    assert said(rejection)["error"]["type"] == "invalid_request_error"
    assert said(Rejection("upstream_rejected"))["error"]["type"] == "server_error"
    assert "retry-after" not in headers(rejection)


def test_what_became_of_the_chain_is_said_by_who_knows() -> None:
    """A rejection's own word goes first, then the successor it carries, then the row."""
    assert chain_of(Rejection("rate_limited")) == "kept"
    assert chain_of(Rejection("rate_limited", chain="none")) == "none"
    assert chain_of(Rejection("internal_error")) is None
    assert chain_of(Rejection("internal_error").with_successor("next")) == "advanced"
    assert "chain" not in said(Rejection("not_found"))


def test_a_reused_token_is_told_gently_within_the_grace() -> None:
    """A double click and a theft read differently."""
    assert "a moment ago" in said(Rejection("token_reused", chain="kept"))["detail"]
    assert "revoked" in said(Rejection("token_reused", chain="revoked"))["detail"]


def test_a_frame_in_a_stream_is_openais_error() -> None:
    """One event, one line, the error object that SDKs raise, and nothing else."""
    rejection = Rejection("upstream_unavailable")
    frame = error_frame(rejection)
    assert frame.startswith(b"data: {")
    assert frame.endswith(b"}\n\n")
    assert frame.count(b"\n") == 2
    assert json.loads(frame[6:]) == {"error": openai_error(rejection)}


def test_an_event_in_a_response_says_it_for_either_reader() -> None:
    """Flat as OpenAI describes it, and within `error` as its service sends it and SDKs look."""
    rejection = Rejection("invalid_request", "Too long.", param="input")
    event = error_event(rejection, 7)
    assert event.startswith(b"event: error\ndata: {")
    assert event.endswith(b"}\n\n")
    said = json.loads(event.removeprefix(b"event: error\ndata: "))
    described = ResponseErrorEvent.model_validate(said, strict=True)
    assert (described.type, described.sequence_number) == ("error", 7)
    assert said["error"] == openai_error(rejection)
    for name in ("code", "message", "param"):
        assert getattr(described, name) == said[name] == said["error"][name]


@given(st.text(), st.text(), st.sampled_from(sorted(PROBLEMS)))
def test_no_text_breaks_the_body_or_the_frame(detail: str, param: str, code: Code) -> None:
    """Whatever a detail holds, the body is one JSON object and the frame is one line."""
    rejection = Rejection(code, detail or None, param=param or None)
    body = body_of(rejection, request_id="label-42", now_ms=7)
    assert body.isascii()
    assert json.loads(body)["detail"] == detail or not detail
    assert error_frame(rejection).count(b"\n") == 2
    assert error_event(rejection, 0).count(b"\n") == 3


def test_limits_are_said_as_the_script_counted_them() -> None:
    """RateLimit names each policy that was counted, with what is left and when more comes."""
    assert limit_headers(None, POLICY) == []
    both = Standing(Quota(12, 2), Quota(9, 60))
    assert limit_headers(both, POLICY) == [
        (b"ratelimit-policy", b'"address";q=30;w=60, "start";q=10;w=600'),
        (b"ratelimit", b'"address";r=12;t=2, "start";r=9;t=60'),
    ]
    assert limit_headers(Standing(Quota(0, 2)), POLICY)[1] == (b"ratelimit", b'"address";r=0;t=2')


@pytest.mark.parametrize("code", ["budget_visitor", "budget_exhausted"])
@pytest.mark.parametrize(
    ("seconds", "wait"), [(18_723, "5 h 13 min"), (3600, "1 h 0 min"), (59, "1 min")]
)
def test_a_spent_budget_says_when_and_what_else(code: Code, seconds: int, wait: str) -> None:
    """Money that is gone says when there is more, and that one's own key works, if it does."""
    rejection = Rejection(code, retry_after=seconds)
    said = json.loads(body_of(rejection, request_id="r", now_ms=1, own_keys=True))
    assert said["detail"] == (
        f"It is reset at midnight UTC, in {wait}. A shorter one may still fit. "
        "No token was spent. "
        "Until then your own API key works all the same."
    )
    assert said["error"]["message"] == f"{said['title']}. {said['detail']}"
    alone = json.loads(body_of(rejection, request_id="r", now_ms=1))
    assert "own API key" not in alone["detail"]


def test_money_that_is_only_held_is_waited_for() -> None:
    """Where running turns hold what it takes, nobody is sent home until midnight."""
    said = json.loads(
        body_of(Rejection("budget_exhausted", retry_after=5), request_id="r", now_ms=1)
    )
    assert (
        said["detail"] == "Turns that run now hold it. Try again in a moment. No token was spent."
    )
