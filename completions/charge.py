"""What an admitted turn is charged with, when it ends.

The law: what upstream says it billed is charged, whatever it is. Where it said nothing, the charge
is the most that it can have billed, by how far the request came and what was seen of the answer:
upstream is taken to stop, within the margin, when it is hung up on.
"""

from dataclasses import dataclass
from typing import Final

from completions.prices import Price, read_usage
from completions.scanner import BUSY, VISITORS_FAULT, Scanner
from security.budget import Hold, WorstCase

_REFUSED: Final = VISITORS_FAULT | BUSY


@dataclass(slots=True)
class Meter:
    """How far a turn came: `sent`, its request began to leave; `refused`, upstream did not serve.

    `status` is what upstream answered; `scanner` read what the answer says. `behind`, the visitor
    once took so long to take a part of it that upstream may have written far more than was read.
    """

    sent: bool = False
    refused: bool = False
    status: int | None = None
    behind: bool = False
    scanner: Scanner | None = None

    def begin_again(self) -> None:
        """Forget an attempt that upstream refused: it cost nothing, and another follows."""
        self.sent, self.refused, self.status = False, False, None

    def went_past(self, max_output: int) -> bool:
        """Whether upstream sent more than it was allowed to: a delta is at least a token."""
        return self.scanner is not None and self.scanner.deltas > max_output


def charge(meter: Meter, hold: Hold, worst: WorstCase, price: Price, *, margin: int) -> int:
    """The charge in µUSD; `margin` are tokens that upstream may have written and nobody saw."""
    if not meter.sent or meter.refused:
        return 0
    scanner = meter.scanner
    if scanner and _refused_unserved(scanner) and not price.reasoning:
        return 0
    usage = read_usage(scanner.usage) if scanner else None
    billed = price.cost_of(usage) if usage else 0
    if usage and scanner and scanner.usage_is_final:
        return billed
    if scanner is None or not scanner.deltas or meter.behind or price.reasoning:
        guessed = hold.micro_usd
    else:
        guessed = worst.with_output(min(hold.max_output, scanner.text_bytes + margin))
    seen = worst.with_output(scanner.deltas) if scanner else 0
    return max(billed, guessed, seen)


def _refused_unserved(scanner: Scanner) -> bool:
    """Whether upstream refused behind a 200, as a status would have said, and wrote nothing."""
    refused = scanner.error_code in _REFUSED
    return refused and not scanner.text_bytes and scanner.usage is None
