"""The producer driver: messages of one channel, published with confirms by a `Publisher`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gearshift.driver import OnOutcomes
from gearshift.message import Key, Message, key_bytes
from gearshift_rabbitmq.confirms import Encode, Publication, Target
from gearshift_rabbitmq.connection import Link
from gearshift_rabbitmq.publisher import Publisher, connected
from gearshift_rabbitmq.topology import Topology
from gearshift_rabbitmq.wire import first_routing_key, properties_of

__all__ = ["Producer", "encoder"]


class Producer:
    """A ProducerDriver. YES means: persistent, routed to a queue and confirmed by the broker.

    A bad publish (a missing exchange, say) makes the broker close the AMQP channel; what was in
    flight with it is UNKNOWN, or NO if it was alone, and later batches go over a new AMQP channel
    of the same connection. Once the connection itself is lost, every submit ends as NO.
    """

    def __init__(
        self, connect: Callable[[], Link], target: Target[Message], *, channel: str
    ) -> None:
        """Connect. Raises pika's error if the broker does not take the connection."""
        name = f"gearshift-rabbitmq-send-{channel}"
        self._publisher = Publisher(connected(connect), target, name=name)

    @property
    def heard_at(self) -> float | None:
        """See ProducerDriver."""
        return self._publisher.heard_at

    @property
    def ended(self) -> Exception | None:
        """See ProducerDriver."""
        return self._publisher.ended

    def submit(self, messages: Sequence[Message], on_outcomes: OnOutcomes) -> None:
        """See ProducerDriver. Outcomes are grouped as the broker's confirms are."""
        self._publisher.submit(messages, on_outcomes)

    def blocked(self) -> str | None:
        """The broker's reason (a memory or disk alarm), or None."""
        return self._publisher.blocked()

    def close(self, timeout_s: float) -> None:
        """See ProducerDriver. Takes up to a second longer, for a farewell to the broker."""
        self._publisher.close(timeout_s)


def encoder(topology: Topology, user: str | None = None) -> Encode[Message]:
    """How messages of this channel become publications; ``user`` is who publishes."""
    exchange, fixed = topology.exchange, topology.routing_key
    if fixed is not None:

        def fixed_key(message: Message) -> Publication:
            properties = properties_of(message, key_in_header=True, user=user)
            return Publication(exchange, fixed, properties, message.body or b"")

        return fixed_key

    def message_key(message: Message) -> Publication:
        key = message.key
        fits = key is not None and _can_route(key)
        properties = properties_of(
            message, key_in_header=not (fits and topology.routes_by_key), user=user
        )
        if key is not None and fits:
            route: str | bytes = key
        elif topology.exchange_is_ours:
            route = ""
        else:  # behind a direct exchange a foreign message has a route and no key
            route = first_routing_key(message) or ""
        return Publication(exchange, route, properties, message.body or b"")

    return message_key


def _can_route(key: Key) -> bool:
    """Whether a key can be a routing key: an AMQP short string of text that is not empty."""
    return isinstance(key, str) and 0 < len(key_bytes(key)) <= 255 and "\0" not in key
