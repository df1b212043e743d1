"""Three RabbitMQ nodes in one cluster."""

from __future__ import annotations

from collections.abc import Mapping

from native_brokers.broker import running_brokers
from native_brokers.cluster import NODES, Cluster
from native_brokers.rabbitmq import RabbitMQ

_LEADER = """\
case rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)) of
    {{ok, Queue}} -> proplists:get_value(leader, rabbit_amqqueue:info(Queue, [leader]));
    _ -> none
end"""


class RabbitMQCluster(Cluster[RabbitMQ]):
    """See `Cluster`. A minority of its nodes pauses itself."""

    def __init__(
        self, release: type[RabbitMQ] = RabbitMQ, *, settings: Mapping[str, str] | None = None
    ) -> None:
        """Take nodes of `release`, with `settings` as further lines of each one's rabbitmq.conf."""
        lines = {"cluster_partition_handling": "pause_minority", **(settings or {})}
        first = release(settings=lines)
        super().__init__([first, *(release(settings=lines, first=first) for _ in range(NODES - 1))])
        self._formed = False

    def start(self) -> None:
        """See `Cluster`."""
        if not self._formed:
            self.nodes[0].start()  # which the others join
        super().start()
        self._formed = True

    def stop(self) -> None:
        """See `Cluster`."""
        super().stop()
        self._formed = False

    def leader(self, queue: str) -> RabbitMQ | None:
        """Return the node that leads a quorum queue or a stream, as a node that runs knows it.

        None if it knows none. Raises `BrokerUnavailable` if no node runs, or none answers.
        """
        asked = next((node for node in self.nodes if node in running_brokers()), self.nodes[0])
        leader = asked.evaluate(_LEADER.format(queue=queue)).strip("'")
        return next((node for node in self.nodes if node.node == leader), None)
