"""Reaching a cluster: every wait has an end."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from gearshift.errors import ConnectionFailed, PublishRefused, TopologyConflict
from gearshift_kafka.backend import Backend
from gearshift_kafka.errors import classify
from gearshift_kafka.settings import Settings


def test_the_client_is_never_told_to_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline that passes between two attempts gives no negative timeout, which has no end."""
    asked: list[float] = []

    class Silent:
        def __init__(self, _conf: dict[str, Any]) -> None: ...

        def list_topics(self, *, timeout: float) -> None:
            asked.append(timeout)
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

        def poll(self, _timeout: float) -> None: ...

    ticks = itertools.count(step=0.12)
    monkeypatch.setattr("gearshift_kafka.backend.AdminClient", Silent)
    monkeypatch.setattr(
        "gearshift_kafka.backend.time", SimpleNamespace(monotonic=lambda: next(ticks))
    )
    settings = Settings(bootstrap_servers=("127.0.0.1:1",), connect_timeout_s=0.4)
    with pytest.raises(KafkaException):
        Backend(settings).admin()
    assert len(asked) > 1
    assert min(asked) > 0


@pytest.mark.parametrize(
    "error",
    [
        KafkaError(KafkaError.INCONSISTENT_GROUP_PROTOCOL),
        KafkaError(KafkaError._FATAL, "ShareGroupHeartbeat: Broker: The group id does not exist"),
    ],
)
def test_a_group_of_another_kind_is_told(error: KafkaError) -> None:
    """A stream that became a queue, under the same group: no broker is down."""
    found = classify(KafkaException(error), "h:1")
    assert isinstance(found, TopologyConflict)
    assert "another kind" in found.message


def test_a_compacted_topic_is_known_by_its_refusal() -> None:
    """The broker only says that it has not validated the record."""
    found = classify(KafkaException(KafkaError(KafkaError.INVALID_RECORD)), "h:1")
    assert isinstance(found, PublishRefused)
    assert found.hint is not None
    assert "with a key" in found.hint


def test_a_broker_that_still_loads_its_groups_is_not_called_down() -> None:
    """It answers, so nobody should look for one that is away."""
    found = classify(KafkaException(KafkaError(KafkaError.NOT_COORDINATOR)), "h:1")
    assert isinstance(found, ConnectionFailed)
    assert found.message.startswith("h:1 is up, but not ready")
