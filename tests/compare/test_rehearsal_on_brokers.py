"""A switch from RabbitMQ to Kafka, rehearsed on both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.sending import sending
from support.settings import profiles_of
from support.waiting import take

import gearshift
from gearshift.compare import rehearsal
from gearshift.message import message_id
from native_brokers import Kafka, RabbitMQ

pytestmark = [pytest.mark.broker, pytest.mark.timeout(200)]

HANDLERS = '''\
import time

import gearshift

billed = gearshift.open().producer("billed")
last = {}


def bill(order, delivery):
    billed.send({"order": order["n"]}, key=delivery.key, headers={"from": "rehearsal"})
    return order["n"]


def in_order(order, delivery):
    """Keeps a version per customer in memory, and wants them one after the other."""
    time.sleep(0.004)
    if order["of_key"] != last.get(delivery.key, -1) + 1:
        raise gearshift.Reject("out of order")
    last[delivery.key] = order["of_key"]
'''


@pytest.fixture
def channel(rabbitmq: RabbitMQ, kafka: Kafka, tmp_path: Path) -> str:
    """A live channel's name; the settings know both brokers."""
    name = f"orders_{message_id()[-12:]}"
    (tmp_path / "service.py").write_text(HANDLERS)
    (tmp_path / "gearshift.toml").write_text(
        f"{profiles_of(rabbit=rabbitmq, kafka=kafka)}"
        f"[channels.{name}]\npartitions = 4\n[channels.billed]\n"
    )
    return name


def made(rabbitmq: RabbitMQ) -> list[str]:
    """Every queue and exchange that a comparison has left."""
    return [name for name in rabbitmq.names() if "compare_" in name]


def judged(**wanted: object) -> rehearsal.Result:
    return rehearsal.judge(rehearsal.rehearse(rehearsal.Request(seconds=100.0, **wanted)))  # type: ignore[arg-type]


def verdicts(result: rehearsal.Result) -> dict[str, str]:
    return {one.aspect: one.relation for one in result.differences}


def test_a_live_queue_on_rabbitmq_for_a_stream_on_kafka(channel: str, rabbitmq: RabbitMQ) -> None:
    """Nothing differs for this handler; the service's queue has every message still, uncounted."""
    with sending(channel, "rabbit", keys=4, headers={"source": "shop"}) as sent:
        result = judged(
            old="rabbit", new="kafka", channel=channel, handler="service:bill", messages=60
        )
    assert result.verdict == "safe", result.sentence
    with gearshift.open(profile="rabbit") as bus, bus.consumer(channel) as consumer:
        for number in sent:
            (delivery,) = take(consumer, 1)
            assert (delivery.value["n"], delivery.redelivered) == (number, False)
            delivery.ack()
        assert consumer.receive(timeout_s=0.5) == []
    assert made(rabbitmq) == []


def test_a_message_that_is_too_large_for_kafka_differs(channel: str) -> None:
    """RabbitMQ takes 1.2 MB, a default Kafka does not: found before the switch, with the size."""
    settings = Path("gearshift.toml")
    settings.write_text(settings.read_text().replace("partitions = 4", 'semantics = "stream"'))
    with gearshift.open(profile="rabbit") as bus, bus.producer(channel) as producer:
        producer.send({"n": 0})
        producer.send({"n": 1, "scan": "x" * 1_200_000})
    result = judged(old="rabbit", new="kafka", channel=channel, handler="service:bill", messages=2)
    assert result.verdict == "differs"
    assert verdicts(result)["stored"] == "differs"
    assert "1 of 2 messages cannot be stored there (MessageTooLarge" in result.sentence
    with gearshift.open(profile="rabbit") as bus:
        bus.delete(channel)


def test_a_handler_that_depends_on_order_differs_on_a_queue(channel: str) -> None:
    """From a stream, where each key has one worker, to a queue, where it has any."""
    settings = Path("gearshift.toml")
    settings.write_text(settings.read_text().replace("partitions", 'semantics = "stream"\n#'))
    count = 120
    with gearshift.open(profile="kafka") as bus, bus.producer(channel) as producer:
        producer.send_many(
            producer.message({"n": n, "of_key": n // 4}, key=f"customer-{n % 4}")
            for n in range(count)
        )
        with bus.consumer(channel, group="billing") as consumer:
            for delivery in consumer.receive(7, timeout_s=30):
                delivery.ack()
            consumer.flush()
        before = bus.groups(channel)
    result = judged(
        old="kafka:stream",
        new="rabbit:queue",
        channel=channel,
        handler="service:in_order",
        messages=count,
    )
    with gearshift.open(profile="kafka") as bus:
        after = bus.groups(channel)
        bus.delete(channel)
    assert result.verdict == "differs", json.dumps(verdicts(result))
    assert verdicts(result)["handler ended"] == "differs"
    assert "out of order" in result.sentence
    assert [(one.group, one.lag) for one in after] == [(one.group, one.lag) for one in before]
