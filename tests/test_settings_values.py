"""How single settings are written, and what of it is refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.client_ip import Proxies
from security.scripts import Rate
from setting_types import start_burst
from tests.settings_stage import chosen, refusal

PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


@pytest.mark.parametrize("period", PERIODS)
@given(count=st.integers(1, 10**9 - 1))
def test_a_rate_never_lets_more_through_than_it_says(period: str, count: int) -> None:
    """N at once, then one per period/N rounded up: N in a row take at least the period."""
    rate = chosen(rate_limit=f"{count}/{period}").rate_limit
    assert rate.burst == count
    assert rate.interval_us * count >= PERIODS[period] * 1_000_000
    assert (rate.interval_us - 1) * count < PERIODS[period] * 1_000_000


def test_rounding_down_would_let_more_through() -> None:
    """The control: 7 a minute, each rounded down, are over before the minute is."""
    assert (
        60_000_000 // 7 * 7 < 60_000_000 <= chosen(rate_limit="7/minute").rate_limit.interval_us * 7
    )


@pytest.mark.parametrize(
    "rate",
    [
        *("30", "30/", "/minute", "0/minute", "-1/minute", "1.5/minute", "1e3/minute", "30/Minute"),
        *("30/fortnight", "30/2 minutes", "3_0/minute", "٣/minute", "30 per minute"),
        "9" * 5000 + "/day",
    ],
)
def test_what_is_no_rate_is_refused(rate: str) -> None:
    """With how it is written."""
    for name in ("rate_limit", "start_limit", "start_limit_global", "byok_reject_limit"):
        said = refusal(**{name: rate})
        assert said.startswith(f"{name.upper()}: should be N/second, N/minute, N/hour or N/day")


def test_new_chats_of_one_address_burst_at_most_ten_at_once() -> None:
    """At the pace of START_LIMIT; a smaller one keeps its burst."""
    assert start_burst(chosen().start_limit) == Rate(10, 60_000_000)
    assert start_burst(chosen(start_limit="3/minute").start_limit) == Rate(3, 20_000_000)


@pytest.mark.parametrize(
    "origin",
    [
        *("*", "null", "https://*.example.org", "https://example.org/", "https://example.org/chat"),
        *("https://example.org?x", "https://example.org#x", "example.org", "ftp://example.org"),
        *("https://", "https://user@example.org", "https://Example.org", "https://a b"),
        *("https://a:b:c", "https://example.org:", "https://\u00e4.example", "https://a\n.evil"),
    ],
)
def test_an_origin_is_exact_or_refused(origin: str) -> None:
    """As a browser would send it: scheme, host in lower case, perhaps a port, and nothing else."""
    for list_of in (origin, f"https://good.example,{origin}"):
        assert refusal(allowed_origins=list_of).startswith("ALLOWED_ORIGINS: should list exact")
        if origin != "*":
            assert refusal(byok_allowed_origins=list_of).startswith("BYOK_ALLOWED_ORIGINS: ")


def test_the_origins_that_may_chat() -> None:
    """The listed ones; with none listed this server's own pages."""
    listed = "https://chat.example.org, http://localhost:3000,https://[::1]:8443"
    assert chosen(allowed_origins=listed).origins == {
        "https://chat.example.org",
        "http://localhost:3000",
        "https://[::1]:8443",
    }
    assert chosen(port=81).origins == {"http://localhost:81", "http://127.0.0.1:81"}
    assert chosen(byok_allowed_origins="*").byok_allowed_origins == ("*",)


def test_trusted_proxies_are_networks() -> None:
    """Read once, at start; one that would trust everybody is refused."""
    assert chosen().trusted_proxies == Proxies()
    proxies = chosen(trusted_proxies="10.0.0.0/8, unix").trusted_proxies
    assert proxies == Proxies.parse("10.0.0.0/8,unix")
    for wrong in ("*", "10.0.0.1/8", "0.0.0.0/0", "::/0", "localhost", "10.0.0.0/8;unix"):
        assert refusal(trusted_proxies=wrong).startswith("TRUSTED_PROXIES: ")


