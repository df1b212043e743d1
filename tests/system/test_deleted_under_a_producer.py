"""A channel that is deleted under a producer is declared again by it, as its consumers do."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.settings import settings_of
from support.waiting import take

import gearshift

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

#: RabbitMQ, where others can delete an exchange alone, has tests of its own.
_KINDS = ["kafka:stream", "redis:queue", "memory:queue", "memory:stream", "sqlite:queue",
          "sqlite:stream"]  # fmt: skip


@pytest.mark.parametrize("kind", _KINDS)
def test_a_channel_deleted_under_a_producer_is_declared_again(
    request: pytest.FixtureRequest, kind: str, tmp_path: Path, name: str
) -> None:
    """The send that meets it succeeds, and what it sent reaches the group."""
    with gearshift.open(settings_of(request, kind, tmp_path, name)) as bus:
        producer = bus.producer(name)
        producer.send("before")
        bus.delete(name)
        producer.send("after")
        with bus.consumer(name, group="g") as consumer:
            assert [one.value for one in take(consumer, 1)] == ["after"]
