"""Records of other programs: what Gearshift has no name for leaves as it came, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import Message as Record
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from support.waiting import redrive_all, take

import gearshift
from gearshift.errors import DecodeError, MessageTooLarge
from gearshift.operations.redrive import redrive
from native_brokers import Kafka

from .conftest import OpenBus

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

#: Out of the order that ours have, without value, in no charset, and named as we would not.
HEADERS: list[tuple[str, bytes | None]] = [
    ("b", b"\xff\x01"),
    ("content-type", b"text/plain"),
    ("none", None),
    ("a", b""),
    ("b", b"two"),
    ("gearshift-of-another", b"\xfe"),
    ("", b"no name"),
    ("type", b"\xff"),
    ("type", b"order.created"),
    ("a\nb", b"line"),
]
KEYS = [b"\xff\x01", b"", b"k" * 300, b"plain", None]


@pytest.fixture
def topic(name: str, raw_admin: AdminClient) -> str:
    """A topic of somebody else, with one partition, that takes large and keeps old records."""
    new = NewTopic(name, 1, 1, config={"max.message.bytes": "4000000", "retention.ms": "-1"})
    raw_admin.create_topics([new])[name].result(20)
    return name


def adopted(topic: str, more: str = "") -> str:
    """A channel on a topic that belongs to somebody else."""
    return (
        f'[channels.{topic}]\nsemantics = "stream"\nnative.kafka = {{ topic = "{topic}" }}\n{more}'
    )


def produce(kafka: Kafka, topic: str, *values: bytes | None, **fields: Any) -> None:
    """Store records as another program would."""
    producer = Producer({"bootstrap.servers": kafka.url, "message.max.bytes": 5_000_000})
    for value in values:
        producer.produce(topic, value, **fields)
    assert producer.flush(30) == 0


def records(kafka: Kafka, topic: str, count: int) -> list[Record]:
    """The first ``count`` records of the topic as another program reads them."""
    consumer = Consumer({
        "bootstrap.servers": kafka.url, "group.id": f"plain-{topic}",
        "auto.offset.reset": "earliest", "enable.auto.commit": False,
    })  # fmt: skip
    consumer.subscribe([topic])
    found: list[Record] = []
    while len(found) < count:
        record = consumer.poll(30)
        assert record is not None
        assert record.error() is None
        found.append(record)
    consumer.close()
    return found


def less_group(record: Record) -> list[tuple[str, Any]]:
    """A record's headers but for the one that says to which group of a stream it was redriven."""
    return [pair for pair in record.headers() or () if pair[0] != "redrive-group"]


def one(consumer: gearshift.Consumer[Any]) -> gearshift.Delivery[Any]:
    """The next delivery."""
    (delivery,) = take(consumer, 1)
    return delivery


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_a_redriven_record_is_the_one_that_came(
    kafka: Kafka, open_bus: OpenBus, topic: str, key: bytes | None
) -> None:
    """Key, value, time and headers, in their order; retried, dead, sent on and redriven."""
    produce(kafka, topic, b"v", key=key, headers=HEADERS, timestamp=1_700_000_000_123)
    with open_bus(adopted(topic)) as bus:
        with bus.consumer(topic, group="g") as consumer:
            one(consumer).retry(delay_s=0.0)
            delivery = one(consumer)
            assert repr(delivery.key).isprintable()
            bus.producer(topic).send(delivery.message)
            delivery.reject("no")
            one(consumer).ack()
        redrive_all(bus, topic, 1)
    came, sent_on, redriven = records(kafka, topic, 3)
    for record in (sent_on, redriven):
        assert (record.key(), record.value()) == (came.key(), b"v")
        assert less_group(record) == came.headers() == HEADERS
        assert record.timestamp() == came.timestamp()


#: As the documentation of each has them.
HABITS: dict[str, list[tuple[str, bytes | None]]] = {
    "Spring Kafka": [
        ("__TypeId__", b"com.shop.Order"),
        ("kafka_dlt-original-offset", b"\0\0\0\0\0\0\x01\xff"),
        ("kafka_dlt-exception-message", None),
        ("retry_topic-attempts", b"\0\0\0\x03"),
        ("spring_json_header_types", b'{"contentType":"java.lang.String"}'),
        ("contentType", b'"application/json"'),
    ],
    "MassTransit": [
        ("MessageId", b"0c2f0000-5d52"),
        ("Content-Type", b"application/json"),
        ("MT-Activity-Id", b"00-4bf9-01"),
    ],
    "FastStream": [("correlation_id", b"6b"), ("content-type", b"application/json")],
}


@pytest.mark.parametrize("habit", HABITS)
def test_the_habits_of_other_frameworks_come_through(
    kafka: Kafka, open_bus: OpenBus, topic: str, habit: str
) -> None:
    """What they wrote they read again, after a retry, a dead letter and a redrive."""
    produce(kafka, topic, b'{ "n": 1 }', key=b"k", headers=HABITS[habit])
    with open_bus(adopted(topic, 'codec = "json"')) as bus:
        with bus.consumer(topic, group="g") as consumer:
            one(consumer).retry(delay_s=0.0)
            delivery = one(consumer)
            assert delivery.value == {"n": 1}
            delivery.reject("no")
        redrive_all(bus, topic, 1)
    came, redriven = records(kafka, topic, 2)
    assert less_group(redriven) == came.headers() == HABITS[habit]
    assert redriven.value() == b'{ "n": 1 }'


