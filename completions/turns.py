"""The turns a worker has open: their deadline, and their settlement.

A turn is settled once, whatever ends it: the answer, a failure, a hang-up, a shutdown. Who waits
for it settles in their own task; where nobody can wait, or who did is cancelled, a task held here
does.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final

from completions.charge import Meter, charge
from completions.prices import Usage, read_usage
from completions.request import ChatRequest
from patience import Deadline
from security.capacity import Capacity
from security.errors import Rejection
from security.gate import Admission
from security.ledger import Ledger
from security.scripts import Visitor

log = logging.getLogger("keyturn")

_AT_ONCE: Final = 25  # settlements; the store's other connections are for admissions
_PAUSES: Final = (0.5, 1.5, 3)  # seconds between tries to settle, while a store restarts

Tell = Callable[[], Awaitable[None]]


class Turns:
    """Every open turn of this worker."""

    def __init__(
        self, ledger: Ledger, capacity: Capacity, *, max_seconds: float, abort_margin: int
    ) -> None:
        self._ledger = ledger
        self._capacity = capacity
        self._max_seconds = max_seconds
        self.abort_margin = abort_margin
        self._drained_by = math.inf
        self._open: set[OpenTurn] = set()
        self._clock: asyncio.TimerHandle | None = None
        self._settling: set[asyncio.Future[None]] = set()
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._again = asyncio.Lock()

    def open(self, admission: Admission[Any]) -> "OpenTurn":
        """Take an admitted turn into care, with its capacity; it ends by being settled."""
        loop = asyncio.get_running_loop()
        end = min(loop.time() + self._max_seconds, self._drained_by)
        turn = OpenTurn(self, admission, end, Deadline(loop))
        self._open.add(turn)
        if self._clock is None:
            self._clock = loop.call_at(turn.end, self._look_at_ends)
        return turn

    def drain(self, seconds: float, *, last_call: float = 0) -> None:
        """Give the turns that are admitted this long to end, and admit no more after the last
        call: a server takes a moment to close its door, and who came through it gets in."""
        loop = asyncio.get_running_loop()
        self._drained_by = min(self._drained_by, loop.time() + seconds)
        for turn in self._open:
            turn.end = min(turn.end, self._drained_by)
        if self._clock is not None:
            self._clock.cancel()
            self._look_at_ends()
        if last_call:
            loop.call_later(min(last_call, seconds), self._capacity.close)
        else:
            self._capacity.close()

    @property
    def draining(self) -> bool:
        """Whether the worker is on its way out."""
        return self._drained_by < math.inf

    @property
    def in_flight(self) -> int:
        """How many turns hold a place of this worker's capacity."""
        return self._capacity.taken

    async def settled(self) -> None:
        """Settle what is still open, and return when every settlement is over."""
        for turn in tuple(self._open):
            turn.settle_soon()
        while self._settling:
            await asyncio.gather(*self._settling, return_exceptions=True)

    def _look_at_ends(self) -> None:
        """Tell the turns whose time is up, and look again when the next one's is.

        One timer for all of them, that is not taken away when a turn ends before: nearly all do.
        """
        loop = asyncio.get_running_loop()
        now, later = loop.time(), list[float]()
        for turn in self._open:
            if turn.end <= now:
                turn.deadline.expire()
            else:
                later.append(turn.end)
        self._clock = loop.call_at(min(later), self._look_at_ends) if later else None

    def begin_settlement(self, turn: "OpenTurn") -> asyncio.Task[None]:
        """Start settling a turn, detached from whoever asks; over once it was tried."""
        return self._hold(self._settle(turn))

    async def settle(self, turn: "OpenTurn", over: asyncio.Future[None]) -> None:
        """The same in the task of whoever asks, which saves one; `over` is done when it is."""
        self._settling.add(over)
        try:
            await self._settle(turn)
        except asyncio.CancelledError:  # it may be unheard; to say it again changes nothing
            self.begin_settlement(turn).add_done_callback(lambda _: self._end(over))
            raise
        except Exception:
            self._end(over)
            raise
        self._end(over)

    def _end(self, over: asyncio.Future[None]) -> None:
        self._settling.discard(over)
        if not over.done():
            over.set_result(None)

    def forget(self, rid: str, visitor: Visitor, chain: str | None) -> None:
        """Settle a turn that may have been admitted unheard, after a pause: it may still be."""
        self._hold(self._tell_later(rid, partial(self._ledger.settle, rid, visitor, chain=chain)))

    def _hold(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    async def _settle(self, turn: "OpenTurn") -> None:
        try:
            tell = self._telling(turn)
            if not await self._is_told(tell):
                self._hold(self._tell_later(turn.admission.rid, tell))
        finally:
            self._close(turn)

    def _close(self, turn: "OpenTurn") -> None:
        """Give its place back, once."""
        if turn in self._open:
            self._open.remove(turn)
            self._capacity.leave()

    def _telling(self, turn: "OpenTurn") -> Tell:
        admission, turn.charged = turn.admission, turn.charge()
        return partial(
            self._ledger.settle,
            admission.rid,
            admission.visitor,
            chain=admission.chain,
            charge=turn.charged,
            went_past=turn.went_past,
            key_refused=turn.key_refused,
        )

    async def _tell_later(self, rid: str, tell: Tell) -> None:
        """Nobody waits for this but the worker's end; a turn left open counts until its lease.

        One by one: the first to ask a store that was broken is its probe, and all others would be
        refused while that is out.
        """
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            async with self._again:
                if await self._is_told(tell):
                    return
        self._ledger.give_up(rid)
        log.warning("settlement failed rid=%s: its hold counts in full when its lease ends", rid)

    async def _is_told(self, tell: Tell) -> bool:
        await self._at_once.acquire()
        try:
            await tell()
        except Rejection:
            return False
        finally:
            self._at_once.release()
        return True


class OpenTurn:
    """One admitted turn, from admission to settlement."""

    def __init__(
        self, turns: Turns, admission: Admission[Any], end: float, deadline: Deadline
    ) -> None:
        self.admission = admission
        self.end = end  # in loop time
        self.deadline = deadline
        self.charged: int | None = None  # by its settlement
        self.key_refused = False
        self.meter = Meter()
        self._turns = turns
        self._settlement: asyncio.Future[None] | None = None

    @property
    def answered(self) -> bool:
        """Whether the whole of a stream has left, [DONE] included."""
        return self.meter.scanner is not None and self.meter.scanner.done

    @property
    def usage(self) -> Usage | None:
        """The tokens that upstream says it billed, None where it said nothing."""
        return read_usage(self.meter.scanner.usage) if self.meter.scanner else None

    @property
    def went_past(self) -> bool:
        """Whether upstream wrote more than the hold pays for."""
        hold = self.admission.hold
        return hold is not None and self.meter.went_past(hold.max_output)

    def charge(self) -> int:
        """What this turn costs the operator by what is known now, in µUSD; in the end, for good."""
        if self.charged is not None:
            return self.charged
        hold, request = self.admission.hold, self.admission.request
        if hold is None or not isinstance(request, ChatRequest):
            return 0
        margin = self._turns.abort_margin
        return charge(self.meter, hold, request.worst, request.price, margin=margin)

    def settle_soon(self) -> None:
        """Begin to settle, unless that was done; for an end that cannot wait."""
        if self._settlement is None:
            self._settlement = self._turns.begin_settlement(self)

    async def settle(self) -> None:
        """Settle and wait for it; being cancelled here does not stop the settling."""
        if self._settlement is None:
            over = self._settlement = asyncio.get_running_loop().create_future()
            await self._turns.settle(self, over)
        else:
            await asyncio.shield(self._settlement)
