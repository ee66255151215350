"""What the tests of the charge stand on: prices, a hold, and streams read so far."""

from dataclasses import replace
from typing import Any

from completions.charge import Meter, charge
from completions.grammars import ChatScanner
from completions.prices import Price
from security.budget import Hold, round_up
from tests.completions.chat_stream import chunk, event, says

PLAIN = Price(400_000, 100_000, 1_600_000, reasoning=False)
THINKER = replace(PLAIN, reasoning=True)
WORST = PLAIN.worst_case(body_bytes=200, messages=1, max_output=1000)  # 280 tokens of prompt
HOLD = Hold(micro_usd=1712, max_output=1000, day=20_000)
PROMPT = 112
MARGIN = 100
BILLED = 9  # µUSD of USAGE: 9 of prompt and 3 of output are 8.4
STOP = event(says("stop"))
ROLE = event(says(role="assistant", content=""))
ERROR = event(b'{"error":{"message":"no"}}')
REFUSAL = event(b'{"error":{"message":"too long","code":"context_length_exceeded"}}')


def using(prompt: Any, output: Any, **more: Any) -> dict[str, Any]:
    """A usage object."""
    return {"prompt_tokens": prompt, "completion_tokens": output, **more}


def stating(usage: Any, finish: str | None = None, text: str = "Hello") -> bytes:
    """A chunk with text that carries usage too, as servers with continuous usage write it."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return event(chunk(choices=[choice], usage=usage))


def only(usage: Any) -> bytes:
    """The usage-only chunk."""
    return event(chunk(choices=[], usage=usage))


def read(*events: bytes) -> Meter:
    """A stream that was served and read so far."""
    scanner = ChatScanner(keep_usage=False)
    for each in events:
        scanner.feed(each)
    return Meter(sent=True, scanner=scanner)


def behind(*events: bytes) -> Meter:
    """The same before a visitor who once took nothing for a while."""
    return replace(read(*events), behind=True)


def whole(**answer: Any) -> Meter:
    """An answer in one piece that was read."""
    scanner = ChatScanner(keep_usage=False)
    scanner.take_whole({"choices": [{"message": {"content": "Hello"}}], **answer})
    return Meter(sent=True, scanner=scanner)


def charged(meter: Meter, price: Price = PLAIN, hold: Hold = HOLD, margin: int = MARGIN) -> int:
    """The charge for the hold of this file."""
    return charge(meter, hold, WORST, price, margin=margin)


def seen(text_bytes: int) -> int:
    """The prompt that was held, and so many tokens, and the margin of unseen ones."""
    return PROMPT + round_up((text_bytes + MARGIN) * PLAIN.output)
