"""What channels and groups are called on the broker, and whether they are there."""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from gearshift.driver import ChannelSpec
from gearshift.message import DEFAULT_GROUP
from gearshift_kafka.errors import UNKNOWN_TOPIC

__all__ = ["group_id", "group_prefix", "topic_name", "topic_partitions"]


def topic_name(channel: ChannelSpec) -> str:
    """The channel's topic: of its own name, unless it adopts one."""
    topic: str | None = channel.native.topic
    return topic or channel.name


def group_id(channel: ChannelSpec, group: str) -> str:
    """``channel.group``: ids are global on a cluster, and a group here belongs to one channel.

    A channel may adopt one existing group; it stands for the channel's only or default group.
    """
    adopted: str | None = channel.native.group
    if adopted and (group == DEFAULT_GROUP or channel.groups == (group,)):
        return adopted
    return group_prefix(channel) + group


def group_prefix(channel: ChannelSpec) -> str:
    """What the ids of a channel's groups begin with, but for an adopted one."""
    return f"{channel.name}."


def topic_partitions(
    client: Producer | Consumer | AdminClient, topic: str, timeout_s: float
) -> list[int]:
    """The topic's partitions; empty if it does not exist. Blocks; raises KafkaException."""
    found = client.list_topics(topic, timeout=timeout_s).topics.get(topic)
    if found is None or (found.error is not None and found.error.code() in UNKNOWN_TOPIC):
        return []
    if found.error is not None:
        raise KafkaException(found.error)
    return sorted(found.partitions)
