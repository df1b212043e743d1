"""What was sent, settled, retried and moved to the dead letters, as a harness notes it."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal

from gearshift.codecs import codec_named, decode
from gearshift.config import Config
from gearshift.delivery import BaseDelivery
from gearshift.driver.plugin import hookimpl
from gearshift.errors import DecodeError, GearshiftError
from gearshift.message import Message

__all__ = ["DeadLetter", "Recorder", "Retried", "Settled"]


@dataclass(frozen=True, slots=True)
class Settled:
    """One delivery that was settled. ``value`` is plain data, whatever type the handler takes.

    ``outcome`` "stale" is a settlement that came too late: the message comes again.
    """

    channel: str
    group: str
    value: Any
    outcome: Literal["ack", "retry", "reject", "stale"]
    attempt: int
    reason: str | None = None
    message: Message = field(repr=False, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Retried:
    """One attempt that failed, and after how many seconds the next one follows."""

    channel: str
    group: str
    value: Any
    attempt: int
    delay_s: float
    reason: str | None = None
    message: Message = field(repr=False, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that was moved to the dead letters of its channel."""

    channel: str
    group: str
    value: Any
    reason: str
    message: Message = field(repr=False, compare=False, kw_only=True)


class Recorder:
    """A plugin of the harness's buses. Any thread; ``_lock`` guards the lists."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self.sent: defaultdict[str, list[Message]] = defaultdict(list)
        self.settled: list[Settled] = []
        self.retried: list[Retried] = []
        self.dead: list[DeadLetter] = []

    def stored(self, channel: str, message: Message) -> None:
        """``message`` was sent, and the broker has it."""
        with self._lock:
            self.sent[channel].append(message)

    def value(self, channel: str, message: Message, value_type: Any = Any) -> Any:
        """The decoded body; the body itself if it cannot be decoded to plain data."""
        codec = codec_named(self._config.channel(channel).codec)
        content = message.content_type, value_type, message.content_encoding
        try:
            return decode(codec, message.body, *content)
        except DecodeError:
            if value_type is not Any:
                raise
            return message.body

    @hookimpl
    def gearshift_settled(
        self, delivery: BaseDelivery[Any], outcome: Any, reason: str | None
    ) -> None:
        message, channel = delivery.message, delivery.channel
        value = self.value(channel, message)
        with self._lock:
            self.settled.append(
                Settled(
                    channel, delivery.group, value, outcome, delivery.attempt, reason,
                    message=message,
                )
            )  # fmt: skip

    @hookimpl
    def gearshift_retry(
        self, channel: str, group: str, message: Message, attempt: int, delay_s: float,
        reason: str | None,
    ) -> None:  # fmt: skip
        value = self.value(channel, message)
        with self._lock:
            self.retried.append(
                Retried(channel, group, value, attempt, delay_s, reason, message=message)
            )

    @hookimpl
    def gearshift_dead_letter(
        self, channel: str, group: str, message: Message, reason: str, error: GearshiftError | None
    ) -> None:
        if error is None:
            value = self.value(channel, message)
            with self._lock:
                self.dead.append(DeadLetter(channel, group, value, reason, message=message))
