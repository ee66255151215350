"""What `check` says of settings without connecting to anything: check_settings.py."""

import re
from typing import Any

import pytest
import redis

from check_settings import about_budget, about_names, about_network, about_prices, about_settings
from findings import Finding
from security.budget import LEAST_OUTPUT
from settings import Settings
from tests.stage import ROOT, SECRET, Upstream, serving, settings_with, visiting


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DAILY_BUDGET_USDD", "DAILY_BUDGET_USD"),
        ("DAYLY_BUDGET_USD", "DAILY_BUDGET_USD"),
        ("VISITOR_BUDGET_USD", "VISITOR_DAILY_BUDGET_USD"),
        ("openai_api_kye", "OPENAI_API_KEY"),
        ("REDIS_URI", "REDIS_URL"),
        ("REDISURL", "REDIS_URL"),
        ("ALLOWED_ORIGIN", "ALLOWED_ORIGINS"),
        ("TRUSTED_PROXYS", "TRUSTED_PROXIES"),
        ("WORKER", "WORKERS"),
        ("KEYTURN_PORT", "PORT"),
        ("KEYTURN_ENVIRONMENT", "KEYTURN_ENV"),
    ],
)
def test_a_mistyped_name_is_noticed(name: str, meant: str) -> None:
    """A letter too many, too few or another one, or a prefix of ours: it says what was meant."""
    (found,) = about_names([name, "PATH"])
    assert found.state == "warning"
    assert found.text == f"{name.upper()} is no setting: did you mean {meant}?"


def test_names_of_others_are_left_alone() -> None:
    """The control: what stands in every environment is not taken for ours, nor are settings."""
    others = (
        "HOME PATH PWD OLDPWD USER LOGNAME SHELL SHLVL TERM LANG LANGUAGE LC_ALL TMPDIR HOSTNAME "
        "HOSTTYPE EDITOR PAGER DISPLAY MAIL TZ _ PYTHONPATH PYTHONUNBUFFERED VIRTUAL_ENV PORTS "
        "SSH_AUTH_SOCK XDG_RUNTIME_DIR DBUS_SESSION_BUS_ADDRESS DOCKER_HOST VERCEL_ENV VERCEL_URL "
        "OPENAI_ORG_ID AWS_REGION COMPOSE_PROJECT_NAME DATABASE_URL LOG_FORMAT NODE_ENV CI"
    )
    names = [name.upper() for name in Settings.model_fields]
    assert about_names([*names, *others.replace(" PORTS ", " ").split()]) == []
    assert [each.text for each in about_names(["KEYTURN_XYZZY"])] == [
        "KEYTURN_XYZZY is no setting: it has no effect, remove it"
    ]


def test_every_setting_with_one_letter_wrong_is_noticed() -> None:
    """Of names of five letters and more, wherever the letter is left out or doubled."""
    for name in [each.upper() for each in Settings.model_fields if len(each) > 4]:
        for place in range(len(name)):
            for wrong in (
                name[:place] + name[place + 1 :],
                name[:place] + name[place] + name[place:],
            ):
                if wrong.lower() not in Settings.model_fields:
                    assert about_names([wrong]), wrong


def states(found: list[Finding], word: str) -> list[str]:
    """The states of the findings that hold this word."""
    return [each.state for each in found if word in each.text]


@pytest.mark.parametrize(
    ("said", "word", "state"),
    [
        ({}, "for development", "ok"),
        ({}, "production would also need REDIS_URL", "ok"),
        ({"host": "0.0.0.0"}, "KEYTURN_ENV=production", "warning"),  # noqa: S104
        ({"host": "::1"}, "for development", "ok"),
        ({"api_secret_key": f"{SECRET},{SECRET[::-1]}"}, "IDENTITY_KEY", "warning"),
        ({"max_output_tokens": 15}, "raise MAX_OUTPUT_TOKENS", "warning"),
        ({"metrics_token": SECRET[::-1]}, "METRICS_TOKEN", "ok"),
        ({"admin_token": SECRET[::-1]}, "ADMIN_TOKEN", "ok"),
    ],
)
def test_what_an_operator_may_regret(said: dict[str, Any], word: str, state: str) -> None:
    """Settings that are valid and may not be meant are named, with what to set."""
    assert states(about_settings(settings_with(**said)), word) == [state]


def test_fit_for_production() -> None:
    """With all that production needs nothing is warned of; documentation that is open is."""
    said = {"keyturn_env": "production", "redis_url": "redis://r", "host": "0.0.0.0"}  # noqa: S104
    found = about_settings(settings_with(**said))
    assert [(each.state, each.text) for each in found] == [("ok", "valid, for production")]
    assert states(about_settings(settings_with(**said, docs="on")), "DOCS=off") == ["warning"]
    assert states(about_network(settings_with(**said)), "TRUSTED_PROXIES") == ["warning"]
    named = settings_with(**said, trusted_proxies="10.0.0.1")
    assert states(about_network(named), "TRUSTED_PROXIES") == ["ok"]


