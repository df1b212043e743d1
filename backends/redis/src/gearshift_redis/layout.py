"""The keys of a channel.

A queue ``orders`` with the group ``billing`` is:

============================================  ================================================
hash ``gearshift:{orders}:groups``            its groups, each ``durable`` or ``ephemeral``
stream ``gearshift:{orders}:stream:billing``  what the group has not settled: an ack deletes
zset ``gearshift:{orders}:later:billing``     retries that wait, by when they are due
text ``gearshift:{orders}:alive:billing:...`` a consumer's sign of life, which expires
============================================  ================================================

The braces keep all keys of a channel on one node of a cluster. With ``native.redis.stream`` the
group reads that stream as well, and its own holds retries only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gearshift.driver import ChannelSpec
from gearshift_redis.settings import ChannelSettings

__all__ = ["Layout", "Source"]


@dataclass(frozen=True, slots=True)
class Source:
    """A stream that a group reads. ``owned``: by this group alone, so that settling deletes."""

    stream: str
    owned: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys of one channel."""

    channel: str
    adopted: str | None
    body_field: str

    @staticmethod
    def of(channel: ChannelSpec) -> Layout:
        """The layout that ``channel`` and its native settings describe. No I/O."""
        native: ChannelSettings = channel.native or ChannelSettings()
        return Layout(channel.name, native.stream, native.body_field)

    @property
    def groups(self) -> str:
        """The hash of the groups; the channel exists as long as it does."""
        return f"gearshift:{{{self.channel}}}:groups"

    @property
    def streams(self) -> str:
        """The prefix of every group's own stream."""
        return f"gearshift:{{{self.channel}}}:stream:"

    def stream(self, group: str) -> str:
        """The stream of ``group`` alone."""
        return self.streams + group

    def later(self, group: str) -> str:
        """The sorted set in which the group's retries wait."""
        return f"gearshift:{{{self.channel}}}:later:{group}"

    def alive(self, group: str) -> str:
        """The prefix of every consumer's sign of life."""
        return f"gearshift:{{{self.channel}}}:alive:{group}:"

    def sources(self, group: str) -> Sequence[Source]:
        """The streams that ``group`` reads."""
        own = Source(self.stream(group), owned=True)
        return [own] if self.adopted is None else [own, Source(self.adopted, owned=False)]
