"""The admin driver: topology and its state."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from gearshift.driver import AdminDriver, ChannelSpec, GroupStatus
from gearshift.errors import NotSupported, UnknownChannel
from gearshift_redis.layout import Layout
from gearshift_redis.scripts import Scripts

__all__ = ["Admin"]

#: How much one step of a purge does, as nobody else is served meanwhile.
_PURGE_STEP = 1000


class Admin(AdminDriver):
    """See AdminDriver."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._scripts = Scripts(client)

    def server(self) -> str:
        """Product and version as the server tells."""
        info: dict[str, Any] = self._client.info("server")
        if "valkey_version" in info:
            return f"Valkey {info['valkey_version']}"
        return f"Redis {info.get('redis_version', '?')}"

    def exists(self, channel: ChannelSpec) -> bool:
        layout = Layout.of(channel)
        return bool(self._client.exists(layout.adopted or layout.groups))

    def declare(self, channel: ChannelSpec) -> None:
        layout = Layout.of(channel)
        if layout.adopted is not None and not self._client.exists(layout.adopted):
            raise UnknownChannel(f"stream {layout.adopted!r} does not exist")
        for group in channel.groups:
            self._declare_group(layout, group)

    def _declare_group(self, layout: Layout, group: str) -> None:
        """Create the group where missing; that of an adopted stream begins with what is in it."""
        # First: a message that is sent in between has its place, from which the group begins.
        self._client.hset(layout.groups, group, "durable")
        for source in layout.sources(group):
            try:
                self._client.xgroup_create(source.stream, group, "0", mkstream=source.owned)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    def groups(self, channel: ChannelSpec) -> Sequence[GroupStatus]:
        """``ready`` leaves out what an adopted stream still holds for a group."""
        layout = Layout.of(channel)
        known: dict[Any, Any] = self._client.hgetall(layout.groups)
        durable = [name.decode() for name, kind in known.items() if kind == b"durable"]
        return [self._status(layout, group) for group in sorted({*channel.groups, *durable})]

    def purge(self, channel: ChannelSpec, group: str) -> int | None:
        layout = Layout.of(channel)
        if layout.adopted is not None:
            self._client.xgroup_setid(layout.adopted, group, "$")
        total, alive = 0, layout.alive(group)
        keys = [layout.stream(group), layout.later(group)]
        while count := int(self._scripts.purge(keys, [group, alive, _PURGE_STEP])):
            total += count
        return total if layout.adopted is None else None

    def delete(self, channel: ChannelSpec) -> None:
        """Raises NotSupported for an adopted stream."""
        layout = Layout.of(channel)
        if layout.adopted is not None:
            raise NotSupported(f"stream {layout.adopted!r} is not ours to delete")
        known: dict[Any, Any] = self._client.hgetall(layout.groups)
        groups = {*channel.groups, *(name.decode() for name in known)}
        keys = [key(group) for group in groups for key in (layout.stream, layout.later)]
        self._client.delete(layout.groups, *keys)

    def close(self) -> None:
        self._client.close()

    def _status(self, layout: Layout, group: str) -> GroupStatus:
        try:
            answer: Any = self._scripts.state([layout.stream(group)], [group, layout.alive(group)])
        except ResponseError as error:
            if "NOGROUP" in str(error) or "no such key" in str(error):
                return GroupStatus(group=group)
            raise
        length, in_flight, first, consumers = answer
        waiting = int(self._client.zcard(layout.later(group)))
        stored_ms = int(first.partition(b"-")[0]) if first else None
        age_s = None if stored_ms is None else max(0.0, time.time() - stored_ms / 1000)
        adopted = layout.adopted is not None
        return GroupStatus(
            group=group,
            ready=None if adopted else length - in_flight + waiting,
            in_flight=None if adopted else in_flight,
            oldest_age_s=None if adopted else age_s,
            consumers=consumers,
        )
