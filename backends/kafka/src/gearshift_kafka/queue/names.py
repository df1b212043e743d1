"""What a queue's groups are called on the broker, and the topics that each has for itself."""

from __future__ import annotations

from gearshift.driver import ChannelSpec
from gearshift_kafka.names import group_id, group_prefix

__all__ = ["delay_topic", "groups_among", "helper_topics", "retry_topic", "suspects_topic"]

_RETRY, _DELAY, _SUSPECTS = ".retry", ".delay", ".suspects"


def retry_topic(channel: ChannelSpec, group: str) -> str:
    """Where retries of ``group`` are that are due. Also the share group that reads it."""
    return group_id(channel, group) + _RETRY


def delay_topic(channel: ChannelSpec, group: str) -> str:
    """Where retries of ``group`` wait. Also the consumer group of those that move them on."""
    return group_id(channel, group) + _DELAY


def suspects_topic(channel: ChannelSpec, group: str) -> str:
    """Where messages are that came back after a death. Also the share group that reads it."""
    return group_id(channel, group) + _SUSPECTS


def helper_topics(channel: ChannelSpec, group: str) -> tuple[str, str, str]:
    """The topics that exist for ``group`` alone."""
    return (
        retry_topic(channel, group),
        delay_topic(channel, group),
        suspects_topic(channel, group),
    )


def groups_among(channel: ChannelSpec, topics: list[str]) -> list[str]:
    """The groups of ``channel`` whose helper topics are among ``topics``.

    Not those with a dot: group ``dead.g`` of ``orders`` looks like group ``g`` of ``orders.dead``.
    """
    prefix = group_prefix(channel)
    named = {name.removeprefix(prefix) for name in topics if name.startswith(prefix)}
    groups = {name.removesuffix(_RETRY) for name in named if name.endswith(_RETRY)}
    return sorted(group for group in groups if "." not in group and group + _DELAY in named)
