"""A short comparison on real RabbitMQ and Kafka agrees with what their documentation says."""

from __future__ import annotations

from pathlib import Path

import pytest

from gearshift import compare
from gearshift.compare import Options
from native_brokers import Kafka, RabbitMQ

pytestmark = [pytest.mark.broker, pytest.mark.timeout(400)]

EXPECTED = {
    "ordering": ("none", "key", "key", "none"),
    "crash": ("flagged", "unflagged", "unflagged", "flagged"),
    "fan_out": ("from_now", "history", "history", "from_now"),
    "replay": ("unsupported", "replayed", "replayed", "unsupported"),
    "poison": ("overtaken", "key_waits", "key_waits", "overtaken"),
    "slow": ("broker", "broker", "broker", "broker"),
    "scaling": ("any", "partitions", "partitions", "any"),
}


def test_all_seven_in_all_four_columns(rabbitmq: RabbitMQ, kafka: Kafka, tmp_path: Path) -> None:
    """Queue and stream on RabbitMQ, stream and queue on Kafka: every verdict as documented."""
    (tmp_path / "gearshift.toml").write_text(
        f'profile = "rabbit"\n[profiles.rabbit]\nbackend = "rabbitmq"\nurl = "{rabbitmq.url}"\n'
        f'[profiles.kafka]\nbackend = "kafka"\nbootstrap_servers = ["{kafka.url}"]\n'
    )
    columns = ["rabbit:queue", "rabbit:stream", "kafka:stream", "kafka:queue"]
    found = compare.run(columns, options=Options(messages=160))
    outcomes = {
        finding.scenario: tuple(o.outcome for o in finding.observations)
        for finding in found.findings
    }
    sentences = [o.sentence for finding in found.findings for o in finding.observations]
    assert outcomes == EXPECTED, sentences
    assert len(found.html().encode()) < 1_500_000
