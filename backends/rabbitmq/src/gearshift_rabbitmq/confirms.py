"""Publishing over AMQP channels in confirm mode, and finding the end of every message.

The broker numbers publishes from 1 per AMQP channel and answers by number, one or many at a time,
in any order. An unroutable message is *returned* first and then acknowledged like any other, so
a return is remembered until its acknowledgement. A return carries no number; as returns keep the
order of publishing, it belongs to the first message after the last return that looks like it.

What goes to streams needs an AMQP channel for each of them. Before 4.0, when a stream's leader
changes, the broker repeats what is unconfirmed under the channel's numbers instead of the stream's,
and the stream drops what it takes for copies. Where every publish of a channel reached one stream,
both numbers are the same (docs/design/0035).
"""

from __future__ import annotations

import itertools
import logging
import operator
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from pika import exceptions
from pika.spec import BasicProperties

from gearshift.driver import OnOutcomes, Outcome, Stored
from gearshift.errors import UnknownChannel
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.errors import PublishNacked, PublishReturned
from gearshift_rabbitmq.rpc import Rpc
from gearshift_rabbitmq.wire.headers import as_text
from gearshift_rabbitmq.wire.publishing import Publication

__all__ = ["Batch", "ConfirmWatch", "Confirms", "Encode", "Target", "confirmed"]

logger = logging.getLogger("gearshift.rabbitmq.producer")


class Batch:
    """One submit: ``written`` of its ``items`` were given to pika, and ``ahead`` is the next one,
    if it was encoded before it could be published."""

    __slots__ = ("ahead", "items", "on_outcomes", "written")

    def __init__(self, items: Sequence[Any], on_outcomes: OnOutcomes) -> None:
        self.items = items
        self.on_outcomes = on_outcomes
        self.written = 0
        self.ahead: Publication | None = None


Encode = Callable[[Any], Publication]
Report = Callable[[Batch, list[Outcome]], None]


class Target(NamedTuple):
    """Where items go. ``encode`` turns one into a publication; ``missing`` says what is gone if the
    broker returns one, where only that can be the cause; ``by_route`` gives each routing key an
    AMQP channel of its own, as streams need it; ``refused`` is what a nack says of an item: behind
    an exchange one queue may have taken what another refused. ``prepare`` is called before an AMQP
    channel is opened for a routing key, and may ask the broker."""

    encode: Encode
    missing: str | None = None
    by_route: bool = False
    refused: Stored = Stored.NO
    prepare: Callable[[Connection, str], None] | None = None


class ConfirmWatch:
    """Notices that no confirm comes: the connected node may be cut off from its cluster.

    Where there is no other node to go to, that is only waited for.
    """

    def __init__(self, connection: Connection, limit_s: float) -> None:
        self._connection = connection
        self._limit_s = limit_s
        self._unsent = 0
        self.confirmed()

    def confirmed(self) -> None:
        """Note that one has come."""
        self._confirmed_at = time.monotonic()

    def check(self, awaited: bool) -> None:
        """Leave the node and raise TimeoutError if confirms are ``awaited`` for too long."""
        at = self._connection
        unsent, before = at.pika.unsent_bytes(), self._unsent
        self._unsent = unsent
        if (
            not (awaited and at.has_other_nodes)
            or at.blocked is not None
            or at.stood_still
            or unsent < before  # the node still takes them
        ):
            self.confirmed()
        elif time.monotonic() - self._confirmed_at > self._limit_s:
            at.leave_node()
            raise TimeoutError(f"nothing was confirmed for {self._limit_s:g} s")


def confirmed(method: Any, awaited: Iterable[int]) -> set[int]:
    """The numbers that basic.ack or basic.nack answers, of those that are awaited."""
    tag = method.delivery_tag
    return {number for number in awaited if number <= tag} if method.multiple else {tag}


