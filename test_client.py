"""A visitor on the command line: plays a scenario against a running server, and says what came.

The client is the real openai SDK with a placeholder for a key: what makes it a visitor of Keyturn
are four headers. Nothing is read from the environment or from `.env`, so that nothing of it can be
sent. The exit code is 0 when all came as expected, 1 when not, 2 on wrong usage.
"""

import argparse
import os
import secrets
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import openai

DAY_MS: Final = 86_400_000
NEXT: Final = "200 and the next token"


@dataclass(frozen=True)
class Came:
    """What a turn was answered with."""

    status: int
    code: str | None
    token: str | None
    text: str

    def __str__(self) -> str:
        said = " ".join(filter(None, (str(self.status), self.code)))
        return f"{said} and the next token" if self.token else said


class Report:
    """Prints one line per step, and counts those that came otherwise than expected."""

    def __init__(self) -> None:
        self.failed = 0

    def step(self, name: str, expected: str, came: object) -> bool:
        """Judge a step by what it is expected to say."""
        well = expected == str(came)
        self.failed += not well
        verdict = "ok    " if well else "FAILED"
        print(f"{verdict}  {name:38}  expected {expected}, came {came}", flush=True)
        return well


class Visitor:
    """One browser: it has a fingerprint, a clock, and says what it is told to say."""

    def __init__(self, client: openai.OpenAI, model: str, question: str) -> None:
        self.client = client
        self.model = model
        self.fingerprint = secrets.token_urlsafe(24)
        self.messages: list[Any] = [{"role": "user", "content": question}]

    def go_on(self, heard: str, question: str) -> None:
        """Put an answer and the visitor's next words into the conversation."""
        self.messages.append({"role": "assistant", "content": heard})
        self.messages.append({"role": "user", "content": question})

    def send(
        self,
        token: str | None,
        *,
        key: str | None = None,
        fingerprint: str | None = None,
        late_ms: int = 0,
    ) -> Came:
        """Send the conversation as a turn, and show the answer while it streams.

        Whoever sends the same turn again with the same `key` asks for a lost answer.
        """
        headers = {
            "Authorization": f"Bearer {token or 'keyturn'}",
            "Idempotency-Key": key or secrets.token_urlsafe(24),
            "Keyturn-Fingerprint": fingerprint or self.fingerprint,
            "Keyturn-Timestamp": str(time.time_ns() // 1_000_000 - late_ms),
        }
        try:
            return self._stream(headers)
        except openai.APIStatusError as refused:
            return Came(
                refused.status_code,
                refused.code,
                refused.response.headers.get("keyturn-token"),
                refused.response.text,
            )

    def _stream(self, headers: dict[str, str]) -> Came:
        create = self.client.chat.completions.with_streaming_response.create
        with create(
            model=self.model,
            messages=self.messages,
            max_tokens=120,
            stream=True,
            extra_headers=headers,
        ) as answer:
            text = show(answer.parse())
            return Came(answer.status_code, None, answer.headers.get("keyturn-token"), text)


def show(stream: Any) -> str:
    """Print an answer while it comes, and return it whole."""
    text = ""
    print("\n        ", end="")
    try:
        for chunk in stream:
            for choice in chunk.choices:
                piece = choice.delta.content or ""
                text += piece
                print(piece.replace("\n", "\n        "), end="", flush=True)
    finally:
        print("\n")
    return text


def scenario(visitor: Visitor, report: Report) -> None:
    """Every step in order; without a token to go on with, the rest is left out."""
    first = visitor.send(None)
    if not report.step("a first turn, without a token", NEXT, first):
        return
    visitor.go_on(first.text, "And in other words?")
    second = visitor.send(first.token)
    if not report.step("its follow-up, with that token", NEXT, second):
        return
    spent = visitor.send(first.token)
    report.step("the same token once more", "401 token_reused", spent)
    token = second.token
    if '"revoked"' in spent.text:  # the server's grace was over; a page would begin again, too
        token = visitor.send(None).token
    refusals(visitor, token or "", report)
    visitor.go_on(second.text, "Thank you, and goodbye!")
    lost_answer(visitor, token or "", report)


def refusals(visitor: Visitor, token: str, report: Report) -> None:
    """What must be refused without costing the token."""
    late = visitor.send(token, late_ms=DAY_MS)
    report.step("a timestamp of yesterday", "401 timestamp_stale", late)
    stolen = visitor.send(token, fingerprint=secrets.token_urlsafe(24))
    report.step("another browser's fingerprint", "403 fingerprint_mismatch", stolen)
    claims, _, signature = token.rpartition(".")
    forged = f"{claims}.{'B' if signature.startswith('A') else 'A'}{signature[1:]}"
    report.step("a forged token", "401 token_forged", visitor.send(forged))


def lost_answer(visitor: Visitor, token: str, report: Report) -> None:
    """What was refused cost nothing; and what was lost on the way comes back, once."""
    key = secrets.token_urlsafe(24)
    lost = visitor.send(token, key=key)
    report.step("the token is still good after all that", NEXT, lost)
    again = visitor.send(token, key=key)
    name = "its answer is lost: the same key again"
    report.step(name, "409 duplicate_request and the next token", again)
    same = "the same" if again.token and again.token == lost.token else "another"
    report.step("the successor that comes with it", "the same", same)
    report.step("goes on with a new key", NEXT, visitor.send(again.token))


def play(url: str, model: str | None, question: str) -> int:
    """Play the scenario; 0 when all came as expected, else 1."""
    for name in [name for name in os.environ if name.startswith("OPENAI_")]:
        del os.environ[name]  # the SDK would send organisation, project and headers along
    report = Report()
    with (
        httpx2.Client(trust_env=False, timeout=httpx2.Timeout(60, connect=5)) as http,
        openai.OpenAI(
            api_key="keyturn", base_url=f"{url}/v1", max_retries=0, http_client=http
        ) as client,
    ):
        scenario(Visitor(client, model or first_model(client), question), report)
        health = http.get(f"{url}/api/health").text
        report.step("the server's health", '{"status":"ok"}', health)
    print("\nall as expected" if not report.failed else f"\nnot as expected: {report.failed}")
    return 1 if report.failed else 0


def first_model(client: openai.OpenAI) -> str:
    """The first model that the server allows."""
    try:
        return client.models.list().data[0].id
    except (openai.APIStatusError, AttributeError, LookupError):
        sys.exit(f"{client.base_url} answers, but not like Keyturn")


def main() -> int:
    """Read the arguments, play, and say in a sentence when there is no server to play with."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", default="http://localhost:8000", help="where the server listens")
    parser.add_argument("--model", help="one that the server allows; its first if left out")
    parser.add_argument("--message", default="Good morning! Who are you?", help="the first words")
    said = parser.parse_args()
    if not said.url.startswith(("http://", "https://")):
        parser.error("--url should begin with http:// or https://")
    try:
        return play(said.url.rstrip("/").removesuffix("/v1"), said.model, said.message)
    except (openai.APIConnectionError, httpx2.HTTPError):
        sys.exit(f"{said.url} cannot be reached, or fell silent: is it at this --url?")
    except openai.APIError as broken:
        sys.exit(f"an answer broke off: {broken.message}")


if __name__ == "__main__":
    sys.exit(main())
