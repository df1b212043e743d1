"""Alert rules and dashboard: a real Prometheus takes them, and they name what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.waiting import PATIENCE_S, take, until

import gearshift
from gearshift.telemetry.metrics import METRICS
from gearshift.telemetry.server import TelemetryServer
from native_brokers import Prometheus
from native_brokers.prometheus import PROMTOOL

COMPOSE = Path(__file__).parents[2] / "compose"
RULES = COMPOSE / "prometheus"
DASHBOARD = json.loads((COMPOSE / "grafana" / "gearshift.json").read_text())
SETTINGS = {"profiles": {"m": {"backend": "memory"}}, "channels": {"orders": {}}}
#: What Grafana puts in the place of its variables.
VARIABLES = {"$__rate_interval": "1m", "$job": "gearshift", "$channel": ".*"}
#: Suffixes of what a scrape shows of one metric.
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "durations": ("_bucket", "_count", "_sum")}

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def bus() -> Iterator[gearshift.Bus]:
    """One that has sent a message and buried it."""
    with gearshift.open(settings=SETTINGS) as bus:
        bus.producer("orders").send(1)
        take(bus.consumer("orders"), 1)[0].reject("no")
        assert until(lambda: bus.dead_letters("orders.dead") == 1)
        yield bus


@pytest.fixture(scope="module")
def prometheus(
    bus: gearshift.Bus, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus with our configuration, every second, that scrapes the service's page."""
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copy(RULES / "alerts.yml", folder)
    with TelemetryServer(bus, "127.0.0.1", 0) as service:
        text = (RULES / "prometheus.yml").read_text()
        text = text.replace("127.0.0.1:9102", f"127.0.0.1:{service.port}").replace("15s", "1s")
        (folder / "prometheus.yml").write_text(text)
        with Prometheus(folder / "prometheus.yml") as server:
            yield server


def ask(prometheus: Prometheus, path: str, **parameters: str) -> Any:
    """The data of an answer of Prometheus's API, which fails for what it cannot parse."""
    url = f"{prometheus.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        found = json.load(answer)
    assert found["status"] == "success"
    return found["data"]


def dashboard_queries() -> list[str]:
    """Every query of the dashboard as Prometheus gets it."""
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    for variable, value in VARIABLES.items():
        queries = [query.replace(variable, value) for query in queries]
    return queries


def rules(prometheus: Prometheus) -> list[dict[str, Any]]:
    """Our rules as Prometheus has loaded them."""
    return [rule for group in ask(prometheus, "rules")["groups"] for rule in group["rules"]]


def test_an_alert_fires_on_what_a_service_tells(prometheus: Prometheus) -> None:
    """A dead letter is scraped from a running service, and Prometheus raises the alert."""

    def firing() -> dict[str, dict[str, str]]:
        alerts = ask(prometheus, "alerts")["alerts"]
        return {a["labels"]["alertname"]: a for a in alerts if a["state"] == "firing"}

    assert until(lambda: "GearshiftDeadLetters" in firing())
    alert = firing()["GearshiftDeadLetters"]
    assert alert["labels"]["channel"] == "orders.dead"
    assert alert["annotations"]["summary"] == "1 dead letters wait in orders.dead"
    assert firing().keys() == {"GearshiftDeadLetters"}
    assert {rule["health"] for rule in rules(prometheus)} == {"ok"}


def test_every_query_of_the_dashboard_is_taken(prometheus: Prometheus) -> None:
    """Those of what waits show the service's numbers."""
    found = {
        query: ask(prometheus, "query", query=query)["result"] for query in dashboard_queries()
    }
    assert len(found) == len(dashboard_queries()) > 15
    (dead,) = (result for query, result in found.items() if "gearshift_dead_letters" in query)
    assert dead[0]["value"][1] == "1"


def test_queries_and_rules_name_metrics_that_there_are(prometheus: Prometheus) -> None:
    """By their names in a scrape; every alert asks for at least one."""
    there = {row.prometheus + suffix for row in METRICS for suffix in SUFFIXES[row.kind]}
    queries = dashboard_queries() + [rule["query"] for rule in rules(prometheus)]
    named = [set(re.findall(r"\bgearshift_\w+|\bup\b", query)) for query in queries]
    assert all(named)
    assert set().union(*named) - there == {"up"}


def test_each_alert_fires_on_what_it_is_for() -> None:
    """And none on a healthy service: promtool, on series that are written down."""
    PROMTOOL.install()
    done = subprocess.run(
        [PROMTOOL.path(), "test", "rules", "alerts.test.yml"],
        cwd=RULES,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = (RULES / "alerts.test.yml").read_text().partition("everything is wrong")[2]
    alerts = re.findall(r"alert: (\w+)", (RULES / "alerts.yml").read_text())
    assert [alert for alert in alerts if f'alertname="{alert}"' not in wrong] == []
