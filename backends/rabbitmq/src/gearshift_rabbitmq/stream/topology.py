"""Making sure that a stream channel's exchange and queues are there, and who reads it.

The registry is declared last: where it is there, all the rest is. Several that declare a stream at
once, or one after another that died in between, so complete it together. The number of partitions
is declared first, so that partitions which an operator has deleted since differ from those that
never were.
"""

from __future__ import annotations

import itertools
import uuid

from pika.spec import BasicProperties

from gearshift.driver import ChannelSpec, GroupStatus
from gearshift.errors import TopologyConflict, UnknownChannel
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.declaring import bind, declare_queue, not_ours, placed
from gearshift_rabbitmq.rpc import Rpc, find
from gearshift_rabbitmq.stream.names import StreamNames
from gearshift_rabbitmq.stream.positions import Positions
from gearshift_rabbitmq.stream.scan import scan, wait_until_quiet

__all__ = ["StreamTopology"]


class StreamTopology:
    """One stream channel on the broker, over ``connection``. Methods wait for the broker."""

    def __init__(self, connection: Connection, channel: ChannelSpec) -> None:
        self._connection = connection
        self._channel = channel
        self._names = StreamNames.of(channel)

    def is_there(self) -> bool:
        """Whether the stream is there. Creates nothing."""
        names = self._names
        if names.adopted is not None:
            return self._has("queue", names.adopted)
        return self._has("exchange", names.channel) and self._has("queue", names.registry)

    def declare(self) -> None:
        """Create what is missing. Raises the broker's refusal, TopologyConflict, UnknownChannel."""
        connection, names = self._connection, self._names
        if names.adopted is None:
            self._check_partitions()
            lost = self._lost()
            was_there = self.is_there() and not lost
            self._restart(lost)
            rpc = Rpc(connection)
            rpc("exchange_declare", exchange=names.count, exchange_type="fanout", durable=True)
            rpc("exchange_declare", exchange=names.channel, exchange_type="direct", durable=True)
            rpc.close()
            for number in range(names.partitions):
                queue = names.partition(number)
                declare_queue(connection, queue, placed(dict(names.arguments), names.native))
                bind(connection, queue, names.channel, str(number), was_there=was_there)
        elif not self.is_there():
            raise UnknownChannel(f"queue {names.adopted!r} does not exist")
        declare_queue(connection, names.registry, placed({"x-queue-type": "stream"}, names.native))

    def groups(self) -> list[GroupStatus]:
        """The groups of the channel and those that the broker knows of."""
        names = dict.fromkeys([*self._channel.groups, *self._registered()])
        return [GroupStatus(group=name) for name in names]

    def delete(self) -> None:
        """Remove the stream with the positions of all its groups. Missing is fine."""
        names = self._names
        if names.adopted is not None:
            raise not_ours(names.channel, names.adopted)
        groups = self._registered(complete=True)
        rpc = Rpc(self._connection)
        rpc("exchange_delete", exchange=names.channel)
        for number in range(names.partitions):
            rpc("queue_delete", queue=names.partition(number))
            for group in groups:
                rpc("queue_delete", queue=names.position(number, group))
        for group in groups:
            rpc("exchange_delete", exchange=names.members(group))
        rpc("queue_delete", queue=names.registry)
        rpc("exchange_delete", exchange=names.count)
        rpc.close()

    def _has(self, kind: str, name: str) -> bool:
        return find(self._connection, kind, name) is not None

    def _has_partition(self, number: int) -> bool:
        return self._has("queue", self._names.partition(number))

    def _check_partitions(self) -> None:
        """The number of partitions cannot change: a key's messages would go elsewhere."""
        names = self._names
        if not (self.is_there() and self._has_partition(0)):
            return  # or it was deleted since, and is made again
        fewer = not self._has_partition(names.partitions - 1) and not self._has(
            "exchange", names.count
        )
        if fewer or self._has_partition(names.partitions):
            count = next(n for n in itertools.count(1) if not self._has_partition(n))
            raise TopologyConflict(
                f"stream {names.channel!r} has {count} partitions, wanted {names.partitions}",
                hint=f"set partitions = {count}, or make another channel and move over",
            )

    def _lost(self) -> list[int]:
        """Partitions that are not there although the stream once was complete."""
        if not self._has("queue", self._names.registry):
            return []
        return [n for n in range(self._names.partitions) if not self._has_partition(n)]

    def _restart(self, lost: list[int]) -> None:
        """Have all groups begin again in partitions that are about to be made anew, before anything
        is in them: what lies below a position is never read."""
        for group in self._registered(complete=True) if lost else ():
            positions = Positions(self._connection, self._names, group)
            for partition in lost:
                positions.restart(partition)

    def _registered(self, *, complete: bool = False) -> list[str]:
        """The groups that have ever had a position; what a slow broker sends late is missed.

        Not if ``complete``: then an empty message is written behind them, and read up to.
        """
        connection, registry = self._connection, self._names.registry
        if not self._has("queue", registry):
            return []
        rpc, found = scan(connection, registry, "first", prefetch=1000)
        if complete:
            end = uuid.uuid4().hex
            rpc.channel.basic_publish("", registry, b"", BasicProperties(message_id=end))
            rpc.wait(lambda: end in [one.message_id for one, _ in found], "the names of groups")
        else:
            wait_until_quiet(connection, found)
        rpc.close()
        return list(dict.fromkeys(body.decode(errors="replace") for _, body in found if body))
