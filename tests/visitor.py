"""A visitor, as the tests play one: what a page sends, and what comes back."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

FINGERPRINT = "fingerprint-of-a-browser"
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


@dataclass
class Answer:
    """What came back, read to its end."""

    status: int
    headers: Any
    body: bytes

    @property
    def token(self) -> str | None:
        """The next token."""
        found = self.headers.get("Keyturn-Token")
        return str(found) if found else None

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of a problem, or None."""
        is_problem = self.headers.get("Content-Type") == "application/problem+json"
        return str(self.json["code"]) if is_problem else None

    @property
    def text(self) -> str:
        """The content of a stream or of a whole answer, by either API."""
        if self.headers["Content-Type"] == "application/json":
            return _whole_text(self.json)
        return "".join(map(_text_of_event, self.events))

    @property
    def events(self) -> list[Any]:
        """What each event of a stream says."""
        lines = self.body.decode().splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    @property
    def failure(self) -> str | None:
        """The code of the error with which a stream ended, None if it ended well."""
        error = self.events[-1].get("error") if self.events else None
        return str(error["code"]) if error else None


def _whole_text(said: Any) -> str:
    if "choices" in said:
        return str(said["choices"][0]["message"]["content"])
    return "".join(part["text"] for item in said["output"] for part in item["content"])


def _text_of_event(said: Any) -> str:
    if said.get("type") == "response.output_text.delta":
        return str(said["delta"])
    choices = said.get("choices")
    return str(choices[0]["delta"].get("content") or "") if choices else ""


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass
class Visitor:
    """A browser page: it shows what it has and keeps the token it is given.

    `path` says by which of the two APIs it chats.
    """

    session: aiohttp.ClientSession
    url: str
    fingerprint: str = FINGERPRINT
    token: str | None = None
    extra: dict[str, str] = field(default_factory=dict)
    path: str = CHAT

    def headers(self, **changed: str | None) -> dict[str, str]:
        """The headers of a good turn; `None` leaves one out (underscores stand for hyphens)."""
        good: dict[str, str | None] = {
            "Content-Type": "application/json",
            "Keyturn-Timestamp": str(now_ms()),
            "Keyturn-Fingerprint": self.fingerprint,
            "Authorization": f"Bearer {self.token}" if self.token else None,
            **self.extra,
        }
        good |= {name.replace("_", "-"): value for name, value in changed.items()}
        return {name: value for name, value in good.items() if value is not None}

    def body(self, content: str = "hello", **changed: Any) -> bytes:
        """The body of a good turn."""
        name = "input" if self.path == RESPONSES else "messages"
        good = {name: [{"role": "user", "content": content}], "stream": True}
        return json.dumps({**good, **changed}).encode()

    async def post(self, body: bytes, headers: dict[str, str], path: str | None = None) -> Answer:
        """Send exactly this and read the answer; the token is left alone."""
        url = self.url + (path or self.path)
        async with self.session.post(
            url, data=body, headers=headers, skip_auto_headers=["Content-Type"]
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def say(self, content: str = "hello", **changed: Any) -> Answer:
        """Take a turn and keep its successor."""
        headers = changed.pop("headers", None) or {}
        answer = await self.post(self.body(content, **changed), self.headers(**headers))
        self.token = answer.token or self.token
        return answer