class Confirms:
    """Publishes to ``target``. On the thread that drives ``connection``, as ``report`` is."""

    def __init__(self, connection: Connection, target: Target, report: Report) -> None:
        """No I/O: an AMQP channel is opened when something has to go over it."""
        self._connection = connection
        self._target = target
        self._report = report
        self._channels: dict[str | bytes, _ConfirmChannel] = {}

    def ready(self, batch: Batch) -> bool:
        """Open the AMQP channel that ``batch`` waits for; waits for the broker's answers.

        False while confirms of the one before it are awaited, so that the order stays.
        """
        if batch.ahead is None:
            return True
        route = self._route(batch.ahead)
        channel = self._channels.get(route)
        if channel is not None:
            if channel.takes_more or channel.pending:
                return channel.takes_more
            channel.close()
            del self._channels[route]
        if self._is_prepared(batch, route):
            self._channels[route] = _ConfirmChannel(self._connection, self._target, self._report)
        return True

    def _is_prepared(self, batch: Batch, route: str | bytes) -> bool:
        """Prepare the next item's route; report it as not stored if that is refused."""
        try:
            if self._target.prepare is not None:
                self._target.prepare(self._connection, str(route))
        except Exception as error:
            if self._connection.error is not None:
                raise
            self._report(batch, [Outcome(batch.written, Stored.NO, None, error)])
            batch.ahead = None
            batch.written += 1
            return False
        return True

    def publish(self, batch: Batch, most_messages: int, most_bytes: int) -> tuple[int, int]:
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
        return any(channel.pending for channel in self._channels.values())

    def fail(self, error: Exception) -> None:
        """Report all that is unconfirmed as UNKNOWN."""
        for channel in self._channels.values():
            channel.fail(error)

    def _route(self, publication: Publication) -> str | bytes:
        return publication.routing_key if self._target.by_route else ""


class _ConfirmChannel:
    """One AMQP channel."""

    def __init__(self, connection: Connection, target: Target, report: Report) -> None:
        """Open the AMQP channel; waits for the broker's answers."""
        self._target = target
        self._report = report
        self.pending: dict[int, tuple[Batch, int]] = {}  # by number, in order
        self._returned: dict[int, Exception] = {}
        self._next = 1
        self._after_return = 1
        #: False once another is needed: the broker has closed it, and what was unconfirmed has been
        #: reported; or a message that reached no stream took a number (see the top of this module);
        #: or one was refused, as all are until a dead leader's node is back on an AMQP channel that
        #: met no other leader.
        self.takes_more = True
        rpc = Rpc(connection)
        self._channel = rpc.channel
        self._pika = connection.pika
        self._channel.add_on_return_callback(self._on_return)
        self._channel.add_on_close_callback(self._on_close)
        rpc("confirm_delivery", ack_nack_callback=_elsewhere)
        self._pika.confirms[rpc.channel.channel_number] = self._on_confirm

    def publish(self, batch: Batch, number: int, publication: Publication) -> None:
        """Publish item ``number`` of ``batch``. Raises what is wrong with it, nothing written."""
        self._pika.publish(self._channel.channel_number, publication)
        self.pending[self._next] = (batch, number)
        self._next += 1

    def close(self) -> None:
        if self._channel.is_open:
            self._channel.close()

    def fail(self, error: Exception) -> None:
        """Report all that is unconfirmed as UNKNOWN."""
        self._resolve(list(self.pending), Stored.UNKNOWN, error)

    def _on_confirm(self, tag: int, multiple: bool, is_nack: bool) -> None:
        if not (multiple or is_nack or self._returned):
            if entry := self.pending.pop(tag, None):
                batch, number = entry
                self._report(batch, [Outcome(number, Stored.YES)])
            return
        tags = [tag]
        if multiple:
            tags = list(itertools.takewhile(lambda number: number <= tag, self.pending))
        if is_nack:
            self.takes_more = False
            self._resolve(tags, self._target.refused, PublishNacked("basic.nack"))
        else:
            self._resolve(tags, Stored.YES, None)

    def _resolve(self, tags: Iterable[int], stored: Stored, error: Exception | None) -> None:
        returned = self._returned
        known = [(tag, *self.pending.pop(tag)) for tag in tags if tag in self.pending]
        for batch, its in itertools.groupby(known, key=operator.itemgetter(1)):
            outcomes = [
                Outcome(number, Stored.NO, None, returned.pop(tag))
                if tag in returned
                else Outcome(number, stored, None, error)
                for tag, _, number in its
            ]
            self._report(batch, outcomes)

    def _on_return(self, _: Any, method: Any, properties: BasicProperties, body: bytes) -> None:
        first = next(iter(self.pending), self._next)
        for tag in range(max(self._after_return, first), self._next):
            entry = self.pending.get(tag)
            if entry is None:
                continue
            sent = self._target.encode(entry[0].items[entry[1]])
            if (
                (self._target.by_route or sent.routing_key == method.routing_key)
                and sent.id == as_text(properties.message_id)
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
        self._pika.confirms.pop(self._channel.channel_number, None)
        if isinstance(reason, exceptions.ChannelClosedByBroker) and len(self.pending) == 1:
            # It closes the channel over a publish that it refuses; this can be no other.
            self._resolve(list(self.pending), Stored.NO, reason)
        else:
            self.fail(reason)


def _elsewhere(_: object) -> None:
    """A confirm that pika handles; ours take a shorter way: see PikaConnection."""
