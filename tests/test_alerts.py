"""deploy/: the alert rules, the scrape configuration and the dashboard, by Prometheus' own tools.

A real Prometheus scrapes a real server of four workers while visitors chat, replay tokens and fail.
"""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from metric_families import FAMILIES
from tests.command_stage import server_py
from tests.prometheus_stage import (
    DEPLOY,
    METRICS_TOKEN,
    NEEDS_PROMETHEUS,
    Prometheus,
    prometheus,
)
from tests.stage import (
    CHAT,
    OPERATORS_KEY,
    RESPONSES,
    ROOT,
    SECRET,
    Upstream,
    redis_process,
    upstream_process,
    visiting,
    wait_until,
)
from tests.upstream import play

pytestmark = NEEDS_PROMETHEUS

RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
CASES = yaml.safe_load((DEPLOY / "alerts_test.yml").read_text())["tests"]
BOARD = json.loads((DEPLOY / "grafana/dashboards/keyturn.json").read_text())
QUERIES = {
    f"{panel['title']}, {target['legendFormat']}": target["expr"]
    for panel in BOARD["panels"]
    for target in panel["targets"]
}
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
MANY = "100000/minute"
VISITORS, TURNS = 8, 12  # of each: a load with an end


def promtool(*arguments: str, folder: Path = DEPLOY) -> "subprocess.CompletedProcess[str]":
    """Run it in a folder."""
    command = ["promtool", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_rules_are_well_formed() -> None:
    """`promtool check rules` and `check config` find no fault."""
    rules = promtool("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml")
    assert rules.returncode == 0, rules.stderr
    config = promtool("check", "config", "--syntax-only", "prometheus.yml")
    assert config.returncode == 0, config.stderr


def test_alerts_fire_on_bad_series_and_on_no_good_ones() -> None:
    """`promtool test rules` passes, each alert has a case in which it fires and one in which all
    series are good, at two times."""
    run = promtool("test", "rules", "alerts_test.yml")
    assert run.returncode == 0, run.stdout + run.stderr
    told = [each for case in CASES for each in case["alert_rule_test"]]
    fired = {each["alertname"] for each in told if each["exp_alerts"]}
    quiet = [each["alertname"] for each in CASES[0]["alert_rule_test"] if not each["exp_alerts"]]
    names = {rule["alert"] for rule in RULES}
    assert fired == names == set(quiet)
    assert len(quiet) == 2 * len(names)


@pytest.mark.parametrize("name", [rule["alert"] for rule in RULES])
def test_a_rule_that_never_fires_would_be_noticed(name: str, tmp_path: Path) -> None:
    """The control: with this one rule turned to one that is never true, the cases fail."""
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        if rule["alert"] == name:
            rule["expr"] = "vector(0) > 1"
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    (tmp_path / "alerts_test.yml").write_text((DEPLOY / "alerts_test.yml").read_text())
    assert promtool("test", "rules", "alerts_test.yml", folder=tmp_path).returncode == 1


def test_rules_and_panels_name_series_that_exist() -> None:
    """Nothing is asked of a family that Keyturn does not have, and each family is looked at."""
    asked = " ".join([*QUERIES.values(), *(rule["expr"] for rule in RULES)])
    named = set(re.findall(r"keyturn_[a-z_]+", asked))
    for family in FAMILIES:
        shown = {family.name, *(f"{family.name}_{part}" for part in ("bucket", "sum", "count"))}
        assert named & shown, f"nobody looks at {family.name}"
        named -= shown
    assert named == set()


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped four workers while they were busy."""
    folder = tmp_path_factory.mktemp("scraped")
    with (
        redis_process("--maxmemory-policy", "noeviction") as store,
        upstream_process() as upstream,
        keyturn(folder / "server", store, upstream) as url,
        prometheus(folder, url) as watching,
    ):
        wait_until(lambda: watching.values("keyturn_workers") == [4], 30)
        asyncio.run(busy(url))
        done = f"sum(keyturn_turns_total) == {VISITORS * (TURNS + 2)}"
        wait_until(lambda: watching.values(done), 60)
        rates = 'sum(rate(keyturn_turns_total{code="ok"}[1m])) > 0'
        wait_until(lambda: watching.values(rates), 30)
        yield watching


@contextmanager
def keyturn(folder: Path, store: str, upstream: Upstream) -> Iterator[str]:
    """`WORKERS=4 python server.py` with metrics; yields its URL."""
    said = {"REDIS_URL": store, "OPENAI_BASE_URL": upstream.url, "WORKERS": "4"}
    keys = {"OPENAI_API_KEY": OPERATORS_KEY, "API_SECRET_KEY": SECRET}
    limits = dict.fromkeys(("RATE_LIMIT", "START_LIMIT", "START_LIMIT_GLOBAL"), MANY)
    more = {"METRICS_TOKEN": METRICS_TOKEN, "MAX_STREAMS_PER_IP": "1000"}
    with server_py(folder, **said, **keys, **limits, **more) as running:
        yield running.url
        assert running.end() == 0


async def busy(url: str) -> None:
    """Visitors who chat by both APIs, on connections of their own; some replay, some fail."""
    await asyncio.gather(*(one_visitor(url, number) for number in range(VISITORS)))


async def one_visitor(url: str, number: int) -> None:
    """Some turns of one visitor, over some seconds, so that rates can be seen to rise."""
    path = (CHAT, RESPONSES)[number % 2]
    async with visiting(url, path=path, extra={"Connection": "close"}) as visitor:
        for turn in range(TURNS):
            old = visitor.token
            model = ("gpt-4.1-mini", "gpt-4o-mini")[turn % 2]
            await visitor.say(play(words=5, gap_ms=60, prompt=50), model=model)
            if turn == 3:
                await visitor.post(visitor.body(), visitor.headers(Authorization=f"Bearer {old}"))
            if turn == 4:
                await visitor.say(play(error_after=1))


@pytest.mark.parametrize("title", QUERIES)
def test_each_panel_shows_something(scraped: Prometheus, title: str) -> None:
    """Its expression is understood and finds numbers, with the range that Grafana would put in."""
    query = QUERIES[title].replace("$__rate_interval", "1m")
    assert "$" not in query
    wait_until(lambda: scraped.values(query), 20)


def test_a_panel_that_shows_nothing_would_be_noticed(scraped: Prometheus) -> None:
    """The control: a series that nobody has."""
    assert scraped.values("sum(rate(keyturn_none_such_total[1m]))") == []


def test_prometheus_has_the_sum_of_all_workers(scraped: Prometheus) -> None:
    """One target: what four workers counted, each of them once."""
    assert scraped.values('sum(keyturn_turns_total{code="ok"})') == [VISITORS * TURNS]
    assert scraped.values('sum(keyturn_turns_total{code="token_reused"})') == [VISITORS]
    assert scraped.values('sum(keyturn_turns_total{code="upstream_unavailable"})') == [VISITORS]
    assert scraped.values("count(up)") == scraped.values("sum(up)") == [1]


def test_what_was_billed_is_what_was_spent(scraped: Prometheus) -> None:
    """The counter that workers add up, and the ledger in Redis, tell the same money."""
    (counted,) = scraped.values("sum(keyturn_cost_usd_total)")
    (spent,) = scraped.values("keyturn_budget_spent_usd")
    assert counted == pytest.approx(spent)
    assert counted > 0


def test_every_rule_is_evaluated(scraped: Prometheus) -> None:
    """On what a real server tells each rule is healthy; none but those of this load is pending."""

    def evaluated() -> bool:
        groups = scraped.ask("rules")["groups"]
        return all(rule["health"] == "ok" for group in groups for rule in group["rules"])

    wait_until(evaluated, 20)
    pending = {alert["labels"]["alertname"] for alert in scraped.ask("alerts")["alerts"]}
    assert pending <= {"KeyturnReplaySpike", "KeyturnServerErrors"}


def test_compose_starts_what_deploy_describes() -> None:
    """The profile `observability`: the target is the service, the files are mounted where they are
    looked for, the token comes as a secret, and nothing is published beyond loopback."""
    services = COMPOSE["services"]
    watching, showing = services["prometheus"], services["grafana"]
    assert watching["profiles"] == showing["profiles"] == ["observability"]
    assert "profiles" not in services["keyturn"]
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    port = services["keyturn"]["environment"]["PORT"]
    assert job["static_configs"] == [{"targets": [f"keyturn:{port}"]}]
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_token"
    assert COMPOSE["secrets"] == {"metrics_token": {"environment": "METRICS_TOKEN"}}
    for service in (watching, showing):
        mounted = dict(each.split(":")[:2] for each in service["volumes"] if each.startswith("./"))
        assert all((ROOT / source).exists() for source in mounted)
        assert all(each.startswith("127.0.0.1:") for each in service["ports"])
    provisioned = DEPLOY / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioned / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    assert {panel["datasource"]["uid"] for panel in BOARD["panels"]} == {source["uid"]}
    (provider,) = yaml.safe_load((provisioned / "dashboards/keyturn.yml").read_text())["providers"]
    assert provider["options"]["path"] in {each.split(":")[1] for each in showing["volumes"]}
