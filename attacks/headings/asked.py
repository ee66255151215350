"""What may be asked for: nothing that costs, stores or does more than an answer of some length."""

from typing import Any, Final

from attacks.attacker import CHAT, RESPONSES, Attacker
from attacks.case import Case, posts_hold
from attacks.wire import Answer

UNSUPPORTED: Final = "400 unsupported_parameter"
INVALID: Final = "422 invalid_request"
MOST: Final = 1024  # MAX_OUTPUT_TOKENS
FIELDS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")


def asks_too_much(post: dict[str, Any]) -> bool:
    """Whether a POST leaves the answer longer than it may be."""
    limits = [post["body"][name] for name in FIELDS if name in post["body"]]
    return len(limits) != 1 or type(limits[0]) is not int or not 0 < limits[0] <= MOST


def refused(
    name: str,
    back: str,
    *,
    path: str = CHAT,
    control: bool = False,
    peers: bool = False,
    **said: Any,
) -> Case:
    """A good first turn that asks for this as well."""

    async def attack(a: Attacker) -> list[Answer]:
        body = a.body(**said) if path == CHAT else a.asks(**said)
        return await a.send(a.turn(body, path=path))

    api = "Chat Completions" if path == CHAT else "Responses"
    words = f"{api}: {', '.join(f'{key} = {_short(value)}' for key, value in said.items())}"
    return Case(name, words, attack, (back,), untouched=True, control=control, peers=peers)


def _short(value: Any) -> str:
    return f"{value!r}" if len(f"{value!r}") < 60 else f"{value!r}"[:57] + "…"


def bounded(name: str, *, path: str = CHAT, control: bool = False, **said: Any) -> Case:
    """A limit that is larger than may be, or none: upstream is told ours."""

    async def attack(a: Attacker) -> list[Answer]:
        body = a.body(**said) if path == CHAT else a.asks(**said)
        return await a.send(a.turn(body, path=path))

    harm = posts_hold(asks_too_much, "the answer may be longer than MAX_OUTPUT_TOKENS")
    return Case(
        name,
        f"{said or 'no limit'}",
        attack,
        ("200",),
        1,
        1,
        harm=harm,
        control=control,
        peers=control,
    )


