"""A bus that is given several nodes finds one that works, and leaves one that does not.

Nodes are frozen, cut off from the others and drained; a frozen one is missed by its cluster after
``net_ticktime``, which is a minute unless it is set.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest
from click.testing import CliRunner
from support.nodes import try_in_turn
from support.settings import write_settings
from support.waiting import PATIENCE_S, ack_all, take, until

import gearshift
from gearshift.cli import cli
from native_brokers import RabbitMQ, RabbitMQ43, RabbitMQCluster
from native_brokers.ports import reserve_ports

pytestmark = [pytest.mark.broker, pytest.mark.long, pytest.mark.timeout(300)]

_CUT = "erlang:set_cookie('{node}', {cookie}), erlang:disconnect_node('{node}')"
_HEAL = "erlang:set_cookie('{node}', erlang:get_cookie()), net_kernel:connect_node('{node}')"
_MEMBERS = """\
{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)),
length(proplists:get_value(members, rabbit_amqqueue:info(Queue, [members])))"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RabbitMQCluster]:
    """Of this module alone. A node of 4.3 that is cut off goes on serving its clients."""
    with RabbitMQCluster(RabbitMQ43, settings={"net_ticktime": "5"}) as nodes:
        yield nodes


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test knows which node it is connected to."""
    try_in_turn(monkeypatch)


def open_bus(
    ports: list[int], folder: Path, name: str, more: str = "", groups: Sequence[str] = "g"
) -> gearshift.Bus:
    """A bus with a node at each of ``ports``, and a queue with these groups."""
    first, *others = (f"127.0.0.1:{port}" for port in ports)
    profile = f'backend = "rabbitmq"\nurl = "amqp://guest:guest@{first}"\nhosts = {others}'
    channel = (
        f'[channels.{name}]\nsemantics = "queue"\ngroups = {list(groups)}\ndead_letter = false'
    )
    return gearshift.open(write_settings(folder, profile, f"{channel}\n{more}"))


def connections(node: RabbitMQ) -> int:
    """How many clients are connected to ``node``."""
    return int(node.evaluate("length(rabbit_networking:local_connections())"))


@contextmanager
def cut_off(node: RabbitMQ, cluster: RabbitMQCluster) -> Iterator[None]:
    """Have ``node`` and the others refuse one another; clients reach all of them."""
    others = [other for other in cluster.nodes if other is not node]
    for other in others:
        other.evaluate(_CUT.format(node=node.node, cookie="ours"))
        node.evaluate(_CUT.format(node=other.node, cookie="theirs"))
    try:
        # What the leader gave to a consumer there before it noticed is held for a minute.
        assert until(lambda: not any(node.node in other.evaluate("nodes()") for other in others))
        yield
    finally:
        for other in others:
            other.evaluate(_HEAL.format(node=node.node))
            node.evaluate(_HEAL.format(node=other.node))


def test_any_node_may_be_down_at_the_start(
    cluster: RabbitMQCluster, tmp_path: Path, name: str, in_turn: None
) -> None:
    """The first in the settings refuses connections, and the second accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = [*reserve_ports(1), silent.getsockname()[1], cluster.nodes[2].port]
        with open_bus(ports, tmp_path, name) as bus:
            consumer = bus.consumer(name, group="g")
            bus.producer(name).send(1)
            assert ack_all(take(consumer, 1)) == [1]


