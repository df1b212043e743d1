"""Queues on Kafka when locks end, workers are killed, brokers die and topics go away."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import gearshift
from gearshift import errors
from native_brokers import Kafka

from .conftest import LOCK_S, Settings
from .test_queue import PATIENCE_S, ack_all, drain, take

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

HOLDS = """
import sys, time
import gearshift
bus = gearshift.open(sys.argv[1])
consumer = bus.consumer(sys.argv[2], group="g")
print("has", consumer.receive(timeout_s=60)[0].value, flush=True)
time.sleep(600)
"""

WAKES_LATE = """
import os, sys
import gearshift
consumer = gearshift.open(sys.argv[1]).consumer(sys.argv[2], group="g")
(delivery,) = consumer.receive(timeout_s=60)
print("has", delivery.value, flush=True)
sys.stdin.readline()
try:
    delivery.ack()
except gearshift.errors.StaleDelivery:
    print("stale", flush=True)
os._exit(0)
"""


def killed_worker(settings_file: Path, name: str) -> int:
    """Another process takes a message and is killed with it in hand; which one it was."""
    command = [sys.executable, "-c", HOLDS, str(settings_file), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        held = int(child.stdout.readline().removeprefix("has "))
        child.kill()
    assert child.returncode == -signal.SIGKILL
    return held


def test_a_lock_that_is_over_makes_a_stale_delivery(
    settings: Settings, hasty_kafka: Kafka, name: str
) -> None:
    """Settling after the lock raises StaleDelivery, and the message is handled again."""
    with gearshift.open(settings(url=hasty_kafka.url)) as bus:
        bus.producer(name).send("slow")
        with bus.consumer(name, group="g") as slow, bus.consumer(name, group="g") as other:
            late = (slow.receive(timeout_s=1.0) or take(other, 1))[0]
            again: list[gearshift.Delivery] = []
            deadline = time.monotonic() + PATIENCE_S
            while not again and time.monotonic() < deadline:
                again = slow.receive(timeout_s=0.2) or other.receive(timeout_s=0.2)
            assert again[0].value == "slow"
            assert (again[0].attempt, again[0].redelivered) == (late.attempt, True)
            for settle in (late.ack, late.retry, late.reject):
                late.outcome = None  # as a handler would that has kept another reference
                with pytest.raises(errors.StaleDelivery):
                    settle()
            again[0].ack()
            bus.producer(name).send("next")
            values = ack_all(slow.receive(timeout_s=1.0) or other.receive(timeout_s=PATIENCE_S))
            assert values == ["next"]


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
                delivery.ack()
                handled[delivery.value] += 1
        assert set(handled.values()) == {1}


def test_max_processing_s_sets_the_lock(settings: Settings, hasty_kafka: Kafka, name: str) -> None:
    """A handler that needs longer than the broker's own lock may, where the channel says so."""
    with gearshift.open(settings("max_processing_s = 20", url=hasty_kafka.url)) as bus:
        bus.producer(name).send("slow")
        with bus.consumer(name, group="g") as consumer:
            (delivery,) = take(consumer, 1)
            time.sleep(LOCK_S + 1.0)
            delivery.ack()
            assert consumer.flush()
            bus.producer(name).send("next")
            assert ack_all(take(consumer, 1)) == ["next"]


def test_a_killed_worker_loses_nothing(settings: Settings, name: str) -> None:
    """SIGKILL with a message in hand: another worker gets it, flagged."""
    file = settings()
    with gearshift.open(file) as bus:
        bus.producer(name).send_many(range(3))
        held = killed_worker(file, name)
        with bus.consumer(name, group="g") as consumer:
            deliveries = take(consumer, 3)
            (again,) = (delivery for delivery in deliveries if delivery.value == held)
            assert (again.attempt, again.redelivered) == (1, True)
            assert sorted(ack_all(deliveries)) == [0, 1, 2]


def test_ten_returns_are_one_attempt(settings: Settings, name: str) -> None:
    """Kafka drops a message at its fifth delivery in silence, worked on or not. This one survives
    nine consumers that close with it in hand, and the death of the tenth is its one attempt."""
    file = settings("prefetch = 1\nmax_attempts = 1")
    with gearshift.open(file) as bus:
        bus.producer(name).send(666)
        for earlier in range(9):
            with bus.consumer(name, group="g") as closing:
                (delivery,) = take(closing, 1)
                assert (delivery.attempt, delivery.redelivered) == (1, earlier > 0)
        assert killed_worker(file, name) == 666
        with bus.consumer(name, group="g") as consumer, bus.consumer(f"{name}.dead") as dead:
            letters: list[gearshift.Delivery] = []
            while not letters:
                assert consumer.receive(timeout_s=0.2) == []
                letters = dead.receive(timeout_s=0.2)
            (letter,) = letters
            letter.ack()
            assert (letter.value, letter.headers["dead-letter-attempts"]) == (666, 2)


def test_a_stopped_worker_never_settles_what_others_have(
    settings: Settings, hasty_kafka: Kafka, name: str
) -> None:
    """SIGSTOP past the lock: others get the message, and the late ack changes nothing."""
    file = settings("prefetch = 1", url=hasty_kafka.url)
    command = [sys.executable, "-c", WAKES_LATE, str(file), name]
    with (
        gearshift.open(file) as bus,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child,
    ):
        assert child.stdout is not None
        bus.producer(name).send(7)
        try:
            assert child.stdout.readline() == "has 7\n"
            child.send_signal(signal.SIGSTOP)
            with bus.consumer(name, group="g") as consumer:
                (delivery,) = take(consumer, 1)
                child.send_signal(signal.SIGCONT)
                output, _ = child.communicate("go on\n", timeout=PATIENCE_S)
                assert output == "stale\n"
                delivery.retry(0)
                (again,) = take(consumer, 1)
                assert again.value == 7
                again.ack()
        finally:
            child.kill()


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
        assert closed.wait(30.0)


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
    """Queues need them; streams on the same broker do not."""
    with (
        Kafka(features={"share.version": 0}) as broker,
        gearshift.open(settings(url=broker.url)) as bus,
        pytest.raises(errors.NotSupported, match="share groups"),
    ):
        bus.consumer(name, group="g")
