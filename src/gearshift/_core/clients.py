"""Base of producers and consumers, and what both refuse."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import Protocol, Self

from gearshift.errors import BlockingInEventLoop, Forked, UsageError

__all__ = [
    "Client",
    "Closing",
    "forked",
    "refuse_in_event_loop",
    "refuse_to_receive_none",
    "runs_event_loop",
]


class Closing(ABC):
    """A context manager that ends with ``close()``."""

    @abstractmethod
    def close(self) -> object: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Opened(Protocol):
    @property
    def closed(self) -> bool: ...


class Client(Closing):
    """Talks to one channel. ``owner`` stays open for as long as somebody may use the client."""

    def __init__(self, opened: _Opened, channel: str, owner: object) -> None:
        self._opened = opened
        self._channel = channel
        self._owner = owner

    @property
    def channel(self) -> str:
        """The name of the channel."""
        return self._channel

    @property
    def closed(self) -> bool:
        """True once ``close`` was called."""
        return self._opened.closed


def forked(client: str) -> Forked:
    """The error of a ``client`` that is used in a fork's child."""
    return Forked(
        f"this {client} was made in a parent process; its connection cannot be shared",
        hint="open the bus in the child, after the fork",
    )


def refuse_in_event_loop(call: str, *, instead: str) -> None:
    """Raise BlockingInEventLoop if this thread runs an event loop, which the call would stop."""
    if runs_event_loop():
        raise BlockingInEventLoop(
            f"{call}() blocks, and this thread runs an event loop",
            hint=f"use {instead}, or await asyncio.to_thread(...)",
        )


def refuse_to_receive_none(max_messages: int) -> None:
    """Raise UsageError for a number of messages that would be waited for for ever."""
    if not isinstance(max_messages, int) or max_messages < 1:
        raise UsageError(f"max_messages {max_messages!r} is out of range", hint="use 1 or more")


def runs_event_loop() -> bool:
    """True if this thread runs an event loop; does not import asyncio to find out."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None
