"""Publishing over AMQP channels in confirm mode, and finding the end of every message.

The broker numbers publishes from 1 per AMQP channel and answers by number, one or many at a time,
in any order. An unroutable message is *returned* first and then acknowledged like any other, so
a return is remembered until its acknowledgement. A return carries no number; as returns keep the
order of publishing, it belongs to the first message after the last return that looks like it.

What goes to streams needs an AMQP channel for each of them. Before 4.0 the broker numbers a
channel's messages for each stream, and when the stream's leader changes it sends what the old one
has not confirmed to the new one, but under the channel's numbers. Where those are higher, the
stream takes as many later messages for copies: it confirms and drops them. On a channel where
every publish reached the one stream, both numbers are the same (docs/design/0035).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pika import exceptions
from pika.spec import Basic, BasicProperties

from gearshift.driver import OnOutcomes, Outcome, Stored
from gearshift.errors import UnknownChannel
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.errors import PublishNacked, PublishReturned
from gearshift_rabbitmq.rpc import Rpc

__all__ = ["Batch", "ConfirmWatch", "Confirms", "Encode", "Publication", "Target", "confirmed"]

logger = logging.getLogger("gearshift.rabbitmq.producer")

T = TypeVar("T")


class Publication(NamedTuple):
    """One message as AMQP sees it."""

    exchange: str
    routing_key: str | bytes
    properties: BasicProperties
    body: bytes


class Batch(Generic[T]):
    """What one submit brought. ``written`` is how many of ``items`` were handed to pika; ``ahead``
    is the next one of them, if it was encoded before it could be published."""

    __slots__ = ("ahead", "items", "on_outcomes", "written")

    def __init__(self, items: Sequence[T], on_outcomes: OnOutcomes) -> None:
        self.items = items
        self.on_outcomes = on_outcomes
        self.written = 0
        self.ahead: Publication | None = None


Encode = Callable[[T], Publication]
Report = Callable[[Batch[T], list[Outcome]], None]


class Target(NamedTuple, Generic[T]):
    """Where items go. ``encode`` turns one into a publication; ``missing`` says what is gone if the
    broker returns one, where only that can be the cause; ``by_route`` gives each routing key an
    AMQP channel of its own, as streams need it. ``refused`` is what a nack says of
    an item: behind an exchange one queue may have taken what another refused."""

    encode: Encode[T]
    missing: str | None = None
    by_route: bool = False
    refused: Stored = Stored.NO


class ConfirmWatch:
    """Notices that no confirm comes: the connected node may be cut off from its cluster.

    Where there is no other node to go to, that is only waited for.
    """

    def __init__(self, connection: Connection, limit_s: float) -> None:
        self._connection = connection
        self._limit_s = limit_s
        self.confirmed()

    def confirmed(self) -> None:
        """Note that one has come."""
        self._confirmed_at = time.monotonic()

    def check(self, awaited: bool) -> None:
        """Leave the node and raise TimeoutError if confirms are ``awaited`` for too long."""
        at = self._connection
        if not (awaited and at.has_other_nodes) or at.blocked is not None or at.stood_still:
            self.confirmed()
        elif time.monotonic() - self._confirmed_at > self._limit_s:
            at.leave_node()
            raise TimeoutError(f"nothing was confirmed for {self._limit_s:g} s")


def confirmed(method: Any, awaited: Iterable[int]) -> set[int]:
    """The numbers that basic.ack or basic.nack answers, of those that are awaited."""
    tag = method.delivery_tag
    return {number for number in awaited if number <= tag} if method.multiple else {tag}


class Confirms(Generic[T]):
    """Publishes to ``target``.

    Not thread-safe: lives on the thread that drives ``connection``. ``report`` is called there.
    """

    def __init__(self, connection: Connection, target: Target[T], report: Report[T]) -> None:
        """No I/O: an AMQP channel is opened when something has to go over it."""
        self._connection = connection
        self._target = target
        self._report = report
        self._channels: dict[str | bytes, _ConfirmChannel[T]] = {}

    def ready(self, batch: Batch[T]) -> bool:
        """Open the AMQP channel that ``batch`` waits for; waits for the broker's answers.

        False while confirms of the one before it are awaited, so that the order stays.
        """
        if batch.ahead is None:
            return True
        route = self._route(batch.ahead)
        channel = self._channels.get(route)
        if channel is not None and not channel.takes_more:
            if channel.unconfirmed:
                return False
            channel.close()
            channel = None
        if channel is None:
            self._channels[route] = _ConfirmChannel(self._connection, self._target, self._report)
        return True

    def publish(self, batch: Batch[T], most_messages: int, most_bytes: int) -> tuple[int, int]:
        """Publish the next of ``batch`` within both limits; how many, and their bytes.

        Stops before one whose AMQP channel has to be opened (see ``ready``).
        """
        items, start, size = batch.items, batch.written, 0
        end = min(len(items), start + most_messages)
        number = start
        encode, route, get = self._target.encode, self._route, self._channels.get
        while number < end and size < most_bytes:
            try:
                publication = batch.ahead or encode(items[number])
                channel = get(route(publication))
                if channel is None or not channel.takes_more:
                    batch.ahead = publication
                    break
                batch.ahead = None
                channel.publish(batch, number, publication)
            except Exception as error:
                # Nothing of it was written: pika encodes a message before it sends a byte of it.
                self._report(batch, [Outcome(number, Stored.NO, None, error)])
            else:
                size += len(publication.body)
            number += 1
        batch.written = number
        return number - start, size

    @property
    def awaited(self) -> bool:
        """Whether any outcome is awaited."""
        return any(channel.unconfirmed for channel in self._channels.values())

    def fail(self, error: Exception) -> None:
        """Report all that is unconfirmed as UNKNOWN."""
        for channel in self._channels.values():
            channel.fail(error)

    def _route(self, publication: Publication) -> str | bytes:
        return publication.routing_key if self._target.by_route else ""


class _ConfirmChannel(Generic[T]):
    """One AMQP channel."""

    def __init__(self, connection: Connection, target: Target[T], report: Report[T]) -> None:
        """Open the AMQP channel; waits for the broker's answers."""
        self._target = target
        self._report = report
        self._pending: dict[int, tuple[Batch[T], int]] = {}
        self._returned: dict[int, Exception] = {}
        self._next = 1
        self._lowest = 1
        self._after_return = 1
        #: False once another is needed: the broker has closed it, and what was unconfirmed has been
        #: reported; or a message that reached no stream took a number (see the top of this module);
        #: or one was refused, as all are until a dead leader's node is back on an AMQP channel that
        #: met no other leader.
        self.takes_more = True
        rpc = Rpc(connection)
        self._channel = rpc.channel
        self._publish = rpc.channel.basic_publish
        self._channel.add_on_return_callback(self._on_return)
        self._channel.add_on_close_callback(self._on_close)
        rpc("confirm_delivery", ack_nack_callback=self._on_confirm)

    @property
    def unconfirmed(self) -> bool:
        """Whether an outcome is awaited."""
        return bool(self._pending)

    def publish(self, batch: Batch[T], number: int, publication: Publication) -> None:
        """Publish item ``number`` of ``batch``. Raises what is wrong with it, nothing written."""
        exchange, routing_key, properties, body = publication
        self._publish(exchange, routing_key, body, properties, True)
        self._pending[self._next] = (batch, number)
        self._next += 1

    def close(self) -> None:
        """Close it without waiting."""
        if self._channel.is_open:
            self._channel.close()

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
            self.takes_more = False
            self._resolve(tags, self._target.refused, PublishNacked("basic.nack"))
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
            sent = self._target.encode(entry[0].items[entry[1]])
            if (
                (self._target.by_route or sent.routing_key == method.routing_key)
                and sent.properties.message_id == properties.message_id
                and sent.body == body
            ):
                self._after_return = tag + 1
                self.takes_more = self.takes_more and not self._target.by_route
                self._returned[tag] = self._why_returned(method)
                return
        logger.error(
            "the broker returned a message that was not sent here: %r", properties.message_id
        )

    def _why_returned(self, method: Any) -> Exception:
        if self._target.missing is not None:
            return UnknownChannel(self._target.missing)
        return PublishReturned(
            f"{method.reply_text} from exchange {method.exchange!r} by {method.routing_key!r}"
        )

    def _on_close(self, _: Any, reason: Exception) -> None:
        self.takes_more = False
        if isinstance(reason, exceptions.ChannelClosedByBroker) and len(self._pending) == 1:
            # It closes the channel over a publish that it refuses; this can be no other.
            self._resolve(list(self._pending), Stored.NO, reason)
        else:
            self.fail(reason)
