"""What the events of OpenAI's two chat APIs say: the two grammars of the scanner."""

from collections.abc import Iterator
from typing import Any, Final

from completions.scanner import Scanner, json_object, reports_error, utf8

_ENDS: Final = frozenset({"response.completed", "response.incomplete"})
_FAILURES: Final = frozenset({"error", "response.failed"})
# No deltas: OpenAI tells a digest of what was thought here, beside the output that is limited.
# Ollama tells the thoughts themselves, so their bytes count all the same.
_SUMMARY: Final = "response.reasoning_summary"


class ChatScanner(Scanner):
    """Chat Completions: nameless chunks with choices, then [DONE].

    The usage-only chunk (`choices: []`) leaves only where it was asked for, by `keep_usage`: code
    that takes `choices[0]` breaks on it.
    """

    def __init__(self, *, keep_usage: bool, limit: int = 1 << 20) -> None:
        super().__init__(limit=limit)
        self._keep_usage = keep_usage

    def _message_leaves(self, name: bytes, data: bytes) -> bool:
        # SDKs too take anything that begins so for the end.
        if data.startswith(b"[DONE]"):
            self.done = True
            self.usage_is_final = self.usage is not None
            return True
        chunk = json_object(data)
        if chunk is not None:
            return self._chunk_leaves(chunk)
        # An event with a name of its own may be no chunk at all; without one it must be.
        self.failed = self.broken = name in (b"", b"message")
        return not self.failed

    def _chunk_leaves(self, chunk: dict[str, Any]) -> bool:
        told = self._take_usage(chunk)
        if reports_error(chunk):
            return self._fail(chunk)
        texts = list(self._texts_in(chunk, "delta"))
        self._count(texts)
        if told:
            self.usage_is_final = self.finished
        elif texts and isinstance(texts[0], str) and texts[0] and not any(texts[1:]):  # not a role
            self._plain = {b"content": utf8(texts[0])}
        return self._keep_usage or chunk.get("choices") != [] or not told

    def _count_values(self, values: dict[bytes, bytes]) -> None:
        self._count_run([values[b"content"]])

    def _count_run(self, texts: list[bytes]) -> None:
        self.text_bytes += sum(map(len, texts))
        self.deltas += len(texts) - texts.count(b"")

    def _texts_of_whole(self, answer: dict[str, Any]) -> Iterator[Any]:
        return self._texts_in(answer, "message")

    def _texts_in(self, said: dict[str, Any], part: str) -> Iterator[Any]:
        for choice in _dicts(said.get("choices")):
            self.finished |= bool(choice.get("finish_reason"))
            yield from _chat_texts(choice.get(part))


class ResponsesScanner(Scanner):
    """Responses: events that say their type and their number, up to one that ends the response.

    Any other type passes: what is new tomorrow, too. `next_number` is the number that an event of
    ours would have.
    """

    def __init__(self, *, limit: int = 1 << 20) -> None:
        super().__init__(limit=limit)
        self.next_number = 0

    def _message_leaves(self, name: bytes, data: bytes) -> bool:
        if data.startswith(b"[DONE]"):  # some servers end this API so too
            return True
        event = json_object(data)
        if event is None:
            self.failed = self.broken = True
            return False
        return self._event_leaves(event)

    def _event_leaves(self, event: dict[str, Any]) -> bool:
        kind, response = str(event.get("type")), event.get("response")
        if kind in _ENDS or kind in _FAILURES:
            told = isinstance(response, dict) and self._take_usage(response)
            self.usage_is_final = told and kind in _ENDS
        if kind in _FAILURES or reports_error(event):
            return self._fail(event)
        self._count(_event_texts(kind, event), as_delta=not kind.startswith(_SUMMARY))
        self.finished = self.done = self.done or kind in _ENDS
        number = event.get("sequence_number")
        self.next_number = number + 1 if isinstance(number, int) else self.next_number + 1
        self._plain = _plain_delta(kind, event)
        return True

    def _count_values(self, values: dict[bytes, bytes]) -> None:
        self._count_run([values[b"delta"]])
        if number := values.get(b"sequence_number"):
            self.next_number = int(number) + 1

    def _count_run(self, texts: list[bytes]) -> None:
        self.text_bytes += sum(map(len, texts))
        self.deltas += len(texts) - texts.count(b"")
        self.next_number += len(texts)

    def _texts_of_whole(self, answer: dict[str, Any]) -> Iterator[Any]:
        for item in _dicts(answer.get("output")):
            for part in (*_dicts(item.get("summary")), *_dicts(item.get("content"))):
                yield part.get("text")
                yield part.get("refusal")
            yield from _call_texts(item)
            yield item.get("arguments")


def scanner_for(api: str, *, keep_usage: bool) -> Scanner:
    """The scanner of the API at this address."""
    return ResponsesScanner() if api == "responses" else ChatScanner(keep_usage=keep_usage)


def _chat_texts(said: Any) -> Iterator[Any]:
    if not isinstance(said, dict):
        return
    yield said.get("content")
    yield said.get("refusal")
    yield said.get("reasoning_content")
    # Servers in transition send the same reasoning under both names.
    if said.get("reasoning") != said.get("reasoning_content"):
        yield said.get("reasoning")
    for call in _dicts(said.get("tool_calls")):
        function = call.get("function")
        if isinstance(function, dict):
            yield call.get("id")  # not written by the model, but as long as what frames a call
            yield function.get("name")
            yield function.get("arguments")


def _plain_delta(kind: str, event: dict[str, Any]) -> dict[bytes, bytes]:
    """What counts in an event that does nothing but add to the output's text."""
    text, number = event.get("delta"), event.get("sequence_number")
    if not isinstance(text, str) or not kind.endswith(".delta") or kind.startswith(_SUMMARY):
        return {}
    numbered = {b"sequence_number": str(number).encode()} if isinstance(number, int) else {}
    return {b"delta": utf8(text), **numbered}


def _event_texts(kind: str, event: dict[str, Any]) -> Iterator[Any]:
    if kind.endswith(".delta"):
        yield event.get("delta")
    item = event.get("item")
    if kind == "response.output_item.added" and isinstance(item, dict):
        yield from _call_texts(item)


def _call_texts(item: dict[str, Any]) -> Iterator[Any]:
    """A call's id, as long as what frames it, and the name of what is called."""
    yield item.get("call_id")
    yield item.get("name")


def _dicts(said: Any) -> list[dict[str, Any]]:
    return [each for each in said if isinstance(each, dict)] if isinstance(said, list) else []
