"""What plain clients find in a broker, to hold against what Gearshift's own were told."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import NamedTuple

import pika
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from native_brokers import KafkaCluster, RabbitMQ
from support.waiting import PATIENCE_S

_END = "the end, for now"


class Found(NamedTuple):
    """A message as it lies there; ``id`` is what it calls itself."""

    id: str | None
    body: bytes


def in_queue(node: RabbitMQ, queue: str, *, take: bool = False) -> list[Found]:
    """All of a queue or stream in its order, as ``node`` has it.

    They are left in a queue, which then must not have many, unless it is to ``take`` them. What
    this puts at the end, to know it, is no part of them.
    """
    found: list[Found] = []
    end = uuid.uuid4().hex.encode()
    is_stream = ":" in queue
    with pika.BlockingConnection(pika.URLParameters(node.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", queue, end, pika.BasicProperties(type=_END), mandatory=True)
        channel.basic_qos(prefetch_count=1000)
        first = {"x-stream-offset": "first"} if is_stream else {}
        messages = channel.consume(queue, arguments=first, inactivity_timeout=PATIENCE_S)
        for method, properties, body in messages:
            assert method is not None, "nothing comes"
            if is_stream or take:
                channel.basic_ack(method.delivery_tag)  # else given back when this client leaves
            if body == end:
                return found
            if properties.type != _END:
                found.append(Found(properties.message_id, body))
    raise AssertionError("the connection ended")


def in_topic(cluster: KafkaCluster, topic: str) -> list[Found]:
    """All of a topic, partition by partition in their order."""
    reader = Consumer(
        {
            "bootstrap.servers": cluster.url,
            "group.id": "none",
            "enable.auto.commit": False,
            "enable.partition.eof": False,
        }
    )
    try:
        partitions = reader.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions
        return [found for number in partitions for found in _in_partition(reader, topic, number)]
    finally:
        reader.close()


def _in_partition(reader: Consumer, topic: str, number: int) -> Iterator[Found]:
    first = TopicPartition(topic, number, OFFSET_BEGINNING)
    _, end = reader.get_watermark_offsets(first, timeout=PATIENCE_S)
    reader.assign([first])
    reached = 0
    while reached < end:
        record = reader.poll(PATIENCE_S)
        assert record is not None, "nothing comes"
        assert record.error() is None, record.error()
        reached = record.offset() + 1
        headers = dict(record.headers() or [])
        yield Found(headers.get("message-id", b"").decode() or None, record.value())
