"""The gate gives back what it took: a place for every refusal, and the right to probe upstream."""

import asyncio

import pytest
from pydantic import SecretStr

from security.breaker import Breaker
from security.errors import InvalidRequest, Rejection, StoreUnavailable
from security.gate import Admission
from security.scripts import Duplicate
from tests.security.gate_stage import VERDICT, VISITOR, Asked, Scene
from tests.stage import eventually

REFUSALS = [
    Rejection("token_reused"),
    Rejection("rate_limited"),
    Duplicate(VERDICT),
    StoreUnavailable(chain="unknown"),
    RuntimeError("a fault of ours"),
]
both_modes = pytest.mark.parametrize("own_key", [False, True], ids=["token", "own key"])


async def admit(scene: Scene, *, own_key: bool) -> Admission[Asked]:
    """Ask for admission in either mode."""
    if own_key:
        return await scene.gate.admit_own_key(VISITOR, SecretStr("sk-own"), Asked())
    return await scene.admit()


@both_modes
async def test_an_admission_holds_one_place_and_none_is_left_for_a_fourth(own_key: bool) -> None:
    """Three places for three turns; the fourth is refused before Redis is asked."""
    scene = Scene()
    for taken in (1, 2, 3):
        await admit(scene, own_key=own_key)
        assert scene.capacity.taken == taken
    scene.ledger.diary.clear()
    with pytest.raises(Rejection, match=r"^overloaded$"):
        await admit(scene, own_key=own_key)
    assert scene.steps == ([] if own_key else ["body"])
    assert scene.capacity.taken == 3


@both_modes
@pytest.mark.parametrize("refusal", REFUSALS, ids=repr)
async def test_a_refusal_gives_the_place_back(own_key: bool, refusal: Exception) -> None:
    """Whatever the ledger answers, and whatever breaks: a hundred refusals leave it empty."""
    scene = Scene()
    scene.ledger.outcome = refusal
    for _ in range(100):
        with pytest.raises(type(refusal)):
            await admit(scene, own_key=own_key)
    assert scene.capacity.taken == 0


@both_modes
async def test_being_cancelled_gives_the_place_back(own_key: bool) -> None:
    """A request that is cut off while Redis is asked holds its place until then, not longer."""
    scene = Scene()
    scene.ledger.outcome = None
    task = asyncio.create_task(admit(scene, own_key=own_key))
    await eventually(lambda: has_asked(scene))
    assert scene.capacity.taken == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert scene.capacity.taken == 0
    assert [turn[0] for turn in scene.forgotten] == [scene.ledger.diary[-1][1]]


@both_modes
@pytest.mark.parametrize("refusal", [*REFUSALS, StoreUnavailable()], ids=repr)
async def test_only_a_turn_that_nobody_heard_of_is_to_be_forgotten(
    own_key: bool, refusal: Exception
) -> None:
    """A lost reply may hide an admission, whose streams are then nobody's; other refusals hide
    none."""
    scene = Scene()
    scene.ledger.outcome = refusal
    with pytest.raises(type(refusal)):
        await admit(scene, own_key=own_key)
    asked = scene.ledger.diary[-1]
    chain = None if own_key else scene.turn.chain
    unheard = isinstance(refusal, StoreUnavailable) and refusal.chain == "unknown"
    assert scene.forgotten == ([(asked[1], VISITOR, chain)] if unheard else [])


async def has_asked(scene: Scene) -> bool:
    """Whether the ledger was asked."""
    return any(step in ("redeem", "own key") for step in scene.steps)


async def test_a_mistake_in_the_body_takes_no_place() -> None:
    """A place is taken only for a request that may be asked."""
    scene = Scene()
    for mistake in (InvalidRequest("malformed_json"), Rejection("request_timeout")):
        assert await scene.refused(mistake) is mistake
    assert (scene.steps, scene.capacity.taken) == (["body"], 0)


@both_modes
async def test_a_draining_worker_asks_nobody(own_key: bool) -> None:
    """On its way out a worker refuses before Redis is asked: the token stays good elsewhere."""
    scene = Scene()
    scene.capacity.draining = True
    with pytest.raises(Rejection, match=r"^overloaded$"):
        await admit(scene, own_key=own_key)
    assert "redeem" not in scene.steps
    assert "own key" not in scene.steps


async def test_each_mode_minds_its_own_upstream() -> None:
    """The operator's upstream being down turns nobody away who brings a key, and the reverse."""
    scene = Scene()
    scene.upstream.failed()
    await admit(scene, own_key=True)
    with pytest.raises(Rejection, match=r"^overloaded$"):
        await admit(scene, own_key=False)
    assert "redeem" not in scene.steps
    scene.upstream.succeeded()
    scene.own_upstream.failed()
    await admit(scene, own_key=False)
    with pytest.raises(Rejection, match=r"^overloaded$"):
        await admit(scene, own_key=True)


class Keeping(Breaker):
    """The control: a breaker whose probe, once entered for, is never handed on."""

    def withdraw(self) -> None:
        """Take nothing back."""


@both_modes
@pytest.mark.parametrize(("breaker", "said"), [(Breaker, "admitted"), (Keeping, "overloaded")])
async def test_who_is_refused_does_not_keep_upstream_closed(
    own_key: bool, breaker: type[Breaker], said: str
) -> None:
    """After a pause the first request that is *admitted* probes upstream.

    If one that Redis refuses used up the probe, anybody with a spent token could keep everybody
    out for as long as he likes.
    """
    scene = Scene(breaker)
    scene.upstream.failed()
    scene.own_upstream.failed()
    scene.seconds += 5
    for outcome in (Rejection("rate_limited"), Rejection("token_reused"), None):
        scene.ledger.outcome = outcome or VERDICT
        try:
            await admit(scene, own_key=own_key)
            last = "admitted"
        except Rejection as rejection:
            last = str(rejection)
    assert last == said
