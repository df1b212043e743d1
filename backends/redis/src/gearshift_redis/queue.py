"""The queue driver: new entries, due retries, and what dead consumers left.

Every entry that was handed out and not settled is in its consumer's list of pending entries on the
server. A consumer shows a sign of life while ``receive`` is called; without one, others take over
its list. So nothing hangs on a connection: closing is only to let the sign of life go.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from redis import Redis

from gearshift.driver import (
    ConsumerSpec,
    QueueDriver,
    Received,
    SettleFailure,
    Settlement,
    SettleRequest,
)
from gearshift.driver.helpers import attempt_after, retried, unstored
from gearshift.errors import StaleDelivery
from gearshift_redis.errors import may_not_store
from gearshift_redis.layout import Layout, Source
from gearshift_redis.life import SignOfLife
from gearshift_redis.scripts import PREFIX, Scripts, add_to, load
from gearshift_redis.wire import attempts_of, fields_of, message_of

__all__ = ["QueueConsumer"]

#: What a single read may take, so that settling and closing need not wait long for it.
_READ_S = 1.0

#: Longest single wait: ``wake`` cannot end one.
_SLICE_S = 0.1
_TAKE_OVER_EVERY_S = 0.5

#: An ephemeral group whose consumer is gone without a word is forgotten after so many leases.
_EPHEMERAL_LEASES = 6


class _Token(NamedTuple):
    source: Source
    id: bytes


class QueueConsumer(QueueDriver):
    """See QueueDriver."""

    _isolates = True

    def __init__(self, client: Redis, layout: Layout, spec: ConsumerSpec, life: SignOfLife) -> None:
        self._client = client
        self._scripts = Scripts(client)
        scripts = self._scripts
        load(client, scripts.ack, scripts.retry, scripts.release, scripts.trimmed)
        self._layout = layout
        self._body_field = layout.body_field.encode()
        self._group = spec.group
        self._ephemeral = spec.ephemeral
        self._sources = layout.sources(spec.group)
        self._life = life
        life.showing = self._show_life
        self._name = f"{PREFIX}{spec.member}#{uuid.uuid4().hex[:8]}"
        self._skipped = 0
        self._returned: list[Received] = []  # whose retries could not be stored
        self._prefetch = self._at_once = spec.prefetch
        self._woken = threading.Event()
        self._serve_at = 0.0
        self._take_over_at = 0.0
        self._closed = False
        if spec.ephemeral:
            self._begin_ephemeral()
        alive = layout.alive(spec.group)
        for source in self._sources:  # this member's earlier connections are gone
            self._scripts.leave([source.stream], [spec.group, f"{PREFIX}{spec.member}#", alive])
        self._serve()

    # ── receiving ──

    def receive(self, max_messages: int, timeout_s: float) -> Sequence[Received]:
        deadline = time.monotonic() + timeout_s
        while True:
            self._serve()
            if self._returned:
                returned, self._returned = self._returned, []
                return returned
            found = self._read(max_messages, deadline) if max_messages else []
            left = deadline - time.monotonic()
            if found or left <= 0 or self._woken.is_set():
                break
            if not max_messages:
                self._woken.wait(min(left, _SLICE_S))
        self._woken.clear()
        return found

    def _serve(self) -> None:
        """Show a sign of life, and let retries that are due in."""
        now = time.monotonic()
        if now >= self._serve_at:
            self._serve_at = now + _SLICE_S
            self._life.show(self._client)

    def _show_life(self, client: Redis) -> None:
        layout, group, lease_ms = self._layout, self._group, self._life.lease_ms
        keys = [layout.alive(group) + self._name, layout.later(group), layout.stream(group)]
        forgotten_ms = _EPHEMERAL_LEASES * lease_ms if self._ephemeral else 0
        self._scripts.serve(keys, [lease_ms, forgotten_ms], client)

    def _read(self, max_messages: int, deadline: float) -> list[Received]:
        """As many as a read brought lately in ``_READ_S``: fewer over a slow link."""
        began = time.monotonic()
        found = self._next(min(max_messages, self._at_once), deadline)
        took_s = time.monotonic() - began
        if took_s > _READ_S:
            self._at_once = max(1, int(len(found) * _READ_S / took_s))
        elif len(found) == self._at_once < self._prefetch:
            self._at_once *= 2
        return found

    def _next(self, max_messages: int, deadline: float) -> list[Received]:
        if time.monotonic() >= self._take_over_at:
            for source in self._sources:
                found, must_wait = self._left(source, max_messages)
                if found:  # there may be more, and they are older than what is new
                    return found
                if must_wait:  # also before what is new: else this consumer never has it alone
                    self._woken.wait(min(_SLICE_S, max(0.001, deadline - time.monotonic())))
                    return []
            self._take_over_at = time.monotonic() + _TAKE_OVER_EVERY_S
        wait_s = min(_SLICE_S, max(0.001, deadline - time.monotonic()))
        command: list[Any] = ["XREADGROUP", "GROUP", self._group, self._name]
        command += ["COUNT", max_messages, "BLOCK", round(wait_s * 1000) or 1, "STREAMS"]
        command += [*(source.stream for source in self._sources), *(">" for _ in self._sources)]
        pipeline: Any = self._client.pipeline(transaction=False)
        for source in self._sources:
            if not source.owned:  # others may trim it; at once with the read, which passes the gap
                add_to(pipeline, self._scripts.trimmed, [source.stream], [self._group])
        pipeline.execute_command(*command)
        *trimmed, answer = answers = pipeline.execute(raise_on_error=False)
        for error in answers:  # as they are: a pipeline would change their texts
            if isinstance(error, Exception):
                raise error
        self._skipped += sum(trimmed)
        sources = {source.stream.encode(): source for source in self._sources}
        return [
            self._received(sources[stream], id_, entry, 0, False)
            for stream, entries in answer or ()
            for id_, entry in entries
        ][:max_messages]

    def _left(self, source: Source, max_messages: int) -> tuple[list[Received], bool]:
        """Messages that others have left, and whether more of them have to wait."""
        alive = self._layout.alive(self._group)
        answer: Any = self._scripts.take_over(
            [source.stream], [self._group, self._name, alive, max_messages, int(self._isolates)]
        )
        found = [
            self._received(source, id_, dict(zip(flat[::2], flat[1::2], strict=True)), lost, True)
            for id_, flat, lost in answer[0]
        ]
        self._skipped += answer[2]
        return found, bool(answer[1])

    def _received(
        self, source: Source, id_: bytes, entry: Mapping[bytes, bytes], lost: int, handed: bool
    ) -> Received:
        failed = attempts_of(entry)
        return Received(
            message_of(entry, self._body_field),
            _Token(source, id_),
            None,
            attempt_after(failed, lost),
            handed or failed > 0,
            lost=lost,
        )

    def skipped(self) -> int:
        skipped, self._skipped = self._skipped, 0
        return skipped

    # ── settling ──

    def isolate(self, wanted: bool) -> None:
        self._isolates = wanted

    def settle(self, requests: Sequence[SettleRequest]) -> Sequence[SettleFailure]:
        """One pipeline."""
        pipeline = self._client.pipeline(transaction=False)
        asked: list[tuple[dict[bytes, _Token], SettleRequest]] = []
        for (settlement, source), run in groupby(requests, key=_how):
            those = list(run)
            if settlement in (Settlement.ACK, Settlement.DISCARD):
                ids = [each.token.id for each in those]
                add_to(pipeline, self._scripts.ack, [source.stream], self._who(source, *ids))
                asked.append(({each.token.id: each.token for each in those}, those[0]))
                continue
            for each in those:
                if settlement is Settlement.RETRY:
                    self._retry(source, each, pipeline)
                else:
                    who = self._who(source, each.token.id)
                    add_to(pipeline, self._scripts.release, [source.stream], who)
                asked.append(({each.token.id: each.token}, each))
        failures = []
        answers = pipeline.execute(raise_on_error=False)
        for answer, (tokens, request) in zip(answers, asked, strict=True):
            if isinstance(answer, Exception):
                if request.settlement is not Settlement.RETRY or not may_not_store(answer):
                    raise answer
                self._returned.append(unstored(request, answer))
                continue
            for id_ in answer:
                gone = StaleDelivery("another consumer has taken it over")
                failures.append(SettleFailure(tokens[id_], gone))
        return failures

    def _retry(self, source: Source, request: SettleRequest, pipeline: Any) -> None:
        message, failed = retried(request)
        fields = fields_of(message, self._layout.body_field, attempts=failed)
        delay_ms = round(request.delay_s * 1000)
        own, later = self._layout.stream(self._group), self._layout.later(self._group)
        who = self._who(source, request.token.id)
        keys = [source.stream, own, later]
        add_to(pipeline, self._scripts.retry, keys, [*who, delay_ms, *fields])

    def _who(self, source: Source, *ids: bytes) -> list[Any]:
        return [self._group, self._name, int(source.owned), *ids]

    def wake(self) -> None:
        self._woken.set()

    def close(self, timeout_s: float) -> None:
        """If the server does not answer, the sign of life expires instead."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._ephemeral:
                self._end_ephemeral()
            else:
                alive = self._layout.alive(self._group)
                for source in self._sources:
                    self._scripts.leave([source.stream], [self._group, self._name, alive])
                self._client.delete(alive + self._name)
        finally:
            self._client.close()

    # ── a group of this consumer alone ──

    def _begin_ephemeral(self) -> None:
        layout, group = self._layout, self._group
        for source in self._sources:
            self._client.xgroup_create(source.stream, group, "$", mkstream=source.owned)
        self._client.hset(layout.groups, group, "ephemeral")

    def _end_ephemeral(self) -> None:
        layout, group = self._layout, self._group
        pipeline = self._client.pipeline()
        pipeline.hdel(layout.groups, group)
        pipeline.delete(layout.stream(group), layout.later(group), layout.alive(group) + self._name)
        if layout.adopted is not None:
            pipeline.xgroup_destroy(layout.adopted, group)
        pipeline.execute()


def _how(request: SettleRequest) -> tuple[Settlement, Source]:
    return request.settlement, request.token.source
