"""A Kafka topic as a queue: groups, attempts, delays, dead letters."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from confluent_kafka import Producer
from support.waiting import PATIENCE_S, ack_all, take

import gearshift
from gearshift import errors
from native_brokers import Kafka

from .conftest import Settings

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


def drain(consumer: gearshift.Consumer, count: int) -> list[object]:
    """Receive and ack ``count`` messages one by one; their values, sorted."""
    return sorted(ack_all(take(consumer, 1))[0] for _ in range(count))


def nothing_is_left(bus: gearshift.Bus, name: str, group: str) -> None:
    """A message sent now is the next one that the group gets."""
    bus.producer(name).send("sentinel")
    with bus.consumer(name, group=group) as consumer:
        assert ack_all(take(consumer, 1)) == ["sentinel"]


def test_a_message_comes_back_as_it_was_sent(bus: gearshift.Bus, name: str) -> None:
    """Body, key, headers, id and times, at the first delivery and after a retry with a delay."""
    headers = [("a", "1"), ("a", "2"), ("b", b"\x80\xff"), ("n", -7), ("t", True)]
    sent = gearshift.Message(
        b"\x00\xff", key="k\u00e9y", headers=gearshift.Headers(headers), id="id-1",
        timestamp_ms=1_000, content_type="application/x", correlation_id="c", type="t",
    )  # fmt: skip
    with bus.consumer(name, group="g") as consumer:
        bus.producer(name).send(sent)
        (first,) = take(consumer, 1)
        assert first.message == sent
        assert (first.attempt, first.redelivered, first.position) == (1, False, None)
        first.retry(0.2)
        (again,) = take(consumer, 1)
        assert again.message == sent
        assert (again.attempt, again.redelivered) == (2, True)
        again.ack()
    nothing_is_left(bus, name, "g")


def test_declared_groups_get_everything_though_their_consumers_come_later(
    settings: Settings, name: str
) -> None:
    """Two groups, no consumer yet: both get all that is sent, whoever comes when."""
    with gearshift.open(settings("native.kafka.partitions = 4", group='billing", "audit')) as bus:
        bus.producer(name).send_many(range(100), key_by=lambda n: f"k{n % 9}")
        for group in ("billing", "audit"):
            with bus.consumer(name, group=group) as consumer:
                assert drain(consumer, 100) == list(range(100))


def test_a_group_gets_what_is_sent_after_it_exists(bus: gearshift.Bus, name: str) -> None:
    """A group that is added to a topic with history does not get the history."""
    bus.producer(name).send_many(range(30))
    with bus.consumer(name, group="late", create=True) as late:
        bus.producer(name).send_many(range(30, 40))
        assert drain(late, 10) == list(range(30, 40))
    with bus.consumer(name, group="g") as consumer:
        assert drain(consumer, 40) == list(range(40))


def test_four_workers_share_what_there_is(settings: Settings, name: str) -> None:
    """Four consumers of one group: every message once between them, and each has its share."""
    with gearshift.open(settings("prefetch = 8")) as bus:
        consumers = [bus.consumer(name, group="g") for _ in range(4)]
        got: list[Counter[int]] = [Counter() for _ in consumers]
        total = 400

        def work(consumer: gearshift.Consumer, mine: Counter[int]) -> None:
            while sum(each.total() for each in got) < total:
                for delivery in consumer.receive(8, timeout_s=0.1):
                    mine[delivery.value] += 1
                    time.sleep(0.002)
                    delivery.ack()

        threads = [
            threading.Thread(target=work, args=pair) for pair in zip(consumers, got, strict=True)
        ]
        for thread in threads:
            thread.start()
        bus.producer(name).send_many(range(total))
        for thread in threads:
            thread.join(PATIENCE_S)
        assert sum(got, Counter()) == Counter(range(total))
        assert all(got)


def test_a_retry_waits_without_holding_up_others(settings: Settings, name: str) -> None:
    """With prefetch 1, a message that waits five seconds lets its successors by."""
    with gearshift.open(settings("prefetch = 1")) as bus:
        bus.producer(name).send_many(range(5))
        with bus.consumer(name, group="g") as consumer:
            (first,) = take(consumer, 1)
            first.retry(5.0)
            started = time.monotonic()
            assert first.value not in drain(consumer, 4)
            (again,) = take(consumer, 1)
            assert time.monotonic() - started > 3.0, "it came before its time"
            assert (again.value, again.attempt) == (first.value, 2)
            again.ack()


@pytest.mark.parametrize("delay_s", [0.0, 0.01], ids=["at once", "delayed"])
def test_a_hundred_retries(settings: Settings, name: str, delay_s: float) -> None:
    """Far more attempts than Kafka delivers a message: none is lost, each is counted."""
    with gearshift.open(settings("max_attempts = 101")) as bus:
        bus.producer(name).send("again")
        with bus.consumer(name, group="g") as consumer:
            for attempt in range(1, 101):
                (delivery,) = take(consumer, 1)
                assert delivery.attempt == attempt
                delivery.retry(delay_s)
            (last,) = take(consumer, 1)
            assert (last.value, last.attempt) == ("again", 101)
            last.ack()
        nothing_is_left(bus, name, "g")


def test_poison_ends_in_the_dead_letters(bus: gearshift.Bus, name: str) -> None:
    """Five failures by default, the delivery limit of Kafka itself; its successors go on."""
    bus.producer(name).send_many(range(3))
    attempts = []
    with bus.consumer(name, group="g") as consumer, bus.consumer(f"{name}.dead") as dead:
        while not attempts or attempts[-1] != 5:
            for delivery in take(consumer, 1):
                if delivery.value == 1:
                    attempts.append(delivery.attempt)
                    delivery.retry()
                else:
                    delivery.ack()
        (letter,) = take(dead, 1)
        assert attempts == [1, 2, 3, 4, 5]
        assert (letter.value, letter.headers["dead-letter-attempts"]) == (1, 5)
        letter.ack()
    nothing_is_left(bus, name, "g")


def test_a_rejected_message_goes_to_the_dead_letters_at_once(bus: gearshift.Bus, name: str) -> None:
    """Reject: the dead letter is stored, and the original never comes again."""
    bus.producer(name).send("bad")
    with bus.consumer(name, group="g") as consumer, bus.consumer(f"{name}.dead") as dead:
        take(consumer, 1)[0].reject("not wanted")
        (letter,) = take(dead, 1)
        assert letter.headers["dead-letter-reason"] == "not wanted"
        letter.ack()
    nothing_is_left(bus, name, "g")


def test_prefetch_leaves_the_rest_to_others(settings: Settings, name: str) -> None:
    """One consumer with prefetch 3 and nothing settled: another one gets all but three."""
    with gearshift.open(settings()) as bus:
        bus.producer(name).send_many(range(10))
        with bus.consumer(name, group="g", prefetch=3) as greedy:
            held = take(greedy, 3)
            assert greedy.receive(10, timeout_s=1.0) == []
            with bus.consumer(name, group="g") as other:
                rest = ack_all(take(other, 7))
            assert sorted(rest + ack_all(held)) == list(range(10))


def test_a_big_batch_of_a_foreign_producer_is_handed_out_by_prefetch(
    settings: Settings, kafka: Kafka, name: str
) -> None:
    """Kafka gives all of a batch to one member; more than prefetch is never in the user's hands."""
    with gearshift.open(settings()) as bus:
        bus.declare(name)
        foreign = Producer({"bootstrap.servers": kafka.url, "linger.ms": 500})
        for number in range(50):
            foreign.produce(name, str(number))
        assert foreign.flush(PATIENCE_S) == 0
        got = []
        with bus.consumer(name, group="g", prefetch=4) as consumer:
            while len(got) < 50:
                deliveries = take(consumer, min(4, 50 - len(got)))
                assert consumer.receive(50, timeout_s=0.05) == []
                for delivery in deliveries:
                    got.append(int(delivery.body or b""))
                    assert delivery.attempt == 1
                    delivery.ack()
        assert sorted(got) == list(range(50))


