"""Who drives a producer's connection: lone senders do, and the own thread whenever they cannot."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from support.waiting import PATIENCE_S, until

import gearshift
from gearshift.driver import Outcome, Stored, handover
from gearshift.driver.handover import Handover
from gearshift.message import Headers, Message
from gearshift_rabbitmq.confirms import Target
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.producer import Producer
from gearshift_rabbitmq.settings import Settings
from gearshift_rabbitmq.wire.encoding import properties_of
from gearshift_rabbitmq.wire.publishing import Publication
from native_brokers import RabbitMQ

from .conftest import OpenBus, ready_in

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]


class Sender:
    """Sends lone messages, and knows which thread brought each outcome."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self.told: list[tuple[threading.Thread, Outcome]] = []

    def submit(self) -> None:
        self.producer.submit([Message(b"submitted")], self.tell)

    def send(self, done: Any = None) -> threading.Thread:
        """Send and wait, as core does; return the thread that brought the outcome."""
        come, before = threading.Event(), len(self.told)

        def tell(outcomes: Sequence[Outcome]) -> None:
            self.tell(outcomes)
            come.set()

        self.producer.submit_served([Message(b"sent")], tell)
        self.producer.serve(done or come.is_set, PATIENCE_S)
        assert come.wait(PATIENCE_S)
        thread, outcome = self.told[before]
        assert outcome.stored is Stored.YES, outcome.error
        return thread

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        self.told.extend((threading.current_thread(), outcome) for outcome in outcomes)

    def lead(self) -> None:
        """Send until this thread brings its outcomes itself."""
        here = threading.current_thread()
        assert until(lambda: self.send() is here)


@pytest.fixture
def sender(rabbitmq: RabbitMQ, raw: BlockingChannel, name: str) -> Iterator[Sender]:
    raw.queue_declare(name, durable=True)

    def encode(message: Message) -> Publication:
        properties = properties_of(message, key_in_header=False)
        return Publication("", name, message.id, properties, message.body or b"")

    settings = Settings(url=rabbitmq.url, heartbeat_s=2)
    producer = Producer(lambda: Connection(settings, "test"), Target(encode), name="test-producer")
    yield Sender(producer)
    producer.close(PATIENCE_S)
    raw.queue_delete(name)


def test_a_lone_sender_brings_its_outcome_itself(sender: Sender) -> None:
    """After the first, which the own thread serves, no message changes threads."""
    sender.lead()
    assert {sender.send() for _ in range(20)} == {threading.current_thread()}


def test_a_lone_sender_is_told_at_once_what_cannot_be_written(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing will come from the broker, so it does not wait for it."""
    sender.lead()
    waited: list[threading.Thread] = []
    step = Connection.step

    def watched(connection: Connection, timeout_s: float) -> None:
        waited.append(threading.current_thread())
        step(connection, timeout_s)

    monkeypatch.setattr(Connection, "step", watched)
    told: list[Outcome] = []
    unwritable = Message(b"", headers=Headers([("h", "x" * 200_000)]))
    sender.producer.submit_served([unwritable], told.extend)
    sender.producer.serve(lambda: bool(told), PATIENCE_S)
    assert until(lambda: told)
    assert told[0].stored is Stored.NO
    assert threading.current_thread() not in waited


def test_what_nobody_serves_is_published_while_the_own_thread_rests(sender: Sender) -> None:
    """Alone, and beside a sender that drives."""
    sender.lead()
    sender.submit()
    assert until(lambda: len(sender.told) and sender.told[-1][0].name == "test-producer")
    sender.lead()
    before = len(sender.told)
    sender.send(done=lambda: sender.submit() or True)
    assert until(lambda: len(sender.told) == before + 2)


def test_senders_at_once_get_each_their_outcome(
    sender: Sender, raw: BlockingChannel, name: str
) -> None:
    """Whoever drives, nothing stays in the queue."""
    with ThreadPoolExecutor(8) as pool:
        for each in [pool.submit(sender.send) for _ in range(400)]:
            each.result(PATIENCE_S)
    assert until(lambda: ready_in(raw, name) == 400)


def test_heartbeats_go_on_when_senders_stop(sender: Sender) -> None:
    """The own thread takes the connection back by itself, and then a sender leads again."""
    sender.lead()
    connection = sender.producer._connection
    assert connection is not None
    heard_at = connection.heard_at
    assert until(lambda: connection.heard_at > heard_at)  # the broker says nothing else
    sender.lead()


def test_an_interrupted_sender_leaves_no_half_written_frame(sender: Sender) -> None:
    """Its connection ends, what was in flight is unknown, and nobody waits for it for ever."""
    sender.lead()

    def interrupt() -> bool:
        raise KeyboardInterrupt

    sender.producer.submit_served([Message(b"interrupted")], sender.tell)
    with pytest.raises(KeyboardInterrupt):
        sender.producer.serve(interrupt, PATIENCE_S)
    assert until(lambda: sender.producer.ended is not None)
    assert sender.told[-1][1].stored is not Stored.YES
    sender.producer.serve(lambda: False, PATIENCE_S)  # returns, though it will never be done


def test_a_bus_heals_from_an_interrupted_send(
    open_bus: OpenBus, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the interrupted one had sent is sent again, and the next send is stored."""
    producer = open_bus().producer(name)
    step = Connection.step

    def interrupted(connection: Connection, timeout_s: float) -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        step(connection, timeout_s)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            send_for_ever(producer)
    assert producer.send({}).channel == name
    producer.flush()


def send_for_ever(producer: gearshift.Producer) -> None:
    while True:
        producer.send({})


@pytest.mark.parametrize("why", ["others are left behind", "it is broken", "it is recalled"])
def test_one_drives_and_the_own_thread_comes_when_it_is_needed(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, not only when no sender has come for a while; a second sender is refused."""
    monkeypatch.setattr(handover, "REST_S", 10 * PATIENCE_S)
    needed: list[str] = []
    drivers = Handover(lambda: bool(needed))
    assert not drivers.take()
    resting = threading.Thread(target=drivers.rest, daemon=True)
    resting.start()
    assert until(drivers.take)
    assert not drivers.take()
    if why == "others are left behind":
        needed.append(why)
    elif why == "it is recalled":
        drivers.recall()
    drivers.give_back(broken=why == "it is broken")
    resting.join(PATIENCE_S)
    assert not resting.is_alive()
    assert not drivers.take()