def part(kind: str, **said: Any) -> list[Any]:
    """A message of a text and of something else."""
    return [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": kind, **said}]}]


def item(kind: str, **said: Any) -> list[Any]:
    """The same in the words of Responses."""
    content = [{"type": "input_text", "text": "x"}, {"type": kind, **said}]
    return [{"role": "user", "content": content}]


URL: Final = "https://evil.example/x"
FUNCTION: Final = [{"type": "function", "function": {"name": "x"}}]

AT_CHAT = [
    refused("two answers", UNSUPPORTED, n=2, control=True, peers=True),
    refused("128 answers", UNSUPPORTED, n=128),
    refused("no answers", UNSUPPORTED, n=0),
    refused("one and a half", UNSUPPORTED, n=1.5),
    refused("true answers", UNSUPPORTED, n=True),
    refused("the best of ten", UNSUPPORTED, best_of=10),
    refused("probabilities", UNSUPPORTED, logprobs=True),
    refused("20 probabilities", UNSUPPORTED, top_logprobs=20),
    refused("biases", UNSUPPORTED, logit_bias={"1": 100}),
    refused("a search of the web", UNSUPPORTED, web_search_options={}, control=True, peers=True),
    refused("functions", UNSUPPORTED, tools=FUNCTION),
    refused("functions of old", UNSUPPORTED, functions=[{"name": "x"}]),
    refused("a hosted tool", UNSUPPORTED, tools=[{"type": "web_search_preview"}]),
    refused(
        "sound", UNSUPPORTED, modalities=["text", "audio"], audio={"voice": "x", "format": "wav"}
    ),
    refused("a prediction", UNSUPPORTED, prediction={"type": "content", "content": "x" * 50}),
    refused("storage", UNSUPPORTED, store=True, control=True, peers=True),
    refused("priority", UNSUPPORTED, service_tier="priority", control=True, peers=True),
    refused("flexibility", UNSUPPORTED, service_tier="flex"),
    refused("a cache of its own", UNSUPPORTED, prompt_cache_key="x"),
    refused("an identity", UNSUPPORTED, safety_identifier="somebody-else"),
    refused(
        "a picture by its address", UNSUPPORTED, messages=part("image_url", image_url={"url": URL})
    ),
    refused("a file", UNSUPPORTED, messages=part("file", file={"file_id": "file-1"})),
    refused(
        "a sound",
        UNSUPPORTED,
        messages=part("input_audio", input_audio={"data": "", "format": "wav"}),
    ),
    refused("no tokens", INVALID, max_tokens=0),
    refused("less than none", INVALID, max_tokens=-1, control=True),
    refused("half a token", INVALID, max_tokens=1.5),
    refused("tokens in words", INVALID, max_tokens="100"),
    refused("true tokens", INVALID, max_completion_tokens=True),
    refused("a list of tokens", INVALID, max_tokens=[1]),
    refused("another model", INVALID, model="gpt-5-pro", control=True),
    refused("a model of one's own", INVALID, model="ft:gpt-4o-mini:evil::1"),
]
AT_RESPONSES = [
    refused("in the background", UNSUPPORTED, path=RESPONSES, background=True, control=True),
    refused("stored", UNSUPPORTED, path=RESPONSES, store=True),
    refused(
        "another's response",
        UNSUPPORTED,
        path=RESPONSES,
        previous_response_id="resp_1",
        control=True,
    ),
    refused("a conversation", UNSUPPORTED, path=RESPONSES, conversation="conv_1"),
    refused("a stored prompt", UNSUPPORTED, path=RESPONSES, prompt={"id": "pmpt_1"}),
    refused(
        "a reference",
        UNSUPPORTED,
        path=RESPONSES,
        input=[{"type": "item_reference", "id": "msg_1"}],
    ),
    refused(
        "a search of the web, hosted", UNSUPPORTED, path=RESPONSES, tools=[{"type": "web_search"}]
    ),
    refused(
        "a search of files",
        UNSUPPORTED,
        path=RESPONSES,
        tools=[{"type": "file_search", "vector_store_ids": ["vs_1"]}],
    ),
    refused(
        "an interpreter",
        UNSUPPORTED,
        path=RESPONSES,
        tools=[{"type": "code_interpreter", "container": {"type": "auto"}}],
    ),
    refused("a computer", UNSUPPORTED, path=RESPONSES, tools=[{"type": "computer_use_preview"}]),
    refused(
        "somebody's MCP server",
        UNSUPPORTED,
        path=RESPONSES,
        tools=[{"type": "mcp", "server_label": "x", "server_url": URL}],
        control=True,
    ),
    refused("pictures", UNSUPPORTED, path=RESPONSES, tools=[{"type": "image_generation"}]),
    refused("a shell", UNSUPPORTED, path=RESPONSES, tools=[{"type": "local_shell"}]),
    refused(
        "a picture in the input",
        UNSUPPORTED,
        path=RESPONSES,
        input=item("input_image", image_url=URL),
    ),
    refused(
        "a file in the input", UNSUPPORTED, path=RESPONSES, input=item("input_file", file_url=URL)
    ),
    refused(
        "a call that was made before",
        UNSUPPORTED,
        path=RESPONSES,
        input=[{"type": "web_search_call", "id": "ws_1", "status": "completed"}],
    ),
    refused("a hundred calls", UNSUPPORTED, path=RESPONSES, max_tool_calls=100),
    refused(
        "what was found, too", UNSUPPORTED, path=RESPONSES, include=["file_search_call.results"]
    ),
    refused("probabilities of an answer", UNSUPPORTED, path=RESPONSES, top_logprobs=3),
    refused("a cut input", UNSUPPORTED, path=RESPONSES, truncation="auto"),
    refused("a priority response", UNSUPPORTED, path=RESPONSES, service_tier="priority"),
    refused(
        "a summary beside the limit", UNSUPPORTED, path=RESPONSES, reasoning={"summary": "auto"}
    ),
    refused("a response of no tokens", INVALID, path=RESPONSES, max_output_tokens=0),
    refused("a response of one token", INVALID, path=RESPONSES, max_output_tokens=1),
    refused("a response of fewer", INVALID, path=RESPONSES, max_output_tokens=-5),
    refused("a limit of the other API", UNSUPPORTED, path=RESPONSES, max_tokens=5),
]
LIMITS = [
    bounded("no limit", control=True),
    bounded("a billion tokens", max_tokens=10**9, control=True),
    bounded("10^30 tokens", max_completion_tokens=10**30),
    bounded("two limits", max_tokens=10**6, max_completion_tokens=10**6),
    bounded("a limit of null", max_tokens=None),
    bounded("a response without a limit", path=RESPONSES),
    bounded("a response of 10^30 tokens", path=RESPONSES, max_output_tokens=10**30),
]
CASES = [*AT_CHAT, *AT_RESPONSES, *LIMITS]
