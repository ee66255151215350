"""What a refusal tells whoever writes the page: the field, the limit, and the count."""

from tests.stage import Upstream, Visitor, serving, settings_with, visiting
from tests.test_mistakes import CALL, IMAGE, RESULT, TOOL, USER, body, nested, says, schema

TOLD: dict[str, tuple[bytes, str | None, str]] = {
    "characters in parts": (
        says([{"type": "text", "text": "x" * 5001}] * 2),
        "messages.0.content",
        "messages.0.content has 10002 characters; at most 10000 are allowed.",
    ),
    "bytes": (says("x" * 270_000), None, "The body has 270047 bytes; at most 262144 are allowed."),
    "levels": (schema(nested(900, '{"a":', "}")), None, "nested deeper than 64 levels"),
    "names": (
        body(metadata={str(number): 0 for number in range(1001)}),
        None,
        "An object has 1001 names; at most 1000 are allowed.",
    ),
    "stops": (body(stop=["a"] * 5), "stop", "at most 4 items, not 5"),
    "control character": (says("a\0b"), None, "the character U+0000, which is not allowed"),
    "tag character": (says("a\U000e0041b"), None, "the character U+E0041, which is not allowed"),
    "not UTF-8": (b"\xff", None, "The body is not UTF-8."),
    "not JSON": (b'{"messages":[\n}', None, "The body is no JSON from line 2, column 1 on."),
    "NaN": (b'{"seed":NaN}', None, "The body holds NaN or Infinity, which JSON does not know."),
    "twice": (b'{"n":1,"n":1}', None, "The body says a name twice in one object."),
    "n": (body(n=2), "n", "n: only its default is supported here."),
    "image": (says([IMAGE]), "messages.0.content.0.type", "only the type text is supported here"),
    "unknown": (body(frobnicate=1), "frobnicate", "frobnicate is not supported here."),
    "role": (
        body(messages=[{"role": "root", "content": "x"}]),
        "messages.0.role",
        "messages.0.role: Input should be 'system', 'developer', 'user' or 'assistant'.",
    ),
    "tools": (
        body(tools=[TOOL]),
        "tools",
        "tools: tool calling is not supported here; the operator can turn it on with ALLOW_TOOLS",
    ),
    "call": (
        body(messages=[USER, {"role": "assistant", "tool_calls": [CALL]}]),
        "messages.1.tool_calls",
        "messages.1.tool_calls: tool calling is not supported here",
    ),
    "result": (
        body(messages=[USER, RESULT]),
        "messages.1.role",
        "messages.1.role: tool calling is not supported here",
    ),
}


async def test_what_would_be_right_is_told(visitor: Visitor, upstream: Upstream) -> None:
    """Whoever writes the page reads in one sentence which field it is, and what is allowed."""
    for name, (raw, param, detail) in TOLD.items():
        told = (await visitor.post(raw, visitor.headers())).json
        assert (name, told.get("param"), told["error"]["param"]) == (name, param, param)
        assert detail in told["detail"], told["detail"]
        assert detail in told["error"]["message"]
    assert await upstream.books() == []


async def test_a_locked_prompt_is_no_mistake_that_costs(redis_url: str, upstream: Upstream) -> None:
    """Where the operator's prompt is set, a visitor's is refused, by the field it stands in."""
    settings = settings_with(
        redis_url=redis_url, openai_base_url=upstream.url, system_prompt="Be brief."
    )
    async with serving(settings) as server, visiting(server) as visitor:
        token = (await visitor.say()).token
        for role in ("system", "developer"):
            raw = body(messages=[USER, {"role": role, "content": "obey"}])
            answer = await visitor.post(raw, visitor.headers())
            assert (answer.code, answer.json["param"]) == ("invalid_request", "messages.1.role")
            assert "the system prompt is the operator's here" in answer.json["detail"]
        assert visitor.token == token
        assert (await visitor.say()).status == 200
    said = [entry["body"]["messages"][0] for entry in await upstream.books()]
    assert said == [{"role": "system", "content": "Be brief."}] * 2


async def test_a_mistake_names_field_limit_and_count(visitor: Visitor) -> None:
    """What is too long or too many is told with its field, the limit and what was counted."""
    long = (await visitor.post(says("x" * 10_001), visitor.headers())).json
    assert (long["param"], "10000" in long["detail"]) == ("messages.0.content", True)
    assert "10001" in long["detail"]
    many = (await visitor.post(body(messages=[USER] * 51), visitor.headers())).json
    assert many["param"] == "messages"
    assert "51" in many["detail"]
    assert "at most 50" in many["detail"]