def test_a_tail_leaves_nothing_behind(bus: gearshift.Bus, name: str) -> None:
    """An ephemeral consumer gets what is sent from now on, may retry it, and takes nothing."""
    producer = bus.producer(name)
    producer.send("before")
    with bus.consumer(name, ephemeral=True) as tail:
        producer.send("after")
        (delivery,) = take(tail, 1)
        delivery.retry(0.05)
        (again,) = take(tail, 1)
        assert (again.value, again.attempt, again.redelivered) == ("after", 2, True)
        again.ack()
    assert [status.group for status in bus.groups(name)] == ["g"]
    with bus.consumer(name, group="g") as consumer:
        assert ack_all(take(consumer, 2)) == ["before", "after"]


def test_what_the_broker_does_not_tell_is_not_known(bus: gearshift.Bus, name: str) -> None:
    """Of a share group neither depth nor consumers are known, so they are None and not 0."""
    bus.producer(name).send(1)
    (status,) = bus.groups(name)
    assert (status.ready, status.in_flight, status.lag, status.consumers) == (None,) * 4
    with pytest.raises(errors.NotSupported, match="purged"):
        bus.purge(name, "g")


def test_a_deleted_queue_is_gone_with_its_groups(bus: gearshift.Bus, name: str) -> None:
    """Declared again under the same name it is empty; the dead letters of it stay."""
    bus.producer(name).send("old")
    with bus.consumer(name, group="g") as consumer:
        take(consumer, 1)[0].reject("bad")
        consumer.flush()
    bus.delete(name)
    assert not bus.exists(name)
    bus.producer(name).send("new")
    with bus.consumer(name, group="g") as consumer, bus.consumer(f"{name}.dead") as dead:
        assert ack_all(take(consumer, 1)) == ["new"]
        assert ack_all(take(dead, 1)) == ["old"]


def test_a_processing_time_over_the_brokers_lock_is_refused(settings: Settings, name: str) -> None:
    """The broker locks for a minute at most: said at open, with both times and the fix."""
    with (
        gearshift.open(settings("max_processing_s = 90")) as bus,
        pytest.raises(errors.ConfigError) as caught,
    ):
        bus.producer(name)
    assert "max_processing_s is 90, but the broker locks a message for at most 60 s" in str(
        caught.value
    )
    assert "group.share.max.record.lock.duration.ms" in str(caught.value.hint)


def test_messages_larger_than_prefetch_bytes_come_all_the_same(
    settings: Settings, name: str
) -> None:
    """There is never room for all that a poll may bring: one is made when nothing is held."""
    with (
        gearshift.open(settings("prefetch_bytes = 10_000")) as bus,
        bus.consumer(name, group="g") as consumer,
    ):
        bus.producer(name).send_many([bytes([n]) * 20_000 for n in range(5)])
        found = []
        for _ in range(5):
            (one,) = take(consumer, 1)
            found.append(one.body)
            one.ack()
        assert sorted(found) == [bytes([n]) * 20_000 for n in range(5)]
