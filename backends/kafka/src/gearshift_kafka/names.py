"""What channels and groups are called on the broker."""

from __future__ import annotations

from gearshift.driver import ChannelSpec

__all__ = ["group_id", "topic_name"]


def topic_name(channel: ChannelSpec) -> str:
    """The channel's topic: of its own name, unless it adopts one."""
    topic: str | None = channel.native.topic
    return topic or channel.name


def group_id(channel: ChannelSpec, group: str) -> str:
    """``channel.group``: ids are global on a cluster, and a group here belongs to one channel."""
    adopted: str | None = channel.native.group
    return adopted or f"{channel.name}.{group}"
