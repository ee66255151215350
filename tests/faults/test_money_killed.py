"""A worker is killed in the middle of answers: what it held counts in full once its lease is over.

Nobody knows what upstream wrote for it by then, so the most that it can have been is what it costs.
"""

import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from tests.command_stage import only
from tests.faults.figures import KILLED, NEIGHBOURS, Figures
from tests.faults.money_stage import (
    BILL,
    CAP,
    begin,
    billed,
    end_leases,
    in_the_middle,
    is_admitted,
    is_whole,
    spend,
)
from tests.faults.workers_stage import several
from tests.stage import Upstream, eventually


async def test_a_killed_workers_holds_count_in_full(
    tmp_path: Path, upstream: Upstream, figures: Figures
) -> None:
    """Its neighbour's turns end as ever; until the lease is over nothing of it is given away, and
    after it nothing is refused on its account: the whole cap can be spent."""
    async with several(tmp_path, upstream, workers=2) as house:
        await spend(house.visitor, 5)
        await house.all_settled()
        doomed, neighbour = house.workers
        with only(doomed, house.workers):
            cut = [await begin(house.visitor, words=90, gap_ms=200) for _ in range(5)]
        doomed_held = house.store.money().held
        async with AsyncExitStack() as stack:
            with only(neighbour, house.workers):
                middle = in_the_middle(house.visitor, 3, gap_ms=50)
                answers = await stack.enter_async_context(middle)
            os.kill(doomed, signal.SIGKILL)
        completed = [is_whole(answer.result()) for answer in answers]
        figures.note(NEIGHBOURS, sum(completed), of=len(completed))
        assert all(completed)
        for answer in cut:
            assert await is_cut(answer)

        found, bill = house.store.money(), await billed(upstream)
        assert found.held == doomed_held > 0
        assert found.spent == 5 * BILL + 3 * 228
        figures.note(KILLED, bill - found.spent, control=True)
        assert found.spent < bill, "the control: what was settled is less than upstream bills"
        await eventually(lambda: is_admitted(house.visitor))
        await house.only_this_is_held(doomed_held)  # its lease is not over

        end_leases(house.store.serving)
        assert await is_admitted(house.visitor)
        await house.all_settled()
        found, bill = house.store.money(), await billed(upstream)
        print(f"killed: held in full {doomed_held}, spent {found.spent}, billed {bill}")
        figures.note(KILLED, max(0, bill - found.spent))
        assert found.spent == 7 * BILL + 3 * 228 + doomed_held
        assert found.spent > bill
        await house.exhaust()
        await house.all_settled()
        found, bill = house.store.money(), await billed(upstream)
        assert bill < found.spent <= CAP
        assert CAP - found.spent < 2 * BILL, "nothing is kept back for turns that nobody has"


async def is_cut(answer: aiohttp.ClientResponse) -> bool:
    """Whether an answer ends before its end."""
    try:
        return not is_whole(await answer.read())
    except aiohttp.ClientError:
        return True
