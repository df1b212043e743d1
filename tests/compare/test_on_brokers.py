"""A short comparison on real RabbitMQ and Kafka agrees with what their documentation says."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.settings import profiles_of

from gearshift import compare
from gearshift.compare import Comparison, Options
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


@pytest.fixture(autouse=True)
def _settings(rabbitmq: RabbitMQ, kafka: Kafka, tmp_path: Path) -> None:
    """Profiles for both brokers."""
    (tmp_path / "gearshift.toml").write_text(profiles_of(rabbit=rabbitmq, kafka=kafka))


def outcomes(found: Comparison) -> dict[str, tuple[str, ...]]:
    return {
        finding.scenario: tuple(o.outcome for o in finding.observations)
        for finding in found.findings
    }


def test_all_seven_in_all_four_columns() -> None:
    """Queue and stream on RabbitMQ, stream and queue on Kafka: every verdict as documented."""
    columns = ["rabbit:queue", "rabbit:stream", "kafka:stream", "kafka:queue"]
    found = compare.run(columns, options=Options(messages=160))
    sentences = [o.sentence for finding in found.findings for o in finding.observations]
    assert outcomes(found) == EXPECTED, sentences
    assert len(found.html().encode()) < 1_000_000


def test_a_handler_that_acks_first_loses_messages() -> None:
    """On a queue and on a stream: the crash row says LOST, which is not what was declared."""
    options = Options(messages=80, settle="first")
    found = compare.run(["rabbit:queue", "kafka:stream"], scenarios=["crash"], options=options)
    assert outcomes(found) == {"crash": ("lost", "lost")}
    assert [o.agrees for o in found.findings[0].observations] == ["no", "no"]
