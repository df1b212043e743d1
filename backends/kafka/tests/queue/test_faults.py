"""Queues on Kafka when locks end, workers are killed, brokers die and topics go away."""

from __future__ import annotations

import ast
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from support.waiting import PATIENCE_S, ack_all, take, until

import gearshift
from gearshift import errors
from gearshift.operations import doctor
from gearshift_kafka.queue.mover import Mover
from native_brokers import Kafka

from .conftest import LOCK_S, Settings
from .test_queue import drain

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

_LONGER_THAN_IT_WAITS_S = 3.0

HOLDS = """
import sys, time
import gearshift
bus = gearshift.open(sys.argv[1])
consumer = bus.consumer(sys.argv[2], group="g")
print("has", repr(consumer.receive(timeout_s=60)[0].value), flush=True)
time.sleep(600)
"""


def killed_worker(settings_file: Path, name: str) -> object:
    """Another process takes a message and is killed with it in hand; which one it was."""
    command = [sys.executable, "-c", HOLDS, str(settings_file), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        held = ast.literal_eval(child.stdout.readline().removeprefix("has "))
        child.kill()
    assert child.returncode == -signal.SIGKILL
    return held


def is_stale(delivery: gearshift.Delivery) -> bool:
    """Whether it is too late to settle it."""
    try:
        delivery._subscription.users.require_live(delivery._entry)
    except errors.StaleDelivery:
        return True
    return False


def test_a_lock_that_is_over_makes_a_stale_delivery(
    settings: Settings, hasty_kafka: Kafka, name: str
) -> None:
    """Settling after the lock raises StaleDelivery, and the message is handled again."""
    with gearshift.open(settings(url=hasty_kafka.url)) as bus:
        bus.producer(name).send("slow")
        with bus.consumer(name, group="g") as slow, bus.consumer(name, group="g") as other:

            def either() -> gearshift.Delivery:
                found: list[gearshift.Delivery] = []
                assert until(
                    lambda: (
                        found
                        or found.extend(slow.receive(timeout_s=0.2) or other.receive(timeout_s=0.2))
                    )
                )
                return found[0]

            late, again = either(), either()
            assert again.value == "slow"
            assert (again.attempt, again.redelivered) == (late.attempt, True)
            # Its consumer counts from when it came, and the broker from when it was on its way.
            assert until(lambda: is_stale(late))
            for settle in (late.ack, late.retry, late.reject):
                late.outcome = None  # as a handler would that has kept another reference
                with pytest.raises(errors.StaleDelivery):
                    settle()
            again.ack()
            bus.producer(name).send("next")
            assert ack_all([either()]) == ["next"]


def test_what_waits_in_hand_past_its_lock_is_not_handed_out(
    settings: Settings, hasty_kafka: Kafka, name: str
) -> None:
    """Messages that were fetched behind a slow one are given up, not handled twice in silence."""
    with gearshift.open(settings("prefetch = 40", url=hasty_kafka.url)) as bus:
        bus.producer(name).send_many(range(10))
        handled: Counter[int] = Counter()
        with bus.consumer(name, group="g") as consumer:
            (first,) = take(consumer, 1)
            time.sleep(LOCK_S + 1.0)  # the lock takes no event, only time
            with pytest.raises(errors.StaleDelivery):
                first.ack()
            while len(handled) < 10:
                (delivery,) = take(consumer, 1)
                assert delivery.redelivered
                with contextlib.suppress(errors.StaleDelivery):  # a busy machine took too long
                    delivery.ack()
                    handled[delivery.value] += 1
        assert set(handled.values()) == {1}


def test_a_retry_that_cannot_be_stored_is_kept_and_counted(
    bus: gearshift.Bus, kafka: Kafka, name: str
) -> None:
    """The topic that retries wait in takes nothing of its size: it comes again all the same."""
    with bus.consumer(name, group="g") as consumer:
        admin = AdminClient({"bootstrap.servers": kafka.url})
        entry = ConfigEntry("max.message.bytes", "1", incremental_operation=AlterConfigOpType.SET)
        topic = f"{name}.g.delay"
        refusing = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        admin.incremental_alter_configs([refusing])[refusing].result(20)
        bus.producer(name).send("kept")
        for attempt in (1, 2, 3):
            (delivery,) = take(consumer, 1)
            assert (delivery.value, delivery.attempt) == ("kept", attempt)
            if attempt < 3:
                delivery.retry()
        (stats,) = bus.stats().receiving
        assert stats.unstored == 1
        assert "max.message.bytes" in str(stats.obstacle)
        delivery.ack()
        consumer.flush()
        assert bus.stats().receiving[0].unstored == 0


def test_max_processing_s_sets_the_lock(settings: Settings, hasty_kafka: Kafka, name: str) -> None:
    """A handler that needs longer than the broker's own lock may, where the channel says so."""
    with gearshift.open(settings("max_processing_s = 20", url=hasty_kafka.url)) as bus:
        bus.producer(name).send("slow")
        with bus.consumer(name, group="g") as consumer:
            (delivery,) = take(consumer, 1)
            time.sleep(LOCK_S + 1.0)
            delivery.ack()
            consumer.flush()
            bus.producer(name).send("next")
            assert ack_all(take(consumer, 1)) == ["next"]


def test_a_close_costs_nothing_and_the_second_death_counts_both(
    settings: Settings, name: str
) -> None:
    """Kafka drops a message at its fifth delivery in silence, worked on or not. This one survives
    nine consumers that close with it in hand, and one that dies; the next death ends it."""
    file = settings("prefetch = 1\nmax_attempts = 2")
    with gearshift.open(file) as bus:
        bus.producer(name).send(666)
        for earlier in range(9):
            with bus.consumer(name, group="g") as closing:
                (delivery,) = take(closing, 1)
                assert (delivery.attempt, delivery.redelivered) == (1, earlier > 0)
        assert killed_worker(file, name) == 666
        with bus.consumer(name, group="g") as closing:
            (delivery,) = take(closing, 1)
            assert (delivery.attempt, delivery.redelivered) == (1, True)
        assert killed_worker(file, name) == 666
        with bus.consumer(name, group="g") as consumer, bus.consumer(f"{name}.dead") as dead:
            letters: list[gearshift.Delivery] = []
            while not letters:
                assert consumer.receive(timeout_s=0.2) == []
                letters = dead.receive(timeout_s=0.2)
            (letter,) = letters
            letter.ack()
            assert (letter.value, letter.headers["dead-letter-attempts"]) == (666, 2)


def test_a_suspect_is_not_kept_by_a_consumer_that_is_busy(
    settings: Settings, hasty_kafka: Kafka, name: str
) -> None:
    """Its client has asked for one ever since a look in vain, and gets it while another message is
    in hand. It goes on to somebody else, and that costs no attempt."""
    file = settings("prefetch = 1\nmax_processing_s = 60", url=hasty_kafka.url)
    with gearshift.open(file) as bus:
        producer = bus.producer(name)
        producer.send("first")
        assert killed_worker(file, name) == "first"
        with bus.consumer(name, group="g") as busy:
            assert ack_all(take(busy, 1)) == ["first"]
            assert busy.receive(timeout_s=2.0) == []
            producer.send("long")
            (long,) = take(busy, 1)
            producer.send("second")
            assert killed_worker(file, name) == "second"
            with bus.consumer(name, group="g") as other:
                (again,) = take(other, 1)
                assert (again.value, again.attempt, again.redelivered) == ("second", 1, True)
                again.ack()
            long.ack()


def test_a_broker_that_stops_answering_as_partitions_are_assigned_stops_no_retry(
    settings: Settings, hasty_kafka: Kafka, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP inside the client's callback, where an error would end the thread."""
    assign = Mover._on_assign
    thaw = threading.Timer(_LONGER_THAN_IT_WAITS_S, hasty_kafka.resume)

    def stopped(mover: Mover, client: Consumer, places: list[TopicPartition]) -> None:
        if places and not thaw.ident:
            hasty_kafka.pause()
            thaw.start()
        assign(mover, client, places)  # no finally: it would make a true exception of the error

    monkeypatch.setattr(Mover, "_on_assign", stopped)
    file = settings("retry_delay_s = 0.1", url=hasty_kafka.url)
    with gearshift.open(file) as bus, bus.consumer(name, group="g") as consumer:
        bus.producer(name).send(7)
        (delivery,) = take(consumer, 1)
        delivery.retry()
        assert ack_all(take(consumer, 1)) == [7]
        thaw.join()


def test_a_killed_broker_loses_nothing(settings: Settings, name: str) -> None:
    """SIGKILL while sending, consuming and retrying; after the restart all that was sent comes."""
    with Kafka() as broker, gearshift.open(settings("retry_delay_s = 0.2", url=broker.url)) as bus:
        producer = bus.producer(name)
        stop = threading.Event()
        sent: list[int] = []
        seen: Counter[int] = Counter()

        def send() -> None:
            number = 0
            while not stop.is_set():
                producer.send(number, timeout_s=60.0)
                sent.append(number)
                number += 1
                time.sleep(0.002)

        def work(consumer: gearshift.Consumer) -> None:
            while not (stop.is_set() and set(sent) <= seen.keys()):
                for delivery in consumer.receive(10, timeout_s=0.2):
                    with contextlib.suppress(errors.StaleDelivery):
                        if delivery.value % 10 == 0 and delivery.attempt == 1:
                            delivery.retry()
                        else:
                            delivery.ack()
                            seen[delivery.value] += 1

        consumer = bus.consumer(name, group="g")
        threads = [threading.Thread(target=send), threading.Thread(target=work, args=(consumer,))]
        for thread in threads:
            thread.start()
        while len(seen) < 200:
            time.sleep(0.05)
        broker.kill()
        time.sleep(1.0)
        before = len(sent)
        broker.start()
        while len(sent) < before + 200 and threads[0].is_alive():
            time.sleep(0.05)
        stop.set()
        for thread in threads:
            thread.join(90)
        assert len(sent) >= before + 200
        assert set(sent) - seen.keys() == set()


def test_closing_does_not_wait_for_a_broker_that_is_down(settings: Settings, name: str) -> None:
    """With the broker gone and a message in hand, close is over within its deadline and a bit."""
    with Kafka() as broker:
        bus = gearshift.open(settings(url=broker.url))
        bus.producer(name).send(1)
        consumer = bus.consumer(name, group="g")
        (delivery,) = take(consumer, 1)
        broker.kill()
        delivery.ack()
        closed = threading.Event()

        def close() -> None:
            bus.close(2.0)
            closed.set()

        threading.Thread(target=close, daemon=True).start()
        assert closed.wait(PATIENCE_S)


def test_a_deleted_topic_is_declared_again(
    settings: Settings, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client itself would stay silent for ever; the consumer notices and goes on."""
    with gearshift.open(settings()) as bus, bus.consumer(name, group="g") as consumer:
        bus.delete(name)
        deadline = time.monotonic() + PATIENCE_S
        while "does not exist any more" not in caplog.text and time.monotonic() < deadline:
            assert consumer.receive(timeout_s=0.2) == []
        while not bus.exists(name) and time.monotonic() < deadline:
            time.sleep(0.1)
        bus.producer(name).send("new")
        assert drain(consumer, 1) == ["new"]


def test_a_broker_without_share_groups_is_refused_in_words(settings: Settings, name: str) -> None:
    """Also to whoever only sends, into a topic that is there: nobody could read it."""
    with Kafka(features={"share.version": 0}) as broker:
        file = settings(url=broker.url)

        def examined() -> tuple[doctor.Status, str]:
            found = {check.step: check for check in doctor.examine(file, round_trip=False)}
            return found["topology"].status, found["topology"].detail

        refusal = (
            doctor.Status.FAILED,
            f"{name}: the broker refuses share groups, which queues on Kafka need",
        )
        assert examined() == refusal
        with gearshift.open(file) as bus:
            with pytest.raises(errors.NotSupported, match="refuses share groups"):
                bus.consumer(name, group="g")
            with pytest.raises(errors.NotSupported, match="refuses share groups"):
                bus.producer(name)
            assert not bus.exists(name)
            client = AdminClient({"bootstrap.servers": broker.url})
            client.create_topics([NewTopic(name)])[name].result(20)
            with pytest.raises(errors.NotSupported, match="refuses share groups"):
                bus.producer(name, create=False)
            assert examined() == refusal
