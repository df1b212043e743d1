"""What can happen to a cluster: each breaks it under load, sees the load go on, and heals it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from gearshift.conformance.kit import Kit
from gearshift.conformance.load import Load
from gearshift.conformance.proxy import Proxy
from native_brokers import BrokerUnavailable, KafkaCluster, RabbitMQ43, RabbitMQCluster

#: Longer than any side waits for a node that is silent: see ``clusters.SETTINGS``.
FROZEN_S = 25.0
OUTAGE_S = 10.0

#: From when until when, of the monotonic clock.
Span = tuple[int, int]


@dataclass
class Target:
    """A cluster under load: ``cables`` lead clients to its nodes, in ``names`` is what has leaders.

    ``outages`` are the spans without a majority that clients could reach. In ``silences``, a part
    of them, nothing can have been confirmed that was not sent before.
    """

    cluster: RabbitMQCluster | KafkaCluster
    cables: Sequence[Proxy]
    names: list[str] = field(default_factory=list)
    kits: list[Kit] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    outages: list[Span] = field(default_factory=list)
    silences: list[Span] = field(default_factory=list)

    @property
    def numbers(self) -> range:
        """The nodes' numbers."""
        return range(len(self.cables))

    def advance(self) -> None:
        """Wait until every load has 50 more receipts and acks."""
        for load in self.loads:
            load.advance(50)

    def leader(self, name: str) -> int:
        """The number of the node that leads ``name``, waiting for one."""
        self.kits[0].until(lambda: self.cluster.leader(name), f"nobody leads {name}")
        leader = self.cluster.leader(name)
        return next(n for n in self.numbers if self.cluster.nodes[n] is leader)

    def note(self, what: str) -> None:
        """Have the histories know."""
        for kit in self.kits:
            kit.fault(what)

    @contextmanager
    def down(self, *numbers: int) -> Iterator[None]:
        """For the block these nodes are dead; afterwards all are there and in sync."""
        for number in numbers:
            self.note(f"SIGKILL of node {number}")
            self.cluster.nodes[number].kill()
        yield
        self.heal()

    def heal(self) -> None:
        """Undo whatever was done, and wait until all is in sync."""
        for node in self.cluster.nodes:
            try:
                node.resume()
            except BrokerUnavailable:
                continue  # killed
        for cable in self.cables:
            cable.refuse(False)
        self.cluster.rejoin()
        self.cluster.start()
        self.cluster.wait_in_sync()


def leader_killed(target: Target) -> None:
    """The leader of the very queue, stream or partition is killed."""
    for name in target.names:
        with target.down(target.leader(name)):
            target.advance()


def connected_killed(target: Target) -> None:
    """The node that most clients are connected to is killed."""
    with target.down(max(target.numbers, key=lambda n: target.cables[n].connections)):
        target.advance()


def follower_killed(target: Target) -> None:
    """Of the nodes that do not lead the first name, the one with fewest clients is killed."""
    followers = set(target.numbers) - {target.leader(target.names[0])}
    with target.down(min(followers, key=lambda n: target.cables[n].connections)):
        target.advance()


def two_killed(target: Target) -> None:
    """Two of three are dead for a while."""
    leader = target.leader(target.names[0])
    begun = time.monotonic_ns()
    with target.down(leader, (leader + 1) % len(target.numbers)):
        alone = time.monotonic_ns()
        time.sleep(OUTAGE_S)
        target.silences.append((alone, time.monotonic_ns()))
    target.outages.append((begun, time.monotonic_ns()))


def frozen(target: Target) -> None:
    """A leader stands still past every timeout, and goes on."""
    number = target.leader(target.names[0])
    target.note(f"SIGSTOP of node {number}")
    target.cluster.nodes[number].pause()
    frozen_at = time.monotonic()
    target.advance()
    time.sleep(max(0.0, frozen_at + FROZEN_S - time.monotonic()))
    reunite(target, number)


def cut_off(target: Target) -> None:
    """A leader is cut off from the other nodes, not from its clients, and comes back."""
    number = target.leader(target.names[0])
    target.note(f"node {number} is cut off")
    target.cluster.isolate(target.cluster.nodes[number])
    target.advance()
    reunite(target, number)


def reunite(target: Target, number: int) -> None:
    """Have the node go on as one of the cluster.

    A RabbitMQ node that was missed may stay apart from the others. Only an operator's restart
    brings it back then.
    """
    try:
        target.heal()
    except BrokerUnavailable:
        print(f"node {number} stays apart, and is restarted", flush=True)
        target.cluster.nodes[number].shut_down()
        target.heal()


def restarted_in_turn(target: Target) -> None:
    """An operator restarts one node after the other."""
    target.note("the nodes are restarted in turn")
    target.cluster.restart_in_turn()


def one_reachable(target: Target) -> None:
    """Clients reach one node only; with Kafka, what others lead has to wait."""
    begun = time.monotonic_ns()
    reached = target.leader(target.names[0])
    target.note(f"clients reach node {reached} only")
    for number in set(target.numbers) - {reached}:
        target.cables[number].refuse(True)
        target.cables[number].cut()
    if isinstance(target.cluster, RabbitMQCluster):
        target.advance()
    else:
        time.sleep(OUTAGE_S)
        target.outages.append((begun, time.monotonic_ns()))
    target.heal()


def leaders_moved(target: Target) -> None:
    """An operator has other nodes lead. RabbitMQ 3.10 cannot do that with streams."""
    for name in target.names:
        target.note(f"{name} gets another leader")
        try:
            target.cluster.move_leader(name)
        except BrokerUnavailable as error:
            print(f"{name} keeps its leader: {str(error)[:200]}")
        target.advance()


def upgraded(target: Target) -> None:
    """All nodes are shut down and started as ones of the next release."""
    assert isinstance(target.cluster, RabbitMQCluster)
    target.note("the nodes are upgraded")
    begun = time.monotonic_ns()
    target.cluster.upgrade(RabbitMQ43)
    target.outages.append((begun, time.monotonic_ns()))


Fault = Callable[[Target], None]

FAULTS: tuple[Fault, ...] = (
    leader_killed, connected_killed, follower_killed, two_killed, frozen, cut_off,
    restarted_in_turn, one_reachable, leaders_moved,
)  # fmt: skip