SWITCHES = ["require_origin", "byok", "docs", "demo_page", "allow_tools", "safety_identifier"]


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_is_on_or_off(name: str) -> None:
    """In any case, and nothing else: `0`, `yes` and `true` are asked back."""
    assert getattr(chosen(**{name: "on"}), name) is True
    assert getattr(chosen(**{name: "OFF"}), name) is False
    for wrong in ("yes", "0", "1", "true", "no", "onn"):
        assert refusal(**{name: wrong}) == f"{name.upper()}: should be on or off"


def test_the_docs_are_shown_in_development_only() -> None:
    """Unless the operator says otherwise, either way."""
    production: dict[str, Any] = {
        "keyturn_env": "production",
        "redis_url": "redis://redis",
        "openai_api_key": "sk-x",
        "api_secret_key": "Wm4-another_secret-for-tests-0xK81vB2cD3eF5gH",
        "allowed_origins": "https://chat.example.org",
    }
    assert (chosen().docs_shown, chosen(docs="off").docs_shown) == (True, False)
    assert not chosen(**production).docs_shown
    assert chosen(**production, docs="on").docs_shown


@pytest.mark.parametrize(
    "url",
    [
        *("", "api.openai.com", "ftp://x/v1", "https://", "https:///v1", "https://u:canary@h/v1"),
        *("https://h/v1?canary=1", "https://h/v1#canary", "https://h /v1", "javascript:x"),
    ],
)
def test_an_upstream_is_a_plain_url(url: str) -> None:
    """Without user, query and fragment, which the paths of the API could not follow."""
    for name in ("openai_base_url", "byok_base_url"):
        said = refusal(**{name: url}, openai_api_key="sk-x", api_secret_key="abcdefgh" * 5)
        assert f"{name.upper()}: should be a URL" in said
        assert "canary" not in said


