"""The SDKs that were tried, what each is said to raise, and the table of what was seen."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final

import pytest
from playwright.async_api import Page

from tests.sdk.bundles import version
from tests.sdk.chats import Chat, async_chat, helper_chat, page_chat, sync_chat

FINE: Final = "✓"


@dataclass(frozen=True)
class Sdk:
    """One way to ask of one SDK."""

    id: str
    name: str  # with its version
    open: Callable[[Page, str, bool], AbstractAsyncContextManager[Chat]]
    refused: str  # the error it raises where there is no stream
    broken: str  # and where a stream breaks
    stopped: str = FINE  # and where it is stopped


OPENAI: Final = {"refused": "InternalServerError", "broken": "APIError"}
AI: Final = {"refused": "AI_APICallError", "broken": "AI_StreamProviderError"}


def _sdks() -> Iterator[Sdk]:
    openai, ai = f"`openai` {version('openai')}", f"`ai` {version('ai')}"
    compatible, provider = "@ai-sdk/openai-compatible", "@ai-sdk/openai"
    langchain, python = "@langchain/openai", f"Python `openai` {metadata.version('openai')}"
    yield in_page("openai-js create", f"{openai}, `chat.completions.create`", OPENAI)
    yield in_page(
        "openai-js stream",
        f"{openai}, `chat.completions.stream`",
        OPENAI | {"stopped": "APIUserAbortError"},
    )
    yield in_page("openai-js responses", f"{openai}, `responses.create`", OPENAI)
    yield in_page("ai compatible", f"{ai}, `{compatible}` {version(compatible)}", AI)
    yield in_page("ai openai", f"{ai}, `{provider}` {version(provider)} (Responses)", AI)
    yield in_page(
        "langchain", f"`{langchain}` {version(langchain)}", OPENAI | {"stopped": "AbortError"}
    )
    yield in_python("python sync", f"{python}, `OpenAI`", sync_chat)
    yield in_python("python async", f"{python}, `AsyncOpenAI`", async_chat)
    yield in_python("python stream", f"{python}, `AsyncOpenAI`, `stream`", helper_chat)


def in_page(driver: str, name: str, errors: Mapping[str, str]) -> Sdk:
    """An SDK of `drivers/index.js`."""
    return Sdk(driver, name, lambda page, *said: page_chat(page, driver, *said), **errors)


def in_python(name_in_tests: str, name: str, chat: Callable[[str, bool], Any]) -> Sdk:
    """An SDK that needs no page."""
    return Sdk(name_in_tests, name, lambda page, *said: chat(*said), **OPENAI)


SDKS: Final = tuple(_sdks())

# What is told of an SDK, and how many turns upstream was asked for meanwhile.
SITUATIONS: Final[Mapping[str, tuple[Callable[[Sdk], str], int]]] = {
    "Three turns": (lambda sdk: FINE, 3),
    "Stopped, then on": (lambda sdk: sdk.stopped, 3),
    "Spent token": (lambda sdk: FINE, 5),
    "Lost answer": (lambda sdk: FINE, 4),
    "500 upstream": (lambda sdk: sdk.refused, 3),
    "Error in the stream": (lambda sdk: sdk.broken, 3),
    "Stream cut": (lambda sdk: sdk.broken, 3),
    "429 waited out": (lambda sdk: FINE, 1),
    "Keyturn's part left out": (lambda sdk: "timestamp_missing", 0),
}

Seen = dict[tuple[str, str], tuple[str, int]]  # by SDK and situation
SEEN: Final = pytest.StashKey[Seen]()

EXPECTED: Final[Seen] = {
    (sdk.name, situation): (outcome(sdk), asked)
    for situation, (outcome, asked) in SITUATIONS.items()
    for sdk in SDKS
}


def table(seen: Seen) -> str:
    """All of it as Markdown."""
    lines = [["SDK", *SITUATIONS], ["---"] * (len(SITUATIONS) + 1)]
    lines += [[sdk.name, *(_cell(seen, sdk, name) for name in SITUATIONS)] for sdk in SDKS]
    asked = ({seen[sdk.name, name][1] for sdk in SDKS} for name in SITUATIONS)
    lines.append(["turns that upstream was asked for", *(_all_of(counts) for counts in asked)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(seen: Seen, sdk: Sdk, situation: str) -> str:
    outcome, _ = seen[sdk.name, situation]
    return outcome if outcome == FINE else f"`{outcome}`"


def _all_of(counts: set[int]) -> str:
    return ", ".join(str(count) for count in sorted(counts))
