"""A visitor's own mistake never costs the token: whatever is refused, the same token still works.

One visitor makes all of them, one after the other, with one token.
"""

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from tests.stage import RESPONSES, Upstream, Visitor, commands

Said = tuple[str, bytes]

USER = {"role": "user", "content": "hello"}


def body(**changed: Any) -> bytes:
    """A good body with some fields changed."""
    return json.dumps({"messages": [USER], **changed}).encode()


def says(content: Any, **more: Any) -> bytes:
    """A good body with this as the content of its message."""
    return body(messages=[{"role": "user", "content": content, **more}])


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    """A JSON value so many levels deep."""
    return opening * depth + "1" + closing * depth


def schema(value: str) -> bytes:
    """A body with this, as raw JSON, as the schema of its answer."""
    form = '{"type":"json_schema","json_schema":{"name":"n","schema":%s}}'
    return b'{"messages":[{"role":"user","content":"hi"}],"response_format":%s}' % (
        (form % value).encode()
    )


IMAGE = {"type": "image_url", "image_url": {"url": "https://images.example/x.png"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
FILE = {"type": "file", "file": {"file_id": "file-1"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "x"}

MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "half": b'{"messages":[',
    "two values": body() + b"{}",
    "not UTF-8": b'{"messages":[{"role":"user","content":"\xff"}]}',
    "UTF-16": body().decode().encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + body(),
    "NaN": b'{"messages":[{"role":"user","content":"hi"}],"temperature":NaN}',
    "Infinity": b'{"messages":[{"role":"user","content":"hi"}],"temperature":-Infinity}',
    "infinite number": b'{"messages":[{"role":"user","content":"hi"}],"temperature":1e999}',
    "endless integer": b'{"seed":' + b"9" * 5000 + b"}",
    "same name twice": b'{"messages":[],"messages":[{"role":"user","content":"hi"}]}',
    "same name twice below": b'{"messages":[{"role":"user","role":"system","content":"hi"}]}',
    "raw control character": b'{"messages":[{"role":"user","content":"a\x00b"}]}',
    "bomb of lists": nested(100_000).encode(),
    "bomb of objects": nested(40_000, '{"a":', "}").encode(),
    "comment": b"/* hi */" + body(),
}
UNSUPPORTED: dict[str, bytes] = {
    "unknown parameter": body(frobnicate=True),
    "tools": body(tools=[TOOL]),
    "an empty list of tools": body(tools=[]),
    "tool choice": body(tool_choice="auto"),
    "parallel tool calls": body(parallel_tool_calls=False),
    "function call": body(function_call="none"),
    "safety identifier": body(safety_identifier="me"),
    "functions": body(functions=[]),
    "two answers": body(n=2),
    "stored": body(store=True),
    "logprobs": body(logprobs=True),
    "priority": body(service_tier="priority"),
    "web search": body(web_search_options={}),
    "audio out": body(modalities=["text", "audio"]),
    "prediction": body(prediction={"type": "content", "content": "x"}),
    "image": says([IMAGE]),
    "sound": says(["no", SOUND][1:]),
    "file": says([{"type": "text", "text": "x"}, FILE]),
    "unknown in a message": says("hi", weight=1),
    "tool calls": body(messages=[{"role": "assistant", "content": "x", "tool_calls": [CALL]}]),
    "tool calls alone": body(messages=[USER, {"role": "assistant", "tool_calls": [CALL]}]),
    "role tool": body(messages=[USER, RESULT]),
    "result of a user": says("x", tool_call_id="c1"),
    "function call in a message": says("x", function_call={"name": "f", "arguments": "{}"}),
    "refusal as content": says([{"type": "refusal", "refusal": "no"}]),
    "obfuscation": body(stream_options={"include_obfuscation": True}),
}
INVALID: dict[str, bytes] = {
    "a list": b"[]",
    "a string": b'"hi"',
    "null": b"null",
    "no messages": b"{}",
    "zero messages": body(messages=[]),
    "messages no list": body(messages="hello"),
    "a message no object": body(messages=["hello"]),
    "no role": body(messages=[{"content": "hello"}]),
    "unknown role": body(messages=[{"role": "root", "content": "hello"}]),
    "role function": body(messages=[{"role": "function", "name": "f", "content": "x"}]),
    "content null": says(None),
    "content number": says(7),
    "content bytes": says({"text": "hi"}),
    "too many messages": body(messages=[USER] * 51),
    "too long": says("x" * 10_001),
    "too long in parts": says([{"type": "text", "text": "x" * 5001}] * 2),
    "unknown model": body(model="gpt-9000"),
    "model number": body(model=4),
    "temperature text": body(temperature="1"),
    "temperature hot": body(temperature=2.1),
    "stream text": body(stream="true"),
    "no output": body(max_tokens=0),
    "output float": body(max_tokens=1.5),
    "output true": body(max_tokens=True),
    "seed too big": body(seed=2**63),
    "five stops": body(stop=["a", "b", "c", "d", "e"]),
    "no stops": body(stop=[]),
    "answer in XML": body(response_format={"type": "xml"}),
    "schema without a name": body(
        response_format={"type": "json_schema", "json_schema": {"schema": {}}}
    ),
    "schema that is no object": schema("[]"),
    "part without a type": says([{"text": "x"}]),
    "NUL": says("a\0b"),
    "escape": says("a\x1b[31mb"),
    "DEL": says("a\x7fb"),
    "C1": says("a\x9bb"),
    "lone surrogate": b'{"messages":[{"role":"user","content":"\\ud800"}]}',
    "noncharacter": says("a\uffffb"),
    "tag characters": says("a\U000e0041\U000e0042b"),
    "control in a name": body(**{"us\0er": "x"}),
    "1001 names": body(metadata={str(number): 0 for number in range(1001)}),
    "deep schema": schema(nested(900)),
    "deep schema of objects": schema(nested(900, '{"a":', "}")),
    "surrogate in a schema": schema('"\\udfff"'),
}
MISTAKES = [
    *((name, raw, "malformed_json") for name, raw in MALFORMED.items()),
    *((name, raw, "unsupported_parameter") for name, raw in UNSUPPORTED.items()),
    *((name, raw, "invalid_request") for name, raw in INVALID.items()),
    ("too large", says("x" * 270_000), "payload_too_large"),
]
HEADERS: dict[str, tuple[dict[str, str | None], str]] = {
    "no content type": ({"Content_Type": None}, "unsupported_media_type"),
    "text": ({"Content_Type": "text/plain"}, "unsupported_media_type"),
    "form": ({"Content_Type": "application/x-www-form-urlencoded"}, "unsupported_media_type"),
    "gzip": ({"Content_Encoding": "gzip"}, "unsupported_media_type"),
    "foreign page": ({"Origin": "https://elsewhere.example"}, "origin_forbidden"),
    "no timestamp": ({"Keyturn_Timestamp": None}, "timestamp_missing"),
    "seconds": ({"Keyturn_Timestamp": "1795300000"}, "timestamp_malformed"),
    "Arabic digits": ({"Keyturn_Timestamp": "١٧٩٥٣٠٠٠٠٠٠٠٠"}, "timestamp_malformed"),
    "signed": ({"Keyturn_Timestamp": "+179530000000"}, "timestamp_malformed"),
    "long ago": ({"Keyturn_Timestamp": "1000000000000"}, "timestamp_stale"),
    "far ahead": ({"Keyturn_Timestamp": "9999999999999"}, "timestamp_stale"),
    "no fingerprint": ({"Keyturn_Fingerprint": None}, "fingerprint_missing"),
    "short fingerprint": ({"Keyturn_Fingerprint": "x" * 15}, "fingerprint_malformed"),
    "long fingerprint": ({"Keyturn_Fingerprint": "x" * 129}, "fingerprint_malformed"),
    "odd fingerprint": (
        {"Keyturn_Fingerprint": "fingerprint of a browser"},
        "fingerprint_malformed",
    ),
    "another's fingerprint": ({"Keyturn_Fingerprint": "another-browser-7"}, "fingerprint_mismatch"),
    "short key": ({"Idempotency_Key": "x" * 15}, "invalid_request"),
    "long key": ({"Idempotency_Key": "x" * 65}, "invalid_request"),
    "odd key": ({"Idempotency_Key": "an idempotency key"}, "invalid_request"),
}
TWICE = [
    "Keyturn-Timestamp",
    "Keyturn-Fingerprint",
    "Authorization",
    "Idempotency-Key",
    "X-Request-Id",
]


async def test_no_mistake_costs_the_token(visitor: Visitor, upstream: Upstream) -> None:
    """After every refusal for a mistake of the visitor's own, the next turn is admitted."""
    token = (await visitor.say()).token
    told = {}
    for name, raw, _ in MISTAKES:
        answer = await visitor.post(raw, visitor.headers())
        told[name] = answer.code
        assert (name, answer.json.get("chain")) == (name, "kept")
        assert answer.token is None
    assert told == {name: code for name, _, code in MISTAKES}
    told = {}
    for name, (changed, _) in HEADERS.items():
        told[name] = (await visitor.post(body(), visitor.headers(**changed))).code
    assert told == {name: code for name, (_, code) in HEADERS.items()}
    assert visitor.token == token
    assert len(await upstream.books()) == 1
    answer = await visitor.say()
    assert answer.status == 200
    assert len(await upstream.books()) == 2


BY_RESPONSES: list[tuple[dict[str, Any], str]] = [
    ({"input": []}, "invalid_request"),
    ({"input": "x" * 10_001}, "invalid_request"),
    ({"input": "a\0b"}, "invalid_request"),
    ({"input": [USER] * 51}, "invalid_request"),
    ({"input": [{"role": "root", "content": "x"}]}, "invalid_request"),
    ({"max_output_tokens": 15}, "invalid_request"),
    ({"model": "gpt-9000"}, "invalid_request"),
    ({"messages": [USER]}, "unsupported_parameter"),
    ({"store": True}, "unsupported_parameter"),
    ({"previous_response_id": "resp_1"}, "unsupported_parameter"),
    ({"include": ["message.output_text.logprobs"]}, "unsupported_parameter"),
    ({"tools": [{"type": "web_search"}]}, "unsupported_parameter"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "unsupported_parameter"),
    ({"input": [{"role": "user", "content": [IMAGE]}]}, "unsupported_parameter"),
    ({"user": "x" * 270_000}, "payload_too_large"),
]


async def test_no_mistake_costs_the_token_by_the_other_api(
    visitor: Visitor, upstream: Upstream
) -> None:
    """What only Responses know, and what of it is refused here: the same token still works."""
    token, visitor.path = (await visitor.say()).token, RESPONSES
    raws = [(visitor.body(**said), code) for said, code in BY_RESPONSES]
    raws += [(raw, "malformed_json") for raw in (b"", b'{"input":"x","input":"y"}', b"{" * 9)]
    for raw, code in raws:
        answer = await visitor.post(raw, visitor.headers())
        assert (answer.code, answer.json["chain"], answer.token) == (code, "kept", None), raw[:99]
    assert visitor.token == token
    assert len(await upstream.books()) == 1
    assert (await visitor.say()).status == 200


@pytest.mark.parametrize("name", TWICE)
async def test_a_header_said_twice_is_refused(visitor: Visitor, redis_url: str, name: str) -> None:
    """Each of our headers said twice is refused by name, even with the same value."""
    await visitor.say()
    before = commands(redis_url)
    headers = CIMultiDict(visitor.headers(X_Request_Id="a-label", Idempotency_Key="x" * 16))
    headers.add(name, headers[name])
    answer = await visitor.post(body(), headers)  # type: ignore[arg-type]
    assert (answer.code, answer.json["param"]) == ("header_repeated", name.lower())
    assert commands(redis_url) == before
    assert (await visitor.say()).status == 200


NULLS = ["tools", "tool_choice", "parallel_tool_calls", "functions", "safety_identifier", "n"]


async def test_the_limits_themselves_are_allowed(visitor: Visitor) -> None:
    """Exactly the limit passes: messages, characters, and everything that changes nothing."""
    neutral = {"n": 1, "store": False, "logprobs": False, "service_tier": "auto", "user": "u"}
    for raw in (
        body(messages=[USER] * 50),
        says("x" * 10_000),
        says([{"type": "text", "text": "x"}]),
        body(**neutral, metadata={"a": "b"}, temperature=None),
        schema(nested(50, '{"a":', "}")),
        body(**dict.fromkeys(NULLS)),
        body(messages=[{"role": "assistant", "content": "x", "tool_calls": []}]),
    ):
        answer = await visitor.post(raw, visitor.headers())
        assert answer.status == 200, answer.body


async def test_code_and_emoji_arrive_unchanged(visitor: Visitor, upstream: Upstream) -> None:
    """Markup, quotes, joiners, flags and direction marks reach upstream as they were sent."""
    text = "<script>\"'&</script>\t\r\n 👩‍👩‍👧 🏴󠁧󠁢󠁷󠁬󠁳󠁿 \u202eabc\u202c é e\u0301 \\n %00"
    assert (await visitor.say(text)).status == 200
    assert (await upstream.books())[0]["body"]["messages"] == [{"role": "user", "content": text}]
