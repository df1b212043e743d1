"""A Kafka topic as a queue: groups, attempts, delays, dead letters."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Producer
from support.waiting import PATIENCE_S, ack_all, take, until

import gearshift
from gearshift import errors
from native_brokers import Kafka

from .conftest import Settings

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


def drain(consumer: gearshift.Consumer, count: int) -> list[object]:
    """Receive and ack ``count`` messages one by one; their values, sorted."""
    return sorted(ack_all(take(consumer, 1))[0] for _ in range(count))


def test_a_group_gets_what_is_sent_after_it_exists(bus: gearshift.Bus, name: str) -> None:
    """A group that is added to a topic with history does not get the history."""
    bus.producer(name).send_many(range(30))
    with bus.consumer(name, group="late", create=True) as late:
        bus.producer(name).send_many(range(30, 40))
        assert drain(late, 10) == list(range(30, 40))
    with bus.consumer(name, group="g") as consumer:
        assert drain(consumer, 40) == list(range(40))


def test_what_a_transaction_has_aborted_does_not_come(
    bus: gearshift.Bus, kafka: Kafka, name: str
) -> None:
    """As on a stream: nobody handles an order that was taken back."""
    foreign = Producer({"bootstrap.servers": kafka.url, "transactional.id": name})
    foreign.init_transactions(PATIENCE_S)
    with bus.consumer(name, group="g") as consumer:
        for value, end in (("1", foreign.abort_transaction), ("2", foreign.commit_transaction)):
            foreign.begin_transaction()
            foreign.produce(name, value)
            foreign.flush(PATIENCE_S)
            end(PATIENCE_S)
        assert [letter.body for letter in take(consumer, 1)] == [b"2"]


def test_many_delayed_retries(settings: Settings, name: str) -> None:
    """Far more attempts than Kafka delivers a message: none is lost, each is counted."""
    with gearshift.open(settings("max_attempts = 21")) as bus:
        bus.producer(name).send("again")
        with bus.consumer(name, group="g") as consumer:
            for attempt in range(1, 21):
                (delivery,) = take(consumer, 1)
                assert delivery.attempt == attempt
                delivery.retry(0.01)
            (last,) = take(consumer, 1)
            assert (last.value, last.attempt) == ("again", 21)
            last.ack()
            consumer.flush()
            bus.producer(name).send("next")
            assert ack_all(take(consumer, 1)) == ["next"]


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


def test_short_handlers_work_side_by_side_too(settings: Settings, name: str) -> None:
    """None of them keeps a lane waiting for long, and yet one lane is too few for them."""
    with gearshift.open(settings()) as bus:
        bus.producer(name).send_many(range(200), timeout_s=PATIENCE_S)
        with bus.consumer(name, group="g", prefetch=4) as consumer:

            def handled() -> int:
                deliveries = consumer.receive(4, timeout_s=PATIENCE_S)
                time.sleep(0.02)
                for delivery in deliveries:
                    delivery.ack()
                return len(deliveries)

            assert until(lambda: handled() == 4)


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
