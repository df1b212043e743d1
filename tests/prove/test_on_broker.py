"""Stories that were found without a broker, played on real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.settings import profile_of, write_settings

import gearshift
from gearshift import Delivery
from gearshift.testing.prove import Example, prove
from native_brokers import Broker

pytestmark = pytest.mark.broker

PAYMENTS = [Example(5, key="ada"), Example(7, key="ada")]


def _settings(broker: Broker, folder: Path) -> Path:
    semantics = "queue" if "rabbit" in type(broker).__name__.lower() else "stream"
    channels = f'[channels.payments]\nsemantics = "{semantics}"'
    return write_settings(folder, profile_of(broker), channels)


@pytest.mark.parametrize("kind", ["rabbitmq", "kafka"])
def test_a_lost_ack_is_seen_on_the_broker(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """What a handler that adds does not stand, it does not stand there either."""
    app, table = gearshift.App(), {"total": 0}

    @app.handler("payments")
    def add(cents: int) -> None:
        table["total"] += cents

    settings = _settings(request.getfixturevalue(kind), tmp_path)
    found = prove(
        app, state=lambda: table, examples=PAYMENTS, cases=100, config=settings, on_broker=True
    )
    (story,) = found.stories
    assert story.rule == "ack unseen"
    assert str(story.on_broker).startswith("seen on "), story


def test_what_stands_in_memory_dies_with_the_process(rabbitmq: Broker, tmp_path: Path) -> None:
    """A set of seen ids is no help when another process gets the message."""
    app, table, seen = gearshift.App(), {"total": 0}, set[str | None]()

    @app.handler("payments")
    def add(cents: int, delivery: Delivery[Any]) -> None:
        if delivery.id not in seen:
            seen.add(delivery.id)
            table["total"] += cents

    found = prove(
        app,
        state=lambda: table,
        examples=PAYMENTS,
        cases=200,
        processes=1,
        config=_settings(rabbitmq, tmp_path),
        on_broker=True,
    )
    played = {story.rule: str(story.on_broker) for story in found.stories}
    assert played["death after"].startswith("seen on RabbitMQ"), played


def test_a_late_copy_is_seen_on_the_broker(rabbitmq: Broker, tmp_path: Path) -> None:
    """What one consumer gives back comes after what another got meanwhile."""
    app, table = gearshift.App(), dict[str, str]()

    @app.handler("payments")
    def keep(status: str) -> None:
        table["status"] = status

    found = prove(
        app,
        state=lambda: table,
        examples=[Example("placed", key="ada"), Example("paid", key="ada")],
        cases=200,
        processes=1,
        config=_settings(rabbitmq, tmp_path),
        on_broker=True,
    )
    (story,) = found.stories
    assert story.rule == "returns late"
    assert str(story.on_broker).startswith("seen on RabbitMQ"), story
