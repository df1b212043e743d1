"""Programs with nothing but confluent-kafka on the other side of an adopted topic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import take

import gearshift
from native_brokers import Kafka

pytestmark = pytest.mark.broker

_PRODUCES = """
import json, sys
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
url, topic = sys.argv[1:]
admin = AdminClient({"bootstrap.servers": url})
admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(20)
producer = Producer({"bootstrap.servers": url})
for n in range(5):
    producer.produce(topic, json.dumps({"n": n}), f"k{n}", headers=[("a", b"\\xff"), ("a", "two")])
producer.produce(topic, None, "gone")
assert producer.flush(30) == 0
"""
_CONSUMES = """
import json, sys
from confluent_kafka import Consumer
url, topic, group, count = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": url, "group.id": group, "auto.offset.reset": "earliest",
                     "enable.auto.commit": False})
consumer.subscribe([topic])
records = []
while len(records) < int(count):
    record = consumer.poll(30)
    assert record is not None and record.error() is None, record
    records.append({
        "key": (record.key() or b"").decode(),
        "value": None if record.value() is None else json.loads(record.value()),
        "headers": [[name, value.hex()] for name, value in record.headers() or []],
    })
    consumer.commit(record, asynchronous=False)
consumer.close()
print(json.dumps(records))
"""


def plain(script: str, *arguments: str) -> str:
    """Run a program that does not know Gearshift; what it prints."""
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def adopting(kafka: Kafka, folder: Path, topic: str, group: str | None = None) -> gearshift.Bus:
    native = f'native.kafka.topic = "{topic}"\n'
    if group is not None:
        native += f'native.kafka.group = "{group}"\n'
    file = folder / "gearshift.toml"
    file.write_text(
        f'profile = "p"\n[profiles.p]\nbackend = "kafka"\nbootstrap_servers = ["{kafka.url}"]\n'
        f'[channels.events]\ncodec = "json"\n{native}'
    )
    return gearshift.open(file)


def test_what_a_plain_producer_sends_is_received_as_it_is(
    kafka: Kafka, tmp_path: Path, name: str
) -> None:
    """Key, JSON value, equal header names, bytes over 0x7f, tombstone; no header of ours needed."""
    plain(_PRODUCES, kafka.url, name)
    with adopting(kafka, tmp_path, name) as bus, bus.consumer("events") as consumer:
        deliveries = take(consumer, 6)
        assert [delivery.key for delivery in deliveries] == [*(f"k{n}" for n in range(5)), "gone"]
        assert [delivery.value for delivery in deliveries[:5]] == [{"n": n} for n in range(5)]
        assert deliveries[0].headers.getall("a") == (b"\xff", "two")
        assert deliveries[5].body is None
        for delivery in deliveries:
            delivery.ack()


def test_what_gearshift_sends_is_plain_to_others(kafka: Kafka, tmp_path: Path, name: str) -> None:
    """A plain consumer reads JSON, key and headers, and finds no header that is only ours."""
    plain(_PRODUCES, kafka.url, name)
    with adopting(kafka, tmp_path, name) as bus, bus.producer("events") as producer:
        producer.send({"n": 5}, key="k5", headers={"trace": "abc"}, id="m5")
    record = json.loads(plain(_CONSUMES, kafka.url, name, f"{name}-plain", "7"))[-1]
    assert record["key"] == "k5"
    assert record["value"] == {"n": 5}
    headers = {name: bytes.fromhex(value).decode() for name, value in record["headers"]}
    assert headers["trace"] == "abc"
    assert headers["message-id"] == "m5"
    assert not [name for name in headers if name.startswith("gearshift-")]


def test_a_plain_groups_positions_are_taken_over_and_given_back(
    kafka: Kafka, tmp_path: Path, name: str
) -> None:
    """A plain member read two; Gearshift goes on with the third; then a plain one after those."""
    topic, group = name, f"billing-{name}"
    plain(_PRODUCES, kafka.url, topic)
    plain(_CONSUMES, kafka.url, topic, group, "2")
    with adopting(kafka, tmp_path, topic, group) as bus, bus.consumer("events") as consumer:
        deliveries = take(consumer, 2)
        assert [delivery.value for delivery in deliveries] == [{"n": 2}, {"n": 3}]
        for delivery in deliveries:
            delivery.ack()
    (record,) = json.loads(plain(_CONSUMES, kafka.url, topic, group, "1"))
    assert record["value"] == {"n": 4}
