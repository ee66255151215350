"""What the visitors of a run will ask: all of it follows from the seed.

A turn's first message begins with its number, by which it is found again in upstream's books; its
last one tells the upstream how to answer. Prompts never count more tokens than their text has
bytes, words neither, and nothing hidden is thought by a model that is priced as one that does not
think: these are the terms under which the caps are promised.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from completions.prices import Price, read_prices
from tests.upstream import play

PRICES = b"""
[models.plain]
input = 0.40
cached_input = 0.10
output = 1.60
reasoning = false

[models.odd]
input = 0.123457
cached_input = 0.061729
output = 0.987653
output_limit_field = "max_tokens"
reasoning = false

[models.thinker]
input = 1.10
cached_input = 0.55
output = 4.40
"""
PRICED: Mapping[str, Price] = read_prices(PRICES)
MAX_OUTPUT = 400
MODELS = ["plain"] * 6 + ["odd"] * 3 + ["thinker"]
WORDS = {"a": 1, "word ": 3, "日本語": 6}  # a word, and the most tokens that it is ever billed for
BEFORE_THE_ANSWER = -1


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: who asks what of which model, and when they hang up.

    `hang_up` counts deltas: 0 leaves at the head of the answer, `BEFORE_THE_ANSWER` while upstream
    is silent. `chained` shows the token that the turn before it was given.
    """

    number: int
    address: str
    model: str
    stream: bool
    text: str
    script: dict[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    hang_up: int | None = None
    chained: bool = False

    def body(self) -> bytes:
        """The body to be sent."""
        contents = (f"turn {self.number} {self.text}", play(**self.script))
        messages = [{"role": "user", "content": content} for content in contents]
        said: dict[str, Any] = {"model": self.model, "messages": messages, "stream": self.stream}
        if self.max_tokens is not None:
            said["max_tokens"] = self.max_tokens
        return json.dumps(said, ensure_ascii=False).encode()

    def cost(self) -> int:
        """What it costs if it is answered to its end, roughly, in µUSD."""
        price, script = PRICED[self.model], self.script
        output = script["words"] * script["tokens_per_word"] + script.get("reasoning", 0)
        output = min(output, self.max_tokens or MAX_OUTPUT)
        return int(script["prompt"] * price.input + output * price.output) // 1_000_000


def number_of(body: Any) -> int:
    """Which turn a body that reached upstream belongs to."""
    return int(body["messages"][0]["content"].split()[1])


def plan(seed: int, count: int, *, exact: bool = False) -> list[Turn]:
    """The turns of a seed; `exact` leaves out whatever ends an answer before its usage."""
    rng = random.Random(f"{seed} {exact}")
    turns: list[Turn] = []
    while len(turns) < count:
        turns.append(_turn(rng, turns[-1] if turns else None, len(turns), exact))
    return turns


def chains(turns: list[Turn]) -> list[list[Turn]]:
    """The same turns, each with those that follow it by its token."""
    found: list[list[Turn]] = []
    for turn in turns:
        if turn.chained:
            found[-1].append(turn)
        else:
            found.append([turn])
    return found


def _turn(rng: random.Random, before: Turn | None, number: int, exact: bool) -> Turn:
    chained = before is not None and before.hang_up is None and rng.random() < 0.15
    model, stream = rng.choice(MODELS), rng.random() < 0.8
    text = rng.choice(["x", "hello ", "grüße ", "日本 "]) * rng.randint(0, 80)
    script = _script(rng, model, text)
    if not exact:
        script |= _trouble(rng)
    hang_up = None
    address = before.address if chained and before else _address(rng)
    if not (exact or chained) and rng.random() < 0.1:
        hang_up = _leave(rng, script)
        stream = stream or hang_up >= 0
        address = _address_of_its_own(number)
    asked = rng.randint(1, 120) if hang_up is None and rng.random() < 0.6 else None
    return Turn(number, address, model, stream, text, script, asked, hang_up, chained)


def _script(rng: random.Random, model: str, text: str) -> dict[str, Any]:
    word, most = rng.choice(list(WORDS.items()))
    prompt = rng.randint(1, max(1, len(text.encode())))
    script = {"words": rng.randint(0, 24), "text": word, "prompt": prompt}
    script["tokens_per_word"] = rng.randint(1, most)
    if rng.random() < 0.3:
        script["cached"] = rng.randint(0, prompt)
    if model == "thinker":
        script["reasoning"] = rng.randint(0, 60)
    if rng.random() < 0.3:
        script["gap_ms"] = rng.randint(1, 4)
    return script


def _trouble(rng: random.Random) -> dict[str, Any]:
    """What goes wrong upstream, mostly nothing."""
    kind, after = rng.random(), rng.randint(0, 10)
    if kind < 0.02:
        return {"status": 500}
    if kind < 0.03:
        return {"status": 429}
    if kind < 0.05:
        return {"error_after": after}
    if kind < 0.07:
        return {"reset_after": after}
    return {"usage": False} if kind < 0.12 else {}


def _leave(rng: random.Random, script: dict[str, Any]) -> int:
    """When the client hangs up; upstream then writes no faster than a real one."""
    script |= {"words": rng.randint(8, 40), "gap_ms": 6, "tokens_per_word": 1}
    if rng.random() < 0.1:
        script |= {"words": 350}
    when = rng.random()
    if when < 0.08:
        script |= {"hold_ms": 300}
        return BEFORE_THE_ANSWER
    return 0 if when < 0.16 else rng.randint(1, script["words"] - 1)


def _address(rng: random.Random) -> str:
    """One of some visitors, of whom a few ask much more than others, and of one crowded /48."""
    interface = rng.randint(1, 0xFFFF)
    if rng.random() < 0.35:
        return f"2001:db8:c:{rng.randint(0, 11):x}::{interface:x}"
    place = int(rng.random() ** 3 * 96)
    if place % 2:
        return f"203.0.113.{place}"
    return f"2001:db8:{place % 6}:{place // 6:x}::{interface:x}"


def _address_of_its_own(number: int) -> str:
    """Whose money is that of one turn: an IPv4 address or an IPv6 /64, many to a /48."""
    if number % 2:
        return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return f"2001:db8:ff{number // 2 % 16:02x}:{number & 0xFFFF:x}::1"
