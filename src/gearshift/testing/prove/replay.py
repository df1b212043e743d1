"""A found story on the real broker: the same messages, redelivered by a consumer that goes away."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from gearshift.bus import Bus
from gearshift.config import Config
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.driver import BackendPlugin
from gearshift.message import Message, Semantics
from gearshift.operations.cleanup import delete_channels
from gearshift.testing.prove.interruption import Died, dying_at
from gearshift.worker import dispatch
from gearshift.worker.app import Handler

__all__ = ["PLAYABLE", "Replay"]

#: Rules whose misfortune can be brought about on a broker at will.
PLAYABLE = (
    "ack unseen", "unflagged", "death after", "death inside", "stored twice", "overtaken",
    "returns late",
)  # fmt: skip

_DEADLINE_S = 60.0


class Replay:
    """Plays a story for one handler, on a channel of its own that is deleted afterwards.

    ``wait`` blocks for an awaitable, ``forget`` is called when the process would have died.
    """

    def __init__(
        self,
        config: Config,
        plugin: BackendPlugin,
        handler: Handler,
        *,
        wait: Callable[[Any], Any],
        forget: Callable[[], object],
    ) -> None:
        self._channel = f"gearshift-proof-{uuid.uuid4().hex[:12]}"
        live = config.channel(handler.channel)
        own = msgspec.structs.replace(live, native={}, groups=(), dead_letter=False)
        config = replace(config, channels={self._channel: own})
        self._bus = Bus(config, plugin, plugin.connect(config.settings_for(plugin)))
        self._handler = handler
        self._wait = wait
        self._forget = forget
        self._left: Counter[str | None] = Counter()
        self._deadline = 0.0

    def run(self, messages: Sequence[Message], rule: str, target: int, step: int) -> str:
        """Bring it about; the server's product and version. Blocks, for a minute at most.

        Raises what a bus raises, and DeadlineExceeded if a message does not come.
        """
        with self._bus, self._deleting():
            server = self._bus.server()
            self._send(messages, target if rule == "stored twice" else None)
            wanted = messages[target].id
            self._deadline = time.monotonic() + _DEADLINE_S
            if rule in ("overtaken", "returns late"):
                self._play_late(wanted, acks_late=rule == "overtaken")
            elif rule == "stored twice":
                self._finish(self._consumer())
            else:
                self._play_lost(wanted, rule, step)
            return server

    @contextmanager
    def _deleting(self) -> Any:
        try:
            yield
        finally:
            delete_channels(self._bus, self._channel)

    def _send(self, messages: Sequence[Message], twice: int | None) -> None:
        with self._bus.producer(self._channel, create=True) as producer:
            for number, message in enumerate(messages):
                for _ in range(2 if number == twice else 1):
                    producer.send(message)
                    self._left[message.id] += 1

    def _consumer(self, prefetch: int = 100) -> Consumer[Any]:
        kind = self._handler.call.value_type
        return self._bus.consumer(self._channel, value_type=kind, prefetch=prefetch, create=True)

    def _play_lost(self, wanted: str | None, rule: str, step: int) -> None:
        """Handle ``wanted`` and, on a stream, ``step`` more; go away without its ack; go on."""
        is_stream = self._bus.semantics(self._channel) is Semantics.STREAM
        consumer = self._consumer(prefetch=100 if is_stream else 1)
        after: int | None = None
        while after != 0 and self._left.total():
            delivery = self._next(consumer)
            if delivery.id == wanted and after is None:
                self._run_without_ack(delivery, step if rule == "death inside" else None)
                after = step if is_stream and rule != "death inside" else 0
                after = min(after, self._left.total() - 1)
            else:
                self._handle(delivery)
                after = None if after is None else after - 1
        consumer.close()  # what is unsettled, and on a stream all behind it, comes again
        if rule.startswith("death"):
            self._forget()
        self._finish(self._consumer())

    def _play_late(self, wanted: str | None, *, acks_late: bool) -> None:
        """Keep ``wanted`` in one consumer while another gets the rest."""
        is_stream = self._bus.semantics(self._channel) is Semantics.STREAM
        first = self._consumer(prefetch=100 if is_stream else 1)
        kept = self._next(first)
        while kept.id != wanted:
            self._handle(kept)
            kept = self._next(first)
        if not acks_late:
            self._run_without_ack(kept, None)
        other = first if is_stream else self._consumer()
        while self._left.total() > 1:
            self._handle(self._next(other))
        if acks_late:
            self._handle(kept)
            first.close()
        else:
            first.close()
            self._finish(other)

    def _finish(self, consumer: Consumer[Any]) -> None:
        """Handle what is left, and what comes again beside it."""
        while self._left.total():
            self._handle(self._next(consumer))
        consumer.close()

    def _next(self, consumer: Consumer[Any]) -> Delivery[Any]:
        left_s = max(0.1, self._deadline - time.monotonic())
        found = consumer.receive(timeout_s=left_s)
        if not found:
            raise TimeoutError(
                f"no message for {_DEADLINE_S:g} s, {self._left.total()} are missing"
            )
        return found[0]

    def _handle(self, delivery: Delivery[Any]) -> None:
        ending = dispatch.run(partial(self._handler.call, [delivery]), self._wait)
        if delivery.outcome is None:
            ending.settle(delivery)
        if delivery.outcome != "retry" and self._left[delivery.id]:
            self._left[delivery.id] -= 1

    def _run_without_ack(self, delivery: Delivery[Any], line: int | None) -> None:
        body = partial(self._handler.call, [delivery])
        if line is None:
            dispatch.run(body, self._wait)
            return
        with dying_at(line):
            ending = dispatch.run(body, self._wait)
        assert isinstance(ending.error, Died), "the handler has fewer lines than in its story"
