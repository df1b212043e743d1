"""Sending to a Kafka that is frozen, refuses or is left without a word."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import OFFSET_END, Consumer, TopicPartition
from support.waiting import PATIENCE_S, until

import gearshift
from gearshift.driver import Outcome
from gearshift.errors import BackpressureError, MessageTooLarge, OutcomeUnknown
from gearshift.message import Message
from gearshift_kafka.producer import Producer as Driver
from gearshift_kafka.producer import _Batch
from native_brokers import Kafka

from .conftest import OpenBus

pytestmark = pytest.mark.broker

_SCRIPT = """
import gearshift, os, sys
bus = gearshift.open(sys.argv[1])
producer = bus.producer(sys.argv[2])
"""
_DROPS = "for number in range(200): producer.submit(number)\n"
_FORKS = """
child = os.fork()
if child == 0:
    try:
        producer.send(1, timeout_s=5)
    except gearshift.errors.Forked:
        os._exit(7)
    os._exit(1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
producer.send(2)
bus.close()
sys.exit(code)
"""


def test_what_a_thread_waits_for_does_not_linger(open_bus: OpenBus, name: str) -> None:
    """Nobody comes whom it could travel with: its sender waits, and sends no other meanwhile."""
    producer = open_bus(f"[channels.{name}]", profile="linger_s = 10").producer(name)
    for number in range(5):
        producer.send(number, timeout_s=8)
        producer.send_many(range(10), timeout_s=8)


class Gathering:
    """Stands for a client that sends only when it is flushed, and then but one message of some."""

    def __init__(self) -> None:
        self.queued: deque[Callable[..., object]] = deque()
        self.flushes = 0

    def produce(self, topic: str, body: bytes, key: None, _: int, report: Any, *more: Any) -> None:
        self.queued.append(report)

    def poll(self, timeout_s: float) -> None:
        time.sleep(min(timeout_s, 0.01))

    def flush(self, timeout_s: float) -> int:
        self.flushes += 1
        if self.queued and self.flushes % 2 == 0:
            self.queued.popleft()(None, SimpleNamespace(partition=lambda: 0, offset=lambda: 1))
        return len(self.queued)


def test_one_that_waits_is_hurried_for_until_all_is_reported() -> None:
    """On a loaded machine the client does not send everything when it is first told to."""
    any_time = SimpleNamespace(limits=lambda _: (0, 0))
    producer = Driver(cast(Any, Gathering()), "t", cast(Any, any_time), cast(Any, None))
    outcomes: list[Outcome] = []
    try:
        producer.submit([Message(b"") for _ in range(10)], outcomes.extend)
        producer.serve(lambda: len(outcomes) == 10, PATIENCE_S)
        assert until(lambda: len(outcomes) == 10)
    finally:
        producer.close(0.0)


@contextlib.contextmanager
def frozen(broker: Kafka) -> Iterator[None]:
    """SIGSTOP; the sockets stay open and nothing answers. SIGCONT at the end."""
    broker.pause()
    try:
        yield
    finally:
        broker.resume()


def stored(kafka: Kafka, topic: str) -> int:
    """How many messages partition 0 has had."""
    consumer = Consumer({"bootstrap.servers": kafka.url, "group.id": "looks"})
    try:
        partition = TopicPartition(topic, 0, OFFSET_END)
        return consumer.get_watermark_offsets(partition, timeout=PATIENCE_S)[1]
    finally:
        consumer.close()


def run_script(kafka: Kafka, name: str, body: str, folder: str) -> subprocess.CompletedProcess[str]:
    file = f"{folder}/script.toml"
    with open(file, "w") as out:
        out.write(
            f'profile = "p"\n[profiles.p]\nbackend = "kafka"\n'
            f'bootstrap_servers = ["{kafka.url}"]\n[channels.{name}]\npartitions = 1\n'
        )
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _SCRIPT + body, file, name],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_close_reports_by_id_what_a_frozen_broker_has_not_confirmed(
    kafka: Kafka, open_bus: OpenBus, name: str
) -> None:
    """Close returns though the client would wait for a minute; each message ends as unknown."""
    producer = open_bus().producer(name)
    producer.send("before")
    with frozen(kafka):
        futures = [producer.submit(number, id=f"m{number}") for number in range(5)]
        closing = threading.Thread(target=producer.close, args=(0.5,))
        closing.start()
        closing.join(PATIENCE_S)
        assert not closing.is_alive()
        errors = [future.exception(0) for future in futures]
    assert all(isinstance(error, OutcomeUnknown) for error in errors)
    assert [error.message_id for error in errors] == [f"m{n}" for n in range(5)]  # type: ignore[union-attr]


def test_a_full_window_blocks_to_the_deadline_and_no_further(
    kafka: Kafka, open_bus: OpenBus, name: str
) -> None:
    """With a frozen broker the window fills, the next waits and is refused; then all is stored."""
    producer = open_bus(f"[channels.{name}]\npartitions = 1").producer(name)
    producer.send("before")
    with frozen(kafka):
        futures = [producer.submit("x", timeout_s=60) for _ in range(10_000)]
        with pytest.raises(BackpressureError):
            producer.submit("y", timeout_s=0.3)
    producer.flush(60)
    assert all(future.exception(0) is None for future in futures)
    assert stored(kafka, name) == 10_001


def test_futures_are_not_resolved_on_the_thread_that_serves_the_client(
    open_bus: OpenBus, name: str
) -> None:
    """A user's callback there could flush, which aborts the process."""
    producer = open_bus().producer(name)
    threads: list[str] = []
    called = threading.Event()

    def callback(_future: object) -> None:
        threads.append(threading.current_thread().name)
        called.set()

    producer.submit("x").add_done_callback(callback)
    assert called.wait(PATIENCE_S)
    assert not threads[0].startswith("gearshift-kafka")


def test_a_bus_that_nobody_closes_still_stores_everything(
    kafka: Kafka, name: str, tmp_path: str
) -> None:
    """The interpreter ends right after 200 submits: all are stored."""
    ended = run_script(kafka, name, _DROPS, str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert stored(kafka, name) == 200
    assert "%" not in ended.stderr, "librdkafka wrote to stderr"


def test_a_producer_fails_fast_in_the_child_of_a_fork(
    kafka: Kafka, name: str, tmp_path: str
) -> None:
    """The child gets Forked at once, and the parent goes on."""
    ended = run_script(kafka, name, _FORKS, str(tmp_path))
    assert ended.returncode == 7, ended.stderr
    assert stored(kafka, name) == 1


def test_a_topic_with_a_lower_limit_refuses_only_what_is_too_large(
    kafka: Kafka, open_bus: OpenBus, name: str
) -> None:
    """The broker's own limit is MessageTooLarge, not retryable; neighbours are stored."""
    bus = open_bus(
        f'[channels.{name}]\npartitions = 1\nnative.kafka.config = {{"max.message.bytes" = "2000"}}'
    )
    producer = bus.producer(name)
    producer.send("x")
    with pytest.raises(MessageTooLarge) as caught:
        producer.send(os.urandom(5000).hex())
    assert not caught.value.retryable
    producer.send("y")
    assert stored(kafka, name) == 2


def test_a_message_over_the_topics_limit_is_refused_with_its_size_and_the_setting(
    open_bus: OpenBus, name: str
) -> None:
    """Each with its own size, which the broker does not say; a smaller one goes through."""
    bus = open_bus(
        f"[channels.{name}]\nnative.kafka = {{ config = {{ 'max.message.bytes' = '2000' }} }}"
    )
    producer = bus.producer(name)
    results = [
        producer.send_many([b"x" * size], raise_on_error=False)[0] for size in (3000, 10, 4000)
    ]
    large, fits, larger = results
    assert isinstance(fits, gearshift.Receipt)
    for error, size in ((large, 3000), (larger, 4000)):
        assert isinstance(error, MessageTooLarge)
        assert str(size) in str(error)
        assert "max.message.bytes" in str(error)


def test_a_lone_sender_brings_its_report_itself(
    open_bus: OpenBus, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So its message changes no threads; what nobody waits for is reported all the same."""
    threads: list[str] = []
    tell = Driver._tell

    def told(driver: Driver, batch: _Batch, outcomes: Sequence[Outcome]) -> None:
        threads.append(threading.current_thread().name)
        tell(driver, batch, outcomes)

    monkeypatch.setattr(Driver, "_tell", told)
    producer = open_bus().producer(name)
    here = threading.current_thread().name

    def sends() -> bool:
        producer.send({})
        return threads[-1] == here

    assert until(sends)
    producer.submit({}).result(PATIENCE_S)
    assert threads[-1] != here


def test_senders_that_wait_at_once_are_answered_in_one_go(
    open_bus: OpenBus, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the middle of the client's reports, where each answer would hold up the next."""
    at_once: list[int] = []
    tell = Driver._tell_reports

    def told(driver: Driver) -> None:
        at_once.append(len(driver._reported))
        tell(driver)

    monkeypatch.setattr(Driver, "_tell_reports", told)
    producer = open_bus().producer(name)

    def sends() -> bool:
        with ThreadPoolExecutor(16) as pool:
            receipts = list(pool.map(producer.send, range(64)))
        assert len({receipt.id for receipt in receipts}) == 64
        return max(at_once) > 1

    assert until(sends)
