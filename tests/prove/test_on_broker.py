"""Stories that were found without a broker, played on real ones."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from prove import faulty
from prove.subject import collected
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
    assert story.rule == "lost ack"
    assert str(story.on_broker).startswith("seen on "), story


@pytest.mark.parametrize("kind", ["rabbitmq", "kafka"])
def test_a_death_is_a_killed_process(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """In the middle of the handler: what it wrote is there, and another process does it again."""
    app = gearshift.App()
    paid, done, began, ended = (tmp_path / name for name in ("paid", "done", "began", "ended"))

    @app.handler("payments")
    def pay(cents: int, delivery: Delivery[Any]) -> None:
        _write(began, os.getpid())
        try:
            if str(delivery.id) not in _lines(done):
                _write(paid, cents)
                _write(done, delivery.id)
        finally:
            _write(ended, os.getpid())

    def reset() -> None:
        paid.write_text("")
        done.write_text("")

    found = prove(
        app,
        state=lambda: _lines(paid),
        reset=reset,
        examples=PAYMENTS,
        cases=200,
        processes=1,
        config=_settings(request.getfixturevalue(kind), tmp_path),
        on_broker=True,
    )
    (story,) = [one for one in found.stories if one.rule == "crash inside"]
    assert str(story.on_broker).startswith("seen on "), story
    (killed,) = {*_lines(began)} - {str(os.getpid())}
    assert killed not in _lines(ended)


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (faulty.seen_set_in_memory, "crash after"),
        (faulty.order_on_a_queue, "reordered"),
        (faulty.late_copy_overwrites, "returns late"),
        (faulty.check_then_act, "overlap"),
        (faulty.shared_client, "overlap"),
        (faulty.order_among_keys, "reordered"),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_a_story_is_seen_on_its_broker(
    build: object, rule: str, request: pytest.FixtureRequest
) -> None:
    """One of each kind; ``corpus_on_brokers.py`` plays them all."""
    subject = next(one for one in collected() if one.build is build)
    profile = tomllib.loads(profile_of(request.getfixturevalue(subject.profile)))
    played = {one.rule: str(one.on_broker) for one in subject.proof(150, profile).stories}
    assert played[rule].startswith("seen on "), played


def test_a_flag_that_the_broker_keeps_is_not_tried(rabbitmq: Broker) -> None:
    """RabbitMQ flags what it gives again: that story is neither seen nor not seen there."""
    subject = next(one for one in collected() if one.build is faulty.goes_by_redelivered)
    profile = tomllib.loads(profile_of(rabbitmq))
    played = {one.rule: str(one.on_broker) for one in subject.proof(150, profile).stories}
    assert played["unflagged"].startswith("not tried: the broker flags what"), played


def _lines(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def _write(file: Path, text: object) -> None:
    with file.open("a") as lines:
        lines.write(f"{text}\n")
