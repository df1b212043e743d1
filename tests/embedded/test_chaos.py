"""A service under chaos: what does not stand its broker goes wrong, and the same each time."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import pytest
from support.waiting import until

import gearshift
from gearshift.capabilities import Durability
from gearshift.chaos import Settings
from gearshift.chaos.consumers import ChaosQueueConsumer
from gearshift.chaos.injector import ConnectionDropped, Injector, Side
from gearshift.chaos.producer import ChaosProducer
from gearshift.chaos.settings import Kind, Rates
from gearshift.driver import (
    OnOutcomes,
    Outcome,
    ProducerDriver,
    QueueDriver,
    Received,
    Settlement,
    SettleRequest,
    Stored,
)
from gearshift.embedded.capabilities import declared
from gearshift.message import Message, Semantics
from gearshift.misfortunes import Situation
from gearshift.plugins import load
from gearshift.worker.worker import Worker

PAYMENTS = 60


def settings_of(path: Path, semantics: Semantics) -> dict[str, object]:
    """A profile with chaos over SQLite, and its channel."""
    rate = 0.1 if semantics is Semantics.QUEUE else 0.5  # of messages, or of commits
    chaos = {"backend": "chaos", "over": "dev", "seed": 7, "rate": 0.05, "quiet_s": 0.0}
    return {
        "profile": "staging",
        "profiles": {
            "dev": {"backend": "sqlite", "path": str(path)},
            "staging": {**chaos, "late_s": 0.05, "rates": {"lost_ack": rate}},
        },
        "channels": {"payments": {"semantics": str(semantics), "groups": ["default"]}},
    }


@pytest.mark.parametrize("semantics", list(Semantics))
def test_a_handler_that_adds_goes_wrong_and_one_that_knows_ids_does_not(
    semantics: Semantics, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Read, add and write, without the id; beside it a row for each id."""
    caplog.set_level(logging.INFO, "gearshift.chaos")
    app = gearshift.App()
    balance = 0
    rows: dict[str | None, int] = {}

    @app.handler("payments")
    def pay(cents: int, delivery: gearshift.Delivery) -> None:
        nonlocal balance
        balance += cents
        rows[delivery.id] = cents

    settings = settings_of(tmp_path / "chaos.db", semantics)
    with gearshift.open(settings=settings) as bus:
        with bus.producer("payments") as payments:
            for number in range(PAYMENTS):
                payments.send(1, key=f"account {number % 3}")
        worker = Worker(app, bus)
        worker.start()
        assert until(lambda: len(rows) == PAYMENTS and bus.groups("payments")[0].waiting == 0)
        worker.stop()
    assert sum(rows.values()) == PAYMENTS
    assert balance > PAYMENTS
    told = [record.getMessage() for record in caplog.records]
    assert "chaos is on, over profile 'dev' with seed 7" in told[0]
    assert any("connection lost" in line and "redelivery: " in line for line in told)
    assert "misfortunes played: " in told[-1]
    assert "lost_ack" in told[-1]


def test_what_happens_follows_from_the_seed() -> None:
    """Driver by driver; another seed, and another driver, draw other faults."""

    def drawn(seed: int) -> list[list[bool]]:
        side = Side("orders", Settings(over="x", seed=seed, rate=0.3), lambda text: None)
        situation = Situation(capabilities=declared_queue(), semantics=Semantics.QUEUE)
        injectors = [Injector(side, situation) for _ in range(2)]
        return [[injector.strikes(Kind.LATE) for _ in range(50)] for injector in injectors]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)
    assert drawn(7)[0] != drawn(7)[1]


def test_what_no_rule_allows_does_not_happen() -> None:
    """Flags of an embedded queue are exact: none is taken away, whatever the rate."""
    side = Side("orders", Settings(over="x", rate=1.0), lambda text: None)
    injector = Injector(side, Situation(capabilities=declared_queue(), semantics=Semantics.QUEUE))
    assert injector.strikes(Kind.LOST_ACK)
    assert not injector.strikes(Kind.UNFLAGGED)
    assert not injector.strikes(Kind.SESSION_LOST)  # a connection was lost just now


class Gives(QueueDriver):
    """Hands out what it is given, and forgets what is settled."""

    def __init__(self, *received: Received) -> None:
        self._received = list(received)

    def receive(self, max_messages: int, timeout_s: float) -> list[Received]:
        given, self._received = self._received[:max_messages], self._received[max_messages:]
        return given

    def settle(self, requests: object) -> tuple[()]:
        return ()

    def wake(self) -> None:
        """Nothing waits."""

    def close(self, timeout_s: float) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(("backend", "first_again"), [("rabbitmq", "m2"), ("sqlite", "m1")])
def test_what_comes_again_lets_its_key_pass_where_that_may_happen(
    backend: str, first_again: str
) -> None:
    """On a queue that gives back single messages; not where a key keeps its order."""
    rates = Rates(lost_ack=1.0, returns_late=1.0)
    settings = Settings(over="x", seed=1, rate=0.0, rates=rates, late_s=0.05, quiet_s=60.0)
    side = Side("orders", settings, lambda text: None)
    capabilities = load(backend).capabilities[Semantics.QUEUE]
    situation = Situation(capabilities=capabilities, semantics=Semantics.QUEUE, processes=1)
    one, two = (Message(b"", id=id, key="ada") for id in ("m1", "m2"))
    token = [1]  # like a backend's own: it need not be hashable
    consumer = ChaosQueueConsumer(Gives(Received(one, token)), Injector(side, situation))
    consumer.receive(10, 0.0)
    with pytest.raises(ConnectionDropped):
        consumer.settle([SettleRequest(token, Settlement.ACK)])
    again = Gives(Received(one, [2], redelivered=True), Received(two, [3]))
    consumer = ChaosQueueConsumer(again, Injector(side, situation))
    got: list[Received] = []
    assert until(lambda: got.extend(consumer.receive(10, 0.0)) or len(got) == 2)
    assert got[0].message.id == first_again


class Stores(ProducerDriver):
    """Confirms what it is given when it is told to."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[Message], OnOutcomes]] = []

    def submit(self, messages: object, on_outcomes: OnOutcomes) -> None:
        self.batches.append((list(messages), on_outcomes))  # type: ignore[call-overload]

    def close(self, timeout_s: float) -> None:
        self.confirm()

    def confirm(self) -> None:
        for messages, on_outcomes in self.batches:
            on_outcomes([Outcome(number, Stored.YES) for number in range(len(messages))])
        self.batches.clear()


def test_nothing_is_stored_behind_what_a_lost_connection_left_open() -> None:
    """Else a message that is sent again would come after later ones of its key."""
    settings = Settings(over="x", seed=1, rate=0.0, rates=Rates(send_unconfirmed=1.0))
    side = Side("orders", settings, lambda text: None)
    injector = Injector(side, Situation(capabilities=declared_queue(), semantics=Semantics.QUEUE))
    below = Stores()
    producer = ChaosProducer(below, injector)
    first: list[Outcome] = []
    second: list[Outcome] = []
    with patch.object(injector, "number", lambda kind, least, most: 2):
        producer.submit([Message(b"")] * 3, first.extend)
    producer.submit([Message(b"")], second.extend)
    assert [len(messages) for messages, _ in below.batches] == [2]
    assert producer.ended is None
    below.confirm()
    assert Counter(one.stored for one in first) == {Stored.UNKNOWN: 3}
    assert [one.stored for one in second] == [Stored.NO]
    assert producer.ended is not None


def declared_queue() -> gearshift.Capabilities:
    """Those of an embedded queue."""
    return declared(Durability.PROCESS)[Semantics.QUEUE]
