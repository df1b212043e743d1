"""A Kafka cluster of three: copies of what is made there, and nodes that are down or frozen."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]
from support.settings import write_settings
from support.waiting import PATIENCE_S, ack_all, take, until

import gearshift
from gearshift.cli import cli
from native_brokers import KafkaCluster

pytestmark = [pytest.mark.broker, pytest.mark.long, pytest.mark.timeout(240)]

_HELPERS = ("retry", "delay", "suspects")


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    """Of this module alone. Like a cluster that nobody has set up: one copy of each topic."""
    defaults = {"default.replication.factor": "1", "min.insync.replicas": "1"}
    with KafkaCluster(settings=defaults) as nodes:
        yield nodes


@pytest.fixture
def admin(cluster: KafkaCluster) -> AdminClient:
    """A plain client; all nodes run."""
    cluster.start()
    return AdminClient({"bootstrap.servers": cluster.url})


def settings(cluster: KafkaCluster, folder: Path, channels: str) -> Path:
    """A file with ``channels``, and all nodes as bootstrap servers."""
    servers = [node.url for node in cluster.nodes]
    return write_settings(folder, f'backend = "kafka"\nbootstrap_servers = {servers}', channels)


def copies(admin: AdminClient, topic: str) -> tuple[int, str]:
    """Of a topic: how many nodes have it, and how many of them have to confirm."""
    found = admin.list_topics(topic, timeout=30).topics[topic].partitions
    resource = ConfigResource(ResourceType.TOPIC, topic)
    config = admin.describe_configs([resource])[resource].result(30)
    (count,) = {len(partition.replicas) for partition in found.values()}
    return count, config["min.insync.replicas"].value


def test_all_that_a_channel_is_has_three_copies(
    cluster: KafkaCluster, admin: AdminClient, tmp_path: Path, name: str
) -> None:
    """Dead letters, retries, delays and suspects too; of three, two have to confirm."""
    channels = (
        f'[channels.{name}]\nsemantics = "queue"\ngroups = ["g"]\n'
        f'[channels.{name}-two]\nsemantics = "stream"\nnative.kafka.replication_factor = 2\n'
        f'[channels.{name}-all]\nsemantics = "stream"\n'
        'native.kafka.config = { "min.insync.replicas" = "3" }'
    )
    with gearshift.open(settings(cluster, tmp_path, channels)) as bus:
        bus.consumer(name, group="g", timeout_s=PATIENCE_S).close()  # the cluster is new
        for other in ("two", "all"):
            bus.declare(f"{name}-{other}")
    made = [topic for topic in admin.list_topics(timeout=30).topics if topic.startswith(name)]
    ours = [topic for topic in made if not topic.startswith(f"{name}-")]
    helpers = {f"{group}.{what}" for group in (".g", ".dead.default") for what in _HELPERS}
    assert {topic.removeprefix(name) for topic in ours} == {"", ".dead", *helpers}
    assert {copies(admin, topic) for topic in ours} == {(3, "2")}
    assert copies(admin, f"{name}-two") == (2, "1")
    assert copies(admin, f"{name}-all") == (3, "3")


def test_topics_that_one_node_would_stop_are_used_and_warned_of(
    cluster: KafkaCluster,
    admin: AdminClient,
    tmp_path: Path,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once for each: one copy on three brokers, or no copy that may be missing."""
    one, all_three = f"{name}-one", f"{name}-all"
    new = [NewTopic(one, 4, 1), NewTopic(all_three, 4, 3, config={"min.insync.replicas": "3"})]
    for made in admin.create_topics(new).values():
        made.result(30)
    channels = "".join(f'[channels.{n}]\nsemantics = "stream"\n' for n in (one, all_three))
    caplog.set_level(logging.WARNING)
    with gearshift.open(settings(cluster, tmp_path, channels)) as bus:
        for channel in (one, all_three):
            bus.declare(channel)
            bus.producer(channel).send(1)
    warned = [text for text in caplog.messages if text.startswith("topic ")]
    assert len(warned) == 2
    assert f"{one!r}: 1 copy" in warned[0]
    assert f"{all_three!r}: 3 copies" in warned[1]
    assert "min.insync.replicas to 2" in warned[1]


def test_a_channel_is_made_while_one_node_is_down(
    cluster: KafkaCluster, admin: AdminClient, tmp_path: Path, name: str
) -> None:
    """The first address is the dead one's. There are three copies as soon as it is back."""
    down = cluster.nodes[0]
    down.kill()
    with gearshift.open(settings(cluster, tmp_path, "")) as bus:
        bus.declare(name)
        bus.producer(name).send(1)
        assert ack_all(take(bus.consumer(name, group="g"), 1)) == [1]
    down.start()
    assert copies(admin, name) == (3, "2")


def test_a_frozen_node_is_left(
    cluster: KafkaCluster, admin: AdminClient, tmp_path: Path, name: str
) -> None:
    """The one that leads: sending and receiving go on over the next leader."""
    channel = f'[channels.{name}]\nsemantics = "stream"\npartitions = 1'
    with gearshift.open(settings(cluster, tmp_path, channel)) as bus:
        consumer, producer = bus.consumer(name, group="g"), bus.producer(name)
        producer.send(0)
        assert ack_all(take(consumer, 1)) == [0]
        leader = admin.list_topics(name, timeout=30).topics[name].partitions[0].leader
        cluster.nodes[leader - 1].pause()
        producer.send(1, timeout_s=PATIENCE_S)
        assert ack_all(take(consumer, 1)) == [1]
        cluster.nodes[leader - 1].resume()


def test_doctor_tells_what_the_loss_of_a_node_would_do(
    cluster: KafkaCluster, admin: AdminClient, tmp_path: Path, name: str
) -> None:
    """Of each channel, of Kafka's own topics, and of a cluster that is short of nodes."""
    one, safe = f"{name}-one", f"{name}-safe"
    admin.create_topics([NewTopic(one, 4, 1)])[one].result(30)
    channels = "".join(f'[channels.{n}]\nsemantics = "stream"\n' for n in (one, safe))
    file = settings(cluster, tmp_path, channels)
    with gearshift.open(file) as bus:
        bus.consumer(safe, group="g", timeout_s=PATIENCE_S).close()

    def found(*channels: str) -> dict[str, dict[str, str]]:
        arguments = ["--config", str(file), "doctor", *channels, "--no-round-trip", "-o", "json"]
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
        told = [check for check in json.loads(result.stdout) if check["step"] == "copies"]
        assert all(check["hint"] for check in told if check["status"] == "warning")
        return {check["detail"].split(":")[0].strip(): check for check in told}

    checks = found()
    assert "3 brokers run" in checks["cluster"]["detail"]
    assert checks["cluster"]["status"] == "ok"
    assert "3 copies" in checks["topic '__consumer_offsets'"]["detail"]
    assert "goes on without any one node" in checks[f"topic '{safe}'"]["detail"]
    assert checks[f"topic '{one}'"]["status"] == "warning"
    assert "loss of its node stops" in checks[f"topic '{one}'"]["detail"]
    cluster.nodes[2].kill()
    assert until(lambda: "not running" in found(safe)["cluster"]["detail"])
    checks = found(safe)
    assert "2 brokers run; not running" in checks["cluster"]["detail"]
    assert checks["cluster"]["status"] == "warning"
    assert "stops sending until it is back" in checks[f"topic '{safe}'"]["detail"]
