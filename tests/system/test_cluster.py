"""A cluster that loses the node that leads: what has a receipt is stored, and once it is back too.

The node is frozen first, so that what is sent waits before it and is on its way when it dies.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from soak.cluster_faults import Target, connected_killed, two_killed
from soak.clusters import SUBJECTS, cell, running
from support.nodes import try_in_turn
from support.plain import in_queue
from support.settings import write_settings
from support.waiting import PATIENCE_S, ack_all, until

import gearshift
from gearshift.errors import OutcomeUnknown
from native_brokers import RabbitMQ, RabbitMQCluster

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

_MANY = 20

#: Keys by the partition of two that they go to.
_KEYS = {zlib.crc32(key.encode()) % 2: key for key in "abcd"}

_UNCONFIRMED = """\
lists:sum([Count || Channel <- rabbit_channel:list_local(),
    {_, Count} <- rabbit_channel:info(Channel, [messages_unconfirmed])])"""


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """A cluster of this module alone, for its nodes are killed."""
    with running(SUBJECTS["rabbitmq-3.10"]) as cluster:
        yield cluster


@pytest.fixture
def cluster(target: Target) -> RabbitMQCluster:
    assert isinstance(target.cluster, RabbitMQCluster)
    return target.cluster


@pytest.fixture(autouse=True)
def _in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The url's node comes first."""
    try_in_turn(monkeypatch)


def open_bus(
    nodes: RabbitMQCluster, connected: RabbitMQ, folder: Path, name: str, semantics: str
) -> gearshift.Bus:
    """Connected to one node, and to another if that one is gone."""
    hosts = [f"127.0.0.1:{node.port}" for node in nodes.nodes if node is not connected]
    profile = f'backend = "rabbitmq"\nurl = "{connected.url}"\nhosts = {hosts}'
    channel = f'[channels.{name}]\nsemantics = "{semantics}"\ngroups = ["g"]\ndead_letter = false'
    channel += '\nnative.rabbitmq.leader_locator = "client-local"'
    if semantics == "stream":
        channel += "\npartitions = 2"
    return gearshift.open(write_settings(folder, profile, channel))


def numbers(node: RabbitMQ, queue: str) -> set[int]:
    """Those that a plain client finds in ``queue``."""
    return {int(found.body) for found in in_queue(node, queue) if found.body.isdigit()}


def is_receipt(result: object) -> bool:
    return isinstance(result, gearshift.Receipt)


@pytest.mark.parametrize("semantics", ["stream", "queue"])
@pytest.mark.parametrize("connected", [0, 1], ids=["to the leader", "to a follower"])
def test_receipts_hold_when_the_leader_of_a_channel_is_killed(
    cluster: RabbitMQCluster, tmp_path: Path, name: str, semantics: str, connected: int
) -> None:
    """Sends that were on their way to it get theirs from the next leader, and those after them."""
    cluster.start()
    leader, *followers = cluster.nodes
    sender = cluster.nodes[connected]
    queues = [f"{name}:0", f"{name}:1"] if semantics == "stream" else [f"{name}.g"]
    with open_bus(cluster, leader, tmp_path, name, semantics) as bus:
        bus.declare(name)
    assert {cluster.leader(queue) for queue in queues} == {leader}
    with open_bus(cluster, sender, tmp_path, name, semantics) as bus:
        producer = bus.producer(name)
        producer.send_many(range(_MANY), key_by=lambda _: _KEYS[1])
        leader.pause()
        waiting = [
            producer.submit(number, key=_KEYS[number < 2 * _MANY], timeout_s=PATIENCE_S)
            for number in range(_MANY, 3 * _MANY)
        ]
        if sender is not leader:
            assert until(lambda: int(sender.evaluate(_UNCONFIRMED)) == 2 * _MANY)
        leader.kill()
        assert until(lambda: all(cluster.leader(queue) in followers for queue in queues))
        later = range(3 * _MANY, 4 * _MANY)
        results = producer.send_many(later, key_by=lambda _: _KEYS[0], raise_on_error=False)
        refused = {_MANY + at for at, one in enumerate(waiting) if one.exception(PATIENCE_S)}
        refused |= {
            number for number, one in zip(later, results, strict=True) if not is_receipt(one)
        }
    assert semantics == "queue" or not refused  # a quorum queue refuses while it has no leader
    receipts = set(range(4 * _MANY)) - refused
    for node in followers:
        assert receipts <= set().union(*(numbers(node, queue) for queue in queues))
    leader.start()
    with open_bus(cluster, leader, tmp_path, name, semantics) as bus:
        consumer = bus.consumer(name, group="g")
        until(lambda: receipts.difference_update(ack_all(consumer.receive(_MANY))) or not receipts)
    assert not receipts


def test_a_producer_that_met_no_leader_is_not_refused_for_ever(
    cluster: RabbitMQCluster, tmp_path: Path, name: str
) -> None:
    """A first publish without a leader is refused; once there is one, publishes are taken.

    RabbitMQ 3.10 goes on refusing those of that AMQP channel until the dead node is back.
    """
    cluster.start()
    leader, voter, sender = cluster.nodes
    with open_bus(cluster, leader, tmp_path, name, "queue") as bus:
        bus.declare(name)
    with open_bus(cluster, sender, tmp_path, name, "queue") as bus:
        producer = bus.producer(name)
        voter.pause()  # so that nobody is elected
        leader.kill()
        with pytest.raises(OutcomeUnknown):
            producer.send(1, timeout_s=PATIENCE_S)
        voter.resume()
        assert until(lambda: is_receipt(producer.send_many([2], raise_on_error=False)[0]))


@pytest.mark.long
def test_every_promise_is_kept_while_two_nodes_are_down(target: Target, tmp_path: Path) -> None:
    """The soak, short: see there for what is counted."""
    target.heal()
    rows = cell("rabbitmq-3.10", target, two_killed, 0.0, tmp_path)
    assert [row.notes for row in rows] == [[], []]
    assert all(row.times == 1 and row.receipts for row in rows)


@pytest.mark.long
def test_a_stream_group_goes_on_without_the_node_that_it_was_connected_to(tmp_path: Path) -> None:
    """RabbitMQ from 4.2 on keeps exclusive queues of a node that is down, and so its locks."""
    with running(SUBJECTS["rabbitmq-4.3"]) as target:
        rows = cell("rabbitmq-4.3", target, connected_killed, 0.0, tmp_path)
    assert [row.notes for row in rows] == [[], []]
    assert all(row.times == 1 and row.receipts for row in rows)
