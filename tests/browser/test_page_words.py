"""What the demo page says of failures, in a real Chromium: words for people, for each of them."""

import re
from typing import Final

import pytest

from problems import PROBLEMS
from tests.browser.page_stage import NEEDS_CHROMIUM, Window

pytestmark = [NEEDS_CHROMIUM, pytest.mark.asyncio(loop_scope="module")]

WORDS: Final = """async ([problem, wait]) => {
  const { refusalOf } = await import('/wording.js');
  const headers = wait ? { 'Retry-After': wait } : {};
  const response = new Response(JSON.stringify(problem), { status: problem.status, headers });
  return (await refusalOf(response)).message;
}"""
FOR_PROGRAMS: Final = re.compile(
    r"Keyturn-|Idempotency|Retry-After|header|Bearer|JSON|UTF|token,|_[a-z]|undefined|NaN|\.\."
)
NEVER_OF_A_PAGE: Final = {
    *("not_found", "method_not_allowed", "unsupported_media_type", "headers_too_large"),
    *("malformed_json", "header_repeated", "timestamp_missing", "timestamp_malformed"),
    "operator_only",
}


@pytest.mark.parametrize("wait", [None, "3", "7200"])
@pytest.mark.parametrize("code", sorted(set(PROBLEMS) - NEVER_OF_A_PAGE))
async def test_every_refusal_is_said_to_people(shared: Window, code: str, wait: str) -> None:
    """In sentences without the words of the wire, and when to try again, where that is known."""
    row = PROBLEMS[code]  # type: ignore[index]
    problem = {"code": code, "status": row.status, "title": row.title, "detail": row.detail}
    said = await shared.page.evaluate(WORDS, [problem, wait])
    assert re.fullmatch(r"([A-Z][^.]*\.( |$))+", said), said
    assert not FOR_PROGRAMS.search(said), said
    if wait and not re.match("The one-time token", said):
        assert re.search(r"Try again in 3 seconds|within 2 hours|Try again in 2 hours", said)


@pytest.mark.parametrize("body", ["<html>", "", "[]", '{"title": 3}', '{"error": {}}'])
async def test_a_stranger_s_answer_is_no_riddle(shared: Window, body: str) -> None:
    """What a proxy or a captive portal answers is said by its status."""
    words = """async (body) => {
      const { refusalOf } = await import('/wording.js');
      return (await refusalOf(new Response(body, { status: 502 }))).message;
    }"""
    assert await shared.page.evaluate(words, body) == "The server answered 502."
