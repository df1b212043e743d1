"""Which exchanges and queues a channel is, and making sure that they are so.

A channel ``orders`` with the group ``billing`` is, unless ``native`` adopts something:

============================================  ====================================================
durable fanout exchange ``orders``            where producers send
durable quorum queue ``orders.billing``       one for each group, bound to it
durable quorum queue                          what the broker itself gave up on, so that its
``orders.billing:undeliverable``              delivery limit never drops anything
durable quorum queue                          what was lost with a consumer, see ``suspects``;
``orders.billing:suspects``                   made when it is needed
durable quorum queues                         where a retry waits, see ``delay``
``orders.billing:retry-4s`` ...
============================================  ====================================================

Dots in a group's name become ``~`` in the queue's, and ``:`` is in no name: so the group ``b.c``
of ``a`` and the group ``c`` of ``a.b`` are two queues, and no channel can be called like a helper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pika import exceptions

from gearshift.driver import ChannelSpec
from gearshift.errors import NotSupported, UnknownChannel
from gearshift_rabbitmq.connection import Link, Rpc
from gearshift_rabbitmq.declaring import bind, declare_queue, placed
from gearshift_rabbitmq.errors import is_missing
from gearshift_rabbitmq.settings import RabbitChannel

__all__ = [
    "DELIVERY_LIMIT",
    "Topology",
    "dead_letter_to",
    "declare",
    "declare_ephemeral",
    "limited",
    "present",
    "undeliverable",
    "waiting",
]

#: Deliveries after which the broker moves a message to ``:undeliverable``. 4.x has 20 and drops.
#: One number for all channels, well above every ``max_attempts`` allowed (see ``backend.check``):
#: following ``max_attempts`` would turn each change of that setting into a conflict.
DELIVERY_LIMIT = 10_000

_UNDELIVERABLE = ":undeliverable"
_SUSPECTS = ":suspects"


@dataclass(frozen=True, slots=True)
class Topology:
    """The names of one channel. ``routing_key`` None: the message's key is the routing key.

    ``routes_by_key`` says that it is so for foreign messages too. It is not where one routing key
    leads to the queue: behind a direct exchange, or in an adopted queue of which nothing more is
    known, messages share it, and as a key it would have them handled one at a time.
    """

    exchange: str
    exchange_is_ours: bool
    routing_key: str | None
    binding_key: str
    adopted_queue: str | None
    channel: str
    routes_by_key: bool = True
    native: RabbitChannel | None = None

    @staticmethod
    def of(channel: ChannelSpec) -> Topology:
        """What ``channel`` and its native settings describe. No I/O."""
        native = channel.native or RabbitChannel()
        if native.exchange is not None:
            binding = native.binding_key or native.routing_key
            if binding is None:
                binding = "#" if native.exchange_type == "topic" else ""
            key = native.routing_key
            by_key = key is None and native.exchange_type != "direct"
            return Topology(
                native.exchange, False, key, binding, native.queue, channel.name, by_key, native
            )
        if native.queue is not None:
            return Topology("", False, native.queue, "", native.queue, channel.name, False)
        return Topology(channel.name, True, None, "", None, channel.name, native=native)

    def suspects(self, group: str) -> str:
        """Where what was lost waits to be taken one by one: nothing is put beside another's queue,
        so there it is the queue itself."""
        return self.adopted_queue or suspects(self.queue(group))

    @property
    def missing(self) -> str | None:
        """What is gone if no queue takes a message; None where its routing may lead nowhere."""
        if self.exchange_is_ours:
            return f"no queue is bound to exchange {self.exchange!r} any more"
        return None if self.exchange else f"queue {self.adopted_queue!r} does not exist"

    def queue(self, group: str) -> str:
        """The queue that ``group`` reads."""
        if self.adopted_queue is not None:
            return self.adopted_queue
        return f"{self.channel}.{group.replace('.', '~')}"


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


def declare(link: Link, topology: Topology, groups: Iterable[str]) -> None:
    """Create what is ours and missing; check what is adopted. Raises the broker's refusal."""
    exchange_was_there = present(link, topology)
    rpc = Rpc(link)
    if topology.exchange_is_ours:
        rpc("exchange_declare", exchange=topology.exchange, exchange_type="fanout", durable=True)
    elif topology.exchange:
        rpc("exchange_declare", exchange=topology.exchange, passive=True)
    if topology.adopted_queue is not None:
        rpc("queue_declare", queue=topology.adopted_queue, passive=True)
    rpc.close()
    if topology.adopted_queue is None:
        for group in groups:
            _declare_group(link, topology, group, exchange_was_there=exchange_was_there)


def declare_ephemeral(rpc: Rpc, topology: Topology) -> str:
    """A queue that ends with this connection, bound to the channel's exchange; returns its name."""
    if not topology.exchange:
        raise NotSupported(
            f"channel {topology.channel!r} adopts a queue behind the default exchange, "
            "where a further reader would take messages away from it",
            hint="name an exchange in the channel's native settings to follow it",
        )
    queue = str(rpc("queue_declare", queue="", exclusive=True, auto_delete=True).queue)
    rpc("queue_bind", queue=queue, exchange=topology.exchange, routing_key=topology.binding_key)
    return queue


def waiting(link: Link, queue: str) -> int | None:
    """How many messages wait in ``queue``; None if it is not there."""
    counts: list[int] = []

    def ask() -> None:
        answer = Rpc(link)("queue_declare", queue=queue, passive=True)
        counts.append(int(answer.message_count))

    return counts[0] if _found(ask) else None


def present(link: Link, topology: Topology) -> bool:
    """Whether exchange and adopted queue are there. Creates nothing."""

    def exchange() -> None:
        Rpc(link)("exchange_declare", exchange=topology.exchange, passive=True)

    def queue() -> None:
        Rpc(link)("queue_declare", queue=topology.adopted_queue, passive=True)

    wanted: list[Callable[[], None]] = []
    if topology.exchange:
        wanted.append(exchange)
    if topology.adopted_queue is not None:
        wanted.append(queue)
    return all(_found(question) for question in wanted)


def undeliverable(queue: str) -> str:
    """The queue for what the broker gave up on in ``queue``."""
    return queue + _UNDELIVERABLE


def suspects(queue: str) -> str:
    """The queue for what was lost with a consumer of ``queue``."""
    return queue + _SUSPECTS


def limited(queue: str) -> dict[str, Any]:
    """Arguments of ``queue`` and of its suspects': with a limit that drops nothing."""
    return {**dead_letter_to(undeliverable(queue)), "x-delivery-limit": DELIVERY_LIMIT}


def require(link: Link, topology: Topology) -> None:
    """Raise UnknownChannel if what the channel consists of is not there."""
    if not present(link, topology):
        queue = topology.adopted_queue
        what = f"queue {queue!r}" if queue else f"exchange {topology.exchange!r}"
        raise UnknownChannel(
            f"{what} does not exist",
            hint="create it on the broker, or leave it out of native to have one made",
        )


def _declare_group(link: Link, topology: Topology, group: str, *, exchange_was_there: bool) -> None:
    queue = topology.queue(group)
    was_there = exchange_was_there and waiting(link, queue) is not None
    quorum = {"x-queue-type": "quorum"}
    declare_queue(link, undeliverable(queue), placed(quorum, topology.native))
    declare_queue(link, queue, placed(limited(queue), topology.native))
    bind(link, queue, topology.exchange, topology.binding_key, was_there=was_there)


def _found(question: Callable[[], None]) -> bool:
    try:
        question()
    except exceptions.ChannelClosedByBroker as error:
        if not is_missing(error):
            raise
        return False
    return True