def test_every_address_of_a_name_is_tried(
    cluster: RabbitMQCluster, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver gives three addresses, of which one refuses and one says nothing."""
    port = cluster.nodes[0].port
    original = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host != "rabbit.test":
            return original(host, port, *arguments, **options)
        return [
            answer
            for address in ("127.0.0.2", "127.0.0.3", "127.0.0.1")
            for answer in original(address, port, *arguments, **options)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    settings = f'backend = "rabbitmq"\nurl = "amqp://guest:guest@rabbit.test:{port}"'
    with socket.create_server(("127.0.0.3", port)):
        for _ in range(5):  # whichever comes first
            with gearshift.open(write_settings(tmp_path, settings)) as bus:
                assert bus.server().startswith("RabbitMQ 4")


def test_buses_spread_over_the_nodes(cluster: RabbitMQCluster, tmp_path: Path, name: str) -> None:
    """Twenty services with the same settings are not all connected to the first node."""
    ports = [node.port for node in cluster.nodes]
    with open_bus(ports, tmp_path, name) as bus:
        bus.declare(name)
    buses = [open_bus(ports, tmp_path, name) for _ in range(20)]
    for bus in buses:
        bus.producer(name)
    there = [connections(node) for node in cluster.nodes]
    for bus in buses:
        bus.close()
    assert sum(there) >= 20
    assert max(there) < 20


def test_a_frozen_node_is_left(
    cluster: RabbitMQCluster, tmp_path: Path, name: str, in_turn: None
) -> None:
    """Sending and receiving go on over another node."""
    frozen, *others = cluster.nodes
    with open_bus([node.port for node in cluster.nodes], tmp_path, name) as bus:
        consumer = bus.consumer(name, group="g")
        producer = bus.producer(name)
        producer.send(0)
        assert ack_all(take(consumer, 1)) == [0]
        frozen.pause()
        producer.send(1, timeout_s=PATIENCE_S)
        assert ack_all(take(consumer, 1)) == [1]
        assert sum(map(connections, others)) >= 2
        frozen.resume()
    assert until(lambda: cluster.leader(f"{name}.g") is not None)


@pytest.mark.parametrize("leads", [True, False], ids=["the leader", "a follower"])
def test_a_node_that_is_cut_off_from_the_others_is_left(
    cluster: RabbitMQCluster, tmp_path: Path, name: str, in_turn: None, leads: bool
) -> None:
    """It answers heartbeats, takes messages and subscriptions, and none of it gets done."""
    alone = cluster.nodes[0]
    ports = [node.port for node in cluster.nodes]
    with open_bus(ports if leads else ports[1:], tmp_path, name) as bus:
        bus.declare(name)
    with open_bus(ports, tmp_path, name) as bus, open_bus(ports[1:], tmp_path, name) as elsewhere:
        consumer = bus.consumer(name, group="g")
        producer, other = bus.producer(name), elsewhere.producer(name)
        producer.send(0)
        assert ack_all(take(consumer, 1)) == [0]
        with cut_off(alone, cluster):
            other.send(1, timeout_s=PATIENCE_S)
            assert ack_all(take(consumer, 1)) == [1]
            producer.send(2, timeout_s=PATIENCE_S)
            assert ack_all(take(consumer, 1)) == [2]


def members(cluster: RabbitMQCluster, queue: str) -> int:
    """On how many nodes ``queue`` has a copy."""
    return int(cluster.nodes[0].evaluate(_MEMBERS.format(queue=queue)))


def test_copies_and_leaders_are_spread(cluster: RabbitMQCluster, tmp_path: Path, name: str) -> None:
    """Everything of a channel is on three nodes, also what stands beside it, with its leaders on
    several; ``replicas`` is for all of it too."""
    ports = [node.port for node in cluster.nodes]
    for replicas, more in ((3, ""), (1, "native.rabbitmq.replicas = 1")):
        channel = f"{name}-{replicas}"
        with open_bus(ports, tmp_path, channel, more) as bus:
            bus.producer(channel).send(1)
            (delivery,) = take(bus.consumer(channel, group="g"), 1)
            delivery.retry(delay_s=0.1)
        queues = [q for q in cluster.nodes[0].names() if q.startswith(f"{channel}.g")]
        assert {q.partition(":")[2] for q in queues} == {"", "undeliverable", "retry-1s"}
        assert {members(cluster, queue) for queue in queues} == {replicas}
    with open_bus(ports, tmp_path, name, groups="abcdef") as bus:
        bus.declare(name)
    queues = [f"{name}.{group}{end}" for group in "abcdef" for end in ("", ":undeliverable")]
    assert len(set(map(cluster.leader, queues))) > 1


def test_doctor_tells_of_nodes_and_replicas(
    cluster: RabbitMQCluster, tmp_path: Path, name: str
) -> None:
    """Which nodes take connections and which have a stream; of the rest, how to see it."""
    ports = [node.port for node in cluster.nodes]
    profile = (
        f'backend = "rabbitmq"\nurl = "{cluster.nodes[0].url}"\n'
        f"hosts = {[f'127.0.0.1:{port}' for port in (*ports[1:], *reserve_ports(1))]}"
    )
    channels = (
        f'[channels.{name}]\nsemantics = "queue"\n'
        f'[channels.{name}-s]\nsemantics = "stream"\npartitions = 1\n'
        f'[channels.{name}-one]\nsemantics = "stream"\npartitions = 1\n'
        "native.rabbitmq.replicas = 1"
    )
    file = write_settings(tmp_path, profile, channels)
    with gearshift.open(file) as bus:
        for channel in bus.config.channels:
            bus.declare(channel)
    arguments = ["--config", str(file), "doctor", "--no-round-trip", "-o", "json"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    told = [check for check in json.loads(result.stdout) if check["step"] == "copies"]
    by_subject = {check["subject"]: check for check in told}
    assert "3 of 4 nodes in the settings take connections" in by_subject["cluster"]["detail"]
    assert by_subject["cluster"]["status"] == "warning"
    assert "members, leader and online members are unknown" in by_subject[name]["detail"]
    assert "replicas run on 3 of 3" in by_subject[f"{name}-s"]["detail"]
    assert by_subject[f"{name}-s"]["status"] == "ok"
    assert "replicas run on 1 of 3" in by_subject[f"{name}-one"]["detail"]
    assert "add_replica" in by_subject[f"{name}-one"]["hint"]


def test_a_node_in_maintenance_is_left(
    cluster: RabbitMQCluster, tmp_path: Path, name: str, in_turn: None
) -> None:
    """It closes its connections and takes no new ones."""
    node = cluster.nodes[0]
    with open_bus([one.port for one in cluster.nodes], tmp_path, name) as bus:
        consumer = bus.consumer(name, group="g")
        producer = bus.producer(name)
        producer.send(0)
        assert ack_all(take(consumer, 1)) == [0]
        node.evaluate("rabbit_maintenance:drain()")
        producer.send(1, timeout_s=PATIENCE_S)
        assert ack_all(take(consumer, 1)) == [1]
        node.evaluate("rabbit_maintenance:revive()")


def test_a_stream_is_read_from_a_node_that_has_a_replica(
    cluster: RabbitMQCluster, tmp_path: Path, name: str, in_turn: None
) -> None:
    """RabbitMQ refuses to read it over any other; the first in the settings is such a one."""
    home = cluster.nodes[2]
    stream = {"x-queue-type": "stream", "x-initial-cluster-size": 1}
    with pika.BlockingConnection(pika.URLParameters(home.url)) as connection:
        connection.channel().queue_declare(name, durable=True, arguments=stream)
    more = f'native.rabbitmq.queue = "{name}"'
    ports = [node.port for node in cluster.nodes]
    first, *others = (f"127.0.0.1:{port}" for port in ports)
    profile = f'backend = "rabbitmq"\nurl = "amqp://guest:guest@{first}"\nhosts = {others}'
    channel = f'[channels.{name}]\nsemantics = "stream"\ndead_letter = false\n{more}'
    with gearshift.open(write_settings(tmp_path, profile, channel)) as bus:
        bus.producer(name).send(1)
        assert ack_all(take(bus.consumer(name, group="g"), 1)) == [1]
