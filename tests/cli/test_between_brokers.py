"""Messages that go from one broker to another: what is said to be lost is what is lost."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pika
import pytest
from cli.conftest import Run
from confluent_kafka import Consumer, Producer
from pika.adapters.blocking_connection import BlockingChannel
from support.settings import profile_of
from support.waiting import take

import gearshift
from native_brokers import Kafka, RabbitMQ

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def buses(
    rabbitmq: RabbitMQ, kafka: Kafka, name: str, project: Path
) -> Iterator[dict[str, gearshift.Bus]]:
    """One for each profile: the channel, with the group g, is the default there."""
    (project / "gearshift.toml").write_text(
        f'profile = "rabbit"\n[profiles.rabbit]\n{profile_of(rabbitmq)}\n'
        f"[profiles.kafka]\n{profile_of(kafka)}\n"
        f'[channels.{name}]\ngroups = ["g"]\n'
    )
    opened = {profile: gearshift.open(profile=profile) for profile in ("rabbit", "kafka")}
    for bus in opened.values():
        bus.producer(name)
    yield opened
    for bus in opened.values():
        for channel in (name, f"{name}.dead"):
            if bus.exists(channel):
                bus.delete(channel)
        bus.close()


@pytest.fixture
def raw(rabbitmq: RabbitMQ) -> Iterator[BlockingChannel]:
    """A plain client."""
    with pika.BlockingConnection(pika.URLParameters(rabbitmq.url)) as connection:
        yield connection.channel()


def _reject(bus: gearshift.Bus, channel: str) -> None:
    with bus.consumer(channel, group="g") as inbox:
        (delivery,) = take(inbox, 1)
        delivery.reject("no such customer")


def _on_the_way(run: Run, *profiles: str) -> list[str]:
    """What ``explain`` says of messages."""
    text = run("explain", *profiles).stdout
    return text[text.index("a message that goes") :].splitlines()[1:]


def _record(kafka: Kafka, topic: str) -> tuple[bytes | None, dict[str, Any]]:
    """Key and headers of the first record, as another program reads it."""
    consumer = Consumer({
        "bootstrap.servers": kafka.url, "group.id": f"plain-{topic}",
        "auto.offset.reset": "earliest",
    })  # fmt: skip
    consumer.subscribe([topic])
    record = consumer.poll(30)
    assert record is not None
    assert record.error() is None
    headers = record.headers()
    consumer.close()
    key = record.key()
    return key if key is None or isinstance(key, bytes) else key.encode(), dict(headers or [])


def test_what_rabbitmq_alone_carries(
    run: Run, buses: dict[str, gearshift.Bus], raw: BlockingChannel, kafka: Kafka, name: str
) -> None:
    """The dry run names what this letter has, and only that; the rest is in Kafka."""
    headers = {
        "none": None, "decimal": Decimal("1.5"), "table": {"a": 1}, "one": ["a"], "n": 7,
        "gearshift-theirs": "x",
    }  # fmt: skip
    properties = pika.BasicProperties(
        priority=7, expiration="600000", app_id="shop", message_id="m", headers=headers
    )
    raw.basic_publish(name, "k", b"task", properties)
    _reject(buses["rabbit"], name)
    said = run("dlq", "redrive", name, "--to", "kafka").stdout.splitlines()
    typed = "as text (None, floats, times, tables), or one for each item of an array"
    assert said == [
        f"would send up to 1 of '{name}.dead' to '{name}' on kafka again",
        "from rabbitmq, left out: priority, expiration, app_id, reserved_headers",
        f"from rabbitmq, {typed}: typed_headers",
    ]
    possible = _on_the_way(run, "rabbit", "kafka")
    assert f"{typed}: typed_headers" in possible
    assert possible[0].startswith("left out: delivery_mode, priority, expiration, user_id, app_id")
    result = run("dlq", "redrive", name, "--to", "kafka", "--yes")
    assert result.stdout == f"redrove 1 of '{name}.dead' to '{name}' on kafka\n"
    assert _record(kafka, name) == (
        b"k",
        {
            "message-id": b"m", "none": b"None", "decimal": b"1.5", "table": b"{'a': 1}",
            "one": b"a", "n": b"7", "gearshift-header-types": b"2:i", "redrive-group": b"g",
        },
    )  # fmt: skip
    assert run("dlq", "redrive", name, "--to", "kafka").stdout.startswith("would send up to 0 ")


def test_what_kafka_alone_carries(
    run: Run, buses: dict[str, gearshift.Bus], raw: BlockingChannel, kafka: Kafka, name: str
) -> None:
    """Headers without value, and those that begin like ours; a binary key becomes a header."""
    producer = Producer({"bootstrap.servers": kafka.url})
    theirs: list[tuple[str, str | bytes | None]] = [
        ("z", b"1"), ("none", None), ("gearshift-theirs", b"x"), ("a", b"2"),
    ]  # fmt: skip
    producer.produce(name, b"v", b"\xff\x01", headers=theirs)
    assert producer.flush(30) == 0
    _reject(buses["kafka"], name)
    arguments = ("--profile", "kafka", "dlq", "redrive", name, "--to", "rabbit")
    assert run(*arguments).stdout.splitlines()[1:] == [
        "from kafka, as empty text: headers_without_value",
        "from kafka, left out: reserved_headers",
    ]
    possible = _on_the_way(run, "kafka", "rabbit")
    assert "as empty text: headers_without_value" in possible
    assert "headers: sorted by name; those of one name keep their order" in possible
    assert run(*arguments, "--yes").exit_code == 0
    method, properties, body = raw.basic_get(f"{name}.g", auto_ack=True)
    assert (method.routing_key, body) == ("", b"v")
    of_the_broker = ("timestamp_in_ms", "x-delivery-count")
    headers = {one: properties.headers[one] for one in properties.headers.keys() - of_the_broker}
    assert headers == {"a": "2", "gearshift-key": b"\xff\x01", "none": "", "z": "1"}


def test_what_is_copied_by_lines_says_the_same(
    run: Run, buses: dict[str, gearshift.Bus], raw: BlockingChannel, name: str
) -> None:
    """``peek`` on the one, ``send --envelope`` to the other."""
    raw.basic_publish(name, "k", b"task", pika.BasicProperties(priority=7, message_id="m"))
    lines = run("peek", name, "--group", "g").stdout
    sent = run("--profile", "kafka", "send", name, "--envelope", input=lines)
    assert "from rabbitmq, left out: priority" in sent.stderr


def test_nothing_is_lost_on_the_way_within_a_backend(run: Run) -> None:
    """Between two profiles of one kind."""
    assert "a message that goes" not in run("explain", "rabbit", "rabbit").stdout