def test_a_slash_at_the_end_of_an_upstream_is_left_out() -> None:
    """So that no path begins with two."""
    assert chosen(byok_base_url="http://127.0.0.1:9/v1//").byok_base_url == "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    "url", ["http://:canary@redis", "redis:6379", "memcached://x", "REDIS://x", "redis+sentry://x"]
)
def test_redis_is_named_by_a_scheme_that_we_speak(url: str) -> None:
    """The password in it is not repeated."""
    said = refusal(redis_url=url)
    assert said == (
        "REDIS_URL: should begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"),
        ("port", "-1"),
        ("workers", "0"),
        ("max_streams", "0"),
        ("max_output_tokens", "0"),
        ("abort_margin_tokens", "-1"),
        ("abort_margin_tokens", "off"),
        ("abort_margin_tokens", "1.5"),
        ("redis_timeout_ms", "0"),
        ("token_ttl", "0"),
        ("token_ttl", str(10**18)),
        ("chain_ttl", "1.5"),
        ("reuse_grace", "-1"),
        ("reuse_grace", "31536001"),
        ("tenant", "a b"),
        ("tenant", "{x}"),
        ("tenant", ""),
        ("tenant", "x" * 65),
        ("client_ip_header", "X Forwarded"),
        ("keyturn_env", "staging"),
        ("log_level", "verbose"),
        ("vercel", "perhaps"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(name: str, value: str) -> None:
    """Counts and times begin at 1, no time is longer than a year, names are plain."""
    said = refusal(**{name: value})
    assert said.startswith((f"{name.upper()}: input should be", f"{name.upper()}: string should"))


def test_every_allowed_model_has_a_price(tmp_path: Path) -> None:
    """One without is named; so is a default that is not among them."""
    said = refusal(allowed_models="gpt-4.1-mini, gpt-9")
    assert said == "ALLOWED_MODELS: gpt-9 has no price in PRICES_FILE"
    assert refusal(default_model="gpt-9") == "DEFAULT_MODEL: should be one of ALLOWED_MODELS"
    assert "DEFAULT_MODEL" in refusal(allowed_models=",")
    assert "BYOK_MODELS: should name a model" in refusal(byok_models=",")
    own = tmp_path / "prices.toml"
    own.write_text("[models.own]\ninput = 1\ncached_input = 1\noutput = 2")
    settings = chosen(prices_file=own, allowed_models="own", default_model="own")
    assert settings.prices["own"].output == 2_000_000


@pytest.mark.parametrize("toml", ["x =", "models = 3", "[models.m]\ninput = nan", "\udcff"])
def test_a_price_list_that_cannot_be_read_is_a_mistake_and_no_crash(
    tmp_path: Path, toml: str
) -> None:
    """What is wrong with it is said, in one line."""
    wrong = tmp_path / "prices.toml"
    wrong.write_bytes(toml.encode("utf-8", "surrogateescape"))
    assert refusal(prices_file=wrong).startswith("PRICES_FILE: should be a price list; ")
    for nothing in (tmp_path / "nowhere", tmp_path):
        assert refusal(prices_file=nothing) == "PRICES_FILE: should be a readable file"


def test_the_system_prompt_comes_from_the_setting_or_its_file(tmp_path: Path) -> None:
    """From one of them; one that locks nothing, or cannot be sent, is refused at start."""
    file = tmp_path / "prompt.txt"
    file.write_bytes("Sei knapp. 🙂\n".encode())
    assert chosen().locked_prompt is None
    assert chosen(system_prompt="Be brief.").locked_prompt == "Be brief."
    assert chosen(system_prompt_file=file).locked_prompt == "Sei knapp. 🙂\n"
    both = refusal(system_prompt="x", system_prompt_file=file)
    assert both == "SYSTEM_PROMPT: set it or SYSTEM_PROMPT_FILE, not both"
    for blank in ("  ", "\n", "a\x00b", "\udcff"):
        assert refusal(system_prompt=blank).startswith("SYSTEM_PROMPT: should be text")
    for raw in (b"", b" \n", b"a\x00b"):
        file.write_bytes(raw)
        assert refusal(system_prompt_file=file).startswith("SYSTEM_PROMPT_FILE: should be text")
    file.write_bytes(b"\xff")
    for wrong in (file, tmp_path, tmp_path / "nowhere"):
        said = refusal(system_prompt_file=wrong)
        assert said == "SYSTEM_PROMPT_FILE: should be a readable file in UTF-8"


@pytest.mark.parametrize(
    "url",
    [
        *("redis://:hunt/er2@host:6379", "redis://:hunt#er2@host:6379", "redis://host:65536"),
        *("redis://[::1", "redis://host:6379/0?nonsense", "redis+cluster://:hunt/er2@host:1"),
        "redis+sentinel://:hunt@er2@host:1/mymaster",
    ],
)
def test_a_redis_url_that_cannot_be_read_is_named_and_not_shown(url: str) -> None:
    """With how to write the signs that a URL takes for its own; no part of a password is told."""
    said = refusal(redis_url=url)
    assert said.startswith("REDIS_URL: ")
    assert "hunt" not in said
    assert "er2" not in said


def test_a_redis_url_does_not_overrule_our_deadlines() -> None:
    """Its options may choose the database and TLS, and nothing else."""
    said = refusal(redis_url="redis://host:6379/0?socket_timeout=60")
    assert said == "REDIS_URL: may have the options db and ssl_*, and no others"
    for good in (
        "rediss://user:p%2Fw%40d@host:6380/1?ssl_cert_reqs=required&db=2",
        "rediss+sentinel://user:p%2Fw%40d@one,two:7000/mymaster/1?sentinel_password=its-own",
        "redis+cluster://user:p%2Fw%40d@one,two:7000",
    ):
        assert chosen(redis_url=good).redis_url


def test_its_own_page_may_chat_on_the_usual_port() -> None:
    """Browsers leave :80 out of the origin."""
    assert "http://localhost" in chosen(port=80).origins
    assert "http://localhost:8000" in chosen(port=8000).origins