@pytest.mark.parametrize(
    ("said", "word", "state"),
    [
        ({}, "whoever connects is the visitor", "ok"),
        ({"host": "192.0.2.1"}, "TRUSTED_PROXIES", "warning"),
        ({"client_ip_header": "CF-Connecting-IP"}, "CLIENT_IP_HEADER", "warning"),
        ({}, "https://page.example, and who names none", "ok"),
        ({"require_origin": "on"}, "who names none", None),
        ({"byok": "off"}, "off", "ok"),
        ({"byok_base_url": "http://own.example/v1"}, "in the clear", "warning"),
        ({"byok_base_url": "http://127.0.0.1:1/v1"}, "in the clear", None),
        ({"openai_base_url": "http://ai.example/v1"}, "http://ai.example/v1: your key", "warning"),
        ({"openai_base_url": "http://[::1]:1/v1"}, "http://[::1]:1/v1", "ok"),
        ({"openai_api_key": None}, "demo", "ok"),
    ],
)
def test_who_may_come_and_where_keys_go(said: dict[str, Any], word: str, state: str | None) -> None:
    """Proxies, origins, own keys, upstream: what others could read or pretend is a warning."""
    settings = settings_with(**{"require_origin": "off", **said})
    assert states(about_network(settings), word)[:1] == ([state] if state else [])


def test_plain_origins_in_production() -> None:
    """A page without TLS may chat, but the operator is told that anybody can change it."""
    said = {"keyturn_env": "production", "redis_url": "redis://r"}
    origins = "https://page.example,http://page.example,http://localhost:3000"
    found = about_network(settings_with(**said, allowed_origins=origins))
    (warned,) = [each.text for each in found if each.state == "warning" and each.group == "origins"]
    assert warned.startswith("http://page.example: ")


@pytest.mark.parametrize(
    ("day", "visitor", "found"),
    [
        ("5.00", "0.50", ["ok", "ok"]),
        ("0.50", "5.00", ["ok", "ok", "warning"]),
        ("off", "0.50", ["ok", "warning"]),
        ("off", "off", ["warning", "warning"]),
        ("0", "0.50", ["ok", "fault", "warning"]),
        ("5", "0", ["ok", "fault"]),
    ],
)
def test_the_caps(day: str, visitor: str, found: list[str]) -> None:
    """One that is off or above the other is a warning, one that admits nobody a fault."""
    settings = settings_with(daily_budget_usd=day, visitor_daily_budget_usd=visitor)
    assert [each.state for each in about_budget(settings)] == found


def test_every_model_with_its_prices() -> None:
    """Each allowed model has a line: USD per million tokens, and the most that a turn can cost."""
    (found,) = about_prices(settings_with(allowed_models="gpt-4.1-mini", max_body_bytes=1000))
    assert found.state == "ok"
    assert found.text.startswith("gpt-4.1-mini: 0.40 in, 0.10 cached, 1.60 out; a full turn up to")
    most = float(found.text.rpartition(" ")[2])
    assert most == pytest.approx((1000 + 51 * 16 + 64) * 0.4e-6 + 1024 * 1.6e-6, abs=3e-6)


def test_a_long_conversation_that_does_not_fit() -> None:
    """Where the fullest turn is above a cap that is a warning: people will meet it late."""
    settings = settings_with(visitor_daily_budget_usd="0.01", allowed_models="gpt-4.1-mini")
    (found,) = about_prices(settings)
    assert found.state == "warning"
    assert found.text.endswith(
        "; a full turn up to 0.106849 is above VISITOR_DAILY_BUDGET_USD: "
        "raise it or lower MAX_BODY_BYTES, long chats will be refused"
    )


@pytest.mark.parametrize("max_output", [1, 255, 256, 257, 1024])
async def test_a_cap_below_the_shortest_turn_is_a_fault(
    redis_url: str, upstream: Upstream, max_output: int
) -> None:
    """And only then: at the cap where the fault begins the real gate lets nobody in any more."""
    said: dict[str, Any] = {
        "redis_url": redis_url,
        "openai_base_url": upstream.url,
        "allowed_models": "gpt-4.1-mini",
        "max_output_tokens": max_output,
        "max_body_bytes": 1000,
    }
    (found,) = about_prices(settings_with(**said, visitor_daily_budget_usd="0.000001"))
    assert found.state == "fault"
    amount = re.search(
        r"even a turn of ([\d.]+) is above VISITOR_DAILY_BUDGET_USD: raise it", found.text
    )
    assert amount
    least = round(float(amount[1]) * 1_000_000)
    for cap, state, status in ((least, "ok", 200), (least - 1, "fault", 429)):
        settings = settings_with(**said, visitor_daily_budget_usd=f"{cap / 1_000_000:.6f}")
        (found,) = about_prices(settings)
        assert found.state.replace("warning", "ok") == state
        async with serving(settings) as server, visiting(server, fingerprint="f" * 16) as visitor:
            answer = await visitor.say("Hi", model="gpt-4.1-mini")
            assert answer.status == status, answer.body
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()


def test_the_shortest_answer_is_the_scripts_own() -> None:
    """What is called the least here is the least that the admission script grants."""
    script = (ROOT / "security" / "lua" / "admit.lua").read_text()
    assert f"local LEAST_OUTPUT = {LEAST_OUTPUT} --" in script
