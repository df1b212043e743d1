"""redis-py by hand, to be measured beside: pipelines of XADD, XREADGROUP and XACK."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import redis

from gearshift.driver import ChannelSpec
from gearshift.driver.measuring import (
    HEADERS,
    IDLE_S,
    PREFETCH,
    Load,
    RawClient,
    Received,
    Sample,
    Stopwatch,
    by_connection,
    timed,
)
from gearshift.message import DEFAULT_GROUP
from gearshift_redis.connection import connect
from gearshift_redis.layout import Layout
from gearshift_redis.settings import Settings

__all__ = ["raw_client"]


def raw_client(settings: Settings, channel: ChannelSpec) -> RawClient:
    """redis-py on the default group's stream."""
    by_hand = _ByHand(settings, Layout.of(channel).stream(DEFAULT_GROUP))
    return RawClient(f"redis-py {redis.__version__}", by_hand)


class _ByHand:
    """One stream with one group."""

    def __init__(self, settings: Settings, stream: str) -> None:
        self._settings = settings
        self._stream = stream

    def send(self, load: Load) -> Sample:
        """XADD, a connection for each thread."""

        def add(client: redis.Redis, key: str, body: bytes) -> None:
            client.xadd(self._stream, _fields(key, body))

        return by_connection(lambda: connect(self._settings), add, load)

    def send_many(self, load: Load) -> Sample:
        """Pipelines of 500 XADD."""
        with connect(self._settings) as client:

            def run() -> int:
                source = iter(load)
                while part := list(islice(source, PREFETCH)):
                    pipeline = client.pipeline(transaction=False)
                    for key, body in part:
                        pipeline.xadd(self._stream, _fields(key, body))
                    pipeline.execute()
                return load.total

            return timed(run)

    def receive(self, load: Load) -> Sample:
        """XREADGROUP of 500, then XACK and XDEL of them all."""
        received = Received(load.total)
        with connect(self._settings) as client:
            while not received.complete:
                if not (entries := self._read(client, received.wanted, IDLE_S)):
                    break
                received.add(*(fields[b"body"] for _, fields in entries))
                self._settle(client, entries)
        return received.sample()

    def end_to_end(self, load: Load) -> Sample:
        """XADD; XREADGROUP, then XACK and XDEL of what has come."""
        watch = Stopwatch(load)

        def serve() -> None:
            with connect(self._settings) as client:
                watch.ready()
                while not watch.ended:
                    for entry in (entries := self._read(client, PREFETCH, 1.0)):
                        watch.arrived(entry[1][b"body"])
                    self._settle(client, entries)

        with connect(self._settings) as client:
            return watch.run(lambda body: client.xadd(self._stream, _fields("", body)), serve)

    def _read(
        self, client: redis.Redis, most: int, timeout_s: float
    ) -> Sequence[tuple[bytes, Any]]:
        block_ms = int(min(timeout_s, self._settings.timeout_s / 2) * 1000)
        for _ in range(max(1, round(timeout_s * 1000 / block_ms))):
            answer: Any = client.xreadgroup(
                DEFAULT_GROUP, "raw", {self._stream: ">"}, most, block_ms
            )
            if answer:
                return answer[0][1]  # type: ignore[no-any-return]
        return []

    def _settle(self, client: redis.Redis, entries: Sequence[tuple[bytes, Any]]) -> None:
        if entries:
            ids = [id_ for id_, _ in entries]
            pipeline = client.pipeline(transaction=False)
            pipeline.xack(self._stream, DEFAULT_GROUP, *ids)
            pipeline.xdel(self._stream, *ids)
            pipeline.execute()


def _fields(key: str, body: bytes) -> Any:
    return {"key": key, "body": body, **HEADERS}
