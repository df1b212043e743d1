"""Three nodes are one cluster, which outlives any of them, and of which nothing stays behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pika
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from pika.exceptions import AMQPError
from support.waiting import until

from native_brokers import KafkaCluster, RabbitMQ, RabbitMQ40, RabbitMQ43, RabbitMQCluster
from native_brokers.process import descendants

pytestmark = [pytest.mark.broker, pytest.mark.long, pytest.mark.timeout(240)]

MANY = 100


def publish(node: RabbitMQ, queue: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(node.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        for _ in range(MANY):
            channel.basic_publish("", queue, b"", pika.BasicProperties(delivery_mode=2))


def ready(node: RabbitMQ, queue: str) -> int:
    """How many messages ``node`` says that there are; 0 while it cannot say."""
    try:
        with pika.BlockingConnection(pika.URLParameters(node.url)) as connection:
            answer = connection.channel().queue_declare(queue, passive=True)
            return int(answer.method.message_count)
    except AMQPError:
        return 0


@contextmanager
def nothing_left(cluster: RabbitMQCluster | KafkaCluster) -> Iterator[None]:
    """Run it for the block; afterwards no process and no folder of it is there."""
    before = set(descendants(os.getpid()))
    with cluster:
        folders = [node.log.parent for node in cluster.nodes]
        yield
        started = set(descendants(os.getpid())) - before
        assert len(started) >= len(cluster.nodes)
    assert not any(seen.alive() for seen in started)
    assert not any(folder.exists() for folder in folders)
    cluster.stop()


def test_a_rabbitmq_cluster_keeps_what_it_confirmed() -> None:
    """One that is killed is replaced as leader and comes back; so do all when all are killed."""
    cluster = RabbitMQCluster(RabbitMQ43)  # tests/system has one of the other release
    with nothing_left(cluster):
        one, two, three = cluster.nodes
        publish(two, "survivors")
        assert cluster.leader("survivors") is two
        two.kill()
        assert until(lambda: cluster.leader("survivors") in (one, three))
        two.start()
        assert until(lambda: all(ready(node, "survivors") == MANY for node in cluster.nodes))
        for node in cluster.nodes:
            node.kill()
        cluster.start()
        assert until(lambda: ready(one, "survivors") == MANY)
        leader = cluster.leader("survivors")
        cluster.move_leader("survivors")
        assert cluster.leader("survivors") not in (leader, None)
        cluster.restart_in_turn()
        assert all(ready(node, "survivors") == MANY for node in cluster.nodes)


def test_a_rabbitmq_node_that_is_cut_off_pauses_and_comes_back() -> None:
    """Another leads meanwhile, what it has stored reaches the one that comes back."""
    cluster = RabbitMQCluster()
    with nothing_left(cluster):
        one, two, _ = cluster.nodes
        publish(one, "survivors")
        assert cluster.leader("survivors") is one
        cluster.isolate(one)
        assert until(lambda: cluster.leader("survivors") not in (one, None))
        assert until(lambda: ready(one, "survivors") == 0)
        publish(two, "survivors")
        cluster.rejoin()
        assert until(lambda: ready(one, "survivors") == 2 * MANY)


def test_a_rabbitmq_cluster_is_upgraded_in_place() -> None:
    """Its nodes are started again as ones of a later release, and keep what was confirmed."""
    cluster = RabbitMQCluster(RabbitMQ40)
    with nothing_left(cluster):
        publish(cluster.nodes[0], "survivors")
        cluster.upgrade(RabbitMQ43)
        for node in cluster.nodes:
            assert ready(node, "survivors") == MANY
            assert node.ctl("version").startswith("4.3")


def test_a_kafka_cluster_keeps_what_it_confirmed() -> None:
    """Every record is on all nodes; any of them may be killed, and all."""
    cluster = KafkaCluster()
    with nothing_left(cluster):
        client = {"bootstrap.servers": cluster.url, "log_level": 0}
        admin = AdminClient(client)
        admin.create_topics([NewTopic("survivors", 1)])["survivors"].result(30)
        assert until(lambda: len(in_sync(admin)) == len(cluster.nodes))
        failures = []
        producer = Producer({**client, "acks": "all"})
        for _ in range(MANY):
            producer.produce("survivors", b"", on_delivery=lambda error, _: failures.append(error))
        assert producer.flush(30) == 0
        assert failures == [None] * MANY
        cluster.nodes[1].kill()
        assert until(lambda: in_sync(admin) == {1, 3})
        cluster.nodes[1].start()
        assert until(lambda: in_sync(admin) == {1, 2, 3})
        for node in cluster.nodes:
            node.kill()
        cluster.start()
        assert until(lambda: end(client) == MANY)
        leader = cluster.leader("survivors")
        assert leader is not None
        cluster.isolate(leader)
        assert until(lambda: cluster.leader("survivors") not in (leader, None))
        others = {n for n, node in enumerate(cluster.nodes, 1) if node is not leader}
        assert until(lambda: in_sync(admin) == others)
        cluster.rejoin()
        cluster.wait_in_sync()
        leader = cluster.leader("survivors")
        cluster.move_leader("survivors")
        assert until(lambda: cluster.leader("survivors") not in (leader, None))
        cluster.restart_in_turn()
        assert until(lambda: end(client) == MANY)


def in_sync(admin: AdminClient) -> set[int]:
    """The nodes that have all of the topic; none while nobody says, or it has no leader."""
    try:
        partition = admin.list_topics("survivors", timeout=5).topics["survivors"].partitions[0]
    except KafkaException:
        return set()
    return set(partition.isrs) if partition.leader != -1 else set()


def end(client: dict[str, str | int]) -> int:
    """How many messages the topic has; 0 while nobody says."""
    reader = Consumer({**client, "group.id": "readers"})
    try:
        return int(reader.get_watermark_offsets(TopicPartition("survivors", 0), timeout=5)[1])
    except KafkaException:
        return 0
    finally:
        reader.close()
