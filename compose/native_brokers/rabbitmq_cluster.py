"""Three RabbitMQ nodes in one cluster."""

from __future__ import annotations

from collections.abc import Mapping

from native_brokers.broker import Broker, running_brokers
from native_brokers.cluster import NODES, Cluster
from native_brokers.errors import BrokerUnavailable
from native_brokers.rabbitmq import RabbitMQ

_LEADER = """\
case rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)) of
    {{ok, Queue}} -> proplists:get_value(leader, rabbit_amqqueue:info(Queue, [leader]));
    _ -> none
end"""
_MOVE = """\
begin
    {{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)),
    (amqqueue:get_type(Queue)):transfer_leadership(Queue, '{node}')
end"""
# A node whose cookie for another differs closes the connection, and neither can make one.
_ISOLATE = """\
[begin erlang:set_cookie(Peer, cut_off), erlang:disconnect_node(Peer) end || Peer <- [{peers}]]"""
_REJOIN = "[erlang:set_cookie(Peer, erlang:get_cookie()) || Peer <- [{peers}]]"
# False if a queue of the node would be without a majority if the node went; looks for a second.
_SPARE = """\
rabbit:is_running() andalso rabbit_upgrade_preparation:await_online_quorum_plus_one(1000)"""


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

    def _isolate(self, node: RabbitMQ) -> None:
        node.evaluate(_ISOLATE.format(peers=self._peers(node)))

    def _rejoin(self, node: RabbitMQ) -> None:
        if node in running_brokers():  # else it forgets
            node.evaluate(_REJOIN.format(peers=self._peers(node)))

    def leader(self, name: str) -> RabbitMQ | None:
        """Return the node that leads a quorum queue or a stream, as a node that runs knows it.

        None if it knows none. Raises `BrokerUnavailable` if no node runs, or none answers.
        """
        leader = self._asked().evaluate(_LEADER.format(queue=name)).strip("'")
        return next((node for node in self.nodes if node.node == leader), None)

    def move_leader(self, name: str) -> None:
        """See `Cluster`. `name` is that of a quorum queue or a stream."""
        leader = self.leader(name)
        other = next(node for node in self.nodes if node is not leader)
        answer = other.evaluate(_MOVE.format(queue=name, node=other.node))
        if not answer.startswith(("{migrated", "{ok")):  # the second since 4.3
            raise BrokerUnavailable(f"{name} keeps its leader: {answer}")

    def in_sync(self) -> bool:
        """See `Cluster`. RabbitMQ 3.10 does not tell it of streams."""
        try:
            return all(node.evaluate(_SPARE) == "true" for node in self.nodes)
        except BrokerUnavailable:
            return False

    def upgrade(self, release: type[RabbitMQ]) -> None:
        """Shut all nodes down and start them as ones of a later `release`, on their data; blocks.

        Not in turn: 4.3 does not start beside a node of 4.0, which lacks feature flags that it
        requires. Raises as `Broker.start`.
        """
        self.nodes[0].ctl("enable_feature_flag", "all")
        self.nodes[0].ctl("enable_feature_flag", "--opt-in", "khepri_db")  # all that 4.3 has
        self._all(Broker.shut_down)
        for node in self.nodes:
            node.change_release(release)
        self.start()
        self.wait_in_sync()

    def _peers(self, node: RabbitMQ) -> str:
        return ", ".join(f"'{other.node}'" for other in self.nodes if other is not node)
