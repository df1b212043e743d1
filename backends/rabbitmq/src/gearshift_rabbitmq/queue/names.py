"""The names of a queue channel's exchange and queues on the broker.

A channel ``orders`` with the group ``billing`` is, unless ``native`` adopts something:

============================================  ====================================================
durable fanout exchange ``orders``            where producers send
durable quorum queue ``orders.billing``       one for each group, bound to it
durable quorum queue                          what the broker itself gave up on, so that its
``orders.billing:undeliverable``              delivery limit never drops anything
durable quorum queue                          what was lost with a consumer, see ``suspects``;
``orders.billing:suspects``                   made when it is needed
durable quorum queues                         where a retry waits, see ``copies``
``orders.billing:retry-4s`` ...
============================================  ====================================================

Dots in a group's name become ``~`` in the queue's, and ``:`` is in no name: so the group ``b.c``
of ``a`` and the group ``c`` of ``a.b`` are two queues, and no channel can be called like a helper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gearshift.driver import ChannelSpec
from gearshift.message import Key, Message, key_bytes
from gearshift_rabbitmq.confirms import Encode
from gearshift_rabbitmq.settings import ChannelSettings
from gearshift_rabbitmq.wire.encoding import first_routing_key, properties_of
from gearshift_rabbitmq.wire.publishing import Publication

__all__ = [
    "DELIVERY_LIMIT",
    "QueueNames",
    "dead_letter_to",
    "delay_queue",
    "helpers",
    "limited",
    "undeliverable",
]

#: Deliveries after which the broker moves a message to ``:undeliverable``. 4.x has 20 and drops.
#: One number for all channels, well above every ``max_attempts`` allowed (see ``backend.check``):
#: following ``max_attempts`` would turn each change of that setting into a conflict.
DELIVERY_LIMIT = 10_000

#: 1 s to 12 days: the delay queues. A longer delay is cut to the last.
_STEPS_S = tuple(2**power for power in range(21))


@dataclass(frozen=True, slots=True)
class QueueNames:
    """The names of one channel. ``routing_key`` None: the message's key is the routing key.

    ``routes_by_key`` says that it is so for foreign messages too. It is not where one routing key
    leads to the queue: behind a direct exchange, or in an adopted queue of which nothing more is
    known, messages share it, and as a key it would have them handled one at a time.
    """

    channel: str
    exchange: str
    exchange_is_ours: bool = False
    routing_key: str | None = None
    binding_key: str = ""
    adopted_queue: str | None = None
    routes_by_key: bool = False
    native: ChannelSettings | None = None

    @staticmethod
    def of(channel: ChannelSpec) -> QueueNames:
        """What ``channel`` and its native settings describe."""
        native: ChannelSettings = channel.native or ChannelSettings()
        if native.exchange is not None:
            binding = native.binding_key or native.routing_key
            key = native.routing_key
            return QueueNames(
                channel.name,
                native.exchange,
                routing_key=key,
                binding_key=binding or ("#" if native.exchange_type == "topic" else ""),
                adopted_queue=native.queue,
                routes_by_key=key is None and native.exchange_type != "direct",
                native=native,
            )
        if native.queue is not None:
            return QueueNames(
                channel.name, "", routing_key=native.queue, adopted_queue=native.queue
            )
        return QueueNames(
            channel.name, channel.name, exchange_is_ours=True, routes_by_key=True, native=native
        )

    def queue(self, group: str) -> str:
        """The queue that ``group`` reads."""
        return self.adopted_queue or f"{self.channel}.{group.replace('.', '~')}"

    def suspects(self, group: str) -> str:
        """Where what was lost waits to be taken one by one: nothing is put beside another's queue,
        so there it is the queue itself."""
        return self.adopted_queue or f"{self.queue(group)}:suspects"

    @property
    def missing(self) -> str | None:
        """What is gone if no queue takes a message; None where its routing may lead nowhere."""
        if self.exchange_is_ours:
            return f"no queue is bound to exchange {self.exchange!r} any more"
        return None if self.exchange else f"queue {self.adopted_queue!r} does not exist"

    def encoder(self, user: str | None = None) -> Encode:
        """How messages of this channel become publications; ``user`` is who publishes."""
        exchange, fixed = self.exchange, self.routing_key

        def encode(message: Message) -> Publication:
            key = message.key
            fits = fixed is None and key is not None and _can_route(key)
            in_header = not (fits and self.routes_by_key)
            properties = properties_of(message, key_in_header=in_header, user=user)
            route: str | bytes = fixed or ""
            if key is not None and fits:
                route = key
            elif fixed is None and not self.exchange_is_ours:
                # Behind a direct exchange a foreign message has a route and no key.
                route = first_routing_key(message) or ""
            return Publication(exchange, route, message.id, properties, message.body or b"")

        return encode


def undeliverable(queue: str) -> str:
    """The queue for what the broker gave up on in ``queue``."""
    return f"{queue}:undeliverable"


def delay_queue(queue: str, delay_s: float) -> tuple[str, int]:
    """The delay queue of ``queue`` for a delay, and the expiration in milliseconds."""
    capped = min(delay_s, _STEPS_S[-1])
    step = next(step for step in _STEPS_S if capped <= step)
    return f"{queue}:retry-{step}s", max(1, round(capped * 1000))


def helpers(queue: str) -> list[str]:
    """Every queue that there can be beside ``queue``, the one with the longest name last."""
    delays = [delay_queue(queue, step)[0] for step in _STEPS_S]
    return [undeliverable(queue), f"{queue}:suspects", *delays]


def dead_letter_to(queue: str) -> dict[str, Any]:
    """Arguments by which a quorum queue hands expired or rejected messages to ``queue``, safely.

    ``at-least-once`` confirms the hop, and the broker allows it with ``reject-publish`` only.
    """
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def limited(queue: str) -> dict[str, Any]:
    """Arguments of ``queue`` and of its suspects': with a limit that drops nothing."""
    return {**dead_letter_to(undeliverable(queue)), "x-delivery-limit": DELIVERY_LIMIT}


def _can_route(key: Key) -> bool:
    """Whether a key can be a routing key: an AMQP short string of text that is not empty."""
    return isinstance(key, str) and 0 < len(key_bytes(key)) <= 255 and "\0" not in key
