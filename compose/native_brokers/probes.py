"""Is the server serving? Just enough of both wire protocols to ask it, with sockets alone."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from native_brokers.ports import LOOPBACK

_TIMEOUT_S = 2.0
_FRAME_END = b"\xce"


def amqp_answers(port: int, user: str, password: str) -> bool:
    """Tell whether a RabbitMQ on `port` lets `user` open the virtual host `/`.

    Blocks for two seconds at most for each of its answers. The server opens its listener as the
    last step of its boot, and opens a virtual host only when its queues are there, so a yes means
    that queues can be declared and read.
    """
    with suppress(OSError, EOFError), _connect(port) as connection:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        _expect(connection, (10, 10))  # start
        login = f"\0{user}\0{password}".encode()
        start_ok = _table() + _short(b"PLAIN") + _long(login) + _short(b"en_US")
        _send_method(connection, (10, 11), start_ok)
        channel_max, frame_max, _ = struct.unpack(">HIH", _expect(connection, (10, 30)))  # tune
        _send_method(connection, (10, 31), struct.pack(">HIH", channel_max, frame_max, 0))
        _send_method(connection, (10, 40), _short(b"/") + _short(b"") + b"\0")
        _expect(connection, (10, 41))  # open-ok
        _send_method(connection, (10, 50), struct.pack(">H", 200) + _short(b"") + bytes(4))
        _expect(connection, (10, 51))  # close-ok
        return True
    return False


def kafka_answers(port: int, *, brokers: int = 1) -> bool:
    """Tell whether a Kafka broker on `port` reports so many live brokers, itself among them.

    Blocks for two seconds at most for each of its answers. A broker accepts connections, and
    answers ApiVersions, before the controller counts it in; until then no topic can be made.
    """
    with suppress(OSError, EOFError):
        return _kafka_metadata(port, topics=0).number() >= brokers
    return False


class KafkaPartition(NamedTuple):
    """A partition as a Kafka broker knows it. Nodes by their ids, `leader` -1 if it has none."""

    topic: str
    number: int
    leader: int
    replicas: list[int]
    in_sync: list[int]


def kafka_partitions(port: int) -> list[KafkaPartition]:
    """Return all partitions that a Kafka broker on `port` knows of; none if it does not answer.

    Blocks for two seconds at most for each of its answers.
    """
    with suppress(OSError, EOFError):
        return list(_partitions(_kafka_metadata(port, topics=-1)))
    return []


def _partitions(answer: _Fields) -> Iterator[KafkaPartition]:
    for _ in range(answer.number()):
        answer.number()  # the broker's id, host, port and rack
        answer.text()
        answer.number()
        answer.text()
    answer.number()  # the controller
    for _ in range(answer.number()):
        answer.number(">h")  # an error
        topic = answer.text()
        answer.number(">b")  # whether it is internal
        for _ in range(answer.number()):
            answer.number(">h")
            number, leader = answer.number(), answer.number()
            yield KafkaPartition(topic, number, leader, answer.numbers(), answer.numbers())


def _kafka_metadata(port: int, *, topics: int) -> _Fields:
    """Return the answer to a metadata request, from the brokers on, for 0 topics or -1: all."""
    with _connect(port) as connection:
        # Metadata request (api key 3) version 1, correlation id 1, client id null.
        request = struct.pack(">hhihi", 3, 1, 1, -1, topics)
        connection.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", _read(connection, 4))
        answer = _Fields(_read(connection, size))
        answer.number()  # the correlation id
        return answer


class _Fields:
    """An answer of Kafka's, read field by field."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, layout: str = ">i") -> int:
        (value,) = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return int(value)

    def numbers(self) -> list[int]:
        return [self.number() for _ in range(self.number())]

    def text(self) -> str:
        size = max(self.number(">h"), 0)  # -1 for null
        self._at += size
        return self._data[self._at - size : self._at].decode()


def _connect(port: int) -> socket.socket:
    return socket.create_connection((LOOPBACK, port), timeout=_TIMEOUT_S)


def _read(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        block = connection.recv(size - len(received))
        if not block:
            raise EOFError
        received += block
    return received


def _expect(connection: socket.socket, method: tuple[int, int]) -> bytes:
    """Read one method frame and return its arguments; `EOFError` if it is another method."""
    _, _, size = struct.unpack(">BHI", _read(connection, 7))
    payload = _read(connection, size + len(_FRAME_END))
    if struct.unpack_from(">HH", payload) != method:
        raise EOFError
    return payload[4:-1]


def _send_method(connection: socket.socket, method: tuple[int, int], arguments: bytes) -> None:
    payload = struct.pack(">HH", *method) + arguments
    connection.sendall(struct.pack(">BHI", 1, 0, len(payload)) + payload + _FRAME_END)


def _short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _long(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def _table() -> bytes:
    return _long(b"")
