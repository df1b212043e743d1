"""Making sure that a queue channel's exchange and queues are there, and what is in them."""

from __future__ import annotations

from gearshift.driver import ChannelSpec, GroupStatus
from gearshift.errors import NotSupported
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.declaring import bind, declare_queue, not_ours, placed
from gearshift_rabbitmq.queue.names import QueueNames, helpers, limited, undeliverable
from gearshift_rabbitmq.rpc import Rpc, ask, find

__all__ = ["QueueTopology", "declare_ephemeral"]


class QueueTopology:
    """One queue channel on the broker, over ``connection``. Methods wait for the broker."""

    def __init__(self, connection: Connection, channel: ChannelSpec) -> None:
        self._connection = connection
        self._channel = channel
        self._names = QueueNames.of(channel)

    def is_there(self) -> bool:
        """Whether exchange and adopted queue are there. Creates nothing."""
        wanted = {"exchange": self._names.exchange, "queue": self._names.adopted_queue}
        return all(find(self._connection, kind, name) for kind, name in wanted.items() if name)

    def declare(self) -> None:
        """Create what is ours and missing; check what is adopted. Raises the broker's refusal."""
        names = self._names
        was_there = self.is_there()
        rpc = Rpc(self._connection)
        if names.exchange_is_ours:
            rpc("exchange_declare", exchange=names.exchange, exchange_type="fanout", durable=True)
        elif names.exchange:
            rpc("exchange_declare", exchange=names.exchange, passive=True)
        if names.adopted_queue is not None:
            rpc("queue_declare", queue=names.adopted_queue, passive=True)
        rpc.close()
        if names.adopted_queue is None:
            for group in self._channel.groups:
                self._declare_group(group, was_there=was_there)

    def groups(self) -> list[GroupStatus]:
        """State of the channel's groups: AMQP neither lists others nor says what is unsettled."""
        return [self._status(group) for group in self._channel.groups]

    def purge(self, group: str) -> int:
        """Throw away what is ready; what is delivered or waits for a delayed retry stays."""
        purged = 0
        for queue in {self._names.queue(group), self._names.suspects(group)}:
            if find(self._connection, "queue", queue):
                purged += int(ask(self._connection, "queue_purge", queue=queue).message_count)
        return purged

    def delete(self) -> None:
        """Remove exchange, the queues of the channel's groups and their helpers, if any."""
        names = self._names
        if names.adopted_queue is not None or not names.exchange_is_ours:
            raise not_ours(names.channel, names.adopted_queue or names.exchange)
        rpc = Rpc(self._connection)
        rpc("exchange_delete", exchange=names.exchange)
        for group in self._channel.groups:
            queue = names.queue(group)
            for name in (queue, *helpers(queue)):
                rpc("queue_delete", queue=name)
        rpc.close()

    def _status(self, group: str) -> GroupStatus:
        found = find(self._connection, "queue", self._names.queue(group))
        if found is None:
            return GroupStatus(group=group)
        return GroupStatus(
            group=group, ready=int(found.message_count), consumers=int(found.consumer_count)
        )

    def _declare_group(self, group: str, *, was_there: bool) -> None:
        connection, names = self._connection, self._names
        queue = names.queue(group)
        was_there = was_there and find(connection, "queue", queue) is not None
        quorum = {"x-queue-type": "quorum"}
        declare_queue(connection, undeliverable(queue), placed(quorum, names.native))
        declare_queue(connection, queue, placed(limited(queue), names.native))
        bind(connection, queue, names.exchange, names.binding_key, was_there=was_there)


def declare_ephemeral(rpc: Rpc, names: QueueNames) -> str:
    """A queue that ends with this connection, bound to the channel's exchange; returns its name."""
    if not names.exchange:
        raise NotSupported(
            f"channel {names.channel!r} adopts a queue behind the default exchange, "
            "where a further reader would take messages away from it",
            hint="name an exchange in the channel's native settings to follow it",
        )
    queue = str(rpc("queue_declare", queue="", exclusive=True, auto_delete=True).queue)
    rpc("queue_bind", queue=queue, exchange=names.exchange, routing_key=names.binding_key)
    return queue