def test_a_binary_key_can_be_sent(kafka: Kafka, open_bus: OpenBus, topic: str) -> None:
    """As it was received, or made up; equal bytes are an equal key, however they were given."""
    produce(kafka, topic, b"v", key=b"\xff\x01")
    with (
        open_bus(adopted(topic)) as bus,
        bus.producer(topic) as producer,
        bus.consumer(topic) as consumer,
    ):
        delivery = one(consumer)
        assert delivery.key == b"\xff\x01"
        for key in (delivery.key, b"plain", "plain", ""):
            producer.send(b"v", key=key)
        assert [one(consumer).key for _ in range(4)] == [b"\xff\x01", "plain", "plain", ""]
    assert [record.key() for record in records(kafka, topic, 5)] == [
        b"\xff\x01", b"\xff\x01", b"plain", b"plain", b"",
    ]  # fmt: skip


def test_a_large_foreign_record_that_fails_becomes_a_dead_letter(
    kafka: Kafka, open_bus: OpenBus, topic: str
) -> None:
    """The dead letters' topic takes what this topic takes, and the consumer goes on."""
    produce(kafka, topic, b"x" * 3_000_000, b"next", key=b"k")
    with open_bus(adopted(topic)) as bus:
        with bus.consumer(topic, group="g") as consumer:
            one(consumer).reject("too much")
            delivery = one(consumer)
            assert delivery.body == b"next"
            delivery.ack()
        with bus.consumer(f"{topic}.dead", group="look") as letters:
            letter = one(letters)
            assert letter.body == b"x" * 3_000_000
            assert letter.headers["dead-letter-reason"] == "too much"
            letter.ack()
        redrive_all(bus, topic, 1)


def test_a_dead_letters_topic_that_was_there_before_is_given_the_room(
    kafka: Kafka, open_bus: OpenBus, topic: str, raw_admin: AdminClient
) -> None:
    """It is ours, and its limit may be from before the source's was raised."""
    raw_admin.create_topics([NewTopic(f"{topic}.dead", 1, 1)])[f"{topic}.dead"].result(20)
    produce(kafka, topic, b"x" * 3_000_000)
    with open_bus(adopted(topic)) as bus:
        with bus.consumer(topic, group="g") as consumer:
            one(consumer).reject("too much")
        with bus.consumer(f"{topic}.dead", group="look") as letters:
            assert len(one(letters).body or b"") == 3_000_000


def test_a_topic_with_a_higher_limit_takes_larger_messages(open_bus: OpenBus, topic: str) -> None:
    """Its limit counts, and over it the error names the setting."""
    bus = open_bus(adopted(topic))
    with bus.producer(topic) as producer:
        assert producer.send(b"x" * 3_900_000).id
        with pytest.raises(MessageTooLarge):
            producer.send(b"x" * 4_000_000)
    assert bus.capabilities(topic, live=True).max_message_bytes == 4_000_000 - 48_588


def test_json_behind_a_schema_registrys_prefix_says_what_it_is(
    kafka: Kafka, open_bus: OpenBus, topic: str
) -> None:
    """And so does its dead letter."""
    body = b"\0\0\0\0\7" + json.dumps({"n": 1}).encode()
    produce(kafka, topic, body, headers=[("content-type", b"application/json")])
    with open_bus(adopted(topic, 'codec = "json"')) as bus, bus.consumer(topic) as consumer:
        delivery = one(consumer)
        with pytest.raises(DecodeError, match="schema id 7") as caught:
            _ = delivery.value
        delivery.reject(str(caught.value))
        delivery = one(bus.consumer(f"{topic}.dead", group="look"))
        assert "schema registry" in str(delivery.headers["dead-letter-reason"])


def test_redrive_of_a_stream_stops_before_what_cannot_be_sent(
    kafka: Kafka, open_bus: OpenBus, topic: str, raw_admin: AdminClient
) -> None:
    """What lies behind it is not sent at every try, as the one position does not pass it."""
    produce(kafka, topic, b"first", b"x" * 3_000_000, b"last", key=b"k")
    with open_bus(adopted(topic)) as bus:
        with bus.consumer(topic, group="g") as consumer:
            for _ in range(3):
                one(consumer).reject("no")
        entry = ConfigEntry(
            "max.message.bytes", "1048588", incremental_operation=AlterConfigOpType.SET
        )
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        raw_admin.incremental_alter_configs([resource])[resource].result(20)
        for _ in range(2):
            with pytest.raises(MessageTooLarge):
                redrive(bus, topic, idle_timeout_s=3.0)
        bus.producer(topic).send(b"end")
    assert [record.value() for record in records(kafka, topic, 5)[3:]] == [b"first", b"end"]
