"""How a request is turned away: what a rejection carries, and what it never says."""

import inspect
from typing import get_args

import pytest

from problems import PROBLEMS
from security import errors
from security.errors import (
    Chain,
    Code,
    InvalidRequest,
    Quota,
    Rejection,
    Standing,
    StoreUnavailable,
    UpstreamFailure,
)

CODES: tuple[Code, ...] = get_args(Code)


def test_every_code_has_its_row_and_every_row_its_code() -> None:
    """A rejection that `problems` could not put on the wire cannot be written."""
    assert set(CODES) == set(PROBLEMS)
    assert len(CODES) == len(set(CODES))


@pytest.mark.parametrize("code", CODES)
def test_a_rejection_prints_as_its_code_and_nothing_else(code: Code) -> None:
    """In a traceback or a log there is no detail, no name and no token of a visitor."""
    rejection = Rejection(code, "detail-canary", param="param-canary", chain="kept")
    rejection.with_successor("token-canary")
    assert str(rejection) == code
    assert "canary" not in f"{rejection!r} {rejection.args}"


def test_what_is_added_stays_with_the_same_rejection() -> None:
    """Limits and successor are put on the rejection that is raised, not on a copy."""
    standing = Standing(Quota(3, 2))
    rejection = InvalidRequest("invalid_request", "n has 2 entries", param="n")
    assert rejection.with_limits(standing).with_successor("next") is rejection
    assert (rejection.standing, rejection.next_token) == (standing, "next")
    assert rejection.with_limits(None).with_successor(None) is rejection
    assert (rejection.standing, rejection.next_token) == (None, None)


def test_an_unavailable_store_asks_to_come_back() -> None:
    """By default the token was kept, and a second later is worth a try."""
    rejection = StoreUnavailable()
    assert (rejection.code, rejection.chain) == ("store_unavailable", "kept")
    assert rejection.retry_after == 1
    assert StoreUnavailable(chain="unknown", retry_after=3).chain == "unknown"


def test_the_chain_of_every_row_is_one_that_can_be_told() -> None:
    """The table uses the words that the type allows."""
    assert {problem.chain for problem in PROBLEMS.values()} <= {*get_args(Chain), None}


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Every leaf is a rejection, and the first thing a reader sees names each of them."""
    leaves = {InvalidRequest, StoreUnavailable, UpstreamFailure}
    found = {
        each
        for _, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, Exception) and each.__module__ == errors.__name__
    }
    assert found == leaves | {Rejection}
    assert all(issubclass(leaf, Rejection) for leaf in leaves)
    assert all(f"── {leaf.__name__} " in str(errors.__doc__) for leaf in leaves)
