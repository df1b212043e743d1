"""Retries that wait in the broker: stored again, confirmed, and only then is the original settled.

A delayed copy goes to a quorum queue without consumers, ``<queue>:retry-<n>s``, with its delay as
its own expiration; when that is over the broker moves it back to ``<queue>`` through the default
exchange, at least once. The queues form a fixed row, each twice the last, because a quorum queue
expires messages from its head only: in one queue a short delay would wait behind a long one, and
here behind at most twice its own. The row is finite and is removed with the channel; ``x-expires``
would remove unused ones, but on quorum queues it also removes used ones with their messages
(rabbitmq-server#5894).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pika.spec import BasicProperties

from gearshift.driver import OnOutcomes, Received
from gearshift.message import Message
from gearshift_rabbitmq.confirms import Publication, Target
from gearshift_rabbitmq.connection import Link
from gearshift_rabbitmq.declaring import declare_queue, placed
from gearshift_rabbitmq.publisher import Publisher
from gearshift_rabbitmq.settings import RabbitChannel
from gearshift_rabbitmq.topology import dead_letter_to, limited
from gearshift_rabbitmq.wire import Token, retried

__all__ = ["Retries", "delay_queues"]

#: 1 s to 12 days: the row's steps. A longer delay is cut to the last.
_STEPS_S = tuple(2**power for power in range(21))


class Retries:
    """Stores deliveries of ``queue`` again. Connects on the first use, on a thread of its own:
    on the consumer's connection a memory alarm would stop acknowledgements too."""

    def __init__(
        self,
        connect: Callable[[], Link],
        queue: str,
        suspects: str,
        *,
        native: RabbitChannel | None,
        name: str,
    ) -> None:
        self._queue = queue
        self._suspects = suspects
        self._native = native
        self._declared: set[str | bytes] = set()
        self._publisher: Publisher[Publication] = Publisher(
            connect, Target(_itself), name=name, prepare=self._declare
        )

    @property
    def finished(self) -> bool:
        """True once its connection has ended: take a new one."""
        return self._publisher.ended is not None

    def store(
        self, token: Token, message: Message, failed: int, delay_s: float, on_outcomes: OnOutcomes
    ) -> None:
        """Store ``message`` again as its queue's next attempt, after ``delay_s``. Never waits."""
        queue, expiration_ms = self._queue, None
        if delay_s > 0:
            queue, expiration_ms = _place(self._queue, delay_s)
        properties = retried(
            token.properties, key=message.key, failed=failed, expiration_ms=expiration_ms
        )
        self._submit(queue, properties, message, on_outcomes)

    def store_suspect(self, one: Received, on_outcomes: OnOutcomes) -> None:
        """Store a message among the suspects, with what it has lost. Never waits."""
        token: Token = one.token
        properties = retried(
            token.properties, key=one.message.key, failed=token.before, lost=one.lost
        )
        self._submit(self._suspects, properties, one.message, on_outcomes)

    def _submit(
        self, queue: str, properties: BasicProperties, message: Message, on_outcomes: OnOutcomes
    ) -> None:
        publication = Publication("", queue, properties, message.body or b"")
        self._publisher.submit([publication], on_outcomes)

    def close(self, timeout_s: float) -> None:
        """Wait for confirms, then end; what is unconfirmed is reported as unknown."""
        self._publisher.close(timeout_s)

    def _declare(self, link: Link, publications: Sequence[Publication]) -> None:
        for queue in {publication.routing_key for publication in publications}:
            if queue == self._queue or queue in self._declared:
                continue
            is_delay = queue != self._suspects
            arguments = dead_letter_to(self._queue) if is_delay else limited(self._queue)
            declare_queue(link, str(queue), placed(arguments, self._native))
            self._declared.add(queue)


def delay_queues(queue: str) -> list[str]:
    """Every name that a delay queue of ``queue`` can have."""
    return [_name(queue, step) for step in _STEPS_S]


def _place(queue: str, delay_s: float) -> tuple[str, int]:
    """The delay queue and the expiration in milliseconds for a delay."""
    capped = min(delay_s, _STEPS_S[-1])
    step = next(step for step in _STEPS_S if capped <= step)
    return _name(queue, step), max(1, round(capped * 1000))


def _name(queue: str, step_s: int) -> str:
    return f"{queue}:retry-{step_s}s"


def _itself(publication: Publication) -> Publication:
    return publication
