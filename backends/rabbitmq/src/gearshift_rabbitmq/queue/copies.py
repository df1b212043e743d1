"""Copies of what a consumer holds: stored and confirmed before the original is settled.

A retry without delay goes to the queue's end, what was lost to the suspects (see ``suspects``). A
delayed retry goes to a quorum queue without consumers, ``<queue>:retry-<n>s``, with its delay as
its own expiration; when that is over the broker moves it back to ``<queue>`` through the default
exchange, at least once. The queues form a fixed row, each twice the last, because a quorum queue
expires messages from its head only: in one queue a short delay would wait behind a long one, and
here behind at most twice its own. The row is finite and is removed with the channel; ``x-expires``
would remove unused ones, but on quorum queues it also removes used ones with their messages
(rabbitmq-server#5894).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from pika.spec import BasicProperties

from gearshift.driver import Outcome, Received, Stored
from gearshift.errors import MessageTooLarge
from gearshift.message import Message
from gearshift_rabbitmq.confirms import Target
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.declaring import declare_queue, placed
from gearshift_rabbitmq.producer import Producer
from gearshift_rabbitmq.queue.names import dead_letter_to, delay_queue, limited
from gearshift_rabbitmq.settings import ChannelSettings
from gearshift_rabbitmq.wire.decoding import Token
from gearshift_rabbitmq.wire.encoding import encoded, properties_of_copy
from gearshift_rabbitmq.wire.headers import as_text
from gearshift_rabbitmq.wire.publishing import Publication

__all__ = ["Copies"]


class Copies:
    """Stores deliveries of ``queue`` again, over a connection of its own from the first one on: on
    the consumer's connection a memory alarm would stop acknowledgements too.

    Lives on the consumer's thread. Only ``_outcomes`` is also written by the producer's.
    """

    def __init__(
        self,
        connect: Callable[[str], Connection],
        queue: str,
        suspects: str,
        *,
        native: ChannelSettings | None,
        name: str,
        wake: Callable[[], None],
    ) -> None:
        """``wake`` is called from another thread when there are outcomes."""
        self._connect = connect
        self._queue = queue
        self._suspects = suspects
        self._native = native
        self._name = name
        self._wake = wake
        self._producer: Producer | None = None
        self._outcomes: deque[tuple[int, Outcome]] = deque()

    def retry(self, token: Token, message: Message, failed: int, delay_s: float) -> None:
        """Store ``message`` as the next attempt, after ``delay_s``. Never waits."""
        queue, expiration_ms = self._queue, None
        if delay_s > 0:
            queue, expiration_ms = delay_queue(queue, delay_s)
        properties = properties_of_copy(
            token.properties, key=message.key, failed=failed, expiration_ms=expiration_ms
        )
        self._store(token.tag, queue, properties, message)

    def set_aside(self, one: Received) -> None:
        """Store a message among the suspects, with what it has lost. Never waits."""
        token: Token = one.token
        properties = properties_of_copy(
            token.properties, key=one.message.key, failed=token.before, lost=one.lost
        )
        self._store(token.tag, self._suspects, properties, one.message)

    def outcomes(self) -> Iterator[tuple[int, Outcome]]:
        """What has become of copies since, by the delivery tag of their originals."""
        while self._outcomes:
            yield self._outcomes.popleft()

    def close(self, timeout_s: float) -> None:
        """Wait for confirms, then end; what is unconfirmed has an unknown outcome."""
        if self._producer is not None:
            self._producer.close(timeout_s)

    def _store(self, tag: int, queue: str, properties: BasicProperties, message: Message) -> None:
        def on_outcomes(outcomes: Sequence[Outcome]) -> None:
            self._outcomes.append((tag, outcomes[0]))
            self._wake()

        try:
            wire = encoded(properties)
        except MessageTooLarge as error:  # its original came in one frame, with less in it
            on_outcomes([Outcome(0, Stored.NO, error=error)])
            return
        if self._producer is None or self._producer.ended is not None:
            self.close(0.0)
            self._producer = Producer(
                lambda: self._connect(f"retries {self._name}"),
                Target(lambda publication: publication, by_route=True, prepare=self._declare),
                name=f"gearshift-rabbitmq-retry-{self._name}",
            )
        publication = Publication(
            "", queue, as_text(properties.message_id), wire, message.body or b""
        )
        self._producer.submit([publication], on_outcomes)

    def _declare(self, connection: Connection, queue: str) -> None:
        if queue != self._queue:
            is_delay = queue != self._suspects
            arguments = dead_letter_to(self._queue) if is_delay else limited(self._queue)
            declare_queue(connection, queue, placed(arguments, self._native))
