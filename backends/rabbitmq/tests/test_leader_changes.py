"""Receipts when a stream gets another leader: what has one is stored, whatever was on its way.

On one node: the leader's process is held, so that publishes wait before it, and then killed.
"""

from __future__ import annotations

import contextlib
import zlib
from collections import Counter
from collections.abc import Iterator

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from support.waiting import PATIENCE_S, until

import gearshift
from native_brokers import RabbitMQ

from .conftest import OpenBus
from .test_streams import stream

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

#: More than ever wait before a leader here, so that a wrong number shows in what comes later.
_AHEAD = 20

#: Keys by the partition of two that they go to.
_KEYS = {zlib.crc32(key.encode()) % 2: key for key in "abcd"}


class Leader:
    """The process that writes a stream."""

    def __init__(self, broker: RabbitMQ, queue: str) -> None:
        self._broker = broker
        self._queue = queue

    def ask(self, expression: str) -> str:
        """What the broker says of ``expression``, in which ``Leader`` is the process."""
        return self._broker.evaluate(
            f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, '
            f'<<"{self._queue}">>)), Leader = amqqueue:get_pid(Q), {expression}'
        )

    def waiting(self) -> int:
        """How many publishes wait before it while it is held."""
        return int(self.ask("element(2, process_info(Leader, message_queue_len))"))

    @contextlib.contextmanager
    def lost(self) -> Iterator[None]:
        """Hold it while the block runs, then kill it and wait for the next one."""
        old = self.ask("sys:suspend(Leader), Leader")
        yield
        self.ask("exit(Leader, kill)")
        assert until(lambda: self.ask("{is_process_alive(Leader), Leader}") != f"{{false,{old}}}")


def send_through_a_loss(
    producer: gearshift.Producer, leader: Leader, key: str, number: int
) -> list[gearshift.Receipt]:
    """Send one while the leader is lost, and more to the next; all have receipts."""
    with leader.lost():
        first = producer.submit(number, key=key, timeout_s=PATIENCE_S)
        assert until(leader.waiting)
    later = range(number + 1, number + 1 + _AHEAD)
    rest = producer.send_many(later, key_by=lambda _: key, raise_on_error=False)
    return [first.result(PATIENCE_S), *(one for one in rest if isinstance(one, gearshift.Receipt))]


def stored(raw: BlockingChannel, queue: str, last: int) -> list[int]:
    """The numbers in ``queue`` before ``last``, which is put behind them."""
    raw.basic_publish("", queue, str(last).encode())
    found: list[int] = []
    raw.basic_qos(prefetch_count=100)
    for method, _, body in raw.consume(
        queue, arguments={"x-stream-offset": "first"}, inactivity_timeout=30
    ):
        assert method is not None, "nothing comes"
        raw.basic_ack(method.delivery_tag)
        if int(body) == last:
            break
        found.append(int(body))
    raw.cancel()
    return found


def test_receipts_hold_when_a_stream_gets_another_leader(
    rabbitmq: RabbitMQ, open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """Also of a producer that has sent to other partitions, which RabbitMQ before 4.0 confuses."""
    producer = open_bus(stream(name)).producer(name)
    producer.send_many(range(_AHEAD), key_by=lambda _: _KEYS[1])
    receipts = send_through_a_loss(producer, Leader(rabbitmq, f"{name}:0"), _KEYS[0], 0)
    assert len(receipts) == 1 + _AHEAD
    assert stored(raw, f"{name}:0", 999) == list(range(1 + _AHEAD))


def test_receipts_hold_after_messages_that_no_stream_took(
    rabbitmq: RabbitMQ, open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """They took numbers of the AMQP channel and none of the stream."""
    producer = open_bus(stream(name)).producer(name)
    raw.queue_unbind(f"{name}:0", name, "0")
    producer.send_many(range(_AHEAD), key_by=lambda _: _KEYS[0])
    receipts = send_through_a_loss(producer, Leader(rabbitmq, f"{name}:0"), _KEYS[0], _AHEAD)
    assert len(receipts) == 1 + _AHEAD
    assert stored(raw, f"{name}:0", 999) == list(range(1 + 2 * _AHEAD))


def test_exactly_what_no_partition_took_is_sent_again(
    open_bus: OpenBus, raw: BlockingChannel, name: str
) -> None:
    """Messages without a key go to the partitions in turn, and what comes back is still known."""
    producer = open_bus(stream(name, "partitions = 3")).producer(name)
    raw.queue_unbind(f"{name}:0", name, "0")
    receipts = producer.send_many(range(_AHEAD))
    found = Counter(
        number for partition in range(3) for number in stored(raw, f"{name}:{partition}", 999)
    )
    assert found.keys() == set(range(_AHEAD))
    assert all(receipts[number].resent for number, copies in found.items() if copies > 1)
