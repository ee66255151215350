"""What an event stream says, read from its bytes on their way through.

The law: bytes leave whole events at a time and as they came, in the feed in which the event's last
byte arrives. The scanner reads copies and writes nothing. What its grammar holds back never
leaves, nor does an event that fails the stream, with all that follows it. How the bytes were split
makes no difference to what leaves in sum, nor to what the attributes say.

`feed` never raises, so that no whole event is lost to a broken one behind it: `failed` says that
the stream is over and that an error is due in its place.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pydantic_core import from_json

from completions.alike import Alike

# What upstream calls a refusal that is the conversation's fault, and one for want of room.
VISITORS_FAULT: Final = frozenset(
    {
        "context_length_exceeded",
        "string_above_max_length",
        "content_policy_violation",
        "content_filter",
        "invalid_prompt",
        "bio_policy",
        "misalignment_policy_violation",
    }
)
BUSY: Final = frozenset({"rate_limit_exceeded", "insufficient_quota"})

# OpenAI's random text beside each delta, so that nobody learns from an event's length.
_NOISE: Final = b"obfuscation"
_SILENT: Final = {_NOISE: b""}
_NOTHING_YET: Final = Alike(b"", [])
_BOM = b"\xef\xbb\xbf"
_USUAL_BORDER: Final = b"\n\n"
_LINE_END = re.compile(rb"\r\n|\n|\r")
# The end of a line, then a blank line. A \r must not take its own \n for the blank line.
_BORDER = re.compile(rb"(?:\r\n|\n|\r(?!\n))(\r\n|\n|\r)")


class Scanner(ABC):
    """Lets an event stream pass and keeps count of what it says.

    `limit` is how many bytes an event may have before its blank line. Framing is that of
    server-sent events (WHATWG HTML, 9.2.6); what a message says, each grammar knows.

    To be read after each `feed`: `usage`, the last usage object as it was sent, None before one
    came; `usage_is_final`, it came with the end of the text or after it; `deltas`, the events that
    carried output text; `text_bytes`, all that the model wrote, in UTF-8; `finished`, the text has
    ended; `done`, so has the stream; `failed`, the stream is over by an error, or, if `broken` too,
    by a message that is no JSON object or an event over the limit; `error_code`, what upstream
    calls that error.
    """

    def __init__(self, *, limit: int = 1 << 20) -> None:
        self.usage: dict[str, Any] | None = None
        self.usage_is_final = False
        self.deltas = 0
        self.text_bytes = 0
        self.finished = False
        self.done = False
        self.failed = False
        self.broken = False
        self.error_code: str | None = None
        self._alike = _NOTHING_YET
        self._plain: dict[bytes, bytes] = {}
        self._limit = limit
        self._waiting = bytearray()
        self._at_start = True
        self._last_left = True
        self._line_feed_due = False

    @property
    def waiting(self) -> int:
        """Bytes held of an unfinished event: at the end of the stream, what was cut off."""
        return len(self._waiting)

    def feed(self, data: bytes) -> bytes:
        """Take what upstream sent and return what may leave now: nothing more once `failed`."""
        if self.failed or not data:
            return b""
        if self._line_feed_due:
            self._line_feed_due = False
            if data.startswith(b"\n"):
                return (b"\n" if self._last_left else b"") + self.feed(data[1:])
        if _USUAL_BORDER not in data or self.waiting + len(data) >= self._limit:
            return b"".join(self._pieces(data))  # where one may be too long, each is looked at
        if self._waiting:
            data, self._waiting = bytes(self._waiting) + data, bytearray()
        left, rest = self._usual_events(data)
        if rest and not self.failed:
            left += b"".join(self._pieces(rest))
        return left

    def take_whole(self, answer: dict[str, Any]) -> None:
        """Count what an answer says that came in one piece, as JSON."""
        self._take_usage(answer)
        self.usage_is_final = self.usage is not None
        self._count(self._texts_of_whole(answer))

    # -- framing: where events end, and what their fields are

    def _usual_events(self, data: bytes) -> tuple[bytes, bytes]:
        """What leaves of the events before the first that is not written as nearly all are, with a
        line of data and at most one with a name; and the rest, that event and all behind it."""
        events = data.split(_USUAL_BORDER)
        last, tried, left = len(events) - 1, None, list[bytes]()
        at = since = end = 0
        while at < last and not self.failed:
            event, behind, alike = events[at], at + 1, self._alike
            if alike is not tried and (run := alike.run(events[at:last])):
                behind = at + len(run)
                self._count_run(run)
            elif values := alike.values(event):
                self._count_values(values)
            elif (fields := _usual_fields(event)) is None:
                break
            elif not self._usual_leaves(event, *fields):
                left.append(data[since:end])
                since = end + len(event) + len(_USUAL_BORDER)
            tried = alike  # else each of them would be tried with all behind it
            end += sum(map(len, events[at:behind])) + len(_USUAL_BORDER) * (behind - at)
            at = behind
        return b"".join([*left, data[since:end]]), data[end:]

    def _usual_leaves(self, event: bytes, name: bytes, data: bytes) -> bool:
        self._at_start, self._plain = False, {}
        leaves = self._leaves(name, data)
        if self._plain:
            alike = Alike.of(event, *self._plain, _NOISE)
            if alike and (alike.values(event) or {}) | _SILENT == self._plain | _SILENT:
                self._alike = alike
        return leaves

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        # The last byte once more: it may end the line before the blank one.
        searched = len(self._waiting) - 1
        self._waiting += data
        yield from self._whole_events(searched)
        if len(self._waiting) > self._limit and not self.failed:
            self.failed = self.broken = True
        if self.failed:
            self._waiting.clear()

    def _whole_events(self, searched: int) -> Iterator[bytes]:
        start = 0
        while not self.failed and (blank := self._blank_line(start, searched)):
            if blank[0] - start > self._limit:
                self.failed = self.broken = True
                return
            event = bytes(self._waiting[start : blank[1]])
            start = blank[1]
            # An event is whole at its last \r: the \n of a \r\n may never come, or come later.
            self._line_feed_due = event.endswith(b"\r") and start == len(self._waiting)
            self._last_left = self._leaves(*self._fields(event))
            if self._last_left:
                yield event
        del self._waiting[:start]

    def _blank_line(self, start: int, searched: int) -> tuple[int, int] | None:
        if self._at_start and self._waiting.startswith(_BOM):
            start += len(_BOM)
        if match := _LINE_END.match(self._waiting, start):
            return match.span()
        match = _BORDER.search(self._waiting, max(start, searched))
        return match.span(1) if match else None

    def _fields(self, event: bytes) -> tuple[bytes, bytes | None]:
        if self._at_start:
            event = event.removeprefix(_BOM)
            self._at_start = False
        name, data = b"", []
        for line in event.splitlines():
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" "))
            elif field == b"event":
                name = value.removeprefix(b" ")
        return name, b"\n".join(data) if data else None

    def _leaves(self, name: bytes, data: bytes | None) -> bool:
        if name == b"error":
            return self._fail(json_object(data or b"") or {})
        return data is None or self._message_leaves(name, data)

    # -- what a grammar adds, and what it counts

    @abstractmethod
    def _message_leaves(self, name: bytes, data: bytes) -> bool:
        """Take note of what a message says, and tell whether it may leave.

        `_plain` is set where all that counts in it are the values of these members.
        """

    @abstractmethod
    def _count_values(self, values: dict[bytes, bytes]) -> None:
        """Take note of a message that says what the last plain one said, but for these values."""

    @abstractmethod
    def _count_run(self, texts: list[bytes]) -> None:
        """The same of so many messages that differ in their text alone."""

    @abstractmethod
    def _texts_of_whole(self, answer: dict[str, Any]) -> Iterable[Any]:
        """What the model wrote of an answer that came in one piece."""

    def _fail(self, said: dict[str, Any]) -> bool:
        """Take note of an error that upstream reports: it never leaves."""
        self.failed, self.error_code = True, error_code(said)
        return False

    def _take_usage(self, said: dict[str, Any]) -> bool:
        usage = said.get("usage")
        if isinstance(usage, dict):
            self.usage = usage
            return True
        return False

    def _count(self, texts: Iterable[Any], *, as_delta: bool = True) -> None:
        size = sum(map(_utf8_length, texts))
        self.text_bytes += size
        self.deltas += as_delta and size > 0


def _usual_fields(event: bytes) -> tuple[bytes, bytes] | None:
    name = b""
    if event.startswith(b"event: "):
        name, _, event = event[7:].partition(b"\n")
    if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
        return name, event[6:]
    return None


def reports_error(said: dict[str, Any]) -> bool:
    """Whether a chunk or a whole answer is an error; many say `"error": null` when all is well."""
    return said.get("error") not in (None, False, "")


def error_code(said: dict[str, Any]) -> str | None:
    """What upstream calls the error that a chunk, an event or a whole answer reports."""
    response = said.get("response")
    error = (response if isinstance(response, dict) else said).get("error")
    code = error.get("code") if isinstance(error, dict) else said.get("code")
    return code if isinstance(code, str) else None


def _utf8_length(text: Any) -> int:
    return len(utf8(text)) if isinstance(text, str) else 0


def utf8(text: str) -> bytes:
    """The text in bytes; half a pair of surrogates, too."""
    return text.encode("utf-8", "surrogatepass")


def json_object(data: bytes) -> dict[str, Any] | None:
    """The object that the data is; None where it is anything else."""
    try:
        value = from_json(data, cache_strings="keys")
    except ValueError:
        value = _as_python_reads(data)
    return value if isinstance(value, dict) else None


def _as_python_reads(data: bytes) -> Any:
    """What a stricter, faster reader refused: half a pair of surrogates, say, is no error here."""
    # Decoded here, because `json.loads` would guess UTF-16 and UTF-32 from bytes.
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
