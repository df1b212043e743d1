"""Publishing on one AMQP channel in confirm mode, and finding the end of every message.

The broker numbers publishes from 1 per AMQP channel and answers by number, one or many at a time,
in any order. An unroutable message is *returned* first and then acknowledged like any other, so
a return is remembered until its acknowledgement. A return carries no number; as returns keep the
order of publishing, it belongs to the first message after the last return that looks like it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pika import exceptions
from pika.spec import Basic, BasicProperties

from gearshift.driver import OnOutcomes, Outcome, Stored
from gearshift_rabbitmq.connection import Link, Rpc
from gearshift_rabbitmq.errors import PublishNacked, PublishReturned

__all__ = ["Batch", "ConfirmChannel", "Encode", "Publication"]

logger = logging.getLogger("gearshift.rabbitmq.producer")

T = TypeVar("T")


class Publication(NamedTuple):
    """One message as AMQP sees it."""

    exchange: str
    routing_key: str
    properties: BasicProperties
    body: bytes


class Batch(Generic[T]):
    """What one submit brought. ``written`` is how many of ``items`` were handed to pika."""

    __slots__ = ("items", "on_outcomes", "written")

    def __init__(self, items: Sequence[T], on_outcomes: OnOutcomes) -> None:
        self.items = items
        self.on_outcomes = on_outcomes
        self.written = 0


Encode = Callable[[T], Publication]
Report = Callable[[Batch[T], list[Outcome]], None]


class ConfirmChannel(Generic[T]):
    """Not thread-safe: lives on the thread that drives ``link``. ``report`` is called there."""

    def __init__(self, link: Link, encode: Encode[T], report: Report[T]) -> None:
        """Open the AMQP channel; waits for the broker's answers."""
        self._encode = encode
        self._report = report
        self._pending: dict[int, tuple[Batch[T], int]] = {}
        self._returned: dict[int, Exception] = {}
        self._next = 1
        self._lowest = 1
        self._after_return = 1
        rpc = Rpc(link)
        self._channel = rpc.channel
        self._channel.add_on_return_callback(self._on_return)
        self._channel.add_on_close_callback(self._on_close)
        rpc("confirm_delivery", ack_nack_callback=self._on_confirm)

    @property
    def is_open(self) -> bool:
        """False once the broker has closed it; what was unconfirmed has been reported then."""
        return bool(self._channel.is_open)

    def publish(self, batch: Batch[T], most_messages: int, most_bytes: int) -> tuple[int, int]:
        """Publish the next of ``batch`` within both limits (at least one); how many, and bytes."""
        items, start, size = batch.items, batch.written, 0
        end = min(len(items), start + most_messages)
        number = start
        publish, encode, pending = self._channel.basic_publish, self._encode, self._pending
        while number < end and size < most_bytes:
            try:
                exchange, routing_key, properties, body = encode(items[number])
                publish(exchange, routing_key, body, properties, True)
            except Exception as error:
                # Nothing of it was written: pika encodes a message before it sends a byte of it.
                self._report(batch, [Outcome(number, Stored.NO, None, error)])
            else:
                pending[self._next] = (batch, number)
                self._next += 1
                size += len(body)
            number += 1
        batch.written = number
        return number - start, size

    def fail(self, error: Exception) -> None:
        """Report all that is unconfirmed as UNKNOWN."""
        tags, self._lowest = sorted(self._pending), self._next
        self._resolve(tags, Stored.UNKNOWN, error)

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        tag = method.delivery_tag
        tags: Iterable[int] = (tag,)
        if method.multiple:
            tags = range(self._lowest, tag + 1)
            self._lowest = max(self._lowest, tag + 1)
        elif tag == self._lowest:
            self._lowest = tag + 1
        if isinstance(method, Basic.Nack):
            self._resolve(tags, Stored.NO, PublishNacked("basic.nack"))
        else:
            self._resolve(tags, Stored.YES, None)

    def _resolve(self, tags: Iterable[int], stored: Stored, error: Exception | None) -> None:
        pending, returned = self._pending, self._returned
        batch: Batch[T] | None = None
        outcomes: list[Outcome] = []
        for tag in tags:
            entry = pending.pop(tag, None)
            if entry is None:
                continue
            if entry[0] is not batch:
                if batch is not None:
                    self._report(batch, outcomes)
                batch, outcomes = entry[0], []
            if returned and tag in returned:
                outcomes.append(Outcome(entry[1], Stored.NO, None, returned.pop(tag)))
            else:
                outcomes.append(Outcome(entry[1], stored, None, error))
        if batch is not None:
            self._report(batch, outcomes)

    def _on_return(self, _: Any, method: Any, properties: BasicProperties, body: bytes) -> None:
        for tag in range(max(self._after_return, self._lowest), self._next):
            entry = self._pending.get(tag)
            if entry is None:
                continue
            sent = self._encode(entry[0].items[entry[1]])
            if (
                sent.routing_key == method.routing_key
                and sent.properties.message_id == properties.message_id
                and sent.body == body
            ):
                self._after_return = tag + 1
                self._returned[tag] = PublishReturned(f"{method.reply_code} {method.reply_text}")
                return
        logger.error(
            "the broker returned a message that was not sent here: %r", properties.message_id
        )

    def _on_close(self, _: Any, reason: Exception) -> None:
        if isinstance(reason, exceptions.ChannelClosedByBroker) and len(self._pending) == 1:
            # It closes the channel over a publish that it refuses; this can be no other.
            self._resolve(list(self._pending), Stored.NO, reason)
        else:
            self.fail(reason)
