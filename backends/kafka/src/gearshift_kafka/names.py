"""Names of channels, groups and helper topics on the broker."""

from __future__ import annotations

from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from gearshift.driver import ChannelSpec
from gearshift.message import DEFAULT_GROUP
from gearshift_kafka.errors import UNKNOWN_TOPIC

__all__ = [
    "HelperTopics",
    "group_id",
    "group_prefix",
    "groups_among",
    "helper_topics",
    "topic_name",
    "topic_partitions",
]

_RETRY, _DELAY, _SUSPECTS = ".retry", ".delay", ".suspects"


class HelperTopics(NamedTuple):
    """The topics that exist for one group of a queue alone.

    ``retry`` holds retries that are due, ``suspects`` messages that came back after a death: each
    is also the share group that reads it. In ``delay`` retries wait; it is also the consumer group
    of those that move them on.
    """

    retry: str
    delay: str
    suspects: str


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
    """The prefix of the ids of a channel's groups, except an adopted one."""
    return f"{channel.name}."


def helper_topics(channel: ChannelSpec, group: str) -> HelperTopics:
    """The helper topics of ``group``."""
    name = group_id(channel, group)
    return HelperTopics(name + _RETRY, name + _DELAY, name + _SUSPECTS)


def groups_among(channel: ChannelSpec, topics: list[str]) -> list[str]:
    """The groups of ``channel`` whose helper topics are among ``topics``.

    Not those with a dot: group ``dead.g`` of ``orders`` looks like group ``g`` of ``orders.dead``.
    """
    prefix = group_prefix(channel)
    named = {name.removeprefix(prefix) for name in topics if name.startswith(prefix)}
    groups = {name.removesuffix(_RETRY) for name in named if name.endswith(_RETRY)}
    return sorted(group for group in groups if "." not in group and group + _DELAY in named)


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
