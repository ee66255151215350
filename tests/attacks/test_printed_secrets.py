"""Nothing shows a secret when printed by mistake: no setting, part, request or error."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, is_dataclass

import pytest
from pydantic import SecretStr

from completions.chat import parse_chat
from completions.operator_keys import OperatorKeys
from completions.own_key_request import OwnKeyBody, parse_own_key
from completions.upstream import Destination
from house import Keyturn, open_house
from security.breaker import Breaker
from security.errors import Quota, Standing, UpstreamFailure
from security.gate import Admission, Credentials
from security.scripts import Visitor as WhoPays
from settings import Settings, SettingsError
from tests.attacks.canaries import OPERATORS, TEXTS, VISITORS, hits
from tests.own_key_stage import own_body
from tests.stage import settings_with

ADMIN_TOKEN = "admin-token-canary-Tg51hRwQz8Lk0PxV"


def shown(thing: object) -> bytes:
    """A thing as careless code would print it: by repr, by str, inside a list, field by field."""
    words = [repr(thing), str(thing), f"{thing}", repr([thing]), repr({"x": thing})]
    if is_dataclass(thing):
        words += [repr(getattr(thing, each.name)) for each in fields(thing) if each.repr]
    if isinstance(thing, Settings | OwnKeyBody):
        words += [repr(thing.model_dump()), thing.model_dump_json(), repr(dict(thing))]
    if isinstance(thing, BaseException):
        words += [repr(thing.args), repr(vars(thing))]
    return "\n".join(words).encode()


@pytest.fixture
async def keyturn(redis_url: str) -> AsyncIterator[Keyturn]:
    """A whole house, built around canaries."""
    settings = settings_with(
        openai_api_key=OPERATORS["operator's key"],
        api_secret_key=f"{OPERATORS['secret']},{OPERATORS['newer secret']}",
        identity_key=OPERATORS["identity key"],
        admin_token=ADMIN_TOKEN,
        redis_url=redis_url.replace("unix://", "unix://:redis-password-canary@"),
    )
    async with open_house(settings) as keyturn:
        yield keyturn


async def test_nothing_of_the_house_shows_a_secret(keyturn: Keyturn) -> None:
    """Whatever is printed of the running parts, the settings or a destination, by mistake."""
    secrets = OPERATORS | {"redis password": "redis-password-canary", "admin token": ADMIN_TOKEN}
    assert keyturn.console
    for inner in fields(keyturn.console):
        assert hits(secrets, shown(getattr(keyturn.console, inner.name))) == []
    for part in (keyturn, *(getattr(keyturn, each.name) for each in fields(keyturn))):
        assert hits(secrets, shown(part)) == []
    breaker = Breaker(failures=1, open_for=1, clock=lambda: 0.0)
    keys = OperatorKeys([SecretStr(OPERATORS["operator's key"])], clock=lambda: 0.0)
    destination = Destination("https://x", keys, breaker)
    assert hits(secrets, shown(destination)) == []


async def test_nothing_of_a_request_shows_a_secret(keyturn: Keyturn) -> None:
    """Whatever is printed of what a visitor showed, or of the admission, by mistake."""
    message = {"role": "user", "content": TEXTS["message"]}
    chat = parse_chat(json.dumps({"messages": [message]}).encode(), keyturn.policy)
    body = own_body(TEXTS["message"], api_key=VISITORS["own key"])
    own, key = parse_own_key(body, keyturn.own_key_policy)
    who, standing = WhoPays("hashed"), Standing(Quota(1, 1))
    token = {"token": "a-token-Yt6Re5Wq4Ui8Op7Lk"}
    secrets = VISITORS | TEXTS | token
    for thing in (
        *(chat, own, key),
        Credentials(who, "1", VISITORS["fingerprint"], token["token"], VISITORS["idempotency key"]),
        Admission("rid", who, chat, standing, next_token=token["token"]),
        Admission("rid", who, own, standing, own_key=key),
    ):
        assert hits(secrets, shown(thing)) == []


def test_nothing_of_a_mistake_shows_a_secret() -> None:
    """Neither a refused setting nor a failure of upstream carries what was secret in it."""
    with pytest.raises(ValueError, match="api_secret_key") as refused:
        settings_with(api_secret_key=f"{OPERATORS['secret']},short")
    assert hits(OPERATORS, shown(refused.value)) == []
    assert hits(OPERATORS, shown(SettingsError(["API_SECRET_KEY: is too short"]))) == []
    assert hits(OPERATORS, shown(UpstreamFailure("upstream_rejected"))) == []


def test_careless_printing_would_show_them() -> None:
    """The control: the same question finds a secret in a thing that shows its own."""
    naive: list[Callable[[str], object]] = [str, ValueError, lambda secret: {"key": secret}]
    for make in naive:
        assert hits(OPERATORS, shown(make(OPERATORS["secret"]))) == ["secret"]
