"""The same service file, unchanged, on three brokers: 10,000 orders, a killed worker, no loss."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "docs" / "examples" / "order_service" / "demo.py"

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


@pytest.mark.parametrize("profile", ["embedded", "rabbit", "kafka"])
def test_every_order_is_accounted_for(
    profile: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GEARSHIFT_PROFILE alone chooses the broker; both groups process every order at least once."""
    if profile == "rabbit":
        rabbitmq = request.getfixturevalue("rabbitmq")
        monkeypatch.setenv("RABBITMQ_URL", rabbitmq.url)
        before = rabbitmq.names()
    if profile == "kafka":
        monkeypatch.setenv("KAFKA_BOOTSTRAP", request.getfixturevalue("kafka").url)
    run = subprocess.run(
        [sys.executable, str(DEMO), profile, "10000"], capture_output=True, text=True, timeout=280
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "audit      10000 processed" in run.stdout
    assert "billing    9999 processed" in run.stdout  # all but the poison order
    assert run.stdout.count(" 0 lost") == 2
    assert "dead       order 13: gave up after 3 attempts" in run.stdout
    if profile == "rabbit":
        assert rabbitmq.names() == before
