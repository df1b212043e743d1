"""Parts of the backend by themselves: watching for confirms, asking the broker, time limits."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from pika.spec import Basic

from gearshift.driver import Received
from gearshift.message import Message
from gearshift_rabbitmq.confirms import ConfirmWatch
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.nodes import Nodes
from gearshift_rabbitmq.queue.consumer_timeout import ConsumerTimeout
from gearshift_rabbitmq.rpc import Rpc, find
from gearshift_rabbitmq.settings import Settings
from gearshift_rabbitmq.wire.decoding import Token, received
from gearshift_rabbitmq.wire.encoding import encoded
from gearshift_rabbitmq.wire.properties import Properties, field
from native_brokers import RabbitMQ


class Node:
    """Stands for the connection to a node that confirms nothing."""

    def __init__(self, **state: object) -> None:
        self.has_other_nodes, self.stood_still, self.blocked = True, False, None
        self.unsent = 0  # bytes
        self.__dict__ |= state
        self.left = False
        self.pika = self

    def unsent_bytes(self) -> int:
        return self.unsent

    def leave_node(self) -> None:
        self.left = True


def test_a_node_that_confirms_nothing_is_left() -> None:
    """Only then another is tried first."""
    node = Node()
    watch = ConfirmWatch(cast(Connection, node), -1.0)
    watch.check(awaited=False)
    assert not node.left
    with pytest.raises(TimeoutError):
        watch.check(awaited=True)
    assert node.left


@pytest.mark.parametrize(
    "state",
    [{"has_other_nodes": False}, {"stood_still": True}, {"blocked": "low on memory"}],
    ids=str,
)
def test_a_node_is_not_left_for_what_is_not_its_fault(state: dict[str, object]) -> None:
    """There is no other, this process stood still, or the broker takes nothing at present."""
    node = Node(**state)
    ConfirmWatch(cast(Connection, node), -1.0).check(awaited=True)
    assert not node.left


def test_a_node_that_still_takes_what_is_sent_is_not_left() -> None:
    """On a slow way to it a large message takes long; one that takes no more of it is."""
    node = Node(unsent=30)
    watch = ConfirmWatch(cast(Connection, node), -1.0)
    watch.check(awaited=False)
    node.unsent = 20
    watch.check(awaited=True)
    assert not node.left
    with pytest.raises(TimeoutError):
        watch.check(awaited=True)


def test_what_was_held_for_too_long_is_over_before_the_broker_takes_it_back() -> None:
    """And what waits is given back while there is still time to work on it."""
    limit = ConsumerTimeout(100.0, 30.0)
    locked_until, return_at = limit.of_new()
    now = time.monotonic()
    assert 98.0 < locked_until - now <= 99.0
    assert return_at - now <= 50.0
    one = Received(Message(b""), Token(7, 0, 0, Properties()), locked_until=now + 99.0)
    held: list[Any] = [one]
    assert limit.over(lambda: held, now) == []
    assert limit.over(lambda: held, now + 98.9) == []
    assert limit.over(lambda: held, now + 99.1) == [7]


@pytest.mark.parametrize("name", ["tenant", "\\xff", "\\xfe", "acme", "type", "gearshift-lost"])
def test_a_delivery_says_which_headers_it_has_as_if_it_were_read(name: str) -> None:
    """Also of a name that is no UTF-8, and of what is in its bytes and is no header."""
    sent = Properties(type="order")
    sent.fields = [field("tenant", "acme"), field(b"\xff", "odd"), field("gearshift-lost", 1)]
    method = Basic.Deliver("tag", 1, False, "orders", "ada")
    message = received(method, Properties.unread(encoded(sent)), b"{}").message
    has_it = message.has_header(name)
    assert has_it == (name in message.headers)
    assert has_it == (name in ("tenant", "\\xff"))


@pytest.mark.broker
class Slow:
    """Stands for the connection to a broker that answers each question after twelve seconds."""

    def __init__(self) -> None:
        self.nodes, self.pika, self.waited_s = Nodes(), Mock(), list[float]()

    def wait_for(self, done: object, timeout_s: float) -> bool:
        self.waited_s.append(timeout_s)
        return timeout_s >= 12.0

    def leave_node(self) -> None: ...


def test_a_slow_broker_is_asked_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixed patience, and a new connection after it, would never get an answer."""
    connection = Slow()
    clock = SimpleNamespace(monotonic=lambda: sum(connection.waited_s))
    monkeypatch.setattr("gearshift_rabbitmq.rpc.time", clock)
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"no answer to channel\.open"):
            Rpc(cast(Connection, connection))
    Rpc(cast(Connection, connection))
    assert connection.waited_s == [5.0, 10.0, 20.0]


def test_a_question_leaves_no_amqp_channel_open(rabbitmq: RabbitMQ) -> None:
    """Whether what it asks for is there or not: a connection has 2,047 of them."""
    connection = Connection(Settings(url=rabbitmq.url), "test")
    try:
        for _ in range(3):
            assert find(connection, "exchange", "amq.fanout") is not None
            assert find(connection, "queue", "nothing of this name") is None
        assert connection.wait_for(lambda: not connection.pika._channels, 5.0)
    finally:
        connection.close(1.0)
